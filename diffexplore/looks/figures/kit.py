"""What all figures share: ink, sizes, a figure that shows itself, and text drawn as it was typed.

Text that people typed (prompts, labels) is drawn as it is: a ``$`` starts no formula, whatever the user's rcParams
say. :func:`plain` and :func:`wrapped` cut it to its room; `AS_TYPED` goes to every call of matplotlib that takes text,
and :func:`heading` and :func:`legend` see to it by themselves.
"""

import bisect
import io
import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib import figure
from matplotlib.font_manager import FontProperties, findfont, get_font

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "AS_TYPED",
    "COLOURS",
    "DENSITY",
    "FAINT",
    "INK",
    "LABEL",
    "PALE_BLUE",
    "QUIET",
    "RED",
    "TEXT",
    "WIDTH",
    "Figure",
    "Plotted",
    "bare",
    "finite",
    "fitted",
    "heading",
    "legend",
    "plain",
    "wrapped",
]

INK: Final = "#24292f"
QUIET: Final = "#57606a"
FAINT: Final = "#d0d7de"
PALE_BLUE: Final = "#b6d7ff"
RED: Final = "#cf222e"
COLOURS: Final = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#57606a")
"""Of several runs, in order; they repeat."""
TEXT: Final = 8.0
"""Points."""
LABEL: Final[dict[str, Any]] = {"fontsize": TEXT - 0.5, "color": QUIET}
AS_TYPED: Final[dict[str, Any]] = {"parse_math": False, "usetex": False}
WIDTH: Final = 10.0
"""Inches of a page."""
DENSITY: Final = 200
"""Pixels per inch that pictures are resampled to."""


class Figure(figure.Figure):
    """A matplotlib figure that shows itself in a notebook, whatever the backend; sharp on dense screens."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        width, height = self.get_size_inches() * self.dpi
        return buffer.getvalue(), {"width": round(width), "height": round(height)}


class Plotted:
    """What a notebook shows as its figure."""

    def plot(self) -> Figure:
        """The figure."""
        raise NotImplementedError

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.plot()._repr_png_()


# Words


def plain(text: str, size: float, width: float, weight: str = "normal") -> str:
    """One line of text as typed, at most `width` inches long at `size` points: white space collapsed, the end cut.

    What the font has no glyph for becomes a box, as in matplotlib, but without a warning for each.
    """
    font = get_font(findfont(FontProperties(weight=weight)))
    # No line holds more than 1,000 characters, so a novel need not be measured.
    line = "".join(c if font.get_char_index(ord(c)) else "□" for c in " ".join(text.split())[:1000])

    def fits(words: str) -> bool:
        font.set_size(size, 72)
        font.set_text(words, 0.0)
        # On a coarse screen each letter is rounded to whole pixels, so a line may come out a little longer.
        return bool(font.get_width_height()[0] / 64 / 72 <= 0.95 * width)

    if fits(line):
        return line
    kept = bisect.bisect_left(range(len(line)), True, key=lambda end: not fits(line[: end + 1] + "…"))
    return line[:kept].rstrip() + "…"


def wrapped(text: str, size: float, width: float, most: int) -> str:
    """Text as typed in up to `most` lines of `width` inches at `size` points, the rest cut."""
    lines = textwrap.wrap(" ".join(text.split())[:1000], max(4, int(width * 72 / (0.52 * size))))
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return "\n".join(plain(line, size, width) for line in lines)


# Axes


def heading(axes: "Axes", text: str, unit: str) -> None:
    """A panel's title, its unit below it, and quiet axes; both texts as typed."""
    axes.set_facecolor("white")
    title = plain(text, TEXT + 0.5, WIDTH, "bold")
    axes.set_title(title, loc="left", fontsize=TEXT + 0.5, fontweight="bold", color=INK, pad=14, **AS_TYPED)
    axes.annotate(  # its distance in points: in parts of the panel it would meet the title of a high one
        plain(unit, TEXT, WIDTH), (0, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points",
        va="bottom", **LABEL, **AS_TYPED,
    )  # fmt: skip
    bare(axes)


def bare(axes: "Axes", size: float = TEXT - 1) -> None:
    """Quiet ticks and spines, as on all our figures; `size` in points is that of the ticks' names."""
    axes.tick_params(labelsize=size, color=FAINT, labelcolor=QUIET, length=3, which="both")
    axes.grid(visible=True, axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(color=FAINT, visible=side in ("left", "bottom"))


def legend(axes: "Axes") -> None:
    """The names of what is drawn, as typed; nothing where nothing has a name."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    made = axes.legend(
        handles,
        [plain(label, TEXT - 1, 2.5) for label in labels],
        fontsize=TEXT - 1,
        framealpha=0.8,
        edgecolor="none",
        facecolor="white",
        labelcolor=INK,
    )
    for text in made.get_texts():
        text.set(**AS_TYPED)


# Sizes and numbers


def fitted(ratio: float, width: float, height: float) -> tuple[float, float]:
    """The largest size of that ratio (width over height) within a box."""
    return (width, width / ratio) if ratio > width / height else (height * ratio, height)


def finite(values: np.ndarray) -> np.ndarray:
    """The values, NaN where they are not finite: matplotlib leaves those out."""
    return np.where(np.isfinite(values), values, np.nan)
