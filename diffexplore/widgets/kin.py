"""`Kin`: which run came from which: the runs that branches have parted, as long as they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace

__all__ = ["MOST", "Kin", "Relative"]

MOST: Final = 12
"""Runs that are kept."""


@dataclass(frozen=True, eq=False)
class Relative:
    """A run among others.

    Attributes:
        number: Counted from 1, never given again.
        trace: It.
        plan: What it draws.
        parent: The number of the run that it left; None for one that is no branch.
        at: The evaluation at which it did, counted from 0.
        words: What it has of its own, in words.
        extra: What was handed over beyond its settings.
    """

    number: int
    trace: Trace
    plan: Plan
    parent: int | None = None
    at: int = 0
    words: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Kin:
    """The newest `MOST` runs that are branches or have some; the oldest that has none goes first."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._count = 0
        self._runs: dict[int, Relative] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, number: object) -> Relative:
        if not isinstance(number, int) or number not in self._runs:
            raise ValueError("this run is no longer kept: branch again")
        return self._runs[number]

    @property
    def traces(self) -> dict[int, Trace]:
        """The runs by number."""
        return {number: one.trace for number, one in self._runs.items()}

    def of(self, trace: Trace | None) -> Relative | None:
        """Who a run is; None for a stranger."""
        return next((one for one in self._runs.values() if one.trace is trace), None)

    def add(
        self,
        trace: Trace,
        plan: Plan,
        words: str,
        extra: Mapping[str, Any],
        parent: Relative | None = None,
        at: int = 0,
    ) -> Relative:
        """Take a run in."""
        self._count += 1
        made = Relative(self._count, trace, plan, None if parent is None else parent.number, at, words, dict(extra))
        self._runs[made.number] = made
        while len(self._runs) > MOST:
            spared = {one.parent for one in self._runs.values()} | {made.number}
            del self._runs[next((number for number in self._runs if number not in spared), next(iter(self._runs)))]
        return made

    def drop(self, gone: Iterable[Trace]) -> None:
        """Forget runs that came to nothing."""
        known = [self.of(trace) for trace in gone]
        for one in known:
            if one is not None:
                self._runs.pop(one.number, None)

    def told(self) -> list[dict[str, Any]]:
        """All as a page takes them, each behind the one that it left: ``n``, its number; ``of``, its parent's, None
        where that is not kept; ``at``; ``words``; and how ``deep`` it lies."""
        found: list[dict[str, Any]] = []

        def put(one: Relative, deep: int) -> None:
            kept = one.parent if one.parent in self._runs else None
            found.append({"n": one.number, "of": kept, "at": one.at, "words": one.words, "deep": deep})
            for other in self._runs.values():
                if other.parent == one.number:
                    put(other, deep + 1)

        for one in self._runs.values():
            if one.parent not in self._runs:
                put(one, 0)
        return found
