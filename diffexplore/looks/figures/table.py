"""Pictures in a table, each with a line of its own, or on a sheet; fed with pictures and words."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from PIL import Image

from diffexplore.looks.figures.kit import FAINT, QUIET, RED, Figure, fitted, plain, wrapped
from diffexplore.looks.figures.paper import MARGIN, Paper

__all__ = ["Cell", "plot_sheet", "plot_table"]

_HEADS: Final = 0.55  # inches
_TITLE: Final = 0.2
_GAP: Final = 0.12
_REPEATED: Final = 4  # a table of more rows repeats the names of its columns below


class Cell(NamedTuple):
    """One picture with what is said of it; without a picture, why there is none."""

    picture: Image.Image | None
    words: str = ""
    error: str = ""


def plot_table(
    cells: Sequence[Sequence[Cell]],
    title: str,
    below: str,
    columns: tuple[str, Sequence[str]],
    rows: tuple[str, Sequence[str]] | None = None,
    ratio: float = 1.0,
) -> Figure:
    """Pictures in rows and columns; in place of one that failed stands why.

    Args:
        cells: row by row.
        title, below: the two lines at the top.
        columns: what varies over the columns, and the name of each; they are repeated below more than four rows.
        rows: the same for the rows; None: a single row without a name.
        ratio: width over height of a cell.
    """
    down, across = len(cells), len(columns[1])
    names = 1.5 if rows else 0.15
    cell_w = min(1.9, max(1.35, (10 - names - 0.15) / across - _GAP))
    cell_h = cell_w / ratio
    top = 0.75
    bottom = 0.5 if down > _REPEATED else 0.12
    width = max(names + across * (cell_w + _GAP) + 0.1, 5.0)
    paper = Paper(width, top + _HEADS + down * (cell_h + _TITLE + _GAP) + bottom)
    paper.title(title, below)

    paper.text(
        names,
        top,
        f"{plain(columns[0], 8, width - names - 0.4, 'bold')} →",
        fontweight="bold",
        va="center",
        color=QUIET,
    )
    if rows:
        corner = (names - 0.12, top + _HEADS - 0.08, f"{plain(rows[0], 8, names - 0.4, 'bold')} ↓")
        paper.text(*corner, fontweight="bold", ha="right", va="bottom", color=QUIET)
    for j, column in enumerate(columns[1]):
        middle, name = names + j * (cell_w + _GAP) + cell_w / 2, wrapped(column, 8, cell_w, 2)
        paper.text(middle, top + _HEADS - 0.08, name, fontweight="bold", ha="center", va="bottom")
        if down > _REPEATED:
            paper.text(middle, paper.height - bottom + 0.02, name, fontweight="bold", ha="center", va="top")
    for i, line in enumerate(cells):
        y = top + _HEADS + i * (cell_h + _TITLE + _GAP) + _TITLE
        if rows:
            name = wrapped(rows[1][i], 8, names - 0.3, max(2, int(cell_h / 0.16)))
            paper.text(names - 0.12, y + cell_h / 2, name, fontweight="bold", ha="right", va="center")
        for j, cell in enumerate(line):
            _draw(paper, names + j * (cell_w + _GAP), y, cell_w, cell_h, cell)
    return paper.figure


def _draw(paper: Paper, x: float, y: float, width: float, height: float, cell: Cell) -> None:
    if cell.picture is not None:
        own = fitted(cell.picture.width / cell.picture.height, width, height)
        paper.picture(x, y, *own, cell.picture)
        paper.text(x, y - 0.03, plain(cell.words, 6.5, width + _GAP), fontsize=6.5, color=QUIET, va="bottom")
    else:
        paper.box(x, y, width, height, facecolor="#fff5f5", edgecolor=RED)
        paper.text(x, y - 0.03, "failed", fontsize=6.5, color=RED, va="bottom")
        why = wrapped(cell.error, 6.5, width - 0.12, max(1, int((height - 0.1) / 0.125)))
        paper.text(x + 0.06, y + 0.06, why, fontsize=6.5, color="#82071e", va="top")
    paper.box(x, y, width, height, edgecolor=FAINT)


def plot_sheet(cells: Sequence[Cell], title: str = "", below: str = "", across: int = 5) -> Figure:
    """Pictures one after the other, the words of each above it in up to two lines.

    Args:
        cells: in reading order; one with no picture is an empty frame.
        title, below: the two lines at the top; "" for none.
        across: pictures in a row.
    """
    across = max(1, min(across, len(cells)))
    down = -(-len(cells) // across)
    side, heads, top = 1.7, 0.4, 0.65 if title else 0.1
    shapes = [cell.picture.width / cell.picture.height for cell in cells if cell.picture is not None]
    height = side / max(min(shapes, default=1.0), 0.25)
    paper = Paper(2 * MARGIN + across * (side + _GAP) - _GAP, top + down * (height + heads) + _GAP)
    if title:
        paper.title(title, below)
    for k, cell in enumerate(cells):
        x, y = MARGIN + k % across * (side + _GAP), top + k // across * (height + heads) + heads
        words = "\n".join(wrapped(line, 8, side, 2) for line in cell.words.split("\n"))
        paper.text(x + side / 2, y - 0.04, words, ha="center", va="bottom")
        if cell.picture is None:
            paper.box(x, y, side, height)
        else:
            paper.picture(x, y, *fitted(cell.picture.width / cell.picture.height, side, height), cell.picture)
    return paper.figure
