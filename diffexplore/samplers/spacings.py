"""Ways to space noise levels: pure functions of a model's own range and a number of steps, by the names of the field.

Levels are as ``Settings.sigmas`` has them: for diffusion the ratio of noise to picture, b / a of ``x_t = a x0 + b
noise``, for flow models the share s of ``x_t = (1 - s) x0 + s noise``. The highest comes first; the end, where there
is no noise, is not among them.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from types import MappingProxyType
from typing import Any

from diffexplore.values import as_number
from diffexplore.words import near, shown

__all__ = ["WAYS", "Levels", "Range", "Spacing", "counted", "read_levels", "resampled", "spaced"]

Levels = tuple[float, ...]
"""Noise levels, the highest first."""


@dataclass(frozen=True)
class Range:
    """The noise levels that a model was trained on.

    Attributes:
        low: the lowest, and
        high: the highest that a run may have.
        flow: whether they are those of a flow model.
        table: of a model trained on discrete timesteps, the level of each, the cleanest first; else empty.
        shift: of a flow model, how its levels are shifted towards the noise: s = shift u / (1 + (shift - 1) u).
    """

    low: float
    high: float
    flow: bool = False
    table: Levels = ()
    shift: float = 1.0

    def at(self, part: float) -> float:
        """The level at a part of training's time, from 0 (the cleanest timestep) to 1 (the noisiest); between two
        timesteps in a straight line.
        """
        if self.table:
            place = part * (len(self.table) - 1)
            below = min(int(place), len(self.table) - 2)
            return self.table[below] + (place - below) * (self.table[below + 1] - self.table[below])
        if not self.flow:  # EDM draws ln sigma (Karras et al. 2022, table 1)
            return math.exp(math.log(self.low) + part * (math.log(self.high) - math.log(self.low)))
        first = self.low / (self.shift - (self.shift - 1) * self.low)  # what becomes the lowest when it is shifted
        even = first + part * (1 - first)
        return self.shift * even / (1 + (self.shift - 1) * even)


def read_levels(value: Any, most: int = 1000) -> Levels:
    """What somebody hands over as noise levels: a list, a tuple, an array or a tensor, without the 0 at its end.

    Raises:
        ValueError: one sentence, for what are no finite numbers above 0, each below the one before, 1 to `most`.
    """
    wrong = ValueError(
        f"sigmas must be finite noise levels, 1 to {most} of them, each below the one before, such as "
        f"(14.6, 3.2, 0.7, 0.1), or None; got {shown(value)}"
    )
    if isinstance(value, (str, bytes, Mapping)):
        raise wrong
    try:
        found = [as_number(one.item() if hasattr(one, "item") else one) for one in islice(value, most + 2)]
    except (TypeError, ValueError, RuntimeError):
        raise wrong from None
    levels = [one for one in found if one is not None and math.isfinite(one)]
    if len(levels) < len(found):
        raise wrong
    if levels and levels[-1] == 0:
        levels.pop()
    # Tables are of single precision: closer ones would be one.
    if not 0 < len(levels) <= most or levels[-1] < 1e-6 or any(b > a * (1 - 1e-6) for a, b in pairwise(levels)):
        raise wrong
    return tuple(levels)


def counted(values: Mapping[str, Any], most: int) -> Mapping[str, Any]:
    """Values of settings with ``sigmas`` read, and ``steps`` as many.

    Raises:
        ValueError: one sentence, also where ``steps`` are given and others.
    """
    if values.get("sigmas") is None:
        return values
    levels = read_levels(values["sigmas"], most)
    steps = values.get("steps", len(levels))
    if isinstance(steps, bool) or steps != len(levels):
        raise ValueError(
            f"steps follow from sigmas, which have {len(levels)} levels above 0: leave steps out, got {shown(steps)}"
        )
    return {**values, "sigmas": levels, "steps": len(levels)}


def _parts(steps: int) -> list[float]:
    """From 1 down to 0, evenly."""
    return [1 - i / max(steps - 1, 1) for i in range(steps)]


def linear(span: Range, steps: int) -> Levels:
    """Even in sigma: most steps at noise that a picture hardly shows through."""
    return tuple(span.low + part * (span.high - span.low) for part in _parts(steps))


def karras(span: Range, steps: int, rho: float = 7.0) -> Levels:
    """Even in sigma^(1/rho): steps get shorter towards the end, the more the higher rho (7 as published, 1 is linear).

    Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    low, high = span.low ** (1 / rho), span.high ** (1 / rho)
    return tuple((low + part * (high - low)) ** rho for part in _parts(steps))


