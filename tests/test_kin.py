"""Which run came from which: each behind the one that it left, and no more of them than are kept."""

import pytest

import diffexplore as dx
from diffexplore.record.record import Record
from diffexplore.widgets.kin import MOST, Kin


def test_each_stands_behind_the_one_that_it_left():
    kin, runs = Kin(), [Record(dx.Settings()) for _ in range(5)]
    first = kin.add(runs[0], None, "a fox", {})
    left = kin.add(runs[1], None, "a car", {}, first, 3)
    kin.add(runs[2], None, "guidance 1", {}, first, 5)
    kin.add(runs[3], None, "a boat", {}, left, 7)
    assert [(one["n"], one["of"], one["at"], one["deep"]) for one in kin.told()] == [
        (1, None, 0, 0), (2, 1, 3, 1), (4, 2, 7, 2), (3, 1, 5, 1),
    ]  # fmt: skip
    assert kin.of(runs[3]) is kin[4]
    assert kin.of(runs[4]) is None
    kin.drop([runs[1], runs[4]])
    assert [(one["n"], one["of"], one["deep"]) for one in kin.told()] == [(1, None, 0), (3, 1, 1), (4, None, 0)]
    with pytest.raises(ValueError, match="this run is no longer kept"):
        kin[2]


def test_the_oldest_that_has_no_branches_goes_first():
    kin = Kin()
    root = kin.add(Record(dx.Settings()), None, "a fox", {})
    for k in range(MOST + 3):
        kin.add(Record(dx.Settings()), None, str(k), {}, root, k)
    assert list(kin.traces) == [1, *range(6, MOST + 5)]
    chain = Kin()
    last = chain.add(Record(dx.Settings()), None, "a fox", {})
    for k in range(MOST):
        last = chain.add(Record(dx.Settings()), None, str(k), {}, last, k)
    assert list(chain.traces) == list(range(2, MOST + 2)), "of a chain the head, and its branch has no parent then"
    assert chain.told()[0]["of"] is None
