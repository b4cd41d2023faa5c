"""A learner's seat in a room: what one connection has asked for, and what is still to be sent to it.

Between learners it is first come, first served (`rooms.turns`): a seat has one submission in line or at the model at a
time, and goes to the end of the line with the next. Within a seat each of the learner's widgets has a lane: the newest
wins there, at its place. What a seat keeps is bounded: so many lanes, so many runs of a submission, and the steps of no
other runs than those of the one that has its turn. Nothing waits for a learner who does not read: their seat's next
submission does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from diffexplore.rooms.submission import Message, Submission
from diffexplore.rooms.turns import Place, Turns
from diffexplore.runs.jobs import REPLACED
from diffexplore.words import sentence

__all__ = ["MOST_LANES", "Seat", "sentence_of"]

MOST_LANES: Final = 16
"""Submissions of one learner that wait."""


class Seat:
    """What one learner has asked for.

    Attributes:
        name: what the learner is called; for people.
    """

    def __init__(self, turns: Turns, name: str, wake: Callable[[], None]) -> None:
        """An empty seat.

        Args:
            turns: at what is shared.
            name: of the learner.
            wake: called on any thread when there may be something to send.
        """
        self.name = name
        self._turns = turns
        self._wake = wake
        self._lock = threading.RLock()
        self._waiting: OrderedDict[int, Submission] = OrderedDict()
        self._now: list[Submission] = []  # in line or at the model, and those before of which not all was sent
        self._told: deque[Message] = deque()
        self._stands: tuple[int, int, int | None] | None = None  # as the learner was told
        self._left = False

    def __repr__(self) -> str:
        return f"Seat({self.name!r}, {len(self._waiting)} waiting, {len(self._now)} at the model)"

    # What comes in

    def submit(self, asked: Submission) -> None:
        """Take in a submission, in place of what its lane has.

        Raises:
            ValueError: one sentence, where too much waits already.
        """
        with self._lock:
            if self._left:
                return
            if asked.lane not in self._waiting and len(self._waiting) >= MOST_LANES:
                raise ValueError(f"a learner may have {MOST_LANES} things waiting at once: wait for one of them")
            replaced = self._waiting.get(asked.lane)
            if replaced is not None:
                self._tell_cancelled(replaced, REPLACED)
            self._waiting[asked.lane] = asked
            now = self._now[-1] if self._now else None
            if now is not None and now.lane == asked.lane and not now.over:
                del self._waiting[asked.lane]
                self._enter(asked)
            else:
                self._next()

    def cancel(self, number: object, reason: str) -> None:
        """Stop a submission, wherever it is."""
        with self._lock:
            for lane, one in list(self._waiting.items()):
                if one.number == number:
                    del self._waiting[lane]
                    self._tell_cancelled(one, reason)
            now = [one for one in self._now if one.number == number]
        for one in now:
            self._turns.drop(one, reason)

    def tell(self, message: Message) -> None:
        """Send something, in front of what runs have made."""
        with self._lock:
            self._told.append(message)
        self._wake()

    def stand(self, place: Place | None) -> None:
        """Say where the learner stands in line, if that has changed; None: nothing of theirs waits there."""
        with self._lock:
            due = None if place is None or place.seconds is None else round(place.seconds)
            stands = None if place is None else (place.submission.number, place.place, due)
            if stands == self._stands or self._left:
                return
            self._stands = stands
            if stands is None:
                return
            number, at, due = stands
            self._told.append({"run": number, "line": at, "due": due})
        self._wake()

    def leave(self) -> None:
        """The learner is gone: their place is free, and what they had is stopped."""
        with self._lock:
            self._left = True
            self._waiting.clear()
            now = list(self._now)
            self._now.clear()
            self._told.clear()
        for one in now:
            self._turns.drop(one, "the learner has left")

    # What goes out

    def message(self) -> Message | None:
        """What to send next; None where there is nothing."""
        with self._lock:
            if self._told:
                return self._told.popleft()
            now = list(self._now)
        for submission in now:
            made = submission.message()
            if made is not None:
                return made
        with self._lock:
            self._now = [one for one in self._now if not one.sent]
            self._next()
            return self._told.popleft() if self._told else None

    def _next(self) -> None:
        """Let the next submission stand in line, if the one before is over and sent."""
        if self._waiting and not self._now and not self._left:
            self._enter(self._waiting.popitem(last=False)[1])

    def _enter(self, submission: Submission) -> None:
        submission.wake = self._wake
        self._now.append(submission)
        self._turns.enter(self, submission)  # under the lock: a newer one may come meanwhile, and has to come after it
        self._wake()

    def _tell_cancelled(self, submission: Submission, reason: str) -> None:
        for k in range(len(submission.plans)):
            self._told.append({"run": submission.number, "k": k, "status": "cancelled", "reason": sentence_of(reason)})
        self._wake()


def sentence_of(reason: object) -> str:
    """A reason as a short text."""
    return sentence(ValueError(str(reason)), 200)
