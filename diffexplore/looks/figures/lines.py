"""Lines in a panel, and the figures that are nothing but lines; fed with numbers, they know nothing of runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator

from diffexplore.looks.figures.kit import (
    AS_TYPED,
    COLOURS,
    FAINT,
    INK,
    LABEL,
    QUIET,
    TEXT,
    WIDTH,
    Figure,
    finite,
    heading,
    legend,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distances", "line", "over_steps", "panels", "plot_rows", "power_levels", "power_line", "upright"]

_DECADES: Final = 1e5  # largest over smallest value of a logarithmic axis, at most
_MOST_DOTS: Final = 40  # a curve over more evaluations than this is drawn without dots


def line(axes: "Axes", values: np.ndarray, colour: str, label: str = "") -> None:
    """One number per evaluation, the first at 1; what is not finite is left out."""
    known = finite(values)
    if np.isnan(known).all():
        return
    marker = "o" if len(values) <= _MOST_DOTS else ""
    x = np.arange(1, len(values) + 1)
    axes.plot(x, known, color=colour, lw=1.3, marker=marker, ms=2.5, label=label or "_")


def over_steps(axes: "Axes", count: int, chosen: Sequence[int] = (), name: str = "step") -> None:
    """The axis of `count` evaluations, counted from 1 as in the widgets, with a faint line at each of the `chosen`."""
    for i in chosen:
        axes.axvline(i + 1, color=FAINT, lw=0.8, ls=(0, (1, 2)))
    room = 0.02 * (count - 1) or 0.5
    axes.set_xlim(1 - room, count + room)
    every = [int(i) for i in MaxNLocator(8, integer=True).tick_values(1, count) if 1 < i <= count]
    # Round numbers, and the first; but for one that would stand too close to it.
    axes.xaxis.set_major_locator(FixedLocator([1, *(i for i in every if i - 1 > 0.05 * count)]))
    axes.set_xlabel(name, **LABEL)


def power_line(axes: "Axes", power: np.ndarray, colour: Any, label: str) -> np.ndarray:
    """Draw a power spectrum but for its mean level; returns the powers drawn."""
    cycles = np.arange(len(power))[1:][(power[1:] > 0) & np.isfinite(power[1:])]
    drawn = power[cycles]
    axes.semilogy(cycles, drawn, color=colour, lw=1.5, marker="o", ms=2.5, label=label, zorder=3)
    axes.set_xlabel("coarse    →    fine  (cycles per picture)", **LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return drawn


def power_levels(axes: "Axes", levels: Iterable[tuple[str, float]], low: float, high: float) -> None:
    """A dashed line at each named power between `low` and `high`, which become the limits."""
    axes.set_ylim(low, high)
    named = low
    for name, power in levels:
        if not low < power < high:
            continue
        axes.axhline(power, color=QUIET, lw=0.7, ls=(0, (4, 2)), zorder=1)
        if math.log(power / named) > 0.06 * math.log(high / low):  # else the name would run into the one below
            axes.text(
                1,
                power,
                name,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="bottom",
                color=QUIET,
                fontsize=TEXT - 2,
                **AS_TYPED,
            )
            named = power


def panels(runs: Sequence[str], data: Mapping[tuple[str, str, bool], Sequence[np.ndarray]]) -> Figure:
    """One panel for each (heading, unit, logarithmic axis); in each, one line for every run, in the order of `runs`."""
    across = min(len(data), 3)
    down = math.ceil(len(data) / across)
    size = (WIDTH * max(across, 1.6) / 3, 0.5 + 2.3 * down)
    fig = Figure(figsize=size, facecolor="white", layout="constrained")
    for place, ((name, unit, log), values) in enumerate(data.items(), 1):
        axes = fig.add_subplot(down, across, place)
        heading(axes, name, unit)
        for k, (label, one) in enumerate(zip(runs, values, strict=True)):
            line(axes, one, COLOURS[k % len(COLOURS)], label)
        known = np.concatenate(values)
        upright(axes, known[np.isfinite(known)], log)
        over_steps(axes, max(len(one) for one in values))
        if place == 1 and len(runs) > 1:
            legend(axes)
    return fig


def upright(axes: "Axes", known: np.ndarray, log: bool) -> None:
    """The scale of an upright axis for the values drawn on it: logarithmic, or from 0 up where none is below."""
    positive = known[known > 0]
    if log and positive.size:
        axes.set_yscale("log")
        # What is left of a difference that ought to be 0 (rounding) must not squeeze all others into the top.
        least = max(float(positive.min()), float(positive.max()) / _DECADES)
        axes.set_ylim(least / 1.5, float(positive.max()) * 1.5)
    elif known.size and not log and known.min() >= 0 and known.max() > 0:
        axes.set_ylim(bottom=0)


def distances(first: str, data: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str) -> Figure:
    """How far each run is from the one called `first`: label -> (sigma, distance), over the noise level."""
    fig = Figure(figsize=(WIDTH * 0.6, 3.2), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    heading(axes, f"distance from {plain(first, TEXT, 3)}", unit)
    for k, (label, (sigma, distance)) in enumerate(data.items(), 1):
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(sigma, finite(distance), color=colour, lw=1.5, marker="o", ms=2.5, label=label or "_")
    axes.set_xscale("log")
    axes.invert_xaxis()  # a run goes from much noise to little
    axes.set_xlabel("noise level σ: much noise    →    little", **LABEL)
    axes.set_ylim(bottom=0)
    legend(axes)
    return fig


def plot_rows(
    columns: Sequence[Any],
    values: np.ndarray,
    rows: Sequence[str],
    title: str,
    unit: str,
    caption: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A number over a setting: a thin line for each row, and where there are several their mean and standard error.

    Args:
        columns: the values of the setting, numbers or names.
        values: (rows, columns), NaN left out.
        rows: what to call each row.
        title, unit: what the numbers are.
        caption: what all of them share.
        limits: the least and the largest value there can be; None: as the values are.
    """
    names = [plain(one, TEXT, 1.4) for one in columns if isinstance(one, str)]
    fig = Figure(figsize=(WIDTH * 0.6, 3.4), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    heading(axes, title, unit)
    if not names:
        order = sorted(range(len(columns)), key=lambda k: columns[k])
        columns, values = [columns[k] for k in order], values[:, order]
    x = np.arange(len(columns)) if names else np.array(columns, dtype=np.float64)
    few = len(rows) <= len(COLOURS)
    for k, (row, numbers) in enumerate(zip(rows, values, strict=True)):
        colour = COLOURS[k % len(COLOURS)] if few else FAINT
        label = plain(row, TEXT, 2.4) if few and len(rows) > 1 else "_"
        axes.plot(x, numbers, color=colour, lw=1, alpha=0.7, marker="o", ms=2.5, label=label or "_")
    if len(rows) > 1:
        known = np.isfinite(values)
        count = known.sum(0)
        with np.errstate(all="ignore"):
            mean = np.where(known, values, 0).sum(0) / count
            spread = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(0) / np.maximum(count - 1, 1) / count)
        axes.fill_between(x, mean - spread, mean + spread, color=INK, alpha=0.12, lw=0)
        axes.plot(x, mean, color=INK, lw=2, marker="o", ms=4, label="mean of all, with its standard error")
    ticks = names or [f"{one:g}" if isinstance(one, float) else str(one) for one in columns]
    axes.set_xticks(x, ticks, fontsize=TEXT - 1, **AS_TYPED)
    if names and (len(names) > 4 or max(map(len, names)) > 12):
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_xlabel(plain(caption, TEXT, WIDTH * 0.6), **LABEL, **AS_TYPED)
    if limits is not None:
        room = 0.02 * (limits[1] - limits[0])
        axes.set_ylim(limits[0] - room, limits[1] + room)
    if len(rows) > 1:
        legend(axes)
    return fig
