"""``Grid``: what came of a sweep, as pictures, numbers and figures."""

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffexplore.experiments.axes import axis_of
from diffexplore.experiments.shared import cost_line, cost_of, write_csv
from diffexplore.looks.curves import adherence_of
from diffexplore.looks.figures import Cell, Figure, plot_rows, plot_table
from diffexplore.looks.figures.kit import Plotted
from diffexplore.settings import Settings, in_words
from diffexplore.trace import Trace, opened_as_page, opened_as_sheet

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Grid", "Heads"]


class Heads(NamedTuple):
    """What stands around the pictures of a grid: two lines above, what varies over columns and rows, and their names;
    one row has none."""

    title: str
    below: str
    x: str
    columns: list[str]
    y: str
    rows: list[str]


class Grid(Plotted):
    """The runs of a sweep; row i and column j everywhere.

    Attributes:
        x: field and values of the columns.
        y: field and values of the rows; None for a single row.
        settings: ``settings[i][j]``, with everything filled in.
        traces: ``traces[i][j]``; None where the cell failed.
        errors: ``errors[i][j]``: one sentence, "" where nothing failed.
    """

    def __init__(
        self,
        x: tuple[str, list[Any]],
        y: tuple[str, list[Any]] | None,
        settings: list[list[Settings]],
        outcomes: list[list[Trace | str]],
    ) -> None:
        """As `sweep` makes them: `outcomes` has a trace, or one sentence on what failed, in row i and column j."""
        self.x, self.y, self.settings = x, y, settings
        self.traces = [[None if isinstance(one, str) else one for one in line] for line in outcomes]
        self.errors = [[one if isinstance(one, str) else "" for one in line] for line in outcomes]

    def __repr__(self) -> str:
        rows = f"{self.y[0]} ({len(self.y[1])}) by " if self.y else ""
        failed = sum(bool(error) for line in self.errors for error in line)
        return f"Grid({rows}{self.x[0]} ({len(self.x[1])}){f', {failed} failed' if failed else ''})"

    @property
    def images(self) -> "list[list[Image.Image | None]]":
        """The final pictures; None where a cell failed."""
        return [[None if trace is None else trace.image for trace in line] for line in self.traces]

    def table(self) -> Any:
        """:meth:`rows` as a pandas DataFrame where pandas is installed, else as they are."""
        try:
            import pandas as pd
        except ImportError:
            return self.rows()
        return pd.DataFrame(self.rows())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`rows` as CSV, see `shared.write_csv`.

        Args:
            path: the file; one that exists is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        rows = self.rows()
        told = [{name: _named(one) if isinstance(one, tuple) else one for name, one in row.items()} for row in rows]
        write_csv(path, list(rows[0]), told)

    def to_html(self, path: str | os.PathLike[str], *, runs: bool = True) -> None:
        """Write one page with the pictures and the runs behind them, which needs no kernel, no network and no other
        file.

        Args:
            path: where to write; an existing file is replaced. ``~`` is the home folder.
            runs: whether a cell opens its run, step by step: as many as find room, which is said. Encoding them takes
                a while.

        Raises:
            OSError: the file cannot be written.
        """
        opened_as_page(self, path, runs)

    def rows(self) -> list[dict[str, Any]]:
        """One dict per cell, row by row.

        Keys: the names of the axes, and ``seed``; ``evaluations`` of the model; ``seconds``, wall time, a cell's share
        where several were drawn in one batch; ``batch``, how many those were; ``reused``, True where the model
        remembered the run and the time says nothing; ``adherence`` as :meth:`adherence` has it; ``error``. Those
        between are None where a cell failed, adherence also where there is nothing to judge.
        """
        rows = []
        for settings, traces, errors in zip(self.settings, self.traces, self.errors, strict=True):
            for one, trace, error in zip(settings, traces, errors, strict=True):
                row: dict[str, Any] = {field: axis_of(field).of(one) for field in reversed(self._axes())}
                judged = math.nan if trace is None else adherence_of(trace)
                row |= {"seed": one.seed, **cost_of(trace), "adherence": None if math.isnan(judged) else judged}
                rows.append(row | {"error": error})
        return rows

    def adherence(self) -> np.ndarray:
        """How far each picture shows what its prompt names, by the judge of the pocket model.

        Returns:
            (rows, columns) float64, 0 to 1 (:func:`diffexplore.looks.curves.adherence_of`); NaN where a cell failed or
            there is nothing to judge.
        """
        rows = [[math.nan if trace is None else adherence_of(trace) for trace in line] for line in self.traces]
        return np.array(rows, dtype=np.float64)

    def plot_adherence(self) -> Figure:
        """:meth:`adherence` over the columns: a thin line for each row, and their mean with its standard error.

        Raises:
            ValueError: if nothing in the grid can be judged.
        """
        values = self.adherence()
        if np.isnan(values).all():
            raise ValueError("none of these pictures can be judged: the judge knows the pocket model's world alone")
        rows = [""] if self.y is None else [_named(axis_of(self.y[0]).of(line[0])) for line in self.settings]
        columns = [axis_of(self.x[0]).of(one) for one in self.settings[0]]
        # A seed is a name for its noise: between two of them lies nothing.
        if self.x[0] == "seed" or not all(isinstance(one, (int, float)) for one in columns):
            columns = [_named(one) for one in columns]
        prompt = [] if "prompt" in self._axes() else [self.settings[0][0].prompt]
        title = f"adherence over {axis_of(self.x[0]).words}"
        return plot_rows(
            columns,
            values,
            rows,
            title,
            "mean probability of what the prompt names",
            " · ".join(prompt + self._fixed()),
            limits=(0, 1),
        )

    def _axes(self) -> list[str]:
        return [self.x[0], *([self.y[0]] if self.y else [])]

    def _fixed(self) -> list[str]:
        """What all cells share, the prompt aside, in words."""
        first, axes = self.settings[0][0], [axis_of(name).field for name in self._axes()]
        return [
            f"{name.replace('_', ' ')} {_named(getattr(first, name))}"
            for name in _TOLD
            if name not in axes and getattr(first, name) not in ("", (), None)
        ]

    def plot(self) -> Figure:
        """The pictures as a table, each with its time and its model evaluations; in place of a failed one stands why.

        Names of columns are repeated below a grid of more than four rows.
        """
        return _plot(self)

    def heads(self) -> Heads:
        """What stands around the pictures, in words."""
        first, axes = self.settings[0][0], self._axes()
        what = " and ".join(axis_of(name).words for name in reversed(axes))
        title = (first.prompt or "(no prompt)") if "prompt" not in axes else f"{what}, varied"
        x, y = axis_of(self.x[0]), None if self.y is None else axis_of(self.y[0])
        columns = [_named(x.of(one)) for one in self.settings[0]]
        rows = [""] if y is None else [_named(y.of(line[0])) for line in self.settings]
        return Heads(title, " · ".join(self._fixed()), x.words, columns, "" if y is None else y.words, rows)

    def part(self, rows: int, columns: int) -> "Grid":
        """Its first rows and columns, as a grid."""
        y = None if self.y is None else (self.y[0], self.y[1][:rows])
        lines = list(zip(self.settings, self.traces, self.errors, strict=True))[:rows]
        cells = [
            [error if trace is None else trace for trace, error in zip(traces, errors, strict=True)][:columns]
            for _, traces, errors in lines
        ]
        return Grid((self.x[0], self.x[1][:columns]), y, [line[:columns] for line, *_ in lines], cells)

    def _ipython_display_(self) -> None:
        """In a notebook: the pictures, each a button that opens its run."""
        opened_as_sheet(self)._ipython_display_()


