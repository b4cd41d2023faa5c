"""The desk: takes in what a model is asked to draw, makes an empty trace of each, and has it drawn: on the thread that
asks, several together, or by jobs on the model's worker thread.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from diffexplore.pipelines.family import Family
from diffexplore.runs.attention import looking
from diffexplore.runs.batches import grouped, in_halves
from diffexplore.runs.decode import PictureDecoder
from diffexplore.runs.draw import Artist
from diffexplore.runs.jobs import Job, Lanes, OnStep, Turn
from diffexplore.runs.plan import Plan
from diffexplore.runs.probes import Cancelled, Probe, Stop
from diffexplore.runs.weights import weighing
from diffexplore.settings import Settings
from diffexplore.trace import Trace

__all__ = ["Desk"]


class Desk:
    """All runs of one model pass it."""

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        artist: Artist,
        decoder: PictureDecoder,
        turn: Turn,
        *,
        name: Callable[[], str],
        revision: str | None,
        pocket: bool,
    ) -> None:
        """Who draws, and what every trace says of its model.

        Args:
            family: of the `pipeline`.
            pipeline: the pipeline.
            artist: draws with it.
            decoder: makes pictures of its latents.
            turn: the turn at its denoiser.
            name: says what the model is called.
            revision: the commit of the hub it is.
            pocket: whether it draws the pocket world, which the judge can read.
        """
        self._family = family
        self._pipeline = pipeline
        self._artist = artist
        self._decoder = decoder
        self._turn = turn
        self._name = name
        self._facts = {"revision": revision, "family": family.name, "pipeline": type(pipeline).__name__}
        self._pocket = pocket
        self._lanes = Lanes(self._work, name())

    def trace(self, plan: Plan, probes: Sequence[Probe] = (), **asked: Any) -> Trace:
        """Run on this thread; waits for its turn. `asked`: see `_beside`."""
        probes = [*self._beside(**asked), *probes]
        trace = self._new(plan)
        self._artist.run([trace], Stop(), probes=[*plan.probes, *probes])
        return trace

    def together(self, plans: Sequence[Plan], **asked: Any) -> list[Trace]:
        """Run several on this thread, those that can share a batch together; what fails by itself is raised."""
        probes = self._beside(**asked)
        pairs = [(self._new(plan), plan.probes) for plan in plans]

        def draw(batch: Sequence[tuple[Trace, Sequence[Probe]]]) -> None:
            for trace, _ in batch:
                trace.clear()
            self._artist.run([trace for trace, _ in batch], Stop(), probes=[*batch[0][1], *probes])

        def failed(_: tuple[Trace, Sequence[Probe]], error: Exception) -> None:
            raise error

        for batch in grouped(pairs, lambda pair: self._together(*pair)):
            in_halves(batch, draw, failed)
        return [trace for trace, _ in pairs]

    def submit(
        self,
        plans: Sequence[Plan],
        on_step: OnStep | None,
        lane: Hashable,
        probes: Sequence[Probe] = (),
        **asked: Any,
    ) -> list[Job]:
        """Run on the worker thread, in place of what the `lane` has; a job for each, cancelled together."""
        stop, probes = Stop(), [*self._beside(**asked), *probes]
        jobs = [Job(self._new(plan), on_step, stop, self._turn, [*plan.probes, *probes]) for plan in plans]
        self._lanes.submit(jobs, lane)
        return jobs

    def _beside(self, attention: Any = False, weights: Any = False) -> list[Probe]:
        """The probes that answer what is asked for by name: of weights in prompts, and of where words look.

        Raises:
            ValueError: one sentence, for what cannot be.
        """
        return [*weighing(weights, self._family), *looking(attention, self._family, self._pipeline)]

    def batches(self, settings: Sequence[Settings]) -> list[list[Settings]]:
        """Settings, with every None filled in, in lists of those that are drawn together."""
        return grouped(settings, lambda one: self._family.batch_key(self._pipeline, one))

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, h, w) to a picture, (H, W, 3) uint8, exactly as a final picture is decoded; on any thread.

        Raises:
            ValueError: they have another number of dimensions.
        """
        whole = self._artist.whole
        return self._decoder.pixels(latents) if whole is None else whole.pixels(latents)

    def output(self, latents: torch.Tensor, trace: Trace | None = None) -> Any:
        """What the pipeline makes of latents (C, *axes, h, w) after its last step: of the run `trace`, or the last one.

        Raises:
            ValueError: one sentence, for latents of another shape, or before any run.
        """
        whole, tape = self._artist.whole, None if trace is None else trace.tape
        return self._decoder.image(latents) if whole is None else whole.made(latents, tape).output

    def _new(self, plan: Plan) -> Trace:
        """An empty trace."""
        info = {
            "model": self._name(),
            **self._facts,
            "axes": list(self._family.axes(self._pipeline)),
            "tokens": {name: list(tokens) for name, tokens in plan.tokens.items()},
            "notes": list(plan.notes),
            "unknown": list(plan.unknown),
            "versions": {one.__name__: str(one.__version__) for one in (torch, diffusers, transformers)},
        }
        info |= plan.info
        if self._pocket:
            info["world"] = "pocket"  # what the judge can read
        # Whoever has a trace keeps this desk by it, and a run that waits is not lost with its model.
        made = Trace(plan.settings, decode=self.decode, matrix=self._decoder.matrix, info=info, extra=plan.extra)
        if self._artist.whole is not None:
            made.lend(None, None)  # until its run has shown how
        return made

    def _together(self, trace: Trace, probes: Sequence[Probe]) -> Hashable:
        # Whoever hands over arguments of their own, or is a branch, draws alone.
        if trace.extra or any(probe.changes for probe in probes):
            return object()
        return self._family.batch_key(self._pipeline, trace.settings)

    def _work(self, jobs: list[Job]) -> None:
        """Run jobs that were submitted together, on the worker thread."""
        for batch in grouped(jobs, lambda job: self._together(job.trace, job.probes)):
            batch[0].context.run(in_halves, batch, self._run_jobs, lambda job, error: job.finish("failed", error))

    def _run_jobs(self, jobs: Sequence[Job]) -> None:
        """Run jobs that share a batch."""

        def started() -> None:
            claimed = [job.start() for job in jobs]
            if not any(claimed):
                raise Cancelled

        for job in jobs:
            job.trace.clear()
        first = jobs[0]
        self._artist.run([job.trace for job in jobs], first.stop, first.on_step, started, first.probes)
        for job in jobs:
            job.finish("cancelled" if job.trace.cancelled else "done")
