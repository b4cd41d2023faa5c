"""What a run will cost, before it is started, and what it did cost."""

import threading

import pytest
import torch
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.runs.past import Past, past
from diffexplore.runs.probes import Probe


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A past of its own."""
    monkeypatch.setenv("DIFFEXPLORE_TIMES", str(tmp_path))
    return tmp_path


ASKED = {"prompt": "a red fox", "steps": 4, "guidance": 5.0, "sampler": "DDIM"}


def test_without_a_run_only_what_can_be_counted_is_said(own):
    model = Model(make_pipeline())
    made = model.estimate(**ASKED)
    assert (made.evaluations, made.rows, made.seconds, made.bytes, made.preview) == (4, 8, None, None, None)
    assert (made.runs, made.basis, made.said) == (0, "no run yet", "8 calls")
    assert model.estimate(**{**ASKED, "guidance": 1.0}).rows == 4
    assert model.estimate(**{**ASKED, "sampler": "Heun"}).evaluations == 7
    assert model.estimate(model.plan(**ASKED)) == made
    with pytest.raises(ValueError, match="steps"):
        model.estimate(steps=0)
    with pytest.raises(ValueError, match="settings must be a Settings object, or several, got 5"):
        model.estimate(5)


def test_several_are_counted_together_and_those_of_a_part_by_their_part(own, tiny_trace, tiny_model):
    model = tiny_model
    four = [dx.Settings(**{**ASKED, "seed": k}) for k in range(4)]
    assert (model.estimate(four).evaluations, model.estimate(four).rows) == (16, 32)
    mixed = model.estimate([dx.Settings(**ASKED), dx.Settings(**{**ASKED, "guidance": 1.0, "steps": 6})])
    assert (mixed.evaluations, mixed.rows) == (10, 14)
    assert model.estimate([]).evaluations == 0
    assert model.estimate(model.planner.branch(tiny_trace, 3)).evaluations == 1
    picture = tiny_trace.image
    part = model.trace(image=picture, strength=0.3, **ASKED)
    assert model.estimate(image=picture, strength=0.3, **ASKED).evaluations == len(part)
    assert len(part) < 4
    assert model.estimate(image=picture, strength=0.0, **ASKED).evaluations == 0


def test_three_runs_tell_of_the_next_in_this_session_and_in_another(own):
    model = Model(make_pipeline(), reuse=0)
    runs = [model.trace(seed=seed, **ASKED) for seed in range(3)]
    made = model.estimate(**ASKED)
    assert (made.runs, made.basis) == (3, "3 runs of this model on this machine")
    parts = [[getattr(trace.cost, name) for trace in runs] for name in ("steps", "decode", "text")]
    assert 0.9 * sum(map(min, parts)) < made.seconds < 1.1 * sum(map(max, parts))
    assert made.said == f"about {made.said.split()[1]} s, 8 calls"
    assert made.bytes == pytest.approx(runs[0].nbytes, rel=0.01)
    assert model.estimate(**{**ASKED, "steps": 400}).seconds > made.seconds + 50 * min(parts[0])
    four = [dx.Settings(**{**ASKED, "seed": k}) for k in range(4)]
    assert made.seconds < model.estimate(four).seconds < 4.5 * made.seconds
    past().flush()
    key = model.ledger.key(model.resolve(dx.Settings(**ASKED)))
    assert Past(own).runs(key) == past().runs(key)
    assert Model(make_pipeline()).estimate(**ASKED).runs == 3  # it is of the same kind
    half = Model(make_pipeline().to(dtype=torch.float16))
    assert half.estimate(**ASKED).runs == 0


def test_only_runs_that_were_drawn_whole_and_alone_count(own):
    model = Model(make_pipeline())
    first = model.trace(**ASKED)
    assert model.trace(**ASKED).info["reused"]
    model.trace(probes=[Probe()], seed=5, **ASKED)
    _stopped(model, seed=6)
    model.trace(**{**ASKED, "guidance": 4.0})  # its first evaluation is known
    assert model.estimate(**ASKED).runs == 1
    assert first.cost.evaluations == 4


def test_a_run_says_what_it_cost(own, tmp_path):
    model = Model(make_pipeline())
    trace = model.trace(**ASKED)
    cost = trace.cost
    assert (cost.evaluations, cost.rows, cost.remembered, cost.memory) == (4, 8, 0, None)
    assert cost.seconds == trace.seconds
    assert cost.steps + cost.decode + cost.text == pytest.approx(trace.seconds)
    assert cost.steps == pytest.approx(sum(step.seconds for step in trace))
    assert min(cost.decode, cost.text) > 0
    trace.save(tmp_path / "run.safetensors")
    assert dx.Trace.load(tmp_path / "run.safetensors").cost == cost
    again = model.trace(**ASKED).cost
    assert (again.evaluations, again.rows, again.remembered, again.steps) == (0, 0, 4, 0.0)
    other = model.trace(**{**ASKED, "guidance": 4.0}).cost
    assert (other.evaluations, other.remembered) == (3, 1)
    pair = model.trace_many([dx.Settings(**{**ASKED, "seed": seed}) for seed in (8, 9)])
    assert sum(one.cost.seconds for one in pair) == pytest.approx(pair[0].seconds, rel=0.01)
    assert [one.cost.rows for one in pair] == [8, 8]
    plain = model.trace(**{**ASKED, "guidance": 1.0, "seed": 11}).cost
    assert (plain.evaluations, plain.rows) == (4, 4)


def _stopped(model, **values):
    """A run that was stopped at its second step."""
    ready = threading.Event()

    def stop(step):
        ready.wait()
        if step.index == 1:
            job.cancel()

    job = model.submit(on_step=stop, **{**ASKED, **values})
    ready.set()
    return job.result()


def test_a_stopped_run_says_what_it_cost_so_far():
    trace = _stopped(Model(make_pipeline()))
    assert trace.cancelled
    assert (trace.cost.evaluations, trace.cost.decode) == (2, 0.0)


def test_a_run_whose_guidance_is_off_for_a_part_counts_what_was_asked(tiny_pipeline):
    model = Model(tiny_pipeline, reuse=0)
    way = {"prompt": "a red fox", "steps": 8, "guidance": 5.0}
    assert model.trace(**way).cost.rows == 16
    trace = model.trace(**way, changes={0.5: {"guidance": 1.0}})
    asked = [1 if step.noise_uncond is None else 2 for step in trace]
    assert set(asked) == {1, 2}
    assert (trace.cost.evaluations, trace.cost.rows) == (8, sum(asked))


@pytest.mark.parametrize("sampler", ["DDIM", "Heun", "DPM++ 2M Karras", "Euler a"])
@pytest.mark.parametrize(
    "changes",
    [{0.5: {"guidance": 1.0}}, {0.9: {"guidance": 1.0}, 0.3: {"guidance": 7.0}}, {0.5: {"prompt": "a cat"}},
     {0.9: {"guidance": 8.0}, 1e-6: {"guidance": 1.0}}],
    ids=["off at half", "off between", "always on", "off too late"],
)  # fmt: skip
def test_what_changes_on_the_way_is_foretold_call_by_call(tiny_model, sampler, changes):
    way = {"prompt": "a red fox", "steps": 6, "guidance": 5.0, "sampler": sampler, "changes": changes}
    foretold, cost = tiny_model.estimate(**way), Model(tiny_model.pipeline, reuse=0).trace(**way).cost
    assert (foretold.evaluations, foretold.rows) == (cost.evaluations, cost.rows)


@pytest.mark.parametrize("sampler", ["DDIM", "Heun", "DPM++ 2M Karras", "UniPC"])
def test_the_part_of_a_run_on_a_picture_is_foretold(tiny_model, tiny_trace, sampler):
    for strength in (0.1, 0.3, 0.9):
        way = {"prompt": "a red fox", "steps": 6, "sampler": sampler, "image": tiny_trace.image, "strength": strength}
        assert tiny_model.estimate(**way).evaluations == len(tiny_model.trace(**way))


def test_a_part_without_guidance_takes_less_and_teaches_what_it_took(own):
    model = Model(make_pipeline(), reuse=0)
    off = {0.5: {"guidance": 1.0}}
    for seed in range(3):
        model.trace(seed=seed, changes=off, **ASKED)
    (*_, took) = past().runs(model.ledger.key(model.resolve(dx.Settings(**ASKED))))
    assert 1 < took.rows < 2
    assert model.estimate(changes=off, **ASKED).seconds < model.estimate(**ASKED).seconds
