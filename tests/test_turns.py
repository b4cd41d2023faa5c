"""rooms/turns.py and rooms/submission.py: who waits sees something before their turn, and knows when that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from patience import PATIENCE
from tiny import make_pipeline

from diffexplore.model import Model, Probe
from diffexplore.record.step import Step
from diffexplore.rooms.parcels import record_of
from diffexplore.rooms.seat import Seat
from diffexplore.rooms.submission import Message, Submission
from diffexplore.rooms.turns import Turns
from diffexplore.settings import Settings


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_pipeline())


class Held(Probe):
    """Stands still at its run's first step."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()

    def on_step(self, step: Step) -> None:
        self.begun.set()
        self.go.wait()


class Learner:
    """A seat, and what was sent to it."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.there = threading.Event()
        self.seat = Seat(turns, name, self.there.set)
        self.told: list[Message] = []
        self.steps: list[Step] = []

    def submit(self, model: Model, number: int, *probes: Probe, waited: float = 0.0, **settings: object) -> None:
        plan = model.plan(Settings(**settings))
        self.seat.submit(Submission(number, 1, [plan], probes, {}, waited))

    def read(self, until: Callable[[], object]) -> None:
        """Take what is sent, until something has come."""
        end = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < end, self.told
            message = self.seat.message()
            if message is None:
                self.there.wait(1)
                self.there.clear()
                continue
            self.told.append(message)
            self.steps += record_of(message["steps"]) if "steps" in message else ()

    def ended(self) -> str:
        found = [one["status"] for one in self.told if one.get("status", "running") != "running"]
        return str(found[-1]) if found else ""


class Crowd:
    """One whose run stands still at the model, and four who wait behind it; that of the first of them will stand still
    too."""

    def __init__(self, model: Model) -> None:
        self.turns, self.held, self.next = Turns(model), Held(), Held()
        self.first = Learner(self.turns, "first")
        self.waiting = [Learner(self.turns, f"learner {k}") for k in range(4)]
        self.first.submit(model, 1, self.held, prompt="held", steps=4)
        for k, one in enumerate(self.waiting):
            one.submit(model, 1, *([] if k else [self.next]), prompt=f"a fox {k}", steps=5, seed=k)
        assert self.held.begun.wait(PATIENCE)


@pytest.fixture
def crowd(model: Model) -> Iterator[Crowd]:
    found = Crowd(model)
    yield found
    found.held.go.set()
    found.next.go.set()
    for one in (found.first, *found.waiting):
        one.seat.leave()


def test_whoever_waits_has_a_first_look_which_is_the_first_step_of_their_run(model: Model, crowd: Crowd) -> None:
    crowd.held.go.set()
    assert crowd.next.begun.wait(PATIENCE)
    for one in crowd.waiting[1:]:  # whose turn is after that
        one.read(lambda one=one: one.steps)
        assert [set(message) for message in one.told] == [{"run", "k", "steps"}]
    crowd.next.go.set()
    for k, one in enumerate(crowd.waiting):
        one.read(one.ended)
        assert [step.index for step in one.steps] == list(range(5))
        assert (one.ended(), any("anew" in message for message in one.told)) == ("done", False)
        alone = model.trace(prompt=f"a fox {k}", steps=5, seed=k)
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(one.steps, alone, strict=True))


def test_everybody_knows_where_they_stand(model: Model, crowd: Crowd) -> None:
    turns, waiting = crowd.turns, crowd.waiting
    found = turns.places()
    assert [found[one.seat].place for one in waiting] == [1, 2, 3, 4]
    waiting[1].submit(model, 2, prompt="another wish", steps=5)
    waiting[0].seat.cancel(1, "no more of that")
    found = turns.places()
    assert [found[one.seat].place for one in waiting[1:]] == [1, 2, 3]
    assert found[waiting[1].seat].submission.number == 2
    for _ in range(2):  # said once
        waiting[3].seat.stand(found[waiting[3].seat])
    waiting[3].read(lambda: waiting[3].told)
    assert waiting[3].told == [{"run": 1, "line": 3, "due": None}]
    assert waiting[3].seat.message() is None
    crowd.held.go.set()
    for one in waiting[1:]:
        one.read(one.ended)
    assert turns.places() == {}
    waiting[0].read(waiting[0].ended)
    assert waiting[0].told[-1]["reason"] == "no more of that"


def test_when_a_room_is_back_those_who_waited_longest_stand_in_front(model: Model, crowd: Crowd) -> None:
    for one in crowd.waiting:
        one.seat.cancel(1, "the room was gone")
        one.read(one.ended)
        assert one.seat.message() is None  # all is sent
    for one, waited in zip(crowd.waiting, (3.0, 9.0, 1.0, 5.0), strict=True):
        one.submit(model, 2, waited=waited, prompt="again", steps=2)
    crowd.waiting[0].submit(model, 3, waited=0.0, prompt="a newer wish, at its place", steps=2)
    found = crowd.turns.places()
    assert [found[one.seat].place for one in crowd.waiting] == [3, 1, 4, 2]


def test_who_leaves_makes_way(model: Model, crowd: Crowd) -> None:
    turns, waiting = crowd.turns, crowd.waiting
    for one in waiting[:3]:
        one.seat.leave()
    assert [place.place for place in turns.places().values()] == [1]
    crowd.held.go.set()
    waiting[3].read(waiting[3].ended)
    assert waiting[3].ended() == "done"
    assert all(one.seat.message() is None for one in waiting[:3])
