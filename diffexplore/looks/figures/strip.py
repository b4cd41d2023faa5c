"""A filmstrip with large pictures beside it and two panels below; fed with pixels, it knows nothing of runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from diffexplore.looks.figures.kit import INK, LABEL, QUIET, TEXT, WIDTH, Figure
from diffexplore.looks.figures.paper import MARGIN, Paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Strip"]

# In inches.
_NAMES: Final = 1.25  # for the names of the rows
_GAP: Final = 0.05
_WIDE_GAP: Final = 0.2
_TOP: Final = 0.85  # for the title, the settings and the names of the columns
_BETWEEN: Final = 0.75  # for the headings of the panels
_PANEL: Final = 1.5
_BOTTOM: Final = 0.5
_LARGEST_CELL: Final = 1.2


class Strip:
    """A page with `rows` by `columns` frames of one shape.

    Args:
        shape: (height, width) of a frame that shows one pixel per latent: such frames are drawn as plain squares, all
            others resampled.
        columns, rows: how many frames.
        beside: how many pictures stand beside the strip, as high as all its rows: none, 1 (at the end) or 2.
    """

    def __init__(self, shape: tuple[int, int], columns: int, rows: int, beside: int) -> None:
        self._native = shape
        ratio = shape[1] / shape[0]
        # A picture beside the strip is as high as all its rows: it takes the room of `rows` cells.
        room = WIDTH - _NAMES - MARGIN - (columns - 1) * _GAP - beside * (_WIDE_GAP + (rows - 1) * _GAP * ratio)
        self._cell_w = min(room / (columns + beside * rows), _LARGEST_CELL, _LARGEST_CELL * ratio)
        self._cell_h = self._cell_w / ratio
        self._strip_w = columns * self._cell_w + (columns - 1) * _GAP
        self._strip_h = rows * self._cell_h + (rows - 1) * _GAP
        self._beside_w = self._strip_h * ratio
        self._strip_x = _NAMES + (MARGIN + self._beside_w if beside == 2 else 0)
        self._paper = Paper(WIDTH, _TOP + self._strip_h + _BETWEEN + _PANEL + _BOTTOM)

    @property
    def figure(self) -> Figure:
        """What has been drawn so far."""
        return self._paper.figure

    def title(self, text: str, below: str) -> None:
        """The two lines at the top, as typed."""
        self._paper.title(text, below)

    def heads(self, texts: Sequence[str]) -> None:
        """The names of the columns."""
        size = min(TEXT - 1, 10.5 * self._cell_w)  # narrow columns get small names
        for column, text in enumerate(texts):
            x = self._strip_x + column * (self._cell_w + _GAP) + self._cell_w / 2
            self._paper.text(x, _TOP - 0.04, text, ha="center", va="bottom", fontsize=size, color=QUIET)

    def row(self, row: int, head: str, tail: str, frames: Sequence[np.ndarray]) -> None:
        """One row: what it is called, in words of our own, and its frames, (H, W, 3) uint8."""
        y = _TOP + row * (self._cell_h + _GAP)
        x, middle = self._strip_x - 0.1, y + self._cell_h / 2
        bold: dict[str, Any] = {"fontsize": TEXT, "fontweight": "bold", "color": INK}
        self._paper.label(x, middle - 0.02, head, ha="right", va="bottom", **bold)
        self._paper.label(x, middle + 0.02, tail, ha="right", va="top", **LABEL)
        for column, pixels in enumerate(frames):
            left = self._strip_x + column * (self._cell_w + _GAP)
            self._frame(left, y, self._cell_w, self._cell_h, pixels)

    def beside(self, picture: np.ndarray | Image.Image, caption: str, *, at_end: bool) -> None:
        """A picture as high as the strip, after it or before it."""
        x = self._strip_x + self._strip_w + _WIDE_GAP if at_end else MARGIN
        self._frame(x, _TOP, self._beside_w, self._strip_h, np.asarray(picture))
        self._paper.text(x + self._beside_w / 2, _TOP - 0.04, caption, ha="center", va="bottom", **LABEL)

    def panels(self) -> "tuple[Axes, Axes]":
        """The two panels below."""
        y = _TOP + self._strip_h + _BETWEEN
        left, between = 0.7, 0.75
        width = (WIDTH - left - between - MARGIN) / 2
        return (
            self._paper.axes(left, y, width, _PANEL),
            self._paper.axes(left + width + between, y, width, _PANEL),
        )

    def _frame(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> None:
        self._paper.picture(x, y, width, height, pixels, squares=pixels.shape[:2] == self._native)
        self._paper.box(x, y, width, height)
