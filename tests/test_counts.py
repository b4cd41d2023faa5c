"""Counted pictures as shares with an interval: whether the intervals hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from diffexplore.experiments.counts import as_expected, exact, paired, simultaneous, wilson


def test_an_interval_of_a_share_is_what_the_field_has_tabled() -> None:
    # Newcombe 1998, Stat. Med. 17:857, table I, method 3.
    for count, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
                                 (1, 29, 0.0061, 0.1718)):  # fmt: skip
        assert wilson(count, of) == pytest.approx((low, high), abs=1e-4)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    for count, of in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="a count must be from 0"):
            wilson(count, of)


def test_the_exact_interval_is_what_the_field_has_tabled() -> None:
    # Newcombe 1998, as above, method 5.
    for count, of, low, high in ((81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684),
                                 (1, 29, 0.0009, 0.1776)):  # fmt: skip
        assert exact(count, of) == pytest.approx((low, high), abs=1e-4)
    with pytest.raises(ValueError, match="a count must be from 0"):
        exact(3, 2)


def test_intervals_hold_the_true_share_as_often_as_they_say() -> None:
    random = np.random.default_rng(7)
    for of in (12, 24, 48, 100, 500):
        share = random.uniform(0.02, 0.98, 10_000)
        counts = random.binomial(of, share)
        ends = np.array([wilson(count, of) for count in range(of + 1)])[counts]
        held = ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean()
        assert 0.94 <= held <= 0.96, of


def test_a_set_of_intervals_misses_as_rarely_as_it_says() -> None:
    random = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        shares = random.dirichlet(np.ones(7))
        ends = np.array(simultaneous(random.multinomial(60, shares).tolist()))
        held += bool(((ends[:, 0] <= shares) & (shares <= ends[:, 1])).all())
    assert held >= 380


def test_a_preference_is_found_and_none_is_claimed_where_there_is_none() -> None:
    random = np.random.default_rng(9)
    even = np.full(7, 1 / 7)
    bent = np.array([0.4, *[0.1] * 6])
    claimed = sum(as_expected(random.multinomial(60, even), even) < 0.05 for _ in range(300))
    found = sum(as_expected(random.multinomial(60, bent), even) < 0.05 for _ in range(100))
    assert claimed <= 0.07 * 300
    assert found >= 90
    assert as_expected([5, 1], [1.0, 0.0]) == 0.0, "what cannot be was seen"
    for counts, shares in (([1], [0.5]), ([1, 2], [1.0]), ([-1, 2], [0.5, 0.5])):
        with pytest.raises(ValueError, match="must be"):
            as_expected(counts, shares)


def test_pairs_are_compared_as_pairs() -> None:
    # Newcombe 1998, Stat. Med. 17:2635, table II, cell a: 36, 12, 2, 0 of 50, method 10.
    first = [True] * 36 + [True] * 12 + [False] * 2
    second = [True] * 36 + [False] * 12 + [True] * 2
    found = paired(second, first)
    assert (found.both, found.first, found.second, found.neither) == (36, 2, 12, 0)
    assert found.difference == pytest.approx(0.20)
    assert found.interval == pytest.approx((0.0569, 0.3404), abs=1e-3)
    assert found.p == pytest.approx(0.0129, abs=1e-4), "exact, of the binomial of 14"
    assert found.told
    same = paired([True, False] * 5, [True, False] * 5)
    assert (same.difference, same.p) == (0.0, 1.0)
    assert "does not show that there is none" in str(same)
    with pytest.raises(ValueError, match="same seeds"):
        paired([True], [True, False])


def test_the_paired_test_is_no_more_often_wrong_than_it_says_and_its_interval_holds() -> None:
    random = np.random.default_rng(10)
    wrong = held = 0
    for _ in range(2000):
        base = random.random(40) < 0.5
        flips = random.random((2, 40)) < 0.2
        wrong += paired(base ^ flips[0], base ^ flips[1]).told
        tilt = random.random(40)
        a, b = tilt < 0.35, (tilt < 0.55) ^ (random.random(40) < 0.05)
        true = 0.55 * 0.95 + 0.45 * 0.05 - 0.35
        low, high = paired(a, b).interval
        held += low <= true <= high
    assert wrong <= 0.05 * 2000
    assert held >= 0.93 * 2000
