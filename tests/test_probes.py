"""Probes: attached and asked in order, always undone, and told apart by what they do to a run."""

import copy

import pytest
import torch
from patience import PATIENCE
from test_recorder import snapshot
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.runs.probes import Probe, Stop, attached, going_on, hooked, tapped

WHAT = {"prompt": "a red fox", "steps": 3, "seed": 5, "sampler": "Euler"}


class Diary(Probe):
    """Writes down what happens to it."""

    def __init__(self, name, lines, fails=()):
        self.name, self.lines, self.fails = name, lines, fails

    def note(self, what):
        self.lines.append(f"{self.name} {what}")
        if what in self.fails:
            raise MemoryError(f"{self.name} failed at {what}")

    def attach(self, pipeline):
        self.note("attach")

    def on_step(self, step):
        self.note(f"step {step.index}")

    def detach(self):
        self.note("detach")


class Louder(Probe):
    """Changes a run: scales what the network answers."""

    changes = True

    def __init__(self, factor, named=True):
        self.factor, self.named = factor, named

    def key(self):
        return ("louder", self.factor) if self.named else None

    def attach(self, pipeline):
        self.hook = pipeline.unet.register_forward_hook(lambda module, args, out: (out[0] * self.factor, *out[1:]))

    def detach(self):
        self.hook.remove()


@pytest.fixture
def model():
    return Model(make_pipeline())


@pytest.fixture(scope="module")
def plain():
    return Model(make_pipeline(), reuse=0).trace(**WHAT)


def test_they_are_asked_in_the_order_they_were_given_and_undone_in_the_other(model):
    lines = []
    model.trace(probes=[Diary("a", lines), Diary("b", lines)], **WHAT)
    steps = [f"{name} step {i}" for i in range(3) for name in "ab"]
    assert lines == ["a attach", "b attach", *steps, "b detach", "a detach"]


@pytest.mark.parametrize("where", ["attach", "step 1", "detach"])
def test_whatever_fails_each_is_undone_and_the_next_run_is_as_ever(where, plain):
    pipeline = make_pipeline()
    before, lines = snapshot(pipeline), []
    model = Model(pipeline, reuse=0)
    with pytest.raises(MemoryError, match=f"b failed at {where}"):
        model.trace(probes=[Diary("a", lines), Louder(1.1), Diary("b", lines, [where]), Diary("c", lines)], **WHAT)
    reached = "ab" if where == "attach" else "abc"
    assert sorted(line for line in lines if "detach" in line) == [f"{name} detach" for name in reached]
    assert snapshot(pipeline) == before
    assert torch.equal(model.trace(**WHAT).final, plain.final)


def test_one_that_watches_sees_a_remembered_run_too(model):
    lines = []
    first = model.trace(**WHAT)
    again = model.trace(probes=[Diary("a", lines)], **WHAT)
    assert again.info["reused"]
    assert lines == ["a step 0", "a step 1", "a step 2"]
    assert torch.equal(first.final, again.final)


def test_one_that_changes_the_run_is_part_of_what_is_remembered(model, plain):
    assert torch.equal(model.trace(**WHAT).final, plain.final)
    louder = model.trace(probes=[Louder(1.1)], **WHAT)
    assert "reused" not in louder.info
    assert not torch.equal(louder.final, plain.final)
    assert not torch.equal(model.trace(probes=[Louder(1.2)], **WHAT).final, louder.final)
    again = model.trace(probes=[Louder(1.1)], **WHAT)
    assert again.info["reused"]
    assert torch.equal(again.final, louder.final)
    assert torch.equal(model.trace(**WHAT).final, plain.final)


def test_one_that_changes_the_run_and_does_not_say_how_is_never_remembered(model, plain):
    runs = [model.trace(probes=[Louder(1.1, named=False)], **WHAT) for _ in range(2)]
    assert [run.info.get("reused") for run in runs] == [None, None]
    assert torch.equal(runs[0].final, runs[1].final)
    assert torch.equal(model.trace(**WHAT).final, plain.final)


