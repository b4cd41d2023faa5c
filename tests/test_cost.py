"""What a run cost, as data."""

import json

import pytest

import diffexplore as dx
from diffexplore.record.cost import Cost


def test_it_goes_through_json():
    cost = Cost(20, 40, 1.5, 1.2, 0.1, 0.2, remembered=3, memory=2**20, energy=12.5, meter="GPU", preview=0.4)
    assert Cost.of(json.loads(json.dumps(cost.told()))) == cost
    assert Cost.of({**cost.told(), "newer": 3}) == cost
    older = {"evaluations": 1, "rows": 2, "seconds": 1.0, "steps": 1.0, "decode": 0.0, "text": 0.0}
    assert Cost.of(older).memory is None


def test_energy_is_counted_or_said_to_be_assumed():
    cost = Cost(20, 40, 1.5, 1.2, 0.1, 0.2)
    assert cost.energy_said() == "no meter counted it"
    assert cost.energy_said(15) == "about 22 J if it drew 15 W all the while: assumed, no meter counted it"
    counted = Cost(20, 40, 1.5, 1.2, 0.1, 0.2, energy=12.46, meter="RAPL")
    assert counted.energy_said(15) == "12.5 J, counted by RAPL, all else on that device included"
    for watts in (0, -3, float("nan"), float("inf"), "15", True):
        with pytest.raises(ValueError, match="watts must be a number above 0, got"):
            cost.energy_said(watts)


@pytest.mark.parametrize("told", [None, 3, [], {}, {"evaluations": 3}, dict.fromkeys(Cost.__slots__, "x")])
def test_a_file_that_says_nothing_of_it_has_none(told):
    assert Cost.of(told) is None
    assert dx.Trace(dx.Settings(), info={"cost": told}).cost is None
