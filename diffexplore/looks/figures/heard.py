"""A page of sounds side by side: latents, waveform and spectrogram of each, and two panels below; fed with numbers, it
knows nothing of runs."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from diffexplore.looks.figures.kit import COLOURS, FAINT, INK, LABEL, QUIET, TEXT, WIDTH, Figure
from diffexplore.looks.figures.paper import MARGIN, Paper
from diffexplore.looks.sounds import COLOURS as LOUD
from diffexplore.looks.sounds import FLOOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Heard"]

# In inches.
_NAMES: Final = 1.5
_SCALE: Final = 0.55  # for what the colours mean, at the right
_GAP: Final = 0.12
_TOP: Final = 0.85
_ROWS: Final = (("noisy latents $x_t$", 0.9), ("waveform", 0.6), ("mel\nspectrogram", 1.5))
_BETWEEN: Final = 0.95
_PANEL: Final = 1.5
_BOTTOM: Final = 0.5
_HERTZ: Final = (200, 500, 1000, 2000, 5000, 10_000, 20_000)


class Heard:
    """A page with `columns` sounds."""

    def __init__(self, columns: int) -> None:
        """Empty, but for the names of its rows."""
        self._columns = columns
        self._wide = (WIDTH - _NAMES - _SCALE - MARGIN - (columns - 1) * _GAP) / columns
        self._tops = [_TOP + sum(high + _GAP for _, high in _ROWS[:row]) for row in range(len(_ROWS))]
        self._below = self._tops[-1] + _ROWS[-1][1]
        self._paper = Paper(WIDTH, self._below + _BETWEEN + _PANEL + _BOTTOM)
        self._shades = LinearSegmentedColormap.from_list("loud", LOUD / 255)
        for (name, high), top in zip(_ROWS, self._tops, strict=True):
            style: dict[str, Any] = {"fontsize": TEXT, "fontweight": "bold", "color": INK}
            self._paper.label(MARGIN, top + high / 2, name, ha="left", va="center", **style)

    @property
    def figure(self) -> Figure:
        """What has been drawn so far."""
        return self._paper.figure

    def title(self, text: str, below: str) -> None:
        """The two lines at the top, as typed."""
        self._paper.title(text, below)

    def column(
        self,
        column: int,
        head: str,
        rate: int,
        samples: np.ndarray | None,
        spectrogram: tuple[np.ndarray, np.ndarray] | None,
        latents: np.ndarray | None,
    ) -> None:
        """One sound.

        Args:
            column: which, from 0.
            head: its name, as typed.
            rate: samples a second.
            samples: (channels, samples); None where there is none.
            spectrogram: (bands, columns) decibels, and the middle of each band in Hz.
            latents: (channels, frequencies, time).
        """
        x = _NAMES + column * (self._wide + _GAP)
        middle = x + self._wide / 2
        self._paper.text(middle, _TOP - 0.04, head, ha="center", va="bottom", fontsize=TEXT - 0.5, color=QUIET)
        seconds = 1.0 if samples is None else samples.shape[1] / rate
        if latents is not None:
            rows = latents[:, ::-1].reshape(-1, latents.shape[-1])
            axes = self._axes(x, 0)
            axes.imshow(rows, cmap="gray", vmin=-2.5, vmax=2.5, aspect="auto", interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        if samples is None or spectrogram is None:
            self._paper.text(middle, self._tops[2] + 0.7, "no sound here", ha="center", color=QUIET)
            return
        axes = self._axes(x, 1)
        mean = np.nan_to_num(samples.mean(axis=0))
        edges = np.linspace(0, len(mean), min(len(mean), 400) + 1).astype(int)
        parts = [mean[start:end] for start, end in pairwise(edges)]
        at = (edges[:-1] + 0.5) / rate
        low, high = [part.min() for part in parts], [part.max() for part in parts]
        axes.fill_between(at, low, high, color=COLOURS[0], linewidth=0.6)
        axes.set(xlim=(0, seconds), ylim=(-1, 1))
        axes.set_xticks([])
        self._ticks(axes, column, [-1, 0, 1], ["-1", "0", "1"])

        axes = self._axes(x, 2)
        decibels, middles = spectrogram
        axes.imshow(
            decibels, cmap=self._shades, vmin=FLOOR, vmax=0, aspect="auto", origin="lower",
            extent=(0, seconds, 0, len(decibels)), interpolation="nearest",
        )  # fmt: skip
        known = [hertz for hertz in _HERTZ if middles[0] < hertz < middles[-1]]
        places = np.interp(known, middles, np.arange(len(middles)) + 0.5)
        self._ticks(axes, column, list(places), [f"{hertz / 1000:g}" for hertz in known])
        axes.tick_params(axis="x", labelsize=TEXT - 1.5, labelcolor=QUIET, color=FAINT, length=2)
        axes.xaxis.set_major_locator(MaxNLocator(4, prune="upper"))
        if column == 0:
            self._paper.text(_NAMES - 0.1, self._tops[2] - 0.02, "kHz", ha="right", va="top", **LABEL)
            self._paper.text(_NAMES - 0.1, self._below + 0.12, "seconds", ha="right", va="top", **LABEL)
        if column == self._columns - 1:
            self._scale()

    def panels(self) -> "tuple[Axes, Axes]":
        """The two panels below."""
        y = self._below + _BETWEEN
        left, between = 0.7, 0.75
        width = (WIDTH - left - between - MARGIN) / 2
        return self._paper.axes(left, y, width, _PANEL), self._paper.axes(left + width + between, y, width, _PANEL)

    def _axes(self, x: float, row: int) -> "Axes":
        axes = self._paper.axes(x, self._tops[row], self._wide, _ROWS[row][1])
        for spine in axes.spines.values():
            spine.set(color=FAINT)
        return axes

    def _ticks(self, axes: "Axes", column: int, places: list[float], words: list[str]) -> None:
        """The vertical axis: its names stand at the first column alone."""
        axes.set_yticks(places, words if column == 0 else [""] * len(words))
        axes.tick_params(axis="y", labelsize=TEXT - 1.5, labelcolor=QUIET, color=FAINT, length=2)

    def _scale(self) -> None:
        """What the colours mean."""
        axes = self._paper.axes(WIDTH - MARGIN - _SCALE + 0.12, self._tops[2], 0.09, _ROWS[2][1])
        axes.imshow(
            np.linspace(0, 1, 256)[:, None], cmap=self._shades, aspect="auto", origin="lower", extent=(0, 1, FLOOR, 0)
        )
        axes.set_xticks([])
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", labelsize=TEXT - 1.5, labelcolor=QUIET, color=FAINT, length=2)
        self._paper.text(WIDTH - MARGIN - _SCALE + 0.12, self._tops[2] - 0.03, "dBFS", va="bottom", **LABEL)