def test_one_that_looks_inside_sees_every_evaluation(model):
    class Inside(Probe):
        inside = True

        def attach(self, pipeline):
            self.seen = 0
            self.undo = hooked([pipeline.unet.mid_block], after=self.count)
            self.undo.__enter__()

        def count(self, *_):
            self.seen += 1

        def key(self):
            return "inside"

        def detach(self):
            self.undo.__exit__(None, None, None)

    probe = Inside()
    model.trace(**WHAT)
    watched = model.trace(probes=[probe], **WHAT)
    assert "reused" not in watched.info
    assert probe.seen == 3


def test_jobs_take_them_too(model):
    lines = []
    job = model.submit(probes=[Diary("a", lines)], **WHAT)
    assert len(job.result(PATIENCE)) == 3
    assert lines[0] == "a attach"
    assert lines[-1] == "a detach"


def test_what_a_probe_says_of_a_step_stays_with_it(model):
    class Loudness(Probe):
        def key(self):
            return "loudness"

        def on_step(self, step):
            step.numbers["loudness"] = float(step.latents.abs().mean())
            step.tensors["sign"] = step.latents.sign()

    probe = Loudness()
    first, again = (model.trace(probes=[probe], **WHAT) for _ in range(2))
    assert again.info["reused"]
    for one, other in zip(first, again, strict=True):
        assert one.numbers["loudness"] == other.numbers["loudness"] > 0
        assert torch.equal(other.tensors["sign"], other.latents.sign())
    assert not model.trace(**WHAT)[0].numbers


# Taps


class Scheduler:
    def __init__(self):
        self.calls = []

    def step(self, output, timestep=3, *, generator=None):
        self.calls.append((output, timestep))
        return output + 1


def doubled(inner, *args, **kwargs):
    return 2 * inner(*args, **kwargs)


def test_taps_stack_and_go_in_any_order():
    import inspect

    one = Scheduler()
    signature = inspect.signature(one.step)
    with tapped(one, "step", doubled):
        assert one.step(1) == 4
        with tapped(one, "step", doubled):
            assert one.step(1, timestep=9) == 8
            assert inspect.signature(one.step) == signature
        assert one.step(1) == 4
    assert vars(one).keys() == {"calls"}
    assert one.step(1) == 2
    assert one.calls == [(1, 3), (1, 9), (1, 3), (1, 3)]


def test_a_tap_belongs_to_the_copy_that_is_called():
    one = Scheduler()
    with tapped(one, "step", doubled), tapped(one, "step", doubled):
        other = copy.deepcopy(one)
        assert other.step(1) == 8
    assert (one.calls, other.calls) == ([], [(1, 3)])


def test_a_function_that_somebody_put_there_is_called_and_put_back():
    one, other = Scheduler(), Scheduler()
    for own in (lambda output: output * 100, other.step):
        one.step = own
        with tapped(one, "step", doubled):
            assert one.step(1) == 2 * own(1)
        assert one.step is own
    assert one.calls == []


def test_a_stop_calls_once_whenever_it_is_set():
    stop, calls = Stop(), []
    with stop.calling(lambda: calls.append("never")):
        pass
    with stop.calling(lambda: calls.append("first")):
        stop.set(), stop.set()
    with stop.calling(lambda: calls.append("late")):
        pass
    assert calls == ["first", "late"]
    assert stop.is_set()


def test_probes_that_were_never_attached_are_not_undone():
    lines = []
    with pytest.raises(MemoryError), attached(None, [Diary("a", lines, ["attach"]), Diary("b", lines)]):
        pytest.fail("it failed")
    assert lines == ["a attach", "a detach"]


def test_the_public_name():
    assert dx.model.Probe is Probe


def test_whatever_gives_latents_goes_on_with_others() -> None:
    from diffusers.schedulers.scheduling_utils import SchedulerOutput

    x, ids = torch.zeros(2), object()

    def one_more(given: torch.Tensor) -> torch.Tensor:
        return given + 1

    assert torch.equal(going_on(x, one_more), x + 1)
    made, kept = going_on((x, ids), one_more)
    assert torch.equal(made, x + 1)
    assert kept is ids
    assert torch.equal(going_on(SchedulerOutput(prev_sample=x), one_more).prev_sample, x + 1)
