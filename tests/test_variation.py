"""Variations of a seed: starting noise turned towards that of another seed."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tiny_families import MAKERS, model, size

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.runs.variation import turned
from diffexplore.settings import Settings

FEW = {"prompt": "a red fox", "steps": 2, "guidance": 3.0, "seed": 1}


def test_noise_is_turned_along_the_arc_and_keeps_its_length() -> None:
    a, b = (torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    for amount in (0.0, 0.1, 0.5, 0.9, 1.0):
        made = turned(a, b, amount)
        length = (1 - amount) * a.norm() + amount * b.norm()
        assert float(made.norm()) == pytest.approx(float(length), rel=1e-5)
        angles = [torch.acos(torch.cosine_similarity(one.flatten(), made.flatten(), dim=0)) for one in (a, b)]
        whole = torch.acos(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        if 0 < amount < 1:
            assert float(angles[0] / whole) == pytest.approx(amount, abs=1e-3)
    assert torch.equal(turned(a, b, 0.0), a)
    assert torch.equal(turned(a, b, 1.0), b)
    assert torch.isfinite(turned(a, -a, 0.5)).all()
    assert turned(a.half(), b.half(), 0.3).dtype == torch.float16


@pytest.mark.parametrize("name", MAKERS)
def test_in_every_family_it_goes_from_the_one_seed_to_the_other(name: str) -> None:
    one, some = model(name), FEW | size(name)
    plain = one.trace(**some)
    assert torch.equal(one.trace(**some, variation=(2, 0.0)).final, plain.final)
    half = one.trace(**some, variation=(2, 0.5))
    assert not torch.equal(half[0].latents, plain[0].latents)
    ends = plain[0].latents.norm(), one.trace(**(some | {"seed": 2}))[0].latents.norm()
    assert float(half[0].latents.norm()) == pytest.approx(float(sum(ends) / 2), rel=0.01)
    over = one.trace(**some, variation=(2, 1.0))
    other = one.trace(**(some | {"seed": 2}))
    assert torch.equal(over[0].latents, other[0].latents)
    assert torch.equal(over.final, other.final) == (name not in ("lcm", "kandinsky3")), "which add noise on their way"


@pytest.fixture(scope="module")
def sd() -> Model:
    return model("sd")


def test_only_the_start_is_varied_and_not_what_a_sampler_adds_on_its_way(sd: Model) -> None:
    over = sd.trace(**FEW, sampler="Euler a", variation=(2, 1.0))
    other = sd.trace(**(FEW | {"seed": 2}), sampler="Euler a")
    assert torch.equal(over[0].latents, other[0].latents)
    assert not torch.equal(over.final, other.final)


def test_in_a_batch_each_has_its_own_and_a_branch_and_a_start_from_a_picture_have_it_too(sd: Model) -> None:
    ways = [None, (2, 0.3), (5, 0.6)]
    together = sd.trace_many([Settings(**FEW, variation=way) for way in ways])
    for way, trace in zip(ways, together, strict=True):
        alone = sd.trace(**FEW, variation=way)
        torch.testing.assert_close(trace.final, alone.final, rtol=0, atol=1e-4)
    picture = Image.new("RGB", (48, 48), (200, 40, 30))
    varied = sd.trace(**(FEW | {"steps": 6}), image=picture, strength=0.7, variation=(2, 1.0))
    other = sd.trace(**(FEW | {"steps": 6, "seed": 2}), image=picture, strength=0.7)
    assert torch.equal(varied.final, other.final)
    whole = sd.trace(**(FEW | {"steps": 4}), variation=(2, 0.4))
    assert torch.equal(sd.branch(whole, 2).final, whole.final)


def test_what_makes_no_sense_is_refused_and_the_rest_travels(sd: Model) -> None:
    for wrong in (3, (1,), (1, 2.0), ("a", 0.5), (1, float("nan")), (-1, 0.5), {"seed": 1}):
        with pytest.raises(ValueError, match="variation"):
            Settings(variation=wrong)
    with pytest.raises(ValueError, match="latents are handed over"):
        sd.trace(**FEW, variation=(2, 0.5), latents=torch.zeros(1, 4, 8, 8))
    made = Settings(variation=[2, 0.25])
    assert Settings.from_json(made.to_json()) == made
    assert "variation" not in Settings(variation=(2, 0)).to_json()


def test_recipes_of_pictures_have_it(tmp_path, sd: Model) -> None:
    trace = sd.trace(**FEW, variation=(2, 0.25))
    trace.save_image(tmp_path / "a.png")
    assert dx.read_recipe(tmp_path / "a.png").variation == (2, 0.25)
