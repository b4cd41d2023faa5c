"""Edits of latents where a branch leaves: each does what it says inside its region, and the branch says how."""

import json
import math
import re

import numpy as np
import pytest
import torch

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.record.record import Record
from diffexplore.record.step import Step

CORNER = (0.0, 0.0, 0.5, 0.5)


def step_of(a: float, b: float, side: int = 64, seed: int = 0) -> Step:
    """A step of a network that knows the noise, on latents that are half as large as the noise."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise = (torch.randn(4, side, side, generator=generator) for _ in range(2))
    return Step(
        index=0, timestep=0.0, seconds=0.0, a=a, b=b, kind="epsilon", latents=a * 0.5 * clean + b * noise, output=noise
    )


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.6), (1.0, 14.0), (0.3, 0.7)])
def test_other_noise_has_the_variance_of_the_level_and_leaves_the_estimate(a, b):
    """Of a variance-preserving sampler, one in sigma, and a flow."""
    step = step_of(a, b)
    for amount in (0.3, 1.0):
        made = dx.edits.noise(CORNER, amount=amount, seed=5)(step.latents, step)
        assert torch.equal(made[:, 32:], step.latents[:, 32:])
        noise = ((made - a * step.x0) / b)[:, :32, :32]
        assert float(noise.var()) == pytest.approx(1, abs=0.05)
        mixed = float((noise * step.noise[:, :32, :32]).mean())
        assert mixed == pytest.approx(math.sqrt(1 - amount**2), abs=0.05)
    again = dx.edits.noise(CORNER, seed=5)(step.latents, step)
    assert torch.equal(again, dx.edits.noise(CORNER, seed=5)(step.latents, step))
    assert not torch.equal(again, dx.edits.noise(CORNER, seed=6)(step.latents, step))


def test_each_edit_does_what_it_says_inside_and_nothing_outside():
    step, other = step_of(0.8, 0.6, side=8), step_of(0.8, 0.6, side=8, seed=1)
    x, run = step.latents, Record(dx.Settings(), [step_of(0.9, 0.4, side=8, seed=2), other])
    poked = dx.edits.poke(CORNER, 2.0, channel=1)(x, step)
    expected = x.clone()
    expected[1, :4, :4] += 2.0
    assert torch.allclose(poked, expected)
    assert torch.allclose(dx.edits.poke(None, 0.5)(x, step_of(3.0, 4.0)), x + 2.5)  # in sizes of those latents
    assert torch.allclose(dx.edits.erase(CORNER)(x, step)[:, :4, :4], 0.6 * step.noise[:, :4, :4])
    swapped, kept = dx.edits.swap(CORNER, run)(x, step), dx.edits.keep(CORNER, run)(x, step)
    assert torch.equal(swapped[:, :4, :4], other.latents[:, :4, :4])
    assert torch.equal(swapped[:, 4:], x[:, 4:])
    assert torch.equal(kept[:, :4, :4], x[:, :4, :4])
    assert torch.equal(kept[:, 4:], other.latents[:, 4:])
    # A sampler that scales otherwise has the same share of noise elsewhere: both parts are put together anew.
    theirs = dx.edits.swap(None, run)(x, step_of(1.0, 0.75, side=8))
    assert torch.allclose(theirs, other.latents / 0.8, atol=1e-5)
    assert torch.equal(dx.edits.shift(0.25, -0.5)(x), torch.roll(x, (-4, 2), (1, 2)))
    assert torch.equal(dx.edits.flip()(x), x.flip(-1))
    assert torch.equal(dx.edits.flip(down=True)(x), x.flip(-2))


def test_a_branch_says_how_and_is_made_again_from_that(tiny_model, tiny_trace, tmp_path):
    mask = np.zeros((4, 6), bool)  # of latents of 8 x 12
    mask[1:3, 1:3] = True
    branch = tiny_model.branch(tiny_trace, 1, latents=dx.edits.noise(mask, seed=3))
    assert not torch.equal(branch.final, tiny_trace.final)
    assert torch.equal(branch[1].latents[:, 0], tiny_trace[1].latents[:, 0])
    branch.save(tmp_path / "branch.safetensors")
    told = dx.Trace.load(tmp_path / "branch.safetensors").info["parent"]["edit"]
    assert told == json.loads(json.dumps(branch.info["parent"]["edit"]))
    assert (told["edit"], told["seed"], told["amount"]) == ("noise", 3, 1.0)
    edit = dx.edits.again(told)
    assert torch.equal(edit(tiny_trace[1].latents, tiny_trace[1]), branch[1].latents)
    same = eval(repr(edit), {"dx": dx})
    assert torch.equal(same(tiny_trace[1].latents, tiny_trace[1]), branch[1].latents)
    # Between two runs: told with the settings of the other, and made again with it at hand.
    swap = dx.edits.swap(CORNER, branch)
    twig = tiny_model.branch(tiny_trace, 2, latents=swap, prompt="a car")
    assert torch.equal(twig[2].latents[:, :4, :6], branch[2].latents[:, :4, :6])
    told = twig.info["parent"]["edit"]
    assert told["other"]["settings"] == branch.settings.told()
    assert torch.equal(dx.edits.again(told, branch)(tiny_trace[2].latents, tiny_trace[2]), twig[2].latents)


def test_the_memory_tells_how_two_equal_edits_were_made_apart(tiny_pipeline):
    one = Model(tiny_pipeline)
    parent = one.trace(prompt="a fox", steps=3, seed=1, sampler="DDIM")
    edit = dx.edits.poke(CORNER, 1.0)
    plain = one.branch(parent, 1, latents=edit(parent[1].latents, parent[1]))
    told = one.branch(parent, 1, latents=edit)
    assert torch.equal(plain.final, told.final)
    assert "edit" not in plain.info["parent"]
    assert told.info["parent"]["edit"] == edit.told
    again = one.branch(parent, 1, latents=dx.edits.poke(CORNER, 1.0))
    assert again.info["reused"]
    assert again.info["parent"] == told.info["parent"]


def test_nonsense_is_refused_in_a_sentence(tiny_model, tiny_trace):
    edits, x = dx.edits, tiny_trace[1].latents
    wide = Record(dx.Settings(), [step_of(0.8, 0.6, side=16)])
    for make, says in [
        (lambda: edits.poke(value=math.nan), "value must be a number from -100 to 100, got nan"),
        (lambda: edits.poke(channel=-1), "channel must be the number of a channel, from 0, or None, got -1"),
        (lambda: edits.noise(amount=2), "amount must be a number from 0 to 1, got 2"),
        (lambda: edits.noise(seed="a"), "seed must be a whole number from 0 to 2**63 - 1, got 'a'"),
        (lambda: edits.swap(None, "a run"), "other must be a run with steps, whose latents are taken, got 'a run'"),
        (lambda: edits.shift(2), "across must be a number from -1 to 1, got 2"),
        (lambda: edits.again({"edit": "nose"}), "got 'nose', did you mean 'noise'?"),
        (lambda: edits.again({"edit": "poke", "by": 3}), "poke is not told so: got {'by': 3}"),
        (lambda: edits.noise()(x), "noise takes the step that the latents are of"),
        (lambda: tiny_model.branch(tiny_trace, 1, latents=edits.poke(channel=9)), "channel must be from 0 to 3 here"),
        (lambda: tiny_model.branch(tiny_trace, 1, latents=edits.swap(CORNER, wide)), "have the shape (4, 16, 16)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(says)):
            make()
