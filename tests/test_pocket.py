"""The shipped weights: a standard folder, small, loadable by plain diffusers, and pictures that obey their prompts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from diffexplore.model import POCKET
from diffexplore.pocket import learning, world


@pytest.fixture(scope="module")
def plain():
    pipeline = StableDiffusionPipeline.from_pretrained(POCKET)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, prompts, **options):
    options = {"num_inference_steps": 20, "guidance_scale": 5.0, **options}
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(len(prompts))]
    return pipeline(prompts, generator=generators, output_type="np", **options).images


def test_the_folder_is_small_and_safe():
    files = [path for path in POCKET.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30 * 2**20
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


def test_weights_are_half_precision():
    from safetensors import safe_open

    for path in POCKET.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, path


def test_plain_diffusers_loads_it_in_full_precision(plain):
    for part in (plain.unet, plain.vae, plain.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert isinstance(plain.scheduler, DPMSolverMultistepScheduler)


def test_latents_have_mean_zero_and_deviation_one(plain):
    from diffexplore.pocket import example, examples

    pictures = np.stack([np.asarray(example(name)) for name in examples()])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = plain.vae.encode(pixels).latent_dist.mode() * plain.vae.config.scaling_factor
    assert latents.shape[1:] == (4, 16, 16)
    assert 0.6 < latents.std() < 1.5


@pytest.mark.parametrize("name", ["pocket", "pocket-turbo", "pocket-flow"])
def test_what_a_model_drew_while_it_learned_is_kept(name):
    """Eight prompts a row; the row before the last is nearer to that than the first is."""
    pixels = np.asarray(learning(name), dtype=float)
    rows = pixels.reshape(-1, 64, 512, 3)
    away = [np.abs(row - rows[-1]).mean() for row in rows]
    assert len(rows) >= 4
    assert away[0] > away[-2] > 0


def test_what_was_not_kept_is_said():
    with pytest.raises(ValueError, match="of 'pocket-x' nothing was kept"):
        learning("pocket-x")


def test_words_file_is_the_vocabulary():
    assert json.loads((POCKET / "words.json").read_text()) == world.vocabulary()


def test_night_is_darker_than_noon(plain):
    subjects = ["cat", "house", "bus", "owl"]
    noon = draw(plain, [f"a {s} in a meadow at noon" for s in subjects])
    night = draw(plain, [f"a {s} in a meadow at night" for s in subjects])
    assert all(night.mean((1, 2, 3)) < 0.75 * noon.mean((1, 2, 3)))


@pytest.mark.parametrize(("colour", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_backgrounds_take_the_colour_they_are_given(plain, colour, channel):
    pictures = draw(plain, [f"a {s} on a {colour} background" for s in ("cat", "cake", "house")])
    border = np.concatenate([pictures[:, :6].reshape(-1, 3), pictures[:, :, :6].reshape(-1, 3)]).mean(0)
    assert border.argmax() == channel, border


def test_blurry_prompts_give_smoother_pictures(plain):
    prompts = ["a zebra in the city at noon", "a castle in a forest at noon", "a bicycle in the city at noon"]

    def roughness(pictures):
        return np.abs(np.diff(pictures, axis=1)).mean()

    assert roughness(draw(plain, [f"{p}, blurry" for p in prompts])) < 0.75 * roughness(draw(plain, prompts))


def test_the_model_card_names_sources_and_licences():
    card = (Path(world.__file__).with_name("MODEL_CARD.md")).read_text()
    for needed in ("fluent-emoji", "MIT", "Limits"):
        assert needed in card
