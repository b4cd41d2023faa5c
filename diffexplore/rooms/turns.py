"""Whose turn it is at a shared model.

Learners are served one after the other, first come, first served: each has one submission in the line, and goes to its
end with the next; a newer wish takes the place of the one it replaces. Where several wait, each gets a first look
beforehand, the first step alone, so that thirty who move at one moment all see something of it in the time of thirty
steps, not of thirty runs. Looks take their time from the runs of others: no more of them are given than half of the
steps that were drawn, beside one for everybody of a class that comes all at once.

A room that is back after its process died has everybody at its door in one moment, in no order: those who had waited
longest stand in front again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, NamedTuple

from diffexplore.runs.jobs import REPLACED

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.rooms.submission import Submission

__all__ = ["Place", "Turns"]

_SOON: Final = 3
"""How many wait where first looks are given: with fewer, their turn comes as soon."""
_LOOKS: Final = 40  # given at most without a run in between
_NEWS: Final = 0.3  # what the newest run counts of how long runs take
_BACK: Final = 60.0  # seconds from the start in which it counts how long somebody has waited elsewhere
_LONGEST: Final = 600.0  # seconds of that which count


class Place(NamedTuple):
    """Where somebody stands.

    Attributes:
        submission: what waits there.
        place: 1 for who is next.
        seconds: until their turn, as it went lately; None where nothing was drawn yet.
    """

    submission: Submission
    place: int
    seconds: float | None


class _Turn(NamedTuple):
    seat: Hashable
    submission: Submission
    looks: bool


class Turns:
    """The line of those who wait, and who is at the model."""

    def __init__(self, model: Model) -> None:
        """Nobody waits."""
        self._model = model
        self._lock = threading.Lock()
        self._line: OrderedDict[Hashable, Submission] = OrderedDict()
        self._unseen: set[Hashable] = set()  # those of them who wait for a first look
        self._now: _Turn | None = None
        self._looks = _LOOKS
        self._pace: float | None = None  # seconds for so much work
        self._look_pace = 0.0  # seconds for a first look
        self._begun = 0.0  # when whoever has the turn got it
        self._opened = time.monotonic()
        self._came: dict[Hashable, float] = {}  # since when those in line have waited

    def enter(self, seat: Hashable, submission: Submission) -> None:
        """Stand in line with a submission, in place of what the seat has there or at the model."""
        with self._lock:
            replaced = self._line.get(seat)
            now = self._now
            self._line[seat] = submission
            if replaced is None:
                self._arrange(seat, submission.waited)
            self._unseen.discard(seat)
            if submission.worth_a_look:
                self._unseen.add(seat)
        if replaced is not None:
            replaced.drop(REPLACED)
        if now is not None and now.seat == seat and now.submission is not replaced:
            now.submission.stop(REPLACED)
        self._go_on()

    def _arrange(self, seat: Hashable, waited: float) -> None:
        """Let somebody who has just come stand before those who have waited less."""
        now = time.monotonic()
        back = now < self._opened + _BACK
        self._came = {one: self._came[one] for one in self._line if one in self._came}
        self._came[seat] = came = now - (min(waited, _LONGEST) if back else 0.0)
        for one in [one for one in self._line if self._came[one] > came]:
            self._line.move_to_end(one)

    def drop(self, submission: Submission, reason: str) -> None:
        """Stop a submission, wherever it is."""
        with self._lock:
            seats = [seat for seat, one in self._line.items() if one is submission]
            for seat in seats:
                self._gone(seat)
        if seats:
            submission.drop(reason)
        else:
            submission.stop(reason)

    def _gone(self, seat: Hashable) -> None:
        del self._line[seat]
        self._unseen.discard(seat)
        self._came.pop(seat, None)

    def places(self) -> dict[Hashable, Place]:
        """Where everybody stands who waits, by their seats."""
        with self._lock:
            line, pace, now = list(self._line.items()), self._pace, self._now
            looks = len(self._unseen) * self._look_pace if len(line) >= _SOON else 0.0
        before = 0 if now is None or now.looks else now.submission.work
        found = {}
        for k, (seat, submission) in enumerate(line, 1):
            found[seat] = Place(submission, k, None if pace is None else before * pace + looks)
            before += submission.work
        return found

    def _go_on(self) -> None:
        """Let the next have its turn, where nobody has it."""
        while True:
            with self._lock:
                if self._now is not None:
                    return
                turn = self._now = self._next()
                self._begun = time.monotonic()
            if turn is None:
                return
            seat, submission, looks = turn
            begin = submission.look if looks else submission.start
            try:
                begin(self._model, seat, lambda _, turn=turn: self._over(turn))  # type: ignore[misc]
            except Exception as error:  # what was planned a while ago may be refused by now
                with self._lock:
                    if self._line.get(seat) is submission:
                        self._gone(seat)
                    self._now = None
                submission.refuse(error)
            else:
                return

    def _next(self) -> _Turn | None:
        """Whose turn is next; they are out of the line then, but for a first look."""
        if self._looks and len(self._line) >= _SOON:
            # As they stand: whoever had a look at an older wish has one at the newer before those behind them.
            for seat, submission in self._line.items():
                if seat in self._unseen:
                    self._unseen.remove(seat)
                    self._looks -= 1
                    return _Turn(seat, submission, True)
        if not self._line:
            return None
        seat, submission = self._line.popitem(last=False)
        self._unseen.discard(seat)
        self._looks = min(_LOOKS, self._looks + max(1, submission.steps // 2))
        return _Turn(seat, submission, False)

    def _over(self, turn: _Turn) -> None:
        """One of the runs of a turn is over."""
        if not (turn.looks or turn.submission.over):
            return
        with self._lock:
            if self._now is not turn:
                return
            self._now = None
            self._note(turn)
        self._go_on()

    def _note(self, turn: _Turn) -> None:
        """Keep how long it took."""
        took = time.monotonic() - self._begun
        if turn.looks:
            self._look_pace = _NEWS * took + (1 - _NEWS) * (self._look_pace or took)
        elif not turn.submission.stopped:
            took /= max(1, turn.submission.work)
            self._pace = took if self._pace is None else _NEWS * took + (1 - _NEWS) * self._pace
