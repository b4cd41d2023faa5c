"""How well a number tells two groups apart: the area under the ROC curve, with an interval. Pure numbers.

The area is the chance that one of the first group, drawn at random, has a larger number than one of the second (a tie
counts half): 0.5 tells nothing, 1 tells all. It is the Mann-Whitney statistic over the number of pairs (Hanley & McNeil
1982, Radiology 143:29).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from diffexplore.experiments.counts import LEVEL
from diffexplore.words import shown

__all__ = ["Parted", "parted"]


@dataclass(frozen=True)
class Parted:
    """How well a number tells one group from another.

    Attributes:
        auc: the area under the ROC curve, 0 to 1.
        low, high: its interval.
        of: how many there are in the first group, and in the second.
    """

    auc: float
    low: float
    high: float
    of: tuple[int, int]

    @property
    def told(self) -> bool:
        """Whether the groups can be told apart at all: 0.5 is not in the interval."""
        return not self.low <= 0.5 <= self.high

    def __str__(self) -> str:
        said = f"AUC {self.auc:.3f} ({self.low:.3f} to {self.high:.3f}), {self.of[0]} against {self.of[1]}"
        return said if self.told else f"{said}: the two were not told apart, which does not show that they are alike"


def parted(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, level: float = LEVEL) -> Parted:
    """How often a number of the first group is above one of the second.

    The interval solves a score equation, as Wilson's of a share does, with the variance that exponential numbers would
    have (Newcombe 2006, Stat. Med. 25:559, method 5). So it has a width where the groups do not overlap at all, where
    intervals from the numbers' own spread (DeLong's, the bootstrap's) have none. It takes the numbers for independent
    of each other: hand over one of each thing that was drawn at random, such as the mean of a prompt's seeds.

    Args:
        first, second: the numbers.
        level: how often the interval is meant to hold the true area.

    Raises:
        ValueError: one sentence, for a group of none, or what is no finite number.
    """
    one, two = (np.asarray(values, dtype=np.float64) for values in (first, second))
    for values in (one, two):
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise ValueError(f"a group is a list of at least one finite number, got {shown(values.tolist())}")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {shown(level)}")
    m, n = one.size, two.size
    gaps = one[:, None] - two[None]
    auc = float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
    z, more = NormalDist().inv_cdf(0.5 + level / 2), (m + n) / 2 - 1

    def beyond(area: float) -> bool:
        """Whether an area is too far from the one that was seen."""
        spread = area * (1 - area) * (1 + more * ((1 - area) / (2 - area) + area / (1 + area))) / (m * n)
        return abs(area - auc) > z * math.sqrt(spread)

    def end(inside: float, outside: float) -> float:
        if not beyond(outside):
            return outside
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        return inside

    return Parted(auc, end(auc, 0.0), end(auc, 1.0), (int(m), int(n)))
