"""Two sides in turn: the one way in which anything is measured here."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

__all__ = ["Row", "compare"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `plain` are medians in `unit`; `ratio` is the median over pairs of ours / plain."""

    name: str
    unit: str
    ours: float
    plain: float | None
    ratio: float | None
    low: float | None
    high: float | None


def compare(name: str, unit: str, ours: Callable[[], float], plain: Callable[[], float], rounds: int) -> Row:
    """Measure both sides in turn, `rounds` times each, after one uncounted turn."""
    ours(), plain()
    pairs = [(ours(), plain()) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return Row(
        name,
        unit,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )
