"""On how many threads a model's runs are computed, and that the process keeps its own number."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.twice import checksum
from diffexplore.model import Model
from diffexplore.pipelines.origin import Origin
from diffexplore.rooms.answers import facts_of
from diffexplore.runs.probes import Probe
from diffexplore.runs.threads import Threads

ASKED = {"prompt": "a red fox", "steps": 2, "guidance": 5.0, "sampler": "DDIM"}


FRESH = """
import json, sys
import torch
from diffexplore.experiments.twice import checksum

torch.set_num_threads(2)  # as on a machine of two cores
found = []
for code in json.load(sys.stdin):
    names = {}
    exec(code, names)
    trace = names["trace"]
    found.append([trace.info["threads"], checksum(trace.final), checksum(trace.image), torch.get_num_threads()])
print(json.dumps(found))
"""


@pytest.fixture
def two(monkeypatch, tmp_path):
    """Torch on two threads, by nobody's wish."""
    monkeypatch.setenv("DIFFEXPLORE_TIMES", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield tmp_path
    torch.set_num_threads(before)


class _Failing(Probe):
    def on_step(self, step):
        raise RuntimeError("no")


def _seen(model, **values):
    """On how many threads a run went, and the run."""
    seen = []
    trace = model.submit(on_step=lambda _: seen.append(torch.get_num_threads()), **{**ASKED, **values}).result()
    return seen, trace


def test_a_model_computes_on_what_it_was_opened_with_and_the_process_keeps_its_own(two):
    pipeline = make_pipeline()
    one, own = Model(pipeline, threads=1), Model(pipeline)
    assert _seen(one)[0] == [1] * 2
    assert _seen(own)[0] == [2] * 2
    alone, both = one.trace(**ASKED), own.trace(**ASKED)
    assert (alone.info["threads"], both.info["threads"]) == (1, 2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    plain = Model(pipeline).trace(**ASKED)
    assert torch.equal(alone.final, plain.final)  # to the bit what torch makes on one
    torch.set_num_threads(2)
    assert np.array_equal(one.decode(alone.final), np.asarray(alone.image))
    with pytest.raises(RuntimeError):
        one.trace(probes=[_Failing()], **ASKED)
    assert torch.get_num_threads() == 2


def test_the_pocket_model_computes_on_one_and_its_code_makes_the_same_bits_in_a_fresh_process(two):
    models = [dx.load(), dx.load(threads=2), dx.load(threads="torch")]
    asked = {"prompt": "a red fox", "steps": 3, "seed": 3}
    explorers = [dx.Explorer(model, **asked) for model in models]
    traces = [explorer.run() for explorer in explorers]
    assert [trace.info["threads"] for trace in traces] == [1, 2, 2]
    assert torch.equal(traces[1].final, traces[2].final)
    assert not torch.equal(traces[0].final, traces[1].final)
    assert [model.code() for model in models] == [
        "model = dx.load()\n",
        "model = dx.load(threads=2)\n",
        "model = dx.load(threads='torch')\n",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    codes = json.dumps([explorer.code() for explorer in explorers])
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH], input=codes, env=environment, capture_output=True, text=True, check=True
    )
    here = [[one.info["threads"], checksum(one.final), checksum(one.image), 2] for one in traces]
    assert json.loads(fresh.stdout) == here
    picture = traces[0].image
    one = models[0].encode(picture)
    torch.set_num_threads(1)
    assert torch.equal(one, models[2].encode(picture))  # what it does beside runs, too


def test_what_was_asked_for_goes_where_the_model_goes(two):
    model = Model(make_pipeline(), threads=1)
    origin = Origin.from_json(model.origin.to_json())
    assert Model(model.pipeline, origin=origin, reuse=0).trace(**ASKED).info["threads"] == 1
    assert Model(model.pipeline, origin=origin, reuse=0, threads="torch").trace(**ASKED).info["threads"] == 2
    assert Origin.from_json(facts_of(model)["origin"]).options == {"threads": "1"}  # what learners of a room know
    found = dx.twice(model, **ASKED)
    assert found.first.info["threads"] == 1
    assert "with 2 thread(s)" in str(found)
    for wrong in ("0", "some"):
        with pytest.raises(ValueError, match="threads must be a whole number"):
            Model(model.pipeline, origin=Origin("pipeline", options={"threads": wrong}))


def test_other_threads_of_the_process_keep_theirs_while_a_run_goes(two):
    model, ready, found = Model(make_pipeline(), threads=1), threading.Event(), []
    assert torch.get_num_threads() == 2
    job = model.submit(on_step=lambda _: ready.wait(), **ASKED)
    found.append(torch.get_num_threads())
    ready.set()
    job.result()
    assert [*found, torch.get_num_threads()] == [2, 2]


def test_what_does_well_is_measured_once_and_remembered(two):
    took = {2: 1.0, 1: 1.05}
    asked = []

    def trial():
        asked.append(torch.get_num_threads())
        return took[torch.get_num_threads()]

    some = Threads("auto")
    assert some.known("m", (64, 64)) is None
    assert some.count("m", (64, 64), trial) == 1  # a second thread that brings so little is better used elsewhere
    assert sorted(set(asked)) == [1, 2]
    asked.clear()
    assert some.count("m", (64, 64), trial) == some.known("m", (64, 64)) == some.decoding((64, 64)) == 1
    assert Threads("auto").count("m", (64, 64), trial) == 1
    assert not asked
    took[1] = 1.5
    assert Threads("auto").count("m", (128, 128), trial) == 2
    assert Threads("auto").count("m", (256, 64), None) is None  # what cannot be tried is as it was
    assert torch.get_num_threads() == 2


def test_who_has_set_a_number_keeps_it(two, monkeypatch):
    def trial():
        raise AssertionError("nothing is to be tried")

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert Threads("auto").count("m", (64, 64), trial) is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    assert Threads("auto").count("m", (64, 64), trial) is None


def test_a_model_measures_at_its_first_run_and_all_later_ones_have_the_same_bits(two):
    pipeline = make_pipeline()
    model = Model(pipeline, threads="auto", reuse=0)
    first, again = model.trace(**ASKED), model.trace(**ASKED)
    assert first.info["threads"] in (1, 2)
    assert first.info["threads"] == again.info["threads"]
    assert torch.equal(first.final, again.final)
    assert np.array_equal(model.decode(first.final), np.asarray(first.image))
    assert first.cost.evaluations == 2
    assert model.estimate(**ASKED).runs == 2  # not those that were tried
    fixed = Model(pipeline, threads=first.info["threads"]).trace(**ASKED)
    assert torch.equal(first.final, fixed.final)


@pytest.mark.parametrize("value", [0, -1, 2.0, "two", True, 10_000, [1]])
def test_no_other_number_is_taken_before_anything_is_opened(value):
    with pytest.raises(ValueError, match="threads must be a whole number from 1 to 1024, 'auto', 'torch' for"):
        dx.load("nobody/nothing", threads=value)
