"""Runs that start from a picture: as diffusers' own image-to-image pipelines do it, in every family."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image
from tiny import make_pipeline
from tiny_families import MAKERS, model, size

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.record.predictions import rms
from diffexplore.runs.start import refined

SIBLINGS = {
    "sd": StableDiffusionImg2ImgPipeline,
    "sdxl": StableDiffusionXLImg2ImgPipeline,
    "sd3": StableDiffusion3Img2ImgPipeline,
}


def picture(width: int = 48, height: int = 48) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([4 * x % 256, 3 * y % 256, (x * y) % 256], -1).astype(np.uint8))


@pytest.mark.parametrize("strength", [0.97, 0.6, 0.2])
@pytest.mark.parametrize("name", SIBLINGS)
def test_it_equals_the_image_to_image_pipeline_of_diffusers_at_equal_timesteps(name: str, strength: float) -> None:
    one, steps, sized = model(name), 12, size(name)
    if name == "sd":  # diffusers' own cannot be made around a U-Net for pictures wider than high
        pipeline = make_pipeline()
        pipeline.unet.register_to_config(sample_size=12)
        one, sized = Model(pipeline, reuse=0), {}
    trace = one.trace(
        prompt="a red fox", negative_prompt="blurry", steps=steps, guidance=4.0, seed=3, strength=strength,
        image=picture(), **sized,
    )  # fmt: skip
    sibling = SIBLINGS[name](**one.pipeline.components)
    sibling.set_progress_bar_config(disable=True)
    clean = one.trace(prompt="", strength=0.0, image=picture(), **sized).final
    theirs = sibling(
        "a red fox", image=clean.unsqueeze(0), negative_prompt="blurry", num_inference_steps=steps,
        strength=(steps - trace.info["start"]["skipped"]) / steps, guidance_scale=4.0, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(3),
        **(size(name) if name == "sd3" else {}),
    ).images[0]  # fmt: skip
    assert 0 < len(trace) == trace.expected == steps - trace.info["start"]["skipped"]
    torch.testing.assert_close(trace.final, theirs.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_every_family_starts_with_the_noise_of_its_seed_on_the_picture(name: str) -> None:
    one = model(name)
    assert one.abilities["image"] is True
    asked = dx.Settings(prompt="a red fox", steps=6, guidance=4.0, seed=3, **size(name))
    whole, begun = one.trace(asked), one.trace(asked, image=picture(100, 60), strength=0.5)
    clean = one.trace(asked, image=picture(100, 60), strength=0)
    assert not len(clean)
    assert np.array_equal(np.asarray(clean.image), one.decode(clean.final))
    share = begun[0].b ** 2 / (begun[0].a ** 2 + begun[0].b ** 2)
    assert share == pytest.approx(begun.info["start"]["share"])
    assert share <= 0.5 or len(begun) == 1
    noise = whole[0].latents / math.hypot(whole[0].a, whole[0].b)  # all there is at the first step, nearly
    torch.testing.assert_close(begun[0].latents, begun[0].a * clean.final + begun[0].b * noise, rtol=0.02, atol=0.02)
    assert torch.isfinite(begun.final).all()
    torch.testing.assert_close(one.encode(picture(100, 60)), clean.final) if one.size == begun.image.size else None


@pytest.mark.parametrize("sampler", model("sd").samplers)
def test_every_sampler_goes_on_from_there(sampler: str) -> None:
    one = model("sd")
    trace = one.trace(
        prompt="a red fox", steps=8, seed=3, sampler=sampler, image=picture(), strength=0.4, **size("sd"),
    )  # fmt: skip
    assert 0 < len(trace) == trace.expected
    shares = [step.b**2 / (step.a**2 + step.b**2) for step in trace]
    assert shares[0] <= 0.4
    assert shares[-1] < shares[0] or len(trace) == 1
    # What the recorder says of its first step is true: the picture is in it as much as it says.
    clean = one.encode(picture())
    noise = (trace[0].latents - trace[0].a * clean) / trace[0].b
    assert noise.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["sd3", "flux", "qwen", "zimage"])
def test_all_noise_is_the_run_without_a_picture_where_the_schedule_begins_with_nothing_else(name: str) -> None:
    asked = dx.Settings(prompt="a red fox", steps=4, seed=3, **size(name))
    plain, full = model(name).trace(asked), model(name).trace(asked, image=picture(), strength=1)
    if plain[0].a == 0:
        assert np.array_equal(np.asarray(plain.image), np.asarray(full.image))
    torch.testing.assert_close(plain.final, full.final, rtol=0, atol=1e-5 if plain[0].a == 0 else 10)


def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    one = model("sd")
    with pytest.raises(ValueError, match=r"strength must be a share of noise from 0 to 1.*got 1\.5"):
        dx.Settings(strength=1.5)
    with pytest.raises(ValueError, match="needs a picture to start from"):
        one.trace(prompt="a fox", strength=0.5)
    with pytest.raises(ValueError, match="image must be"):
        one.trace(prompt="a fox", image=7)
    with pytest.raises(FileNotFoundError):
        one.trace(prompt="a fox", image=str(tmp_path / "none.png"))
    assert one.trace(prompt="a fox", steps=3, image=picture()).settings.strength == 0.75


def test_a_picture_comes_back_from_the_noise_it_is_inverted_to() -> None:
    pocket, words = dx.load(), "a fox in the snow"
    drawn = pocket.trace(prompt=words, steps=12, seed=7)
    fox = drawn.image
    once = pocket.encode(fox)
    better = refined(once, pocket.encode, pocket.decode, 2)
    assert rms(better - drawn.final) < 0.7 * rms(once - drawn.final), "an encoder is no exact inverse"
    kept = pocket.decode(pocket.encode(fox))  # what the decoder makes of it: nothing can be nearer
    away = {}
    for steps in (6, 40):
        inverted = pocket.invert(fox, words, steps=steps)
        assert len(inverted) == inverted.expected == steps - 1
        assert [step.b for step in inverted] == sorted(step.b for step in inverted)
        back = pocket.trace(
            prompt=words, steps=steps, guidance=1.0, sampler=inverted.settings.sampler, latents=inverted.final
        )
        away[steps] = rms(torch.tensor(np.asarray(back.image, float) - kept))
    assert away[40] < 8 < away[6]


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_flows_go_back_and_forth_too(name: str) -> None:
    one = model(name)
    inverted = one.invert(picture(), "a fox", steps=30)
    back = one.trace(prompt="a fox", steps=30, guidance=1.0, sampler=inverted.settings.sampler, latents=inverted.final)
    clean = one.encode(picture())
    assert rms(back.final - clean) < 0.2 * rms(inverted.final - clean)


def test_settings_without_one_read_as_they_always_did() -> None:
    assert "strength" not in dx.Settings().to_json()
    assert dx.Settings.from_json(dx.Settings(strength=0.5).to_json()).strength == 0.5


def test_the_pocket_model_keeps_a_picture_at_little_noise_and_makes_it_anew_at_much() -> None:
    pocket = dx.load()
    fox = pocket.trace(prompt="a fox in the snow", steps=12, seed=7)
    cat = {
        s: pocket.trace(prompt="a cat in the snow", steps=12, seed=1, image=fox.image, strength=s)
        for s in (0, 0.3, 0.8, 1)
    }

    def away(trace: dx.Trace) -> float:
        return float(np.abs(np.asarray(trace.image, float) - np.asarray(fox.image, float)).mean())

    assert away(cat[0]) < away(cat[0.3]) < away(cat[0.8]) < away(cat[1])
