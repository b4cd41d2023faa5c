"""Counted pictures as shares with an interval, and the tests that tell whether two counts differ. Pure numbers.

All of it is for counts: so many pictures of so many show a thing. What was drawn from the same seeds is paired, and is
compared as pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from diffexplore.words import shown

__all__ = ["LEVEL", "Difference", "as_expected", "exact", "paired", "simultaneous", "wilson"]

LEVEL: Final = 0.95
"""How often an interval is meant to hold what it is of."""


def wilson(count: int, of: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share, by its score (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Args:
        count: how many show it.
        of: of how many; of none, nothing is known: 0 to 1.
        level: how often it is meant to hold the true share, above 0 and below 1.

    Returns:
        Its ends, 0 to 1. Never empty, also where none or all show it.

    Raises:
        ValueError: one sentence, for a count that is none.
    """
    if not 0 <= count <= of:
        raise ValueError(f"a count must be from 0 to how many there are, got {shown(count)} of {shown(of)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {shown(level)}")
    if of == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, more = count / of, z * z / of
    middle = (share + more / 2) / (1 + more)
    reach = z * math.sqrt(share * (1 - share) / of + more / (4 * of)) / (1 + more)
    low, high = middle - reach, middle + reach
    return (0.0 if count == 0 else max(0.0, low)), (1.0 if count == of else min(1.0, high))


def exact(count: int, of: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share that holds it at least as often as it says, whatever the share (Clopper & Pearson 1934,
    Biometrika 26:404); wider than :func:`wilson`, which holds it that often on the whole and of rare things less.

    Args and errors are those of :func:`wilson`.
    """
    wilson(count, of, level)  # refuses what is no count
    half = (1 - level) / 2

    ways = [math.lgamma(of + 1) - math.lgamma(j + 1) - math.lgamma(of - j + 1) for j in range(count + 1)]

    def at_most(k: int, share: float) -> float:
        hit, miss = math.log(share), math.log1p(-share)
        return math.fsum(math.exp(ways[j] + j * hit + (of - j) * miss) for j in range(k + 1))

    def where(left_of: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if left_of(middle) else (low, middle)
        return (low + high) / 2

    low = 0.0 if count == 0 else where(lambda share: 1 - at_most(count - 1, share) < half)
    high = 1.0 if count == of else where(lambda share: at_most(count, share) > half)
    return low, high


def simultaneous(counts: Sequence[int], level: float = LEVEL) -> list[tuple[float, float]]:
    """Intervals of the shares of several values, of which at most ``1 - level`` of such sets have one that misses:
    :func:`exact` at a level that is as much stricter as there are values (Bonferroni).
    """
    of, values = sum(counts), max(1, len(counts))
    return [exact(count, of, 1 - (1 - level) / values) for count in counts]


@dataclass(frozen=True)
class Difference:
    """How two counts over the same seeds differ.

    Attributes:
        both, first, second, neither: on how many seeds both pictures show it, only the first, only the second, none.
        difference: the share of the second less that of the first, -1 to 1.
        interval: of `difference`.
        p: how often seeds would differ as much or more to either side if neither prompt favoured it.
    """

    both: int
    first: int
    second: int
    neither: int
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def told(self) -> bool:
        """Whether the two can be told apart: `p` below 5 %."""
        return self.p < 1 - LEVEL

    def __str__(self) -> str:
        low, high = self.interval
        more = f"{100 * self.difference:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f}), p = {self.p:.2g}"
        if self.told:
            return more
        return f"{more}: no difference was shown, which does not show that there is none"


def paired(first: Sequence[bool], second: Sequence[bool], level: float = LEVEL) -> Difference:
    """Two counts over the same seeds, in the same order.

    The test is McNemar's, exact (of the seeds on which the two differ, each side is as likely): Fagerland, Lydersen &
    Laake 2013, BMC Med. Res. Methodol. 13:91. The interval is Newcombe's of paired differences (1998, Stat. Med.
    17:2635, method 10): of Wilson's intervals of either, joined by how the two go together.

    Raises:
        ValueError: one sentence, for lists that are no pairs.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"two counts over the same seeds are needed, got {a.size} and {b.size} pictures")
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    one, other = int((a & ~b).sum()), int((~a & b).sum())
    unequal, of = one + other, int(a.size)
    less = sum(math.comb(unequal, k) for k in range(min(one, other) + 1)) / 2**unequal
    p = min(1.0, 2 * less)

    share_a, share_b = (both + one) / of, (both + other) / of
    low_a, high_a = wilson(both + one, of, level)
    low_b, high_b = wilson(both + other, of, level)
    sides = (both + one) * (other + neither) * (both + other) * (one + neither)
    joint: float = both * neither - one * other
    if joint > 0:  # corrected for continuity, as the method has it
        joint = max(joint - of / 2, 0)
    together = joint / math.sqrt(sides) if sides else 0.0
    gap = share_b - share_a

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * together * x * y + y * y))

    low = gap - reach(share_b - low_b, high_a - share_a)
    high = gap + reach(high_b - share_b, share_a - low_a)
    return Difference(both, one, other, neither, gap, (max(-1.0, low), min(1.0, high)), p)


def as_expected(counts: Sequence[int], shares: Sequence[float], draws: int = 4000) -> float:
    """How often counts would lie as far from what is expected, or farther, if the `shares` were the true ones.

    The distance is the likelihood ratio, G = 2 sum(n ln(n / expected)); how it is spread is found by drawing, because
    the counts of a class are too small for a table of chi squares. The same counts give the same number.

    Args:
        counts: of each value.
        shares: what is expected of each, of sum 1; a value of share 0 that was counted once is enough to differ.
        draws: how many sets of counts are drawn.

    Raises:
        ValueError: one sentence, for what are no counts or shares.
    """
    seen, hoped = np.asarray(counts, dtype=np.int64), np.asarray(shares, dtype=np.float64)
    if seen.shape != hoped.shape or seen.ndim != 1 or (seen < 0).any():
        raise ValueError(f"counts must be numbers of 0 or more, one for each share, got {shown(list(counts))}")
    if (hoped < 0).any() or not math.isclose(float(hoped.sum()), 1.0, abs_tol=1e-6):
        raise ValueError(f"shares must be of sum 1, got {shown(list(shares))}")
    if (seen[hoped == 0] > 0).any():
        return 0.0
    of = int(seen.sum())
    possible = hoped > 0
    expected = hoped[possible] / hoped[possible].sum()

    def apart(some: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.where(some > 0, some * np.log(some / (of * expected)), 0.0)
        made: np.ndarray = 2 * parts.sum(axis=-1)
        return made

    drawn = np.random.default_rng(0).multinomial(of, expected, size=draws)
    # One more: the counts themselves are a set that may come up (Davison & Hinkley 1997, Bootstrap Methods, 4.2.5).
    return float((1 + (apart(drawn) >= apart(seen[possible]) - 1e-9).sum()) / (draws + 1))
