"""Branches: a run that is another one up to an evaluation, and goes its own way from there.

The evaluations before it are *replayed*: the pipeline's loop goes as ever, from the same noise, with a scheduler and a
generator of the same seed, but in place of its network answers what was recorded, so that the sampler's history, its
Brownian tree and the generator are as they were, to the bit, and no model is evaluated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from diffexplore.pipelines.family import Family
from diffexplore.record.predictions import share_of_noise
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.runs.edits import Touch
from diffexplore.runs.probes import Probe, going_on, tapped
from diffexplore.runs.steer import between, empty_answer
from diffexplore.settings import CHANGING, Settings
from diffexplore.words import near, shown

__all__ = ["Edit", "Replay", "branched", "edited", "edited_at"]

Edit = Any
"""Edited latents, or a function that edits them, such as those of `edits`."""

CLOSE = 1e-3  # of the latents' own size: another card rounds otherwise, another model is elsewhere


def branched(parent: Record, at: int, **changes: Any) -> Settings:
    """Settings of a branch: those of `parent`, with `changes` from the share of noise of evaluation `at` on, to the
    end: what later changes say of the same fields no longer holds.

    Raises:
        ValueError: one sentence, for an evaluation that is not there, or what cannot change on the way.
    """
    if isinstance(at, bool) or not isinstance(at, (int, np.integer)) or not 0 <= at < len(parent):
        steps = f"of 0 to {len(parent) - 1}" if len(parent) else "of a run that has steps"
        raise ValueError(f"at must be the number of an evaluation, {steps}, got {shown(at)}")
    for name in changes:
        if name not in CHANGING:
            raise ValueError(f"a branch may change {', '.join(CHANGING)}; got {shown(name)}{near(name, CHANGING)}")
    step, settings = parent[int(at)], parent.settings
    mark = share_of_noise(step.a, step.b)
    told: dict[float, dict[str, Any]] = {share: dict(fields) for share, fields in settings.changes}
    for share in [share for share in told if share <= mark]:
        told[share] = {name: value for name, value in told[share].items() if name not in changes}
    if changes:
        told[mark] = {**told.get(mark, {}), **changes}
    return settings.replace(changes=told)


def edited(parent: Record, at: int, latents: Edit) -> torch.Tensor:
    """The latents that a branch goes on from, (C, *axes, h, w) float32.

    Args:
        parent: the run.
        at: the evaluation.
        latents: them, as a tensor or an array; or a function that takes those of the run and returns them; one of
            `edits` gets the step too.

    Raises:
        ValueError: one sentence, for another shape, numbers that are not finite, or what are no latents at all.
    """
    before = parent[at].latents
    given = (before.clone(), parent[at]) if isinstance(latents, Touch) else (before.clone(),)
    made = latents(*given) if callable(latents) else latents
    try:
        taken = torch.as_tensor(made, dtype=torch.float32, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"latents must be a tensor, or a function that returns one, got {shown(made)}") from None
    if taken.shape != before.shape:
        raise ValueError(f"latents of this run have the shape {tuple(before.shape)}, got {tuple(taken.shape)}")
    if not bool(torch.isfinite(taken).all()):
        raise ValueError("latents must be finite numbers, got some that are not")
    return taken


def edited_at(record: Record) -> set[int]:
    """The evaluations of a run at which its latents, or those of a run that it is a branch of, were edited."""
    found, told = set(), record.info.get("parent")
    while told:
        if told["latents"]:
            found.add(int(told["at"]))
        told = told["parent"]
    return found


class Replay(Probe):
    """Answers for the network before an evaluation of another run, and may change the latents there."""

    changes = True
    outermost = True

    def __init__(
        self,
        family: Family,
        parent: Record,
        at: int,
        latents: torch.Tensor | None = None,
        *,
        turns: bool = False,
        told: str = "",
    ) -> None:
        """What is replayed.

        Args:
            family: of the pipeline that will draw.
            parent: the run.
            at: the first evaluation that is made anew.
            latents: what it is made of, (C, *axes, h, w); None: what the run had there.
            turns: whether settings change at it.
            told: how the latents were edited, as far as it is known.
        """
        self.at = at
        self.since = at if turns else None
        self._family = family
        self._steps = [parent[i] for i in range(at + 1)]
        # What was edited in the run is put there again: no sampler would come to it.
        self._puts = {k: parent[k].latents for k in sorted(edited_at(parent)) if k <= at}
        if latents is not None:
            self._puts[at] = latents
        self._told = told
        self._undo = ExitStack()

    @property
    def replayed(self) -> list[Step]:
        """The evaluations that are not made anew."""
        return self._steps[: self.at]

    def key(self) -> Hashable | None:
        mark = hashlib.blake2b(digest_size=16)
        for one in (*(step.output for step in self._steps[: self.at]), *self._puts.values()):
            mark.update(one.numpy().tobytes())
        return "branch", self.at, self.since, tuple(self._puts), self._told, mark.digest()

    def attach(self, pipeline: Any) -> None:
        self._pipeline, self._evaluation = pipeline, 0
        self._undo.enter_context(tapped(pipeline.scheduler, "step", self._step))
        self._undo.enter_context(between(pipeline, self._family.network, self._answer))
        if 0 in self._puts:
            self._undo.enter_context(tapped(pipeline, "prepare_latents", self._prepare))

    def detach(self) -> None:
        self._undo.close()

    def on_step(self, step: Step) -> None:
        if step.index >= self.at:
            return
        known = self._steps[step.index]
        now, then = step.latents, known.latents
        if now.shape != then.shape or float((now - then).abs().max()) > CLOSE * float(then.abs().max()):
            raise RuntimeError(
                f"this run cannot be replayed here: at step {step.index} its latents come out otherwise, as those of "
                "another model or scheduler do"
            )
        step.adopt(known)

    def _answer(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._evaluation >= self.at:
            return network(*args, **kwargs)
        return (empty_answer(network, args, kwargs),)

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        known = self._steps[self._evaluation] if self._evaluation < self.at else None
        if known is not None:
            output = kwargs["model_output"] if "model_output" in kwargs else args[0]
            # Into the very tensor, which lies in memory as that of a true evaluation does.
            output.copy_(self._packed(known.output, output))
        result = inner(*args, **kwargs)
        self._evaluation += 1
        return self._edited(result)

    def _prepare(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._edited(inner(*args, **kwargs))

    def _edited(self, result: Any) -> Any:
        latents = self._puts.get(self._evaluation)
        return result if latents is None else going_on(result, lambda given: self._packed(latents, given))

    def _packed(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        packed = self._family.pack(self._pipeline, latents.unsqueeze(0)).to(like.device, like.dtype)
        if packed.shape != like.shape:
            raise RuntimeError(
                f"the latents of this run have the shape {tuple(latents.shape)}, which does not fit here"
            )
        return packed
