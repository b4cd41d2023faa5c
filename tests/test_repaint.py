"""Masks: a part of a picture drawn anew, the rest held to it, in every family and with every sampler."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import MAKERS, model, size

import diffexplore as dx
from diffexplore.runs.regions import Region
from diffexplore.runs.repaint import mask_of


def picture(name: str) -> Image.Image:
    sides = size(name)
    y, x = np.mgrid[0 : sides["height"], 0 : sides["width"]]
    return Image.fromarray(np.stack([4 * x % 256, 3 * y % 256, (x * y) % 256], -1).astype(np.uint8))


@pytest.mark.parametrize("name", MAKERS)
def test_all_is_the_run_without_a_mask_and_nothing_is_the_picture(name: str) -> None:
    one, asked = model(name), {"prompt": "a red fox", "steps": 4, "seed": 3, "strength": 0.9, **size(name)}
    plain = one.trace(**asked, image=picture(name))
    everything = one.trace(**asked, image=picture(name), mask=(0, 0, 1, 1))
    assert torch.equal(everything.final, plain.final)
    nothing = one.trace(**asked, image=picture(name), mask=np.zeros(picture(name).size[::-1], bool))
    kept = one.trace(**asked | {"strength": 0.0}, image=picture(name))
    assert torch.equal(nothing.final, kept.final)
    assert np.array_equal(np.asarray(nothing.image), np.asarray(kept.image))
    half = one.trace(**asked, image=picture(name), mask=(0, 0, 0.5, 1))
    inside = Region((0, 0, 0.5, 1)).of(tuple(half.final.shape))
    assert torch.equal(half.final[..., ~inside], kept.final[..., ~inside])
    assert not torch.equal(half.final[..., inside], kept.final[..., inside])


@pytest.mark.parametrize(
    "sampler", ["DDIM", "Euler", "Euler a", "Heun", "DPM2 a", "DPM++ 2M", "DPM++ SDE", "UniPC", "PLMS"]
)
def test_outside_each_step_has_the_noise_of_its_level_on_the_picture(sampler: str) -> None:
    one = model("sd")
    asked = {"prompt": "a fox", "steps": 6, "seed": 3, "sampler": sampler, **size("sd")}
    trace = one.trace(**asked, image=picture("sd"), strength=0.8, mask=(0.5, 0, 1, 1))
    clean = one.encode(picture("sd"))
    outside = ~Region((0.5, 0, 1, 1)).of(tuple(clean.shape))
    noise = (trace[0].latents - trace[0].a * clean) / trace[0].b
    for step in trace:
        held = (step.a * clean + step.b * noise)[:, outside]
        torch.testing.assert_close(step.latents[:, outside], held, rtol=2e-4, atol=2e-4 * max(1.0, step.b))
    assert torch.equal(trace.final[:, outside], clean[:, outside])


def test_a_masked_run_has_branches_and_is_remembered_apart() -> None:
    one, asked = model("sd"), {"prompt": "a fox", "steps": 4, "seed": 3, "sampler": "DPM++ 2M", **size("sd")}
    traces = [
        one.trace(**asked, image=picture("sd"), strength=0.9, mask=mask) for mask in ((0, 0, 0.5, 1), (0, 0, 1, 0.5))
    ]
    assert not torch.equal(traces[0].final, traces[1].final)
    assert torch.equal(one.branch(traces[0], 1).final, traces[0].final)
    branch = one.branch(traces[0], 1, prompt="a car")
    outside = ~Region((0, 0, 0.5, 1)).of(tuple(branch.final.shape))
    assert torch.equal(branch.final[:, outside], traces[0].final[:, outside])
    assert not torch.equal(branch.final, traces[0].final)


def test_a_mask_comes_as_a_region_or_a_picture_and_nonsense_is_refused() -> None:
    drawn = np.zeros((40, 80, 3), np.uint8)
    drawn[:, 40:] = 250
    made = [mask_of(one, 8, 8) for one in (drawn, Image.fromarray(drawn), (0.5, 0, 1, 1))]
    assert all(np.array_equal(np.asarray(one), np.asarray(made[0])) for one in made)
    assert np.asarray(made[0]).tolist() == [[0] * 4 + [255] * 4] * 8
    one = model("sd")
    for more, says in [
        ({"mask": (0, 0, 1, 1)}, "a mask needs a picture to start from: hand over image= as well"),
        ({"mask": 7, "image": picture("sd")}, "a region is None for all of the picture"),
        ({"mask": np.zeros((3, 5), bool), "image": picture("sd")}, "a mask must have the proportions of"),
    ]:
        with pytest.raises(ValueError, match=re.escape(says)):
            one.plan(dx.Settings(prompt="a fox"), **more)