def exponential(span: Range, steps: int) -> Levels:
    """Even in log sigma: each step divides the level by the same number."""
    low, high = math.log(span.low), math.log(span.high)
    return tuple(math.exp(low + part * (high - low)) for part in _parts(steps))


def beta(span: Range, steps: int, alpha: float = 0.6, beta: float = 0.6) -> Levels:
    """Timesteps at the quantiles of a beta distribution, for 0.6 and 0.6 crowded at both ends.

    Lee et al. 2024 (arXiv 2407.12173), section 4. diffusers' ``use_beta_sigmas`` spreads levels that way, and not
    timesteps.

    Raises:
        ValueError: without scipy.
    """
    try:
        from scipy.stats import beta as distribution
    except ImportError:
        raise ValueError("beta levels need scipy, which is not installed: pip install scipy") from None
    return tuple(span.at(float(distribution.ppf(part, alpha, beta))) for part in _parts(steps))


def cosine(span: Range, steps: int) -> Levels:
    """Even in the angle whose tangent is noise over picture: a = cos, b = sin, as in the cosine schedule.

    Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17, without its offset, between the ends of the range.
    """

    def angle(level: float) -> float:
        return math.atan2(level, 1 - level) if span.flow else math.atan(level)

    low, high = angle(span.low), angle(span.high)
    angles = [low + part * (high - low) for part in _parts(steps)]
    # atan2 and not a division: the highest level of a flow is pure noise.
    return tuple(math.sin(one) / (math.sin(one) + math.cos(one)) if span.flow else math.tan(one) for one in angles)


def trained(span: Range, steps: int) -> Levels:
    """Even in the timesteps that training drew from: as often in each stretch of noise as the network saw it."""
    return tuple(span.at(part) for part in _parts(steps))


def resampled(levels: Levels, steps: int) -> Levels:
    """The curve of some levels with another number of steps: between two of them, even in log sigma."""
    made = []
    for part in reversed(_parts(steps)):
        place = part * (len(levels) - 1)
        one = min(int(place), max(len(levels) - 2, 0))
        low, high = math.log(levels[min(one + 1, len(levels) - 1)]), math.log(levels[one])
        made.append(math.exp(high + (place - one) * (low - high)))
    return read_levels((levels[0], *made[1:])) if len(levels) > 1 or steps == 1 else levels


@dataclass(frozen=True)
class Spacing:
    """One way to space noise levels.

    Attributes:
        name: of the field.
        sentence: what it does, for learners.
        make: from a range and a number of steps, and parameters of its own, to levels.
    """

    name: str
    sentence: str
    make: Callable[..., Levels]

    @property
    def parameters(self) -> dict[str, float]:
        """Its own parameters, by name, and their defaults."""
        known = inspect.signature(self.make).parameters
        return {name: one.default for name, one in known.items() if one.default is not one.empty}


WAYS: Mapping[str, Spacing] = MappingProxyType(
    {
        name: Spacing(name, sentence, make)
        for name, sentence, make in (
            ("as trained", "Even in the timesteps of training.", trained),
            ("linear", "Even in the noise level: long in the noise.", linear),
            ("karras", "Shorter and shorter steps towards the end.", karras),
            ("exponential", "Each step divides the noise level by the same number.", exponential),
            ("beta", "Crowded at both ends, where layout and detail are decided.", beta),
            ("cosine", "Even in the angle between picture and noise: long in the middle.", cosine),
        )
    }
)
"""The ways by name."""


def spaced(name: Any, span: Range, steps: int, **parameters: float) -> Levels:
    """The levels of a way.

    Args:
        name: a key of :data:`WAYS`.
        span: the model's range.
        steps: how many.
        **parameters: of its own, such as ``rho``.

    Raises:
        ValueError: one sentence, for an unknown name, parameter or value.
    """
    way = WAYS.get(name) if isinstance(name, str) else None
    if way is None:
        raise ValueError(f"levels are spaced by {', '.join(WAYS)}; got {shown(name)}{near(name, WAYS)}")
    for one, value in parameters.items():
        if one not in way.parameters:
            takes = f"takes {' and '.join(way.parameters)}" if way.parameters else "takes no number of its own"
            raise ValueError(f"{name} levels {takes}; got {one}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 100:
            raise ValueError(f"{one} of {name} levels must be a number above 0 and below 100, got {shown(value)}")
    made = way.make(span, steps, **parameters)
    if steps > 1:  # rounding of roots and logarithms must not lead out of the range
        made = (span.high, *made[1:-1], span.low)
    return made
