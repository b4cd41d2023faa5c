"""Noise levels of one's own: put into the tables of a scheduler in place of those that it has made.

diffusers hands levels over by ``set_timesteps(sigmas=...)`` in a few classes, by ``timesteps=`` in some, and not at all
in the others, and bends them on the way (rounded, shifted, or replaced by another spacing). What its classes step by
are tables, and :func:`space` writes those, as `samplers.classes` says that they lie; what a network is told at a level
is found as the class does it. A level that the scheduler's own schedule has is told as there, so that its own levels
handed over change no bit.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch

from diffexplore.record.predictions import TINY
from diffexplore.runs.probes import Probe, tapped
from diffexplore.samplers.classes import SchedulerClass, facts_of
from diffexplore.samplers.spacings import Levels, Range

__all__ = ["Spaced", "levels_of", "said", "space", "span_of", "stays", "unfit"]

SLACK = 0.01
"""How far beyond a model's range a level may be, relative to it: published levels are rounded."""
_SAME = 1e-6  # relative: a level that was written as text and read again
_NEAREST_NOISE = 1 - 1e-6  # solvers that go by the logarithm of the picture's share need some of it


def stays(scheduler: Any) -> str:
    """Why a scheduler takes no noise levels of one's own, in a few words that go on from its name; "" if it does."""
    row = facts_of(scheduler)
    if row is None:
        return "keeps its levels in a way that is not known here"
    if not row.laid:
        return row.stays
    if scheduler.config.get("invert_sigmas"):
        return "counts its levels upwards"
    return ""


def span_of(scheduler: Any) -> Range:
    """The range of noise levels of a scheduler that takes them."""
    row, config = _row(scheduler), scheduler.config
    if _flows(scheduler):
        own = scheduler.shift if hasattr(type(scheduler), "shift") else None
        shift = float(own or config.get("flow_shift") or config.get("shift") or 1.0)
        first = 1 / float(config.get("num_train_timesteps", 1000))
        return Range(shift * first / (1 + (shift - 1) * first), 1.0, flow=True, shift=shift)
    if row.edm:
        return Range(float(config["sigma_min"]), float(config["sigma_max"]))
    table = tuple(_table(scheduler).tolist())
    clipped = float(config.get("lambda_min_clipped", -math.inf))
    if math.isfinite(clipped):  # the end of a cosine schedule
        table = table[: max(2, bisect_left(table, math.exp(-clipped)))]
    return Range(table[0], table[-1], table=table)


def levels_of(scheduler: Any) -> Levels:
    """The noise levels of its schedule, one a step, the highest first; after ``set_timesteps``."""
    row = _row(scheduler)
    if row.laid == "timesteps":
        return tuple(_table(scheduler)[scheduler.timesteps.cpu().long()].tolist())
    return tuple(scheduler.sigmas[: len(scheduler.timesteps)][:: 1 if row.laid == "once" else 2].tolist())


def unfit(scheduler: Any, sigmas: Sequence[float]) -> str:
    """Why these levels are not for a scheduler, a sentence without a full stop; "" if they are. Any time."""
    span, row = span_of(scheduler), _row(scheduler)
    for level in (sigmas[0], sigmas[-1]):
        # A flow's noise goes down to nothing, a network of timesteps knows none below its first.
        if level > span.high * (1 + SLACK * (not span.flow)) or (not span.flow and level < span.low * (1 - SLACK)):
            low = "above 0" if span.flow else f"from {span.low:.4g}"
            return f"sigmas of this model go {low} to {span.high:.4g}, got {level:g}"
    if row.laid == "timesteps":
        told = [_timestep(scheduler, level) for level in sigmas]
        for k, (one, other) in enumerate(pairwise(told)):
            if one == other:
                return (
                    f"this sampler knows the levels of whole timesteps, and {sigmas[k]:g} and {sigmas[k + 1]:g} are "
                    f"both at {one:g}"
                )
    if row.ancestral:
        for one, other in pairwise(sigmas):
            if one / other > 2000:  # see `Sampler.refusal`
                return f"this sampler cannot jump from {one:g} to {other:g} at once"
    return ""


def said(scheduler: Any, sigmas: Sequence[float]) -> list[str]:
    """Plain sentences on what a scheduler makes of these levels; after ``set_timesteps`` for as many steps."""
    span, row, notes = span_of(scheduler), _row(scheduler), []
    if row.laid == "timesteps":
        table = _table(scheduler)
        taken = [float(table[int(_timestep(scheduler, level))]) for level in sigmas]
        moved = max(abs(one / level - 1) for one, level in zip(taken, sigmas, strict=True))
        if moved > 0.001:
            notes.append(
                "This sampler knows the noise levels of whole timesteps: the nearest are taken, at most "
                f"{moved:.1%} off what was asked for."
            )
    first = levels_of(scheduler)[0]
    if sigmas[0] < 0.9 * min(span.high, first):
        notes.append(
            f"The first noise level is {sigmas[0]:.3g}, where this sampler begins at {first:.3g}: the network is told "
            "that there is less noise, and takes what it is given for more of a picture than it is."
        )
    return notes


