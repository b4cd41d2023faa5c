"""samplers/spacings.py: the ways to space noise levels, by the formulas of the field."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from diffexplore.runs.spaced import levels_of, span_of
from diffexplore.samplers import WAYS, build
from diffexplore.samplers.spacings import Range, read_levels, spaced

BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DIFFUSION = span_of(build("Euler", BASE))
FLOW = Range(0.003, 1.0, flow=True, shift=3.0)
EDM = Range(0.002, 80.0)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("span", [DIFFUSION, FLOW, EDM])
def test_every_way_falls_from_end_to_end_of_the_range(name: str, span: Range) -> None:
    for steps in (1, 2, 20):
        made = spaced(name, span, steps)
        assert len(made) == steps
        assert made[0] == pytest.approx(span.high)
        assert steps == 1 or made[-1] == span.low
        assert all(after < one for one, after in pairwise(made))


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("karras", "Euler Karras"), ("exponential", "DPM++ 2M SDE Exponential"), ("as trained", "Euler")],
)
def test_those_that_diffusers_has_are_the_same(name: str, sampler: str) -> None:
    scheduler = build(sampler, BASE)
    scheduler.set_timesteps(12)
    assert spaced(name, DIFFUSION, 12) == pytest.approx(levels_of(scheduler), rel=1e-5)


def test_each_is_even_in_what_it_says() -> None:
    def even(values: list[float]) -> bool:
        steps = np.diff(values)
        return bool(np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9))

    for span in (DIFFUSION, EDM):
        assert even(list(spaced("linear", span, 9)))
        assert even([one ** (1 / 5) for one in spaced("karras", span, 9, rho=5)])
        assert even([math.log(one) for one in spaced("exponential", span, 9)])
        assert even([math.atan(one) for one in spaced("cosine", span, 9)])
    # Of a flow the ratio of noise to picture is s / (1 - s), and what training drew evenly is shifted.
    assert even([math.atan2(one, 1 - one) for one in spaced("cosine", FLOW, 9)])
    assert even([one / (3 - 2 * one) for one in spaced("as trained", FLOW, 9)])
    assert spaced("karras", DIFFUSION, 7, rho=1) == pytest.approx(spaced("linear", DIFFUSION, 7))


def test_beta_crowds_both_ends_and_is_even_where_its_numbers_are_1() -> None:
    assert spaced("beta", DIFFUSION, 9, alpha=1, beta=1) == pytest.approx(spaced("as trained", DIFFUSION, 9))
    places = np.interp(spaced("beta", DIFFUSION, 9)[::-1], DIFFUSION.table, np.arange(1000))
    steps = np.diff(places)
    assert steps[0] < steps[4] > steps[-1]
    assert places + places[::-1] == pytest.approx(999, abs=1e-3)  # symmetric in time, as both numbers are the same


@pytest.mark.parametrize("given", [[3.0, 1.0, 0], (3, 1), np.array([3.0, 1.0], np.float32)])
def test_levels_are_read_of_what_holds_numbers(given: object) -> None:
    assert read_levels(given) == (3.0, 1.0)


@pytest.mark.parametrize(
    "given",
    [(), (0,), "31", 3, {3: 1}, (1, 3), (3, 3), (3, math.nan), (math.inf, 1), (3, -1), (3, 0, 1), (True,), ("3",)],
)
def test_others_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="sigmas must be finite noise levels, 1 to 1000 of them, each below"):
        read_levels(given)


def test_unknown_ways_and_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"as trained, linear, .*; got 'karas', did you mean 'karras'"):
        spaced("karas", DIFFUSION, 5)
    with pytest.raises(ValueError, match="karras levels takes rho; got power"):
        spaced("karras", DIFFUSION, 5, power=2)
    with pytest.raises(ValueError, match="rho of karras levels must be a number above 0 and below 100, got 0"):
        spaced("karras", DIFFUSION, 5, rho=0)