_TOLD = (
    "sampler", "steps", "sigmas", "fresh_noise", "guidance", "seed", "negative_prompt", "adapters", "changes", "skips",
)  # fmt: skip


def _named(value: Any) -> str:
    if value == "":
        return "(empty)"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    if isinstance(value, tuple) and len(value) > 4 and isinstance(value[0], float):  # noise levels
        return f"{value[0]:.3g} … {value[-1]:.3g} ({len(value)})"
    if isinstance(value, tuple) and value and not isinstance(value[0], tuple):
        return ", ".join(map(_named, value))
    if isinstance(value, tuple) and value and isinstance(value[0][0], float):
        return "; ".join(f"from {mark:.3g} {in_words(fields)}" for mark, fields in value)
    if isinstance(value, tuple) and value and isinstance(value[0][1], tuple):
        return ", ".join(Settings(skips=value).skipped)
    if isinstance(value, tuple):
        return ", ".join(f"{name} {_named(one)}" for name, one in value) or "(none)"
    return str(value)


def _plot(grid: Grid) -> Figure:
    first, heads = grid.settings[0][0], grid.heads()
    cells = [
        [
            Cell(None, error=error)
            if trace is None
            else Cell(trace.image, cost_line(trace), "" if trace.image else "this run has no picture")
            for trace, error in zip(traces, errors, strict=True)
        ]
        for traces, errors in zip(grid.traces, grid.errors, strict=True)
    ]
    ratio = (first.width or 1) / (first.height or 1)
    rows = (heads.y, heads.rows) if grid.y else None
    return plot_table(cells, heads.title, heads.below, (heads.x, heads.columns), rows, ratio)