def space(scheduler: Any, sigmas: Sequence[float]) -> None:
    """Let a scheduler step through these levels; after ``set_timesteps`` for as many steps.

    Raises:
        ValueError: one sentence, where its schedule has another number of steps.
    """
    row, before = _row(scheduler), levels_of(scheduler)
    if len(before) != len(sigmas):
        raise ValueError(f"this pipeline makes {len(before)} steps where sigmas has {len(sigmas)} levels")
    told = scheduler.timesteps
    if row.laid == "timesteps":
        times = _told(scheduler, sigmas, dict(zip(before, told.tolist(), strict=True)))
        scheduler.timesteps = torch.tensor(times, dtype=told.dtype, device=told.device)
        return
    old = scheduler.sigmas
    levels = [float(one) for one in sigmas]
    if _flows(scheduler) and row.levels == "preserving":
        levels[0] = min(levels[0], _NEAREST_NOISE)
    # Some end at their lowest level, and not without noise; then so does this.
    end = min(float(old[-1]), levels[-1])
    made = torch.tensor([*levels, end], dtype=old.dtype, device=old.device)
    was = torch.tensor([*before, float(old[-1])], dtype=old.dtype, device=old.device)
    tables, middles = _LAID[row.laid](made)
    once = row.laid == "once"
    times = _told(scheduler, made[:-1].tolist(), dict(zip(before, told[:: 1 if once else 2].tolist(), strict=True)))
    if not once:
        seen = dict(zip(_LAID[row.laid](was)[1], told[1::2].tolist(), strict=True))
        halves = _told(scheduler, middles, seen)
        times = [times[0], *(one for pair in zip(halves, times[1:], strict=True) for one in pair)]
    for name, table in tables.items():
        setattr(scheduler, name, table)
    scheduler.timesteps = torch.tensor(times, dtype=told.dtype, device=told.device)


class Spaced(Probe):
    """Gives a run noise levels of its own. To be attached before all that reads its schedule."""

    changes = leads = True

    def __init__(self, sigmas: Levels, scheduler: str = "scheduler") -> None:
        """The levels, and the name of the scheduler in the pipeline."""
        self._sigmas = sigmas
        self._name = scheduler
        self._undo = ExitStack()

    def key(self) -> Hashable:
        """Nothing: the levels are in the settings."""
        return "sigmas"

    def attach(self, pipeline: Any) -> None:
        self._scheduler = getattr(pipeline, self._name)
        self._undo.enter_context(tapped(self._scheduler, "set_timesteps", self._set_timesteps, copies=False))

    def detach(self) -> None:
        self._undo.close()

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        space(self._scheduler, self._sigmas)
        return result


# Tables


Laid = tuple[dict[str, torch.Tensor], list[float]]
"""Tables by name, and the levels between each two."""


def _once(levels: torch.Tensor) -> Laid:
    return {"sigmas": levels}, []


def _twice(levels: torch.Tensor) -> Laid:
    tables = {"sigmas": torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])}
    return tables, levels[1:-1].tolist()  # the second evaluation of a step is at the next level


def _halfway(levels: torch.Tensor) -> Laid:
    logs = levels[:-1].double().log()
    return _twice(levels)[0], ((logs[:-1] + logs[1:]) / 2).exp().tolist()


def _middle(levels: torch.Tensor) -> Laid:
    between = levels.log().lerp(levels.roll(1).log(), 0.5).exp()
    return {"sigmas": _doubled(levels), "sigmas_interpol": _doubled(between)}, between[1:-1].tolist()


def _below(levels: torch.Tensor) -> Laid:
    after = levels.roll(-1)
    after[-1] = 0.0
    up = (after**2 * (levels**2 - after**2) / levels**2) ** 0.5
    down = (after**2 - up**2) ** 0.5
    down[-1] = 0.0
    between = levels.log().lerp(down.log(), 0.5).exp()
    between[-2:] = 0.0
    tables = {"sigmas": levels, "sigmas_interpol": between, "sigmas_up": up, "sigmas_down": down}
    return {name: _doubled(one) for name, one in tables.items()}, between[:-2].tolist()


def _doubled(table: torch.Tensor) -> torch.Tensor:
    return torch.cat([table[:1], table[1:].repeat_interleave(2), table[-1:]])


_LAID: dict[str, Callable[[torch.Tensor], Laid]] = {
    "once": _once, "twice": _twice, "halfway": _halfway, "middle": _middle, "below": _below,
}  # fmt: skip


# What a network is told


def _timestep(scheduler: Any, level: float) -> float:
    """What a network is told at a noise level, in the scheduler's unit."""
    config = scheduler.config
    whole = not torch.as_tensor(scheduler.timesteps).is_floating_point()
    if _flows(scheduler):
        made = level * float(config.get("num_train_timesteps", 1000))
        return float(int(made)) if whole else made  # cut off, as diffusers does
    if _row(scheduler).edm or _continuous(config):
        return math.log(level) / 4
    logs = _table(scheduler).log().tolist()
    here = math.log(level)
    above = min(max(bisect_left(logs, here), 1), len(logs) - 1)
    part = (here - logs[above - 1]) / (logs[above] - logs[above - 1])
    made = above - 1 + min(max(part, 0.0), 1.0)
    return float(round(made)) if whole else made


def _table(scheduler: Any) -> torch.Tensor:
    """The level of each timestep."""
    share = scheduler.alphas_cumprod.double()
    share = share.where(share > 0, torch.tensor(TINY**2, dtype=share.dtype, device=share.device))
    return ((1 - share) / share).sqrt()


def _told(scheduler: Any, levels: Iterable[float], known: Mapping[float, float]) -> list[float]:
    """What a network is told at each of these levels; as it is `known`, where one is but for rounding."""
    found = []
    for level in levels:
        near = (told for one, told in known.items() if abs(one - level) <= _SAME * level)
        told = next(near, None)
        found.append(_timestep(scheduler, level) if told is None else told)
    return found


def _row(scheduler: Any) -> SchedulerClass:
    row = facts_of(scheduler)
    assert row is not None, "only those that are known are asked"
    return row


def _flows(scheduler: Any) -> bool:
    return _row(scheduler).velocity or bool(scheduler.config.get("use_flow_sigmas"))


def _continuous(config: Any) -> bool:
    return config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"
