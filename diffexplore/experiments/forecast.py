"""``Forecast``: what a sweep would cost, before anything is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffexplore.model import Model
from diffexplore.settings import Settings

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True)
class Forecast:
    """What is to be done.

    Attributes:
        cells: runs that differ, of all that the grid shows.
        there: how many of them lie in the folder already.
        evaluations: of the model, for all that are to be drawn (both halves of guidance are one).
        seconds: that they take here, one after the other; None where nobody has measured.
        bytes: that they take in memory, or in the folder; None where that is not known.
    """

    cells: int
    there: int
    evaluations: int
    seconds: float | None = None
    bytes: int | None = None

    @property
    def left(self) -> int:
        """How many are to be drawn."""
        return self.cells - self.there

    def __repr__(self) -> str:
        said = [f"{self.left} of {self.cells} cells to draw", f"{self.evaluations:,} evaluations"]
        if self.seconds is not None:
            said.append(f"about {_long(self.seconds)} here, one after the other")
        if self.bytes is not None:
            said.append(f"about {self.bytes / 2**20:,.1f} MiB")
        return f"Forecast({', '.join(said)})"


def forecast(model: Model, cells: Sequence[Settings], there: int, *, alone: bool) -> Forecast:
    """What it takes to draw `cells`, by :meth:`Model.estimate`.

    Args:
        model: what draws them.
        cells: with everything filled in, each once.
        there: how many more there are already.
        alone: whether they are drawn one by one, not in batches.
    """
    asked = ([one] for one in cells) if alone else iter([cells] if cells else [])
    guesses = [model.estimate(some) for some in asked]
    evaluations = sum(one.evaluations for one in guesses)
    seconds, size = (_total([getattr(one, name) for one in guesses]) for name in ("seconds", "bytes"))
    return Forecast(len(cells) + there, there, evaluations, seconds, None if size is None else int(size))


def _total(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) if known and len(known) == len(values) else None


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
