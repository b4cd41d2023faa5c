"""What widgets that run a model share: the newest wins in its own lane, and who waits, waits for the newest."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from patience import wait
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.widgets import runner as room
from diffexplore.widgets.runner import HEAD_START, Runner, planning
from diffexplore.widgets.viewer import Viewer


class Client:
    """The least that a widget does: say what to draw, note what it hears."""

    def __init__(self, model: Model, *settings: Settings) -> None:
        self.wanted = {str(k): one for k, one in enumerate(settings)}
        self.heard: list[str] = []
        self.ended: list[list[str]] = []
        self.viewer = Viewer()
        self.runner = Runner(
            model,
            self.viewer,
            ask=self.ask,
            status=self.heard.append,
            settled=lambda jobs: self.ended.append([job.status for job in jobs.values()]),
            notes=lambda: ["a note"],
            wanted=self.said,
        )
        self.model = model

    def ask(self) -> Mapping[str, Any]:
        return {label: self.model.plan(one) for label, one in self.wanted.items()}

    def said(self) -> Mapping[str, Any] | None:
        with suppress(ValueError):
            return self.ask()
        return None

    @property
    def status(self) -> str:
        return self.heard[-1] if self.heard else ""

    @property
    def error(self) -> str:
        return self.viewer.error


def settings(steps: int, **values: Any) -> Settings:
    return Settings(prompt="a red fox", steps=steps, sampler="DDIM", **values)


@pytest.fixture
def clients(tiny_model: Model) -> Iterator[tuple[Client, Client]]:
    tiny_model.remembered.clear()
    both = Client(tiny_model, settings(300)), Client(tiny_model, settings(5, seed=1), settings(7, seed=2))
    yield both
    for one in both:
        one.runner.cancel()
        one.viewer.close()


def test_run_waits_for_all_and_says_how_it_ended_once(clients: tuple[Client, Client]) -> None:
    _, two = clients
    jobs = two.runner.run()
    assert [len(job.trace) for job in jobs.values()] == [5, 7]
    assert two.heard == ["running", "done"]
    assert two.ended == [["done", "done"]]
    assert [film.label for film in two.viewer.shown()] == ["0", "1"]
    two.runner.cancel()
    assert two.ended == [["done", "done"]], "what was said is not said again"
    assert two.status == "done"


def test_clients_of_one_model_leave_each_other_alone(clients: tuple[Client, Client]) -> None:
    one, two = clients
    one.runner.start()
    assert wait(lambda: one.runner.traces != {})
    two.runner.start()
    assert wait(lambda: two.status == "done" and one.status == "done")
    assert len(one.runner.traces["0"]) == 300
    assert [len(trace) for trace in two.runner.traces.values()] == [5, 7]


def test_within_a_client_the_newest_wins(clients: tuple[Client, Client]) -> None:
    one, _ = clients
    one.runner.start()
    assert wait(lambda: one.runner.traces != {})
    (first,) = one.runner.jobs.values()
    one.wanted = {"0": settings(3)}
    one.runner.start()
    assert wait(lambda: one.status == "done")
    assert first.status == "cancelled"
    assert len(one.runner.traces["0"]) == 3
    assert one.ended == [["done"]], "how the one that was replaced ended is nobody's news"


def test_who_waits_for_a_run_that_is_replaced_gets_the_one_that_did(clients: tuple[Client, Client]) -> None:
    one, _ = clients

    def replace() -> None:
        assert wait(lambda: one.runner.traces != {})
        one.wanted = {"0": settings(4)}
        one.runner.start()

    other = threading.Thread(target=replace)
    other.start()
    jobs = one.runner.run()
    other.join()
    assert [len(job.trace) for job in jobs.values()] == [4]
    assert one.status == "done"


def test_a_run_that_is_due_takes_what_is_then_wanted(clients: tuple[Client, Client]) -> None:
    one, _ = clients
    one.runner.start()
    for steps in (9, 8, 6):
        one.wanted = {"0": settings(steps)}
        one.runner.start_soon()
        assert one.status == "running"
    assert wait(lambda: one.status == "done")
    assert len(one.runner.traces["0"]) == 6
    assert HEAD_START > 0


def test_what_will_be_over_soon_is_finished_before_another_takes_its_place(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a slider that is dragged shows whole runs, and the newest settings come last."""
    one, _ = clients
    monkeypatch.setattr(room, "HEAD_START", 0.0)
    monkeypatch.setattr(room, "SOON", 10_000.0)
    one.runner.run()
    one.wanted = {"0": settings(40, seed=1)}
    one.runner.start()
    (first,) = one.runner.jobs.values()
    for seed in (2, 3, 4):
        one.wanted = {"0": settings(5, seed=seed)}
        one.runner.start_soon()
        assert one.status == "running"
    assert wait(lambda: one.status == "done")
    assert (first.status, len(first.trace)) == ("done", 40)
    assert one.runner.traces["0"].settings.seed == 4


