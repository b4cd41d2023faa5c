"""record/record.py and numbers.py: a tensor and a number that a probe leaves go everywhere a run goes."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from test_file import run

from diffexplore.record.numbers import NUMBERS, Number, declare
from diffexplore.record.record import Record
from diffexplore.trace import Trace


@pytest.fixture
def number():
    yield declare(Number("gate", "gate", "share", "How far the gate is open.", log=True))
    del NUMBERS["gate"]


MAPS = [torch.rand(3, 4).half(), torch.rand(3, 4).half()]
COUNTS = {0: torch.tensor([1, 2]), 2: torch.tensor([[3]], dtype=torch.int16)}


def probed():
    trace = run()
    for i, one in zip((0, 2), MAPS, strict=True):
        trace[i].tensors["gaze"] = one
        trace[i].numbers["gate"] = 0.25 * i
        trace[i].tensors["count"] = COUNTS[i]
    return trace


def check(trace):
    assert np.array_equal(trace.curve("gate"), [0, math.nan, 0.5], equal_nan=True)
    assert [list(step.tensors) for step in trace] == [["gaze", "count"], [], ["gaze", "count"]]
    for i, one in zip((0, 2), MAPS, strict=True):
        assert torch.equal(trace[i].tensors["gaze"], one)
        assert trace[i].tensors["gaze"].dtype == torch.float16
        assert torch.equal(trace[i].tensors["count"], COUNTS[i])
        assert trace[i].tensors["count"].dtype == COUNTS[i].dtype


def test_a_named_tensor_and_a_number_go_everywhere(number, tmp_path):
    trace = probed()
    check(trace)
    assert trace.nbytes - run().nbytes == sum(one.nbytes for one in (*MAPS, *COUNTS.values()))
    assert {"name": "gate", "label": "gate", "unit": "share", "log": True} in trace.columns()
    assert len(trace.row(2)) == len(trace.columns())
    assert trace.row(2, ["gate", "alpha"]) == [0.5, 0.8]
    trace.save(tmp_path / "run.safetensors")
    for step in trace:
        step.settle()
    for again in (
        Trace.load(tmp_path / "run.safetensors"),
        trace.copy(),
        pickle.loads(pickle.dumps(trace)),
        copy.deepcopy(trace),
    ):
        check(again)


def test_what_a_file_says_of_a_number_is_known_where_nobody_declared_it(tmp_path):
    declare(Number("gate", "gate", "share", "How far the gate is open."))
    try:
        probed().save(tmp_path / "run.safetensors")
    finally:
        del NUMBERS["gate"]
    trace = Trace.load(tmp_path / "run.safetensors")
    assert trace.measures["gate"].unit == "share"
    check(trace)


def test_a_copy_is_on_its_own(number):
    trace = probed()
    other = trace.copy()
    other[0].numbers["gate"] = 9
    other[0].tensors["gaze"].zero_()
    del other[2].tensors["count"]
    check(trace)


def test_names_and_values_that_are_none_are_refused():
    step = run()[0]
    for name in ("../x", "", 3, "a b"):
        with pytest.raises(ValueError, match="the name of a number or tensor"):
            step.tensors[name] = torch.zeros(1)
    with pytest.raises(ValueError, match="dense tensor of real numbers, got 3"):
        step.tensors["x"] = 3
    with pytest.raises(ValueError, match="x must be a number, got 'y'"):
        step.numbers["x"] = "y"
    with pytest.raises(ValueError, match="'sigma' is computed"):
        step.numbers["sigma"] = 3.0
    with pytest.raises(ValueError, match="'sigma' is computed"):
        declare(Number("sigma", "s", "", ""))


def test_a_fresh_run_pickles_and_deep_copies_without_its_decoder():
    trace = run()
    trace.decode = lambda latents: latents.numpy()
    trace = Trace(trace.settings, trace, final=trace.final, decode=trace.decode, matrix=lambda: np.ones((5, 3)))
    for again in (pickle.loads(pickle.dumps(trace)), copy.deepcopy(trace)):
        assert again.decode is None
        assert again.matrix.shape == (5, 3)
        assert torch.equal(again[1].x0, trace[1].x0)


def test_axes_are_said_or_told_by_their_number():
    assert run((4, 6, 8)).axes == ("channels", "height", "width")
    assert run((4, 3, 6, 8)).axes == ("channels", "frames", "height", "width")
    assert run((4, 50)).axes == ("channels", "time")
    said = run((4, 6, 8))
    said.info["axes"] = ["channels", "time", "pitch"]
    assert said.axes == ("channels", "time", "pitch")
    assert Record(said.settings).axes == ()


def test_the_first_bad_step_is_named_and_the_run_still_goes_everywhere(tmp_path):
    trace = run()
    assert trace.first_bad() is None
    assert np.isfinite(trace.curve("x0_norm")).all()
    bad = run()
    steps = list(bad)
    broken = steps[1].latents
    broken[0, 0, 0] = math.inf
    pieces = [steps[1].output, steps[1].output]
    pieces[1][1] = math.nan
    facts = {"index": 1, "timestep": 899.0, "seconds": 0.1, "a": 0.8, "b": 0.6, "kind": "epsilon"}
    steps[1] = type(steps[1])(**facts, latents=broken, output=pieces[1], pieces=pieces, guidance=5.0)
    bad = Trace(bad.settings, steps, final=bad.final)
    assert bad.first_bad() == 1
    assert "not finite" in bad[1].split
    bad.save(tmp_path / "run.safetensors")
    again = Trace.load(tmp_path / "run.safetensors")
    assert again.first_bad() == 1
    assert torch.equal(again[1].latents, broken)
    again.plot()
    again.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_a_step_guided_anew_is_told_its_guider():
    step = run()[0]
    assert torch.equal(step.guided(3.0).x0, step.what_if(3.0).x0)
    assert torch.equal(step.guided().noise, step.what_if(5.0).noise)
    with pytest.raises(ValueError, match=r"guider must be one of CFG, rescale, .*; got 'APQ', did you mean 'APG'"):
        step.guided(3.0, "APQ")
    with pytest.raises(ValueError, match="guidance must be a finite number, got 'x'"):
        step.guided("x")
