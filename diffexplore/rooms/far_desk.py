"""The desk of a model that is elsewhere: takes in what is asked for, and has it drawn there."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from diffexplore.record.step import Step
from diffexplore.rooms.far_planner import Branched, Inverted, asked_for
from diffexplore.rooms.line import PATIENCE, Line
from diffexplore.rooms.parcels import AwayError, pixels_of, raise_refusal, record_of, tensor_packed
from diffexplore.rooms.submission import MOST_RUNS
from diffexplore.runs.desk import Desk
from diffexplore.runs.jobs import ASKED, REPLACED, Job, OnStep, Turn
from diffexplore.runs.plan import Plan
from diffexplore.runs.probes import Probe, Stop
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

__all__ = ["FarDesk"]

WHILE_AWAY: Final = 30.0
"""Seconds that a picture to be shown waits for a room that is away."""

Message = dict[str, Any]


class FarJob(Job):
    """One submitted run that is drawn elsewhere. It is over here as soon as it is cancelled."""

    def __init__(self, trace: Trace, on_step: OnStep | None, stop: Stop, turn: Turn) -> None:
        """As `Job`."""
        super().__init__(trace, on_step, stop, turn)
        self.stopped: Callable[[str], None] | None = None
        self._ending = threading.Lock()
        self._ended = False

    def cancel(self, reason: str = ASKED) -> None:
        stopped = self.stopped
        if self.done():
            return
        super().cancel(reason)
        if not self.done():
            self.trace.cancelled = True
            self.finish("cancelled")
        if stopped is not None:
            stopped(reason)

    def finish(self, status: str, error: BaseException | None = None) -> None:
        with self._ending:  # what is cancelled here may be finished there at the same moment
            if self._ended:
                return
            self._ended = True
        self.stopped = None  # or a run that is over would keep its line open, until it is collected
        super().finish(status, error)


class _Sent:
    """What was submitted together, and what becomes of it here. Lives on the line until all of it is over."""

    def __init__(self, line: Line, number: int, jobs: Sequence[Job], message: Message, turn: Turn) -> None:
        self._line, self._number, self._jobs, self._turn = line, number, list(jobs), turn
        self._message = message | {"id": number, "ask": "submit"}
        self._asked = time.monotonic()
        self._stopping, self._stopped = threading.Lock(), False
        self._begun: set[int] = set()  # of those whose steps are of this very submission

    def again(self, line: Line) -> None:
        """Submit it; anew, where the room was gone meanwhile: what it had drawn by then is drawn again."""
        self._begun.clear()
        line.send(self._message | {"waited": time.monotonic() - self._asked})

    def stop(self, reason: str) -> None:
        """Stop all of it, here and there."""
        with self._stopping:
            stopped, self._stopped = self._stopped, True
        if not stopped:
            self._line.send({"cancel": self._number, "reason": reason})
            for job in self._jobs:
                job.cancel(reason)
        self._done()

    def news(self, text: str) -> None:
        """Say what there is to say of the room."""
        for job in self._jobs:
            if not job.done():
                job.tell(text)

    def hear(self, message: Message) -> None:
        """Take in what came of a run, where it stands in line, or why none of them can be."""
        if "line" in message:
            for job in self._jobs:
                if job.status == "queued" or len(job.trace) <= 1:
                    job.stand(_in_line(message["line"], message.get("due")))
        elif "k" not in message:
            for job in self._jobs:
                self._fail(job, message)
        elif 0 <= message["k"] < len(self._jobs):
            job = self._jobs[message["k"]]
            try:
                self._take(job, message["k"], message)
            except Exception as error:  # of the user's on_step too
                if not job.done():
                    job.finish("failed", error)
                self._line.send({"cancel": self._number, "reason": ASKED})
        self._done()

    def _done(self) -> None:
        if all(job.done() for job in self._jobs):
            self._line.forget(self._number)

    def _take(self, job: Job, k: int, message: Message) -> None:
        trace = job.trace
        if job.done() or not job.start():
            return
        if "anew" in message:
            self._begun.discard(k)
        if "steps" in message:
            made = record_of(message["steps"])
            if k not in self._begun:
                self._begun.add(k)
                trace.clear()  # what an earlier attempt has drawn stays on show until now
                trace.info |= made.info
            trace.expected = made.expected
            for step in made:
                self._append(job, step)
        if "status" in message or len(trace) > 1:  # it has its turn, or is over
            job.stand("")
        if "status" in message and message["status"] != "running":
            if "end" in message:
                self._complete(trace, message["end"], message.get("pictures") or ())
            trace.cancelled = message["status"] == "cancelled"
            job.reason = job.reason or str(message.get("reason", ""))
            if message["status"] == "failed":
                self._fail(job, message)
            else:
                job.finish(message["status"])

    def _append(self, job: Job, step: Step) -> None:
        job.trace.append(step)
        if job.on_step is not None and not job.stop.is_set():
            with self._turn.taken():  # so that nobody waits for a run where it comes in
                job.context.run(job.on_step, step)

    def _complete(self, trace: Trace, data: bytes, pictures: Sequence[bytes]) -> None:
        end = record_of(data)
        trace.info.clear()
        trace.info |= end.info
        trace.final, trace.image, trace.output = end.final, end.image, end.output
        trace.seconds, trace.expected = end.seconds, end.expected
        trace.pictures = list(pictures) if len(pictures) == len(trace) else []

    def _fail(self, job: Job, message: Message) -> None:
        if job.done():
            return
        try:
            if message.get("error") == "away":
                raise AwayError(str(message.get("says", "")))
            raise_refusal(message)
        except Exception as error:
            job.start()
            job.finish("failed", error)


_PLACES: Final = ("next", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def _in_line(place: int, due: int | None) -> str:
    """Where somebody stands: "third in line, about 2 s"."""
    said = _PLACES[place - 1] if place <= len(_PLACES) else f"{place}{_TH.get(place % 100, _TH.get(place % 10, 'th'))}"
    return f"{said} in line{f', about {due} s' if due else ''}"


_TH: Final = {1: "st", 2: "nd", 3: "rd", 11: "th", 12: "th", 13: "th"}


class FarDesk(Desk):
    """All runs of one model elsewhere pass it, and what is decoded of them."""

    def __init__(self, line: Line) -> None:
        """A desk at one end of a line; the line is closed when nobody has the desk any more."""
        self._line = line
        self._lane_numbers: dict[Hashable, int] = {}
        self._numbers = itertools.count(1)
        self._turn = Turn()
        self._newest: weakref.WeakValueDictionary[int, _Sent] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        weakref.finalize(self, line.close)

    def trace(self, plan: Plan, probes: Sequence[Probe] = (), **asked: Any) -> Trace:
        """Have it drawn, and wait for it; what is asked for at one time waits in lanes of its own."""
        return self._waited(self._sent([plan], None, next(self._numbers), probes, **asked))[0]

    def together(self, plans: Sequence[Plan], **asked: Any) -> list[Trace]:
        """Have several drawn, as many together as a room takes."""
        parts = [plans[first : first + MOST_RUNS] for first in range(0, len(plans), MOST_RUNS)]
        return [trace for part in parts for trace in self._waited(self._sent(part, None, next(self._numbers), **asked))]

    def _waited(self, jobs: Sequence[Job]) -> list[Trace]:
        if self._turn.mine:
            for job in jobs:
                job.cancel()
            raise RuntimeError("a run cannot start another run of the same model from its own on_step")
        try:
            return [job.result() for job in jobs]
        except BaseException:
            for job in jobs:
                job.cancel()
            raise

    def submit(
        self,
        plans: Sequence[Plan],
        on_step: OnStep | None,
        lane: Hashable,
        probes: Sequence[Probe] = (),
        **asked: Any,
    ) -> list[Job]:
        """Have plans drawn in place of what the `lane` has; a job for each, cancelled together.

        Raises:
            ValueError: one sentence, for probes, which cannot travel, and for more runs than a room takes together.
        """
        with self._lock:
            if lane not in self._lane_numbers:
                self._lane_numbers[lane] = next(self._numbers)
        return self._sent(plans, on_step, self._lane_numbers[lane], probes, **asked)

    def _sent(
        self, plans: Sequence[Plan], on_step: OnStep | None, at: int, probes: Sequence[Probe] = (), **asked: Any
    ) -> list[Job]:
        probes = [*probes, *(probe for plan in plans for probe in plan.probes)]
        strange = [probe for probe in probes if not isinstance(probe, (Branched, Inverted))]
        if strange:
            raise ValueError(
                f"probes watch a network, which is not here: {shown(strange[0])} cannot go to a shared model"
            )
        if len(plans) > MOST_RUNS:
            raise ValueError(f"a shared model draws up to {MOST_RUNS} runs together, got {len(plans)}")
        stop = Stop()
        jobs = [FarJob(self._new(plan), on_step, stop, self._turn) for plan in plans]
        number = self._line.number
        wanted = {name: value for name, value in asked.items() if value}
        message = {"lane": at, "runs": [asked_for(plan) for plan in plans], "asked": wanted}
        sent = _Sent(self._line, number, jobs, message, self._turn)
        for job in jobs:
            job.stopped = sent.stop
        with self._lock:
            replaced, self._newest[at] = self._newest.get(at), sent
            self._line.follow(number, sent)
        if replaced is not None:
            replaced.stop(REPLACED)
        return list(jobs)

    def batches(self, settings: Sequence[Settings]) -> list[list[Settings]]:
        told = self._line.ask("batches", settings=[one.to_json() for one in settings])
        return [[Settings.from_json(one) for one in batch] for batch in told["batches"]]

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return self._decoded(latents, exact=True)

    def _shown(self, latents: torch.Tensor) -> np.ndarray:
        """An estimate of a run: larger ones as a JPEG, as saved runs keep them."""
        return self._decoded(latents, exact=False)

    def _decoded(self, latents: torch.Tensor, exact: bool) -> np.ndarray:
        # Pictures of a run that is on show are worth waiting for, on the thread that makes them.
        patience = PATIENCE if exact else WHILE_AWAY
        told = self._line.ask("decode", patience, latents=tensor_packed(latents), exact=exact)
        return pixels_of(told["picture"])

    def output(self, latents: torch.Tensor, trace: Trace | None = None) -> Any:
        """What the pipeline makes of latents: of a shared one, pictures.

        Raises:
            ValueError: one sentence, for latents of another shape.
        """
        return Image.fromarray(self.decode(latents))

    def matrix(self) -> np.ndarray | None:
        """Latents to RGB without the decoder, as `Model.matrix` has it; None where it has none."""
        found = self._line.facts["matrix"]
        return None if found is None else np.array(found, dtype=np.float32)

    def _new(self, plan: Plan) -> Trace:
        facts = self._line.facts
        info = {
            **facts["info"],
            "tokens": {name: list(tokens) for name, tokens in plan.tokens.items()},
            "notes": list(plan.notes),
            "unknown": list(plan.unknown),
        }
        decode = None if facts["family"] == "any" else self._shown
        return Trace(plan.settings, decode=decode, matrix=self.matrix, info=info | dict(plan.info), extra=plan.extra)
