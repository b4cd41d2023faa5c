"""A page measured in inches from its top left corner: text, pictures, boxes and axes are put where they are told."""

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from diffexplore.looks.figures.kit import AS_TYPED, DENSITY, FAINT, INK, QUIET, TEXT, Figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MARGIN", "Paper", "resampled"]

MARGIN: Final = 0.15


class Paper:
    """A figure of `width` by `height` inches.

    Attributes:
        figure: what is drawn on. Its first axes are the page itself and hold all pictures: one axes per picture would
            take most of the time of drawing the page.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self._page = self.figure.add_axes((0, 0, 1, 1))
        self._page.set_axis_off()
        self._page.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        """Axes whose top left corner is at (x, y)."""
        bottom = 1 - (y + height) / self.height
        place = (x / self.width, bottom, width / self.width, height / self.height)
        return self.figure.add_axes(place, facecolor="white")

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words as typed; they may lie across lines, but are not cut: `plain` and `wrapped` do that."""
        self.figure.text(
            x / self.width, 1 - y / self.height, words, **{"fontsize": TEXT, "color": INK, **style, **AS_TYPED}
        )

    def label(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words of our own, in which mathematics may stand between dollar signs: never text that people typed."""
        self.figure.text(
            x / self.width, 1 - y / self.height, words, usetex=False, **{"fontsize": TEXT, "color": INK, **style}
        )

    def picture(
        self, x: float, y: float, width: float, height: float, image: Image.Image | np.ndarray, *, squares: bool = False
    ) -> None:
        """A picture that fills a box; its pixels as plain squares, or else resampled smoothly."""
        pixels = np.asarray(image) if squares else resampled(image, width, height)
        smooth = "nearest" if squares else "antialiased"
        self._page.imshow(pixels, interpolation=smooth, aspect="auto", extent=(x, x + width, y + height, y))

    def box(self, x: float, y: float, width: float, height: float, **style: Any) -> None:
        """An outline; with a `facecolor`, filled."""
        given = {"fill": "facecolor" in style, "edgecolor": FAINT, "linewidth": 0.6, **style}
        self._page.add_patch(Rectangle((x, y), width, height, **given))

    def title(self, text: str, below: str) -> None:
        """The two lines at the top of every page, each cut to its width."""
        room = self.width - 2 * MARGIN
        self.text(MARGIN, 0.16, plain(text, 11, room, "bold"), fontsize=11, fontweight="bold", va="top")
        self.text(MARGIN, 0.38, plain(below, TEXT, room), color=QUIET, va="top")


def resampled(image: Image.Image | np.ndarray, width: float, height: float) -> np.ndarray:
    """A picture for `width` by `height` inches of paper, (H, W, 3) uint8, smoother than matplotlib would make it."""
    size = (max(1, math.ceil(width * DENSITY)), max(1, math.ceil(height * DENSITY)))
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))
