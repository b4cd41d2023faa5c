"""What a learner has submitted together, from its place in line to the last message about it.

Where it has to wait, a first look comes before its turn: one run's first step alone. The run itself then begins with
that step again, which the memory of results answers, and which is not sent twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from diffexplore.rooms.parcels import end_packed, estimates_packed, record_packed, refusal
from diffexplore.runs.jobs import REPLACED, Job
from diffexplore.runs.probes import Cancelled

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.record.step import Step
    from diffexplore.runs.plan import Plan
    from diffexplore.runs.probes import Probe
    from diffexplore.trace import Trace

__all__ = ["MOST_RUNS", "Message", "Submission"]

MOST_RUNS: Final = 16
"""Runs that are submitted together."""
_WORTH: Final = 4  # steps from which a first look is a small part of a run

Message = dict[str, Any]


class Submission:
    """What was submitted together.

    Attributes:
        number: by which the learner knows it.
        lane: of the learner's own.
        plans: what to draw.
        waited: seconds that its learner has waited for it already, as they say: in a room that was there before.
        wake: called, on any thread, when there may be something to send.
    """

    def __init__(
        self,
        number: int,
        lane: int,
        plans: Sequence[Plan],
        probes: Sequence[Probe],
        asked: Message,
        waited: float = 0.0,
    ) -> None:
        """Nothing has been started yet.

        Args:
            number: by which the learner knows it.
            lane: of the learner's own.
            plans: what to draw.
            probes: what leads the only run of it, as an inversion.
            asked: what is asked for by name beside: attention, weights.
            waited: seconds that its learner has waited for it already.
        """
        self.waited = waited
        self.number, self.lane, self.plans, self.wake = number, lane, list(plans), _nobody
        self._probes, self._asked = list(probes), asked
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._glance: Job | None = None
        self._why: str | None = None  # it was stopped
        self._over = False  # where there are no jobs that could say so
        self._streams = [_Stream(number, k) for k in range(len(self.plans))]

    @property
    def over(self) -> bool:
        """Whether nothing more is drawn of it."""
        with self._lock:
            return self._over or (bool(self._jobs) and all(job.done() for job in self._jobs))

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return self._why is not None

    @property
    def sent(self) -> bool:
        """Whether its learner has heard of how all of it ended."""
        return all(stream.over for stream in self._streams)

    @property
    def work(self) -> int:
        """How much it is, in pixels of steps."""
        each = (plan.settings for plan in self.plans)
        return sum(one.steps * (one.width or 1) * (one.height or 1) for one in each)

    @property
    def steps(self) -> int:
        """How many steps of all its runs."""
        return sum(plan.settings.steps for plan in self.plans)

    @property
    def worth_a_look(self) -> bool:
        """Whether a first step alone says something, and costs little beside the run."""
        first = self.plans[0]
        beside = self._probes or first.probes or first.extra
        return len(self.plans) == 1 and not beside and first.settings.steps >= _WORTH

    def look(self, model: Model, lane: Hashable, over: Callable[[Job], object]) -> None:
        """Have the first step of it drawn.

        Args:
            model: what draws.
            lane: of the learner.
            over: called when it is.
        """

        def enough(_: Step) -> None:
            self.wake()
            raise Cancelled

        job = model.submit(self.plans[0], enough, lane=lane, **self._asked)
        with self._lock:
            self._glance, stopped = job, self._why
        self._streams[0].glance(job.trace)
        if stopped is not None:
            job.cancel(stopped)
        job.add_done_callback(over)

    def start(self, model: Model, lane: Hashable, over: Callable[[Job], object]) -> None:
        """Submit it to the model.

        Args:
            model: what draws.
            lane: of the learner.
            over: called whenever one of its runs is.
        """

        def news(_: object) -> None:
            self.wake()

        if len(self.plans) == 1:
            jobs = [model.submit(self.plans[0], news, lane=lane, probes=self._probes, **self._asked)]
        else:
            jobs = model.submit_many(self.plans, news, lane=lane, attention=self._asked.get("attention", False))
        for stream, job in zip(self._streams, jobs, strict=True):
            stream.follow(job)
        with self._lock:
            self._jobs, stopped = jobs, self._why
        for job in jobs:
            if stopped is not None:
                job.cancel(stopped)
            job.add_done_callback(news)
            job.add_done_callback(over)
        self.wake()

    def stop(self, reason: str) -> None:
        """Stop all that is drawn of it. Not to be called under a lock: jobs that end call whoever waits."""
        with self._lock:
            self._why = reason if self._why is None else self._why
            jobs = [*self._jobs, *([self._glance] if self._glance else [])]
        for job in jobs:
            job.cancel(reason)

    def drop(self, reason: str) -> None:
        """It never has its turn, for this reason."""
        self._end({"status": "cancelled", "reason": reason})
        self.stop(reason)

    def refuse(self, error: Exception) -> None:
        """It cannot be drawn."""
        self._end({"status": "failed", **refusal(error)})

    def message(self) -> Message | None:
        """What there is to send of it now; None for nothing."""
        for stream in self._streams:
            made = stream.message()
            if made is not None:
                return made
        return None

    def _end(self, told: Message) -> None:
        with self._lock:
            self._over = True
        for stream in self._streams:
            stream.end(told)
        self.wake()


def _nobody() -> None:
    """Nobody waits for it yet."""


class _Stream:
    """One run on its way to a learner: its steps as they are made, then how it ended."""

    def __init__(self, number: int, k: int) -> None:
        self.over = False
        self._head = {"run": number, "k": k}
        self._job: Job | None = None
        self._glance: Trace | None = None
        self._told: Message | None = None  # how it ended, where it has no job to say so
        self._sent: list[tuple[Step, tuple[str, ...]]] = []
        self._running = False

    def glance(self, trace: Trace) -> None:
        """What a first look makes."""
        self._glance = trace

    def follow(self, job: Job) -> None:
        """It has its turn."""
        self._job = job

    def end(self, told: Message) -> None:
        """It has no turn."""
        self._told = told

    def message(self) -> Message | None:
        """What there is to send now; None for nothing."""
        if self.over:
            return None
        if self._told is not None:
            self.over = True
            self._sent.clear()
            return self._head | self._told
        job = self._job
        if job is None:
            first = None if self._glance is None else self._glance[:1]
            return self._steps(self._glance, first) if self._glance and first and not self._sent else None
        if job.status == "running" and not self._running:
            self._running = True
            return self._head | {"status": "running"}
        ended, trace = job.done(), job.trace  # before the steps: a run that is over then has no more of them
        steps = list(trace)
        try:
            if ended and job.reason == REPLACED:  # whoever asked for something newer looks at that
                return self._end(job)
            # A batch that breaks is begun anew, and how latents lie may be found out only at the end of a run.
            if len(self._sent) > len(steps) and (ended or self._glance is None):
                return self._anew()
            if not all(self._is_sent(k, step) for k, step in enumerate(steps[: len(self._sent)])):
                return self._anew()
            if ended and any(names != _left(step) for step, names in self._sent):
                return self._anew()
            new = steps[len(self._sent) :]
            if new:
                return self._steps(trace, new)
            return self._end(job) if ended else None
        except ValueError as error:  # a step that holds what nobody could read back
            job.cancel()
            self.over = True
            return self._head | {"status": "failed", **refusal(error)}

    def _is_sent(self, k: int, step: Step) -> bool:
        """Whether what was sent as step `k` is this one; that of a first look is, where it came out the same."""
        sent, names = self._sent[k]
        if sent is step:
            return True
        if self._glance is None or k or not _same(sent, step):
            return False
        self._sent[k] = step, names
        return True

    def _steps(self, trace: Trace, new: Sequence[Step]) -> Message:
        data = record_packed(trace, new, told=not self._sent)
        self._sent += [(step, _left(step)) for step in new]
        return self._head | {"steps": data}

    def _anew(self) -> Message:
        self._sent.clear()
        self._glance = None
        return self._head | {"anew": True}

    def _end(self, job: Job) -> Message:
        self.over = True
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


def _same(one: Step, other: Step) -> bool:
    """Whether two runs have come to the same at a step, to the bit."""
    mine, theirs = (one.latents, one.output), (other.latents, other.output)
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)) and _left(one) == _left(other)
