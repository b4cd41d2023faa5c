"""A learner's seat in a room: what one connection has asked for, and what is still to be sent to it.

Between learners it is first come, first served: a seat has one submission at the model at a time, in a lane of its own,
and goes to the end of the queue with the next. Within a seat each of the learner's widgets has a lane: the newest wins
there, at its place. What a seat keeps is bounded: so many lanes, so many runs of a submission, and the steps of no
other runs than those of the one that is at the model. Nothing waits for a learner who does not read: their seat's next
submission does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from diffexplore.rooms.parcels import end_packed, estimates_packed, record_packed, refusal
from diffexplore.runs.jobs import REPLACED, Job
from diffexplore.words import sentence

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.record.step import Step
    from diffexplore.runs.plan import Plan
    from diffexplore.runs.probes import Probe

__all__ = ["MOST_LANES", "MOST_RUNS", "Seat", "Submission"]

MOST_LANES: Final = 16
"""Submissions of one learner that wait."""
MOST_RUNS: Final = 16
"""Runs that are submitted together."""

Message = dict[str, Any]


class Submission:
    """What was submitted together.

    Attributes:
        number: by which the learner knows it.
        lane: of the learner's own.
        jobs: one for each of its plans, once it is at the model.
    """

    def __init__(self, number: int, lane: int, plans: Sequence[Plan], probes: Sequence[Probe], asked: Message) -> None:
        """Nothing has been started yet.

        Args:
            number: by which the learner knows it.
            lane: of the learner's own.
            plans: what to draw.
            probes: what leads the only run of it, as an inversion.
            asked: what is asked for by name beside: attention, weights.
        """
        self.number, self.lane, self.plans, self.probes, self.asked = number, lane, list(plans), list(probes), asked
        self.jobs: list[Job] = []
        self.streams: list[_Stream] = []

    def start(self, model: Model, lane: object, wake: Callable[[object], None]) -> None:
        """Submit it to the model, in the lane of its learner."""
        if len(self.plans) == 1:
            self.jobs = [model.submit(self.plans[0], wake, lane=lane, probes=self.probes, **self.asked)]
        else:
            self.jobs = model.submit_many(self.plans, wake, lane=lane, attention=self.asked.get("attention", False))
        self.streams = [_Stream(self.number, k, job) for k, job in enumerate(self.jobs)]
        for job in self.jobs:
            job.add_done_callback(wake)

    @property
    def sent(self) -> bool:
        """Whether its learner has heard of how all of it ended."""
        return bool(self.streams) and all(stream.over for stream in self.streams)


class _Stream:
    """One run on its way to a learner: its steps as they are made, then how it ended."""

    def __init__(self, number: int, k: int, job: Job) -> None:
        self.over = False
        self._head = {"run": number, "k": k}
        self._job = job
        self._sent: list[tuple[Step, tuple[str, ...]]] = []
        self._running = False

    def message(self) -> Message | None:
        """What there is to send now; None for nothing."""
        if self.over:
            return None
        job, trace = self._job, self._job.trace
        ended = job.done()  # before the steps: a run that is over then has no more of them
        steps = list(trace)
        try:
            if ended and job.reason == REPLACED:  # whoever asked for something newer looks at that
                return self._end()
            # A batch that breaks is begun anew, and how latents lie may be found out only at the end of a run.
            known = [step for step, _ in self._sent]
            if any(a is not b for a, b in zip(known, steps, strict=False)) or len(known) > len(steps):
                return self._anew()
            if ended and any(names != _left(step) for step, names in self._sent):
                return self._anew()
            new = steps[len(known) :]
            if new:
                data = record_packed(trace, new, told=not known)
                self._sent += [(step, _left(step)) for step in new]
                self._running = True
                return self._head | {"steps": data}
            if ended:
                return self._end()
        except ValueError as error:  # a step that holds what nobody could read back
            job.cancel()
            self.over = True
            return self._head | {"status": "failed", **refusal(error)}
        if job.status == "running" and not self._running:
            self._running = True
            return self._head | {"status": "running"}
        return None

    def _anew(self) -> Message:
        self._sent.clear()
        return self._head | {"anew": True}

    def _end(self) -> Message:
        job, self.over = self._job, True
        told = self._head | {"status": job.status, "reason": job.reason}
        if job.error is not None:
            told |= refusal(job.error)
        self._sent.clear()
        if job.reason == REPLACED:
            return told
        found_out = job.status == "done" and job.trace.info.get("family") == "any"
        pictures = estimates_packed(job.trace) if found_out else []
        return told | {"end": end_packed(job.trace), "pictures": pictures}


def _left(step: Step) -> tuple[str, ...]:
    """The names of what probes have left in a step."""
    return (*step.tensors, "", *step.numbers)


class Seat:
    """What one learner has asked for.

    Attributes:
        name: what the learner is called; for people.
    """

    def __init__(self, model: Model, name: str, wake: Callable[[], None]) -> None:
        """An empty seat.

        Args:
            model: what is shared.
            name: of the learner.
            wake: called on any thread when there may be something to send.
        """
        self.name = name
        self._model = model
        self._wake = wake
        self._lock = threading.RLock()
        self._waiting: OrderedDict[int, Submission] = OrderedDict()
        self._now: list[Submission] = []  # at the model, and those before it of which not all was sent; newest last
        self._told: deque[Message] = deque()
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
            if now is not None and now.lane == asked.lane and not all(job.done() for job in now.jobs):
                del self._waiting[asked.lane]
                self._begin(asked)  # the model's lane does the replacing, and keeps its place
            else:
                self._next()

    def cancel(self, number: object, reason: str) -> None:
        """Stop a submission, wherever it is."""
        with self._lock:
            for lane, one in list(self._waiting.items()):
                if one.number == number:
                    del self._waiting[lane]
                    self._tell_cancelled(one, reason)
            jobs = [job for one in self._now if one.number == number for job in one.jobs]
        for job in jobs:  # outside: a cancelled job calls its callbacks
            job.cancel(reason)

    def tell(self, message: Message) -> None:
        """Send something, in front of what runs have made."""
        with self._lock:
            self._told.append(message)
        self._wake()

    def leave(self) -> None:
        """The learner is gone: their lane is free, and what they had is stopped."""
        with self._lock:
            self._left = True
            self._waiting.clear()
            jobs = [job for one in self._now for job in one.jobs]
            self._now.clear()
            self._told.clear()
        for job in jobs:
            job.cancel("the learner has left")

    # What goes out

    def message(self) -> Message | None:
        """What to send next; None where there is nothing."""
        with self._lock:
            if self._told:
                return self._told.popleft()
            now = list(self._now)
        for submission in now:
            for stream in submission.streams:
                made = stream.message()
                if made is not None:
                    return made
        with self._lock:
            self._now = [one for one in self._now if not one.sent]
            self._next()
            return self._told.popleft() if self._told else None

    def _next(self) -> None:
        """Let the next submission go to the model, if the one before is over and sent."""
        while self._waiting and not self._now and not self._left:
            _, submission = self._waiting.popitem(last=False)
            self._begin(submission)

    def _begin(self, submission: Submission) -> None:
        self._now.append(submission)
        try:
            submission.start(self._model, self, lambda _: self._wake())
        except Exception as error:  # what was planned a while ago may be refused by now
            self._now.remove(submission)
            for k in range(len(submission.plans)):
                self._told.append({"run": submission.number, "k": k, "status": "failed", **refusal(error)})
        self._wake()

    def _tell_cancelled(self, submission: Submission, reason: str) -> None:
        for k in range(len(submission.plans)):
            self._told.append({"run": submission.number, "k": k, "status": "cancelled", "reason": sentence_of(reason)})
        self._wake()


def sentence_of(reason: object) -> str:
    """A reason as a short text."""
    return sentence(ValueError(str(reason)), 200)
