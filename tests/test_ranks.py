"""How well a number tells two groups apart: whether the area is right and its interval holds as often as it says."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from diffexplore.experiments.ranks import parted


def test_the_area_is_the_chance_that_one_of_the_first_is_above_one_of_the_second() -> None:
    # Hanley & McNeil 1982, Radiology 143:29, table I: 109 readings on a scale of five, 58 of the normal, 51 of others.
    normal = np.repeat([1, 2, 3, 4, 5], [33, 6, 6, 11, 2])
    ill = np.repeat([1, 2, 3, 4, 5], [3, 2, 2, 11, 33])
    found = parted(ill, normal)
    assert found.auc == pytest.approx(0.893, abs=5e-4)
    assert found.told
    assert parted(normal, ill).auc == pytest.approx(1 - found.auc)
    assert parted([1, 2], [1, 2]).auc == 0.5
    assert "not told apart" in str(parted([1, 2], [1, 2]))


def test_groups_that_do_not_overlap_have_an_interval_all_the_same() -> None:
    few, many = parted([3, 4, 5], [0, 1, 2]), parted(range(100, 200), range(100))
    assert (few.auc, few.high) == (many.auc, many.high) == (1.0, 1.0)
    assert few.low < 0.6
    assert 0.97 < many.low < 1
    low = parted([0, 1, 2], [3, 4, 5])
    assert (low.auc, low.low) == (0.0, 0.0)
    assert low.high == pytest.approx(1 - few.low)


def test_the_interval_holds_the_true_area_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    for true in (0.5, 0.9, 0.98):
        shift = NormalDist().inv_cdf(true) * 2**0.5
        held = 0
        for _ in range(600):
            found = parted(random.normal(shift, 1, 16), random.normal(0, 1, 24))
            held += found.low <= true <= found.high
        assert held >= 0.93 * 600, true


def test_what_is_no_group_is_refused() -> None:
    for first, second in (([], [1]), ([1], []), ([1, np.nan], [1]), ([[1]], [1])):
        with pytest.raises(ValueError, match="a group is a list of at least one finite number"):
            parted(first, second)
    with pytest.raises(ValueError, match="level must be above 0"):
        parted([1], [2], level=1.0)
