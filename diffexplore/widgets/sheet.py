"""`Sheet`: the pictures of a grid in a table, each a button that opens its run in a viewer under it.

**The wire.** Traits of the table (`Pictures`) hold what a saved notebook shows, and no more than one page of pictures:

``about``
    ``title``, ``below``, ``x``, ``columns``, ``y``, ``rows``: `experiments.grid.Heads`; ``ratio``, width over height.
``page``, ``pictures``
    The page on show: ``row`` and ``column`` of its first cell, ``side`` in pixels, and ``cells``, row by row, each
    ``[offset, length, format, words]`` into the bytes of ``pictures``, or one sentence where there is no picture. Of
    the words those before the first " · " stand under the picture.
``opened``
    ``[row, column]`` of the run in the viewer; empty for none.

From the browser come ``{"kind": "page", "row": i, "column": j, "side": px}``: another page or size;
``{"kind": "open", "row": i, "column": j}``; ``{"kind": "close"}``.
"""

from __future__ import annotations

import base64
import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anywidget
import ipywidgets
import traitlets
from PIL import Image

from diffexplore.experiments.grid import Grid
from diffexplore.experiments.shared import cost_line
from diffexplore.record.file import written
from diffexplore.values import a_path
from diffexplore.widgets.browser import CSS, ESM, SHEET, SHEET_CSS, SHEET_PAGE
from diffexplore.widgets.controls import close_parts, layout, marked
from diffexplore.widgets.film import films_of, pack
from diffexplore.widgets.handin import HandIns, standing
from diffexplore.widgets.notebook import InNotebook
from diffexplore.widgets.page import filled
from diffexplore.widgets.shots import encode
from diffexplore.widgets.viewer import Viewer

if TYPE_CHECKING:
    from diffexplore.trace import Trace

__all__ = ["Pictures", "Sheet", "to_html"]

SIDES: Final = {256: 6, 160: 8, 96: 12, 64: 16}
"""How large pictures may be, in pixels of the page, and how many rows and columns of such a page has at most."""
ROOM: Final = 48 * 2**20
"""Bytes of runs in a page of its own, about."""
_WIDE, _HIGH = 700, 430  # pixels that a table has on a screen
_CAPTION: Final = 26
_STILL: Final = 8  # rows and columns of what stands for it where nothing runs
_STILL_WIDTH: Final = 1024


def _side_for(grid: Grid, ratio: float) -> int:
    """The largest pictures with which all of a grid is in sight; if none are, smaller ones."""
    down, across = len(grid.traces), len(grid.traces[0])
    for side in SIDES:
        high = side / max(ratio, 1)
        if across * (side + 8) <= _WIDE and down * (high + _CAPTION) <= _HIGH:
            return side
    return 96 if across * 104 <= 2 * _WIDE else 64


def _ratio(grid: Grid) -> float:
    """Width over height of its pictures."""
    for trace in (one for line in grid.traces for one in line):
        if trace is not None and trace.image is not None:
            return float(trace.image.width / trace.image.height)
    return 1.0


def _cell(trace: Trace | None, error: str, side: int, data: bytearray) -> list[Any] | str:
    """One cell as the wire has it; its picture goes to the end of `data`."""
    if trace is None:
        return error or "failed"
    if trace.image is None:
        return "this run has no picture"
    small = encode(trace.image, side=side)
    data += small.data
    return [len(data) - len(small.data), len(small.data), small.format, cost_line(trace)]


def _about(grid: Grid) -> dict[str, Any]:
    return {**grid.heads()._asdict(), "ratio": _ratio(grid)}


class Pictures(anywidget.AnyWidget):  # type: ignore[misc]
    """The table of a `Sheet`."""

    _esm = SHEET
    _css = SHEET_CSS
    about = traitlets.Dict().tag(sync=True)
    page = traitlets.Dict().tag(sync=True)
    pictures = traitlets.Bytes().tag(sync=True)
    opened = traitlets.List().tag(sync=True)


