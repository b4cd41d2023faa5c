"""One run of a pipeline that nobody knows: what it says of itself, and what it refuses."""

import numpy as np
import pytest
import torch
from handmade import HandmadePipeline, handmade

import diffexplore as dx

FEW = {"prompt": "a red fox", "steps": 3, "guidance": 4.0, "seed": 3}


class Dicing(HandmadePipeline):
    def next_of(self, x, made):
        return made + 0.1 * torch.randn_like(made)


def test_what_comes_of_the_global_generator_is_of_the_seed_and_said():
    model = dx.load(handmade(Dicing), reuse=0)
    first, again, other = model.trace(**FEW), model.trace(**FEW), model.trace(**{**FEW, "seed": 4})
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert any("global generator" in note for note in first.info["notes"])
    assert np.array_equal(first.decode(first.final), first.image)
    assert not any("global generator" in note for note in dx.load(handmade()).trace(**FEW).info["notes"])


def test_latents_are_decoded_only_in_the_shape_of_a_run_and_after_one():
    model = dx.load(handmade())
    with pytest.raises(ValueError, match="draw with it first"):
        model.decode(torch.zeros(4, 8, 12))
    trace = model.trace(**FEW)
    assert np.array_equal(model.decode(trace.final), trace.image)
    with pytest.raises(ValueError, match=r"must be those of its run, \(4, 8\), got \(4, 2, 12\)"):
        model.decode(torch.zeros(4, 2, 12))


def test_a_run_that_is_stopped_keeps_its_steps_and_no_picture():
    model = dx.load(handmade())

    def stop(step):
        if step.index == 1:
            job.cancel()

    job = model.submit(dx.Settings(**{**FEW, "steps": 50}), stop)
    trace = job.result()
    assert trace.cancelled
    assert trace.image is None
    assert 2 <= len(trace) < 50
