"""``dx.edits``: what can be done to latents where a branch leaves its run.

Each function gives what ``model.branch(trace, at, latents=...)`` takes::

    model.branch(trace, 5, latents=dx.edits.noise((0.3, 0.3, 0.7, 0.7), seed=1))

and the branch says in ``info["parent"]["edit"]`` what was done, from which :func:`again` makes the same edit. Latents
are ``x_t = a x0 + b noise``; of a step both parts are known as its network sees them (`Step.x0`, `Step.noise`), so an
edit may change one of them and leave the other: the share of noise stays what the sampler takes it for.

A *region* is None for all of the picture; a rectangle (left, top, right, bottom) in shares of it, from the upper left
corner; or a mask (height, width) of True and False, as large as the latents, or of the picture's proportions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from diffexplore.record.predictions import share_of_noise
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.runs.regions import Region
from diffexplore.words import near, shown

__all__ = [
    "Edits",
    "Touch",
    "again",
    "as_code",
    "at_level",
    "edits",
    "erase",
    "flip",
    "keep",
    "noise",
    "poke",
    "shift",
    "swap",
]

MOST: Final = 100.0
"""Of a poke, in sizes of the latents."""


class Touch:
    """An edit of latents: a function of them, and of the step that they are of.

    Attributes:
        name: what it is called here.
        region: where.
        values: what else decides it, as JSON takes it.
    """

    def __init__(
        self,
        name: str,
        region: Region,
        made: Callable[[torch.Tensor, Step | None], torch.Tensor],
        values: Mapping[str, Any] | None = None,
        *,
        outside: bool = False,
    ) -> None:
        """What it does.

        Args:
            name: of the function that made it.
            region: where latents change.
            made: gives (C, *axes, h, w), of which what is in the region counts.
            values: what else it was told.
            outside: change what is outside in its place.
        """
        self.name, self.region, self.values = name, region, dict(values or {})
        self._made, self._outside = made, outside

    def __repr__(self) -> str:
        return as_code(self.told)

    def __call__(self, latents: torch.Tensor, step: Step | None = None) -> torch.Tensor:
        """The edited latents.

        Args:
            latents: (C, *axes, h, w), with which nothing happens.
            step: the one that they are of.

        Raises:
            ValueError: one sentence, for a region that does not fit, or an edit that takes a step where there is none.
        """
        made = self._made(latents, step)
        if self.region.whole and not self._outside:
            return made
        inside = self.region.of(tuple(latents.shape))
        return torch.where(~inside if self._outside else inside, made, latents)

    @property
    def told(self) -> dict[str, Any]:
        """It as JSON takes it, which :func:`again` reads."""
        return {"edit": self.name, "region": self.region.told, **self.values}

    @property
    def words(self) -> str:
        """It in a few words."""
        share = self.region.share
        part = "the picture" if self.region.whole else f"{100 * share:.2g} % of the picture"
        return f"{_WORDS[self.name]} {part}"


_WORDS: Final = {
    "poke": "poked", "noise": "other noise in", "erase": "erased", "swap": "swapped", "keep": "kept only",
    "shift": "shifted", "flip": "flipped",
}  # fmt: skip


def poke(region: Any = None, value: float = 1.0, channel: int | None = None) -> Touch:
    """Add a value.

    Args:
        region: where, see the head of `edits`.
        value: in units of the size of latents at that step, sqrt(a^2 + b^2), which is 1 where a sampler preserves the
            variance.
        channel: which of the latents' channels, from 0; None: all.

    Raises:
        ValueError: one sentence, for what is out of range; a channel that is not there when it is used.
    """
    amount = _number("value", value, -MOST, MOST)
    if channel is not None and (isinstance(channel, bool) or not isinstance(channel, int) or channel < 0):
        raise ValueError(f"channel must be the number of a channel, from 0, or None, got {shown(channel)}")

    def made(latents: torch.Tensor, step: Step | None) -> torch.Tensor:
        size = 1.0 if step is None else math.hypot(step.a, step.b)
        if channel is None:
            return latents + amount * size
        if channel >= len(latents):
            raise ValueError(f"channel must be from 0 to {len(latents) - 1} here, got {channel}")
        other = latents.clone()
        other[channel] += amount * size
        return other

    return Touch("poke", Region(region), made, {"value": amount} | ({} if channel is None else {"channel": channel}))


def noise(region: Any = None, amount: float = 1.0, seed: int = 0) -> Touch:
    """Put other noise in the place of the noise that is there; what the model takes for the picture stays.

    ``x_t + b (noise' - noise)`` with ``noise' = sqrt(1 - amount^2) noise + amount fresh``: of the same variance, so
    that the share of noise stays that of the step.

    Args:
        region: where, see the head of `edits`.
        amount: how much of it is fresh, from 0 to 1.
        seed: of the fresh noise.

    Raises:
        ValueError: one sentence, for what is out of range.
    """
    fresh_part = _number("amount", amount, 0, 1)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {shown(seed)}")

    def made(latents: torch.Tensor, step: Step | None) -> torch.Tensor:
        step = _needed("noise", step)
        fresh = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(seed))
        kept = math.sqrt(1 - fresh_part**2)
        return latents + step.b * (fresh_part * fresh - (1 - kept) * step.noise)

    return Touch("noise", Region(region), made, {"amount": fresh_part, "seed": seed})


def erase(region: Any = None) -> Touch:
    """Take away what the model takes for the picture, and leave the noise: ``b noise``.

    Args:
        region: where, see the head of `edits`.

    Raises:
        ValueError: one sentence, for what is no region.
    """

    def made(latents: torch.Tensor, step: Step | None) -> torch.Tensor:
        step = _needed("erase", step)
        return step.b * step.noise

    return Touch("erase", Region(region), made)


def swap(region: Any, other: Record) -> Touch:
    """Put another run's latents into a region, at the same share of noise (:func:`at_level`).

    Args:
        region: where, see the head of `edits`.
        other: a run whose latents have the same shape.

    Raises:
        ValueError: one sentence, for what is no run; for one that does not fit when it is used.
    """
    return Touch("swap", Region(region), *_of(other))


def keep(region: Any, other: Record) -> Touch:
    """Keep a region, and put another run's latents around it: :func:`swap` of all else.

    Args:
        region: where, see the head of `edits`.
        other: a run whose latents have the same shape.

    Raises:
        ValueError: one sentence, for what is no run; for one that does not fit when it is used.
    """
    return Touch("keep", Region(region), *_of(other), outside=True)


def shift(across: float = 0.0, down: float = 0.0) -> Touch:
    """Move all of it, to whole latents; what leaves at one edge comes in at the other.

    Args:
        across: how far to the right, in shares of the width, from -1 to 1.
        down: how far down, in shares of the height.

    Raises:
        ValueError: one sentence, for what is out of range.
    """
    right, below = _number("across", across, -1, 1), _number("down", down, -1, 1)

    def made(latents: torch.Tensor, step: Step | None) -> torch.Tensor:
        height, width = Region().of(tuple(latents.shape)).shape
        return torch.roll(latents, (round(below * height), round(right * width)), (-2, -1))

    return Touch("shift", Region(), made, {"across": right, "down": below})


def flip(down: bool = False) -> Touch:
    """Mirror all of it.

    Args:
        down: upside down in place of left and right.
    """

    def made(latents: torch.Tensor, step: Step | None) -> torch.Tensor:
        Region().of(tuple(latents.shape))
        return latents.flip(-2 if down else -1)

    return Touch("flip", Region(), made, {"down": bool(down)})


def again(told: Mapping[str, Any], other: Record | None = None) -> Touch:
    """The edit that a branch tells of in ``info["parent"]["edit"]``.

    Args:
        told: what it tells.
        other: the other run, for `swap` and `keep`, of which only the settings are told.

    Raises:
        ValueError: one sentence, for what tells of no edit.
    """
    values = dict(told) if isinstance(told, Mapping) else {}
    name, region = values.pop("edit", None), values.pop("region", None)
    if not isinstance(name, str) or name not in _WORDS:
        raise ValueError(f"an edit is one of {', '.join(_WORDS)}; got {shown(name)}{near(name, _WORDS)}")
    if name in ("swap", "keep"):
        return (swap if name == "swap" else keep)(region, other)  # type: ignore[arg-type]
    make: Callable[..., Touch] = _MADE[name]
    try:
        return make(**values) if name in ("shift", "flip") else make(region, **values)
    except TypeError:
        raise ValueError(f"{name} is not told so: got {shown(values)}") from None


def as_code(told: Mapping[str, Any]) -> str:
    """Python that makes the edit which is told of; of a swap the other run is ``other``."""
    values = dict(told)
    name, region = values.pop("edit"), values.pop("region")
    given = [] if name in ("shift", "flip") else [repr(region)]
    given += [one if one == "other" else f"{one}={value!r}" for one, value in values.items()]
    return f"dx.edits.{name}({', '.join(given)})"


_MADE: Final[dict[str, Callable[..., Touch]]] = {
    "poke": poke, "noise": noise, "erase": erase, "shift": shift, "flip": flip,
}  # fmt: skip


def at_level(run: Record, a: float, b: float) -> torch.Tensor:
    """The latents of a run where its share of noise is that of ``x_t = a x0 + b noise``.

    Args:
        run: a run with steps.
        a: signal level.
        b: noise level.

    Returns:
        (C, *axes, h, w): those of its evaluation at that level; where it has none, of the nearest, what its network
        takes for picture and noise there, put together at the level that is asked for.
    """
    share = share_of_noise(a, b)
    near_by = min(list(run), key=lambda step: abs(share_of_noise(step.a, step.b) - share))
    if (near_by.a, near_by.b) == (a, b):
        return near_by.latents
    return a * near_by.x0 + b * near_by.noise


def _of(other: Record) -> tuple[Callable[[torch.Tensor, Step | None], torch.Tensor], dict[str, Any]]:
    """What takes the latents of another run, and what is told of it."""
    if not isinstance(other, Record) or not len(other):
        raise ValueError(f"other must be a run with steps, whose latents are taken, got {shown(other)}")

    def made(latents: torch.Tensor, step: Step | None) -> torch.Tensor:
        step = _needed("swap", step)
        theirs = at_level(other, step.a, step.b)
        if theirs.shape != latents.shape:
            raise ValueError(
                f"the latents of the other run have the shape {tuple(theirs.shape)}, those of this one "
                f"{tuple(latents.shape)}"
            )
        return theirs

    told = {"settings": other.settings.told()} | ({"parent": other.info["parent"]} if "parent" in other.info else {})
    return made, {"other": told}


def _needed(name: str, step: Step | None) -> Step:
    if step is None:
        raise ValueError(f"{name} takes the step that the latents are of: hand it to model.branch(trace, at, latents=)")
    return step


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {shown(value)}")
    return float(value)


class Edits:
    """What can be done to latents where a branch leaves its run; ``diffexplore.runs.edits`` says more.

    A region is None for all of the picture; a rectangle (left, top, right, bottom) in shares of it; or a mask.

    >>> model.branch(trace, 5, latents=dx.edits.noise((0.3, 0.3, 0.7, 0.7), seed=1))  # doctest: +SKIP
    """

    poke = staticmethod(poke)
    noise = staticmethod(noise)
    erase = staticmethod(erase)
    swap = staticmethod(swap)
    keep = staticmethod(keep)
    shift = staticmethod(shift)
    flip = staticmethod(flip)
    again = staticmethod(again)


edits: Final = Edits()
"""These functions under one name, ``dx.edits``."""