class Sheet(InNotebook, ipywidgets.VBox):  # type: ignore[misc]
    """The pictures of a grid, small, in pages; a click or Enter opens the run of a cell in the viewer under them.

    Args:
        grid: What `diffexplore.sweep` drew.

    Attributes:
        viewer: The `Viewer` of the run that is open.
    """

    def __init__(self, grid: Grid) -> None:
        """The first page, with no run open; the class says what the argument is."""
        self.grid = grid
        self.viewer = marked(Viewer(layout=layout(display="none")), "sheet-run")
        self.table = Pictures(about=_about(grid), layout=layout())
        self.hand_ins = _Still(self)
        self._page(0, 0, _side_for(grid, self.table.about["ratio"]))
        super().__init__([self.table, self.viewer], layout=layout())
        self.table.on_msg(self._on_message)
        self.settle_in()

    def __repr__(self) -> str:
        return f"Sheet({self.grid!r})"

    def show_run(self, row: int, column: int) -> None:
        """Show the run of a cell; of one that failed nothing is shown."""
        trace = self.grid.traces[row][column]
        if trace is None:
            return
        feed = self.viewer.feed([trace])
        self.viewer.end(feed, "cancelled" if trace.cancelled else "done")
        self.viewer.layout.display = ""
        self.table.opened = [row, column]

    def put_away(self) -> None:
        """Show the pictures alone."""
        self.viewer.layout.display = "none"
        self.table.opened = []

    def close(self) -> None:
        """Take the widget off every page."""
        close_parts(self)
        super().close()

    def displayed_by(self) -> Any:
        """This: what stands for it is its own."""
        return self

    def _page(self, row: int, column: int, side: int) -> None:
        down, across = len(self.grid.traces), len(self.grid.traces[0])
        most = SIDES[side]
        row, column = (max(0, min(at, count - 1)) // most * most for at, count in ((row, down), (column, across)))
        data = bytearray()
        cells = [
            [_cell(trace, error, 2 * side, data) for trace, error in zip(traces, errors, strict=True)]
            for traces, errors in (
                (self.grid.traces[i][column : column + most], self.grid.errors[i][column : column + most])
                for i in range(row, min(row + most, down))
            )
        ]
        with self.table.hold_sync():
            self.table.page = {"row": row, "column": column, "side": side, "most": most, "cells": cells}
            self.table.pictures = bytes(data)

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict):
            return
        kind, row, column, side = (content.get(name) for name in ("kind", "row", "column", "side"))
        if kind == "close":
            self.put_away()
            return
        if type(row) is not int or type(column) is not int:
            return
        if kind == "page" and type(side) is int:
            self._page(row, column, min(SIDES, key=lambda one: abs(one - side)))
        elif kind == "open" and 0 <= row < len(self.grid.traces) and 0 <= column < len(self.grid.traces[0]):
            self.show_run(row, column)


class _Still(HandIns):
    """What stands for a sheet where it cannot run: its first rows and columns on paper."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__(sheet.viewer)
        self._grid = sheet.grid

    def bundle(self, name: str) -> dict[str, str]:
        """The figure with its caption, by type."""
        part = self._grid.part(_STILL, _STILL)
        with Image.open(io.BytesIO(part.plot()._repr_png_()[0])) as image:
            picture = image.convert("RGB")
        picture.thumbnail((_STILL_WIDTH, 2 * _STILL_WIDTH))
        heads, down, across = self._grid.heads(), len(part.traces), len(part.traces[0])
        lines = [f"{heads.title} · {heads.below}".strip(" ·")]
        if (down, across) != (len(heads.rows), len(heads.columns)):
            lines.append(f"The first {down} of {len(heads.rows)} rows and {across} of {len(heads.columns)} columns.")
        return standing(lines, picture)


def to_html(grid: Grid, path: str | PathLike[str], *, runs: bool = True) -> Path:
    """Write one self-contained page with the pictures of a grid, and the runs behind them.

    Args:
        grid: What `diffexplore.sweep` drew.
        path: Where to write; an existing file is replaced once the new one is whole. ``~`` is the home folder.
        runs: Whether a cell opens its run: as many as fit into `ROOM`, row by row.

    Returns:
        The file written.

    Raises:
        OSError: The file cannot be written; what was there is still there.
    """
    about, data = _about(grid), bytearray()
    side = _side_for(grid, about["ratio"])
    cells = [
        [_cell(trace, error, min(2 * side, 256), data) for trace, error in zip(traces, errors, strict=True)]
        for traces, errors in zip(grid.traces, grid.errors, strict=True)
    ]
    films: dict[str, Any] = {}
    size, left = 0, 0
    for i, line in enumerate(grid.traces):
        for j, trace in enumerate(line):
            if trace is None or not len(trace) or not runs:
                continue
            if size > ROOM:
                left += 1
                continue
            document, frames = pack(films_of(trace), len(films) + 1)
            films[f"{i},{j}"] = [document, base64.b64encode(frames).decode()]
            size += len(frames)
    if left:
        about["below"] += f" · the runs of {left} pictures are not in this page, which would be too large with them"
    script = ESM + SHEET_PAGE
    page = filled(
        f"{about['title']:.80} - diffexplore",
        CSS + SHEET_CSS,
        script,
        {
            "about": about,
            "cells": cells,
            "side": side,
            "sides": [[one, most] for one, most in SIDES.items()],
            "pictures": base64.b64encode(bytes(data)).decode(),
            "films": films,
        },
    )
    place = Path(a_path(path)).expanduser()
    with written(place) as file:
        file.write(page)
    return place
