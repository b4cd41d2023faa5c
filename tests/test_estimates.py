"""Decoded fields: made once for all who ask, and none where nothing can be made."""

import math

import numpy as np
import torch
from moving import sound, video

from diffexplore.looks.estimates import estimate, field_of, finite, forget, unit


def test_an_estimate_is_decoded_once_and_again_when_it_was_forgotten() -> None:
    trace = video()
    calls = []
    inner = trace.decode
    trace.decode = lambda latents: (calls.append(1), inner(latents))[1]
    first = estimate(trace, "x0", 1)
    assert first.shape == (9, 32, 64, 3)
    assert estimate(trace, "x0", 1) is first
    assert not first.flags.writeable
    forget(trace)
    np.testing.assert_array_equal(estimate(trace, "x0", 1), first)
    assert len(calls) == 2


def test_where_nothing_can_be_decoded_there_is_none() -> None:
    trace = sound()
    trace.decode = None
    assert estimate(trace, "x0", 0) is None
    broken = video()
    broken[1].latents  # noqa: B018 - a copy: a step cannot be spoilt
    broken.decode = lambda latents: np.zeros((9, 32, 64, 3), np.uint8)
    broken[0]._latents[0, 0, 0, 0] = math.nan
    assert estimate(broken, "x0", 0) is None
    assert estimate(broken, "x0", 1) is not None


def test_fields_are_those_of_the_step() -> None:
    (step, *_) = sound()
    assert torch.equal(field_of(step, "noise"), step.noise)
    assert torch.equal(field_of(step, "latents_decoded"), unit(step))
    torch.testing.assert_close(unit(step) * math.hypot(step.a, step.b), step.latents)
    assert finite(step.x0)