def test_what_takes_long_is_replaced_after_its_head_start(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = clients
    monkeypatch.setattr(room, "HEAD_START", 0.0)
    monkeypatch.setattr(room, "SOON", 0.0)  # on this scale all runs are long
    one.runner.run()
    one.wanted = {"0": settings(300, seed=1)}
    one.runner.start()
    (first,) = one.runner.jobs.values()
    one.wanted = {"0": settings(5, seed=2)}
    one.runner.start_soon()
    assert next(iter(one.runner.jobs.values())) is not first, "at once"
    assert wait(lambda: one.status == "done")
    assert first.status == "cancelled"


def test_a_move_from_rest_starts_at_once(clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = clients
    monkeypatch.setattr(room, "HEAD_START", 0.0)
    monkeypatch.setattr(room, "SOON", 10_000.0)
    (before,) = one.runner.run().values()
    time.sleep(0.3)  # the picture is looked at
    one.wanted = {"0": settings(5, seed=2)}
    one.runner.start_soon()
    assert next(iter(one.runner.jobs.values())) is not before


def test_what_is_refused_when_it_is_due_is_said(clients: tuple[Client, Client]) -> None:
    one, _ = clients
    one.wanted = {"0": settings(2)}
    one.runner.start()
    one.wanted = {"0": settings(1000)}
    one.runner.quietly(one.runner.start_soon)  # a busy machine may find it due at once
    assert wait(lambda: one.status == "done")
    assert "at most 999 steps" in one.error
    assert len(one.runner.traces["0"]) == 2


def test_what_is_refused_starts_nothing_and_leaves_what_goes(clients: tuple[Client, Client]) -> None:
    one, _ = clients
    one.runner.start()
    (going,) = one.runner.jobs.values()
    one.wanted = {"0": settings(1000)}
    with pytest.raises(ValueError, match="at most 999 steps"):
        one.runner.start()
    assert "at most 999 steps" in one.error
    assert one.status == "running"
    assert wait(lambda: one.status == "done")
    assert len(going.trace) == 300


def test_runs_are_on_show_until_newer_ones_have_a_step(clients: tuple[Client, Client]) -> None:
    one, two = clients
    two.runner.run()
    before = two.runner.traces
    with one.runner.model.pipeline.unet.register_forward_pre_hook(broken):
        with pytest.raises(RuntimeError, match="no paint"):
            next(iter(two.runner.run().values())).result()
        assert two.status == "failed"
    assert two.runner.traces == before


def test_what_is_said_to_match_is_what_a_page_gets(clients: tuple[Client, Client]) -> None:
    """Runs out of the memory, each replaced in the moment in which it is whole, the last by one that never begins."""
    one, _ = clients
    again = [settings(3, seed=seed) for seed in range(4)]
    for asked in again:
        one.wanted = {"0": asked}
        one.runner.run()
    slow = settings(300)
    for asked in (*again, *again):
        for wanted in (asked, slow):
            one.wanted = {"0": wanted}
            one.runner.start()
            if wanted is asked:
                (job,) = one.runner.jobs.values()
                assert wait(lambda job=job: len(job.trace) == 3)
        one.runner.cancel()
        assert wait(lambda: one.status == "cancelled")
        (trace,) = one.runner.traces.values()
        one.wanted = {"0": trace.settings}
        one.runner.say_truth()
        if not trace.cancelled:
            truth = one.viewer.truth
            assert truth["state"] == "match"
            assert wait(lambda run=truth["run"]: one.viewer.shown_run == run)


def broken(*_: Any) -> None:
    raise RuntimeError("no paint")


def test_of_several_that_ended_differently_a_stop_counts_most_then_what_is_done(clients: tuple[Client, Client]) -> None:
    _, two = clients
    two.wanted = {"0": settings(3), "1": settings(400, guidance=1.0)}
    two.runner.start()
    assert wait(lambda: len(two.runner.jobs["0"].trace) == 3 and len(two.runner.jobs["1"].trace) > 2)
    two.runner.cancel()
    assert wait(lambda: two.status == "cancelled")


def test_settings_are_planned_once_until_other_loras_are_loaded(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(make_pipeline())
    planned: list[Settings] = []
    plan = Model.plan
    monkeypatch.setattr(Model, "plan", lambda self, asked: planned.append(asked) or plan(self, asked))
    plan_of = planning(model)
    assert plan_of(settings(3)) is plan_of(settings(3))
    assert len(planned) == 1
    model.load_lora(lora, "style")
    plan_of(settings(3))
    assert len(planned) == 2
    for _ in range(2):
        with pytest.raises(ValueError, match="999"):
            plan_of(settings(1000))


def test_what_the_next_run_will_cost_is_said_once_the_machine_has_run_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFEXPLORE_TIMES", str(tmp_path))
    model = Model(make_pipeline())
    explorer = dx.Explorer(model, prompt="a fox", steps=4, sampler="DDIM")
    assert explorer.viewer._outlook["cost"] == ""
    trace = explorer.run()
    assert trace.cost is not None
    assert trace.cost.preview is not None
    assert trace.cost.preview > 0
    explorer.steps = 5
    assert re.fullmatch(r"about [\d.]+ s, 10 calls", explorer.viewer._outlook["cost"])
    compare = dx.Compare({"a": {"seed": 1}, "b": {"seed": 2}}, model, prompt="a fox", steps=4, sampler="DDIM")
    assert re.fullmatch(r"about [\d.]+ s, 16 calls", compare.viewer._outlook["cost"])
    explorer.close()
    compare.close()


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "left open"])
def test_a_widget_that_the_collector_finds_plans_nothing(closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused column is no plan that could be remembered, so whoever asks what the controls say plans it again."""
    model = Model(make_pipeline())
    wrong = {"sampler": "Flow Euler"}
    compare = dx.Compare({"good": {}, "bad": wrong}, model, prompt="a fox", steps=2, sampler="DDIM")
    compare.run()
    planned: list[Any] = []
    plan = Model.plan
    monkeypatch.setattr(Model, "plan", lambda self, *args, **more: planned.append(args) or plan(self, *args, **more))
    if closed:
        compare.close()
    else:
        compare.cancel()
        assert planned, "an open widget says what its controls say"
    planned.clear()
    compare.__del__()  # as Python does before it frees what nobody holds
    assert planned == []


def test_what_is_closed_while_it_runs_is_stopped_and_nothing_more_is_said_of_it(
    clients: tuple[Client, Client],
) -> None:
    one, _ = clients
    one.wanted = {"0": settings(400)}
    one.runner.start()
    (job,) = one.runner.jobs.values()
    assert wait(lambda: len(job.trace) > 2)
    asked = len(one.ended)
    one.runner.close()
    assert wait(job.done)
    assert job.status == "cancelled"
    assert wait(lambda: one.status == "cancelled")
    assert len(one.ended) == asked
