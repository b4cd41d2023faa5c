"""rooms/seat.py: whose turn it is among learners, and what is kept of one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from patience import PATIENCE
from tiny import make_pipeline

from diffexplore.model import Model
from diffexplore.rooms.seat import MOST_LANES, Seat
from diffexplore.rooms.submission import Submission
from diffexplore.rooms.turns import Turns
from diffexplore.settings import Settings


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_pipeline())


@pytest.fixture(scope="module")
def turns(model: Model) -> Turns:
    return Turns(model)


@pytest.fixture
def held(model: Model) -> Iterator[threading.Event]:
    """The model is at a run of somebody else's until this is set: who comes meanwhile stands in the queue."""
    go, begun = threading.Event(), threading.Event()

    def wait(step: object) -> None:
        begun.set()
        go.wait()

    job = model.submit(prompt="first", steps=2, on_step=wait)
    assert begun.wait(PATIENCE)
    yield go
    go.set()
    job.result(PATIENCE)


class Learner:
    """A seat, and what was sent to it."""

    def __init__(self, model: Model, turns: Turns, served: list[str], name: str) -> None:
        self.model, self.served, self.name = model, served, name
        self.there = threading.Event()
        self.told: list[dict[str, object]] = []
        self.seat = Seat(turns, name, self.there.set)

    def submit(self, number: int, lane: int, steps: int = 2, **settings: object) -> None:
        plan = self.model.plan(Settings(prompt=f"{self.name} {number}", steps=steps, **settings))
        self.seat.submit(Submission(number, lane, [plan], [], {}))

    def read(self, ends: int) -> None:
        """Take what is sent, until so many submissions are over."""
        while sum("status" in one and one["status"] != "running" for one in self.told) < ends:
            message = self.seat.message()
            if message is None:
                assert self.there.wait(PATIENCE)
                self.there.clear()
                continue
            self.told.append(message)
            if "end" in message:
                self.served.append(self.name)


def test_learners_take_turns_however_much_one_of_them_asks_for(
    model: Model, turns: Turns, held: threading.Event
) -> None:
    served: list[str] = []
    greedy, modest = Learner(model, turns, served, "greedy"), Learner(model, turns, served, "modest")
    for number in range(6):
        greedy.submit(number, lane=number, seed=number)
    modest.submit(1, lane=1)
    held.set()
    reading = [threading.Thread(target=one.read, args=(count,)) for one, count in ((greedy, 6), (modest, 1))]
    for one in reading:
        one.start()
    for one in reading:
        one.join(PATIENCE)
    assert sorted(served) == ["greedy"] * 6 + ["modest"]
    assert served.index("modest") <= 2  # in turn: after one of the other's, or beside its second


def test_the_newest_wins_in_its_lane_at_its_place(model: Model, turns: Turns, held: threading.Event) -> None:
    learner = Learner(model, turns, [], "one")
    for number in range(4):
        learner.submit(number, lane=number % 2, seed=number)
    held.set()
    learner.read(4)
    ended = {one["run"]: one["status"] for one in learner.told if one.get("status") not in (None, "running")}
    assert ended == {0: "cancelled", 1: "cancelled", 2: "done", 3: "done"}
    drawn = [one["run"] for one in learner.told if "steps" in one]
    assert drawn == sorted(drawn)
    assert set(drawn) == {2, 3}
    assert all("newer run" in str(one["reason"]) for one in learner.told if one.get("status") == "cancelled")


def test_what_a_learner_may_have_is_bounded_and_goes_with_them(
    model: Model, turns: Turns, held: threading.Event
) -> None:
    learner = Learner(model, turns, [], "one")
    for number in range(MOST_LANES + 1):  # one of them is at the model
        learner.submit(number, lane=number)
    with pytest.raises(ValueError, match=f"may have {MOST_LANES} things waiting at once"):
        learner.submit(98, lane=98)
    learner.seat.cancel(5, "no more of that")
    assert (learner.seat.message() or {})["reason"] == "no more of that"
    learner.seat.leave()
    held.set()
    assert learner.seat.message() is None
    learner.submit(99, lane=99)
    assert learner.seat.message() is None
    assert len(model.trace(prompt="last", steps=2)) == 2


def test_whoever_does_not_read_gets_no_further_run(model: Model, turns: Turns) -> None:
    learner = Learner(model, turns, [], "asleep")
    for number in range(3):
        learner.submit(number, lane=number, seed=number)
    model.submit(prompt="another", steps=2).result(PATIENCE)
    model.submit(prompt="one more", steps=2).result(PATIENCE)
    assert "1 at the model" in repr(learner.seat)
    assert "2 waiting" in repr(learner.seat)
    learner.read(3)
    assert learner.served == ["asleep"] * 3
