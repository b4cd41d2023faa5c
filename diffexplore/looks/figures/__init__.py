"""A :class:`~diffexplore.trace.Trace` on paper: matplotlib figures of its views and curves.

Object-oriented matplotlib only: no pyplot, no list of open figures, no rcParams touched, so figures can be
made on any thread. A :class:`Figure` from here shows itself as the last line of a notebook cell, which a
plain one does not do before pyplot has been imported. Text that people typed (prompts, labels) is drawn as it
is: a ``$`` starts no formula.
"""

import bisect
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib import colormaps, figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator
from PIL import Image

from diffexplore.looks import views
from diffexplore.looks.curves import CURVES, curve, parting, spectrum
from diffexplore.trace import Trace
from diffexplore.words import shown as in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Figure", "plot", "plot_curves", "plot_forward", "plot_parting", "plot_rows", "plot_spectrum"]

_INK: Final = "#24292f"
_QUIET: Final = "#57606a"
_FAINT: Final = "#d0d7de"
_PALE_BLUE: Final = "#b6d7ff"
_COLOURS: Final = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#57606a")
_TEXT: Final = 8.0  # points
_LABEL: Final[dict[str, Any]] = {"fontsize": _TEXT - 0.5, "color": _QUIET}
_AS_TYPED: Final[dict[str, Any]] = {"parse_math": False, "usetex": False}
_MOST_DOTS: Final = 40  # a curve over more evaluations than this is drawn without dots
_MOST_COLUMNS: Final = 12

# The page, in inches.
_WIDTH: Final = 10.0
_MARGIN: Final = 0.15
_NAMES: Final = 1.25  # for the names of the rows
_GAP: Final = 0.05
_WIDE_GAP: Final = 0.2
_TOP: Final = 0.85  # for the title, the settings and the names of the columns
_BETWEEN: Final = 0.75  # for the headings of the panels
_PANEL: Final = 1.5
_BOTTOM: Final = 0.5
_LARGEST_CELL: Final = 1.2
_DENSITY: Final = 200  # pixels per inch that pictures are resampled to


class Figure(figure.Figure):
    """A matplotlib figure that shows itself in a notebook, whatever the backend; sharp on dense screens."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        width, height = self.get_size_inches() * self.dpi
        return buffer.getvalue(), {"width": round(width), "height": round(height)}


# Figures


def plot(trace: Trace, columns: int = 8) -> Figure:
    """The run on one page: x_t, noise and x0 along the way, the noise levels, and how the estimate settled.

    Args:
        trace: any trace with at least one step; one cut short, or still growing, is drawn as far as it went.
            The traces of ``diffexplore.forward`` get :func:`plot_forward`.
        columns: how many evaluations to show, evenly spaced, the first and the last among them: 2 to 12.

    Raises:
        ValueError: for a trace with no steps, or columns out of range.
    """
    if trace.info.get("forward"):
        return plot_forward(trace, columns)
    chosen = _chosen(trace, columns)
    page = _Page(trace, chosen, rows=3, beside=1)
    page.title(trace.settings.prompt or "(no prompt)", _recipe(trace))
    page.heads([f"step {i}\nσ {_short(trace[i].sigma)}" for i in chosen])
    page.row(0, "latents", "what goes in", "noisy latents $x_t$")
    page.row(1, "noise", "what comes out", "predicted noise")
    page.row(2, "x0", "what it means", "picture estimate $x_0$")
    if trace.image is not None:
        page.beside(np.asarray(trace.image.convert("RGB")), "the picture", at_end=True)
    else:
        caption = "the estimate when it was stopped" if trace.cancelled else "the estimate so far"
        page.beside(views.frame(trace, "x0", chosen[-1]), caption, at_end=True)

    noisiness, settling = page.panels()
    sigma = curve(trace, "sigma")
    _heading(noisiness, "how noisy the latents are", "noise level σ: noise per unit of picture")
    _line(noisiness, sigma, _COLOURS[0])
    if (sigma > 0).any():
        noisiness.set_yscale("log")
    _heading(settling, "how the picture settles", "RMS over the latents")
    _line(settling, curve(trace, "distance"), _COLOURS[0], "x0: distance to the end")
    _line(settling, curve(trace, "change"), _COLOURS[4], "x0: change since the step before")
    _line(settling, curve(trace, "guidance_norm"), _COLOURS[1], "noise: with the prompt minus without")
    settling.set_ylim(bottom=0)
    _legend(settling)
    for axes in (noisiness, settling):
        _over_steps(axes, len(sigma), chosen)
    return page.figure


def plot_forward(trace: Trace, columns: int = 8) -> Figure:
    """The forward story on one page: a picture drowns in noise, and which of its details go first.

    The panel on the right compares, scale by scale, the power of the picture's latents with that of the noise
    per unit of picture, (b / a)^2, at the levels shown above: where a level's line lies above the picture's
    curve, that scale has drowned.

    Args:
        trace: what ``diffexplore.forward`` returns.
        columns: as in :func:`plot`.

    Raises:
        ValueError: as :func:`plot`.
    """
    chosen = _chosen(trace, columns)
    rows = 2 if trace.decode is not None else 1
    page = _Page(trace, chosen, rows=rows, beside=2)
    share = np.array([step.a**2 / (step.a**2 + step.b**2) for step in trace])
    page.title(
        "From a picture to noise",
        f"x_t = a x0 + b noise, at {len(share)} levels · seed {trace.settings.seed}",
    )
    page.heads([f"level {i}\n{_percent(1 - share[i])} noise" for i in chosen])
    page.row(0, "latents", "what goes in", "noisy latents $x_t$")
    if rows == 2:
        page.row(1, "latents_decoded", "the same", "decoded")
    if trace.image is not None:
        page.beside(np.asarray(trace.image.convert("RGB")), "the picture", at_end=False)
    page.beside(views.frame(trace, "noise", 0), "the noise", at_end=True)

    mix, scales = page.panels()
    _heading(mix, "what the latents are made of", "share of the variance")
    x = np.arange(len(share))
    mix.stackplot(x, share, 1 - share, colors=(_PALE_BLUE, _FAINT), labels=("picture", "noise"))
    mix.set_ylim(0, 1)
    _over_steps(mix, len(share), chosen, "level")
    _legend(mix)

    _heading(scales, "fine detail drowns first", "power, log scale")
    power = _spectrum_line(scales, spectrum(trace, 0), _COLOURS[0], "the picture")
    if power.size:
        _noise_lines(scales, trace, chosen, low=power.min() / 4, high=power.max() * 10)
    _legend(scales)
    return page.figure


def plot_curves(
    traces: Trace | Mapping[str, Trace], names: str | Iterable[str] = ("sigma", "change", "distance")
) -> Figure:
    """Curves, one panel each; several runs share the panels.

    Args:
        traces: one trace, or label -> trace to compare runs.
        names: one name or several, of ``diffexplore.looks.curves.CURVES``.

    Raises:
        ValueError: for an unknown name, no name, no trace, or a trace with no steps.
    """
    runs = {"": traces} if isinstance(traces, Trace) else dict(traces)
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not runs or not wanted:
        raise ValueError(f"nothing to plot: got {len(runs)} traces and {len(wanted)} names of curves")
    for trace in runs.values():
        _chosen(trace, 2)  # refuses a trace with no steps
    data = {name: [curve(trace, name) for trace in runs.values()] for name in wanted}

    across = min(len(wanted), 3)
    down = math.ceil(len(wanted) / across)
    size = (_WIDTH * max(across, 1.6) / 3, 0.5 + 2.3 * down)
    fig = Figure(figsize=size, facecolor="white", layout="constrained")
    for place, (name, lines) in enumerate(data.items(), 1):
        axes = fig.add_subplot(down, across, place)
        _heading(axes, name.replace("_", " "), CURVES[name].unit)
        for colour, (label, values) in enumerate(zip(runs, lines, strict=True)):
            _line(axes, values, _COLOURS[colour % len(_COLOURS)], label)
        finite = np.concatenate(lines)
        finite = finite[np.isfinite(finite)]
        if finite.size and finite.min() > 0 and finite.max() > 100 * finite.min():
            axes.set_yscale("log")
        _over_steps(axes, max(len(values) for values in lines))
        if place == 1 and len(runs) > 1:
            _legend(axes)
    return fig


def plot_parting(traces: Mapping[str, Trace]) -> Figure:
    """Where runs part: how far each one's x0 is from the first one's at the same noise level (`curves.parting`).

    Args:
        traces: label -> trace, two or more; the first is the one the others are held against.

    Raises:
        ValueError: for fewer than two, a trace with no steps, or latents of different shapes.
    """
    if len(traces) < 2:
        raise ValueError(f"runs part only from one another: give two or more, got {len(traces)}")
    (first, reference), *others = traces.items()
    data = {label: parting(trace, reference) for label, trace in others}
    fig = Figure(figsize=(_WIDTH * 0.6, 3.2), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    _heading(axes, f"distance from {_plain(first, _TEXT, 3)}", "RMS of the difference of x0, latent units")
    for colour, (label, (sigma, distance)) in enumerate(data.items(), 1):
        axes.plot(
            sigma, distance, color=_COLOURS[colour % len(_COLOURS)], lw=1.5, marker="o", ms=2.5, label=label or "_"
        )
    axes.set_xscale("log")
    axes.invert_xaxis()  # a run goes from much noise to little
    axes.set_xlabel("noise level σ", **_LABEL)
    _legend(axes)
    return fig


def plot_rows(
    columns: Sequence[Any], values: np.ndarray, rows: Sequence[str], title: str, unit: str, caption: str = ""
) -> Figure:
    """A number over a setting: a thin line for each row, and where there are several their mean and standard error.

    Args:
        columns: the values of the setting, numbers or names.
        values: (rows, columns), NaN left out.
        rows: what to call each row.
        title, unit: what the numbers are.
        caption: what all of them share.
    """
    names = [_plain(one, _TEXT, 1.4) for one in columns if isinstance(one, str)]
    fig = Figure(figsize=(_WIDTH * 0.6, 3.4), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    _heading(axes, title, unit)
    if not names:
        order = sorted(range(len(columns)), key=lambda k: columns[k])
        columns, values = [columns[k] for k in order], values[:, order]
    x = np.arange(len(columns)) if names else np.array(columns, dtype=np.float64)
    few = len(rows) <= len(_COLOURS)
    for k, (row, line) in enumerate(zip(rows, values, strict=True)):
        colour = _COLOURS[k % len(_COLOURS)] if few else _FAINT
        label = _plain(row, _TEXT, 2.4) if few and len(rows) > 1 else "_"
        axes.plot(x, line, color=colour, lw=1, alpha=0.7, marker="o", ms=2.5, label=label or "_")
    if len(rows) > 1:
        known = np.isfinite(values)
        count = known.sum(0)
        with np.errstate(all="ignore"):
            mean = np.where(known, values, 0).sum(0) / count
            spread = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(0) / np.maximum(count - 1, 1) / count)
        axes.fill_between(x, mean - spread, mean + spread, color=_INK, alpha=0.12, lw=0)
        axes.plot(x, mean, color=_INK, lw=2, marker="o", ms=4, label="mean of all, with its standard error")
    ticks = names or [f"{one:g}" if isinstance(one, float) else str(one) for one in columns]
    axes.set_xticks(x, ticks, fontsize=_TEXT - 1, **_AS_TYPED)
    if names and (len(names) > 4 or max(map(len, names)) > 12):
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_xlabel(_plain(caption, _TEXT, _WIDTH * 0.6), **_LABEL, **_AS_TYPED)
    if len(rows) > 1:
        _legend(axes)
    return fig


def plot_spectrum(trace: Trace, columns: int = 8, kind: str = "x0") -> Figure:
    """Power by scale at evenly spaced evaluations, early ones dark and late ones bright.

    Args:
        trace: any trace with at least one step.
        columns: how many evaluations, as in :func:`plot`.
        kind: which tensor, as in :func:`diffexplore.looks.curves.spectrum`.

    Raises:
        ValueError: as :func:`plot` and :func:`diffexplore.looks.curves.spectrum`.
    """
    chosen = _chosen(trace, columns)
    fig = Figure(figsize=(5.2, 3.2), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    _heading(axes, f"{kind.replace('_', ' ')}: power at each scale", "power, log scale")
    for colour, i in zip(colormaps["viridis"](np.linspace(0, 0.9, len(chosen))), chosen, strict=True):
        _spectrum_line(axes, spectrum(trace, i, kind), colour, f"step {i}")
    _legend(axes)
    return fig


# The page


class _Page:
    """A filmstrip, large pictures beside it and two panels below; in inches from the top left corner."""

    def __init__(self, trace: Trace, chosen: Sequence[int], rows: int, beside: int) -> None:
        self._native = tuple(trace[0].latents.shape[1:])
        self._trace, self._chosen = trace, chosen
        ratio = self._native[1] / self._native[0]
        count = len(chosen)
        # A picture beside the strip is as high as all its rows: it takes the room of `rows` cells.
        room = _WIDTH - _NAMES - _MARGIN - (count - 1) * _GAP - beside * (_WIDE_GAP + (rows - 1) * _GAP * ratio)
        self._cell_w = min(room / (count + beside * rows), _LARGEST_CELL, _LARGEST_CELL * ratio)
        self._cell_h = self._cell_w / ratio
        self._strip_w = count * self._cell_w + (count - 1) * _GAP
        self._strip_h = rows * self._cell_h + (rows - 1) * _GAP
        self._beside_w = self._strip_h * ratio
        self._strip_x = _NAMES + (_MARGIN + self._beside_w if beside == 2 else 0)
        self._height = _TOP + self._strip_h + _BETWEEN + _PANEL + _BOTTOM
        self.figure = Figure(figsize=(_WIDTH, self._height), facecolor="white")
        # All pictures lie in one axes: one per picture would take most of the time of drawing the page.
        self._paper = self.figure.add_axes((0, 0, 1, 1))
        self._paper.set_axis_off()
        self._paper.set(xlim=(0, _WIDTH), ylim=(self._height, 0), autoscale_on=False)

    def _axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        bottom = 1 - (y + height) / self._height
        return self.figure.add_axes((x / _WIDTH, bottom, width / _WIDTH, height / self._height))

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / _WIDTH, 1 - y / self._height, text, **style)

    def _image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> None:
        """Latents as plain squares; pictures resampled by PIL, smoother than matplotlib would."""
        latents = pixels.shape[:2] == self._native
        if not latents:
            size = (max(1, round(width * _DENSITY)), max(1, round(height * _DENSITY)))
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        place = (x, x + width, y + height, y)
        smooth = "nearest" if latents else "antialiased"
        self._paper.imshow(pixels, interpolation=smooth, aspect="auto", extent=place)
        self._paper.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=_FAINT, linewidth=0.6))

    def title(self, text: str, below: str) -> None:
        style = {"va": "top", **_AS_TYPED}
        room = _WIDTH - 2 * _MARGIN
        line = _plain(text, 11, room, "bold")
        self._text(_MARGIN, 0.16, line, fontsize=11, fontweight="bold", color=_INK, **style)
        self._text(_MARGIN, 0.38, _plain(below, _TEXT, room), fontsize=_TEXT, color=_QUIET, **style)

    def heads(self, texts: Sequence[str]) -> None:
        size = min(_TEXT - 1, 10.5 * self._cell_w)  # narrow columns get small names
        for column, text in enumerate(texts):
            x = self._strip_x + column * (self._cell_w + _GAP) + self._cell_w / 2
            self._text(x, _TOP - 0.04, text, ha="center", va="bottom", fontsize=size, color=_QUIET)

    def row(self, row: int, kind: str, head: str, tail: str) -> None:
        y = _TOP + row * (self._cell_h + _GAP)
        x, middle = self._strip_x - 0.1, y + self._cell_h / 2
        bold: dict[str, Any] = {"fontsize": _TEXT, "fontweight": "bold", "color": _INK}
        self._text(x, middle - 0.02, head, ha="right", va="bottom", **bold)
        self._text(x, middle + 0.02, tail, ha="right", va="top", **_LABEL)
        for column, i in enumerate(self._chosen):
            left = self._strip_x + column * (self._cell_w + _GAP)
            self._image(left, y, self._cell_w, self._cell_h, views.frame(self._trace, kind, i))

    def beside(self, pixels: np.ndarray, caption: str, *, at_end: bool) -> None:
        x = self._strip_x + self._strip_w + _WIDE_GAP if at_end else _MARGIN
        self._image(x, _TOP, self._beside_w, self._strip_h, pixels)
        self._text(x + self._beside_w / 2, _TOP - 0.04, caption, ha="center", va="bottom", **_LABEL)

    def panels(self) -> "tuple[Axes, Axes]":
        y = _TOP + self._strip_h + _BETWEEN
        left, between = 0.7, 0.75
        width = (_WIDTH - left - between - _MARGIN) / 2
        return self._axes(left, y, width, _PANEL), self._axes(left + width + between, y, width, _PANEL)


def _chosen(trace: Trace, columns: int) -> list[int]:
    """Evenly spaced evaluations, the first and the last among them."""
    if not isinstance(columns, int) or isinstance(columns, bool) or not 2 <= columns <= _MOST_COLUMNS:
        raise ValueError(f"columns must be a whole number from 2 to {_MOST_COLUMNS}, got {in_words(columns)}")
    count = len(trace)
    if not count:
        raise ValueError("nothing to plot: the trace has no steps yet")
    return [round(float(i)) for i in np.linspace(0, count - 1, min(columns, count))]


# Drawing


def _heading(axes: "Axes", text: str, unit: str) -> None:
    axes.set_facecolor("white")
    axes.set_title(text, loc="left", fontsize=_TEXT + 0.5, fontweight="bold", color=_INK, pad=14)
    axes.text(0, 1.02, unit, transform=axes.transAxes, va="bottom", **_LABEL)
    axes.tick_params(labelsize=_TEXT - 1, color=_FAINT, labelcolor=_QUIET, length=3, which="both")
    axes.grid(visible=True, axis="y", color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(color=_FAINT, visible=side in ("left", "bottom"))


def _line(axes: "Axes", values: np.ndarray, colour: str, label: str = "") -> None:
    finite = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(finite).all():
        return
    marker = "o" if len(values) <= _MOST_DOTS else ""
    axes.plot(np.arange(len(values)), finite, color=colour, lw=1.3, marker=marker, ms=2.5, label=label or "_")


def _spectrum_line(axes: "Axes", power: np.ndarray, colour: Any, label: str) -> np.ndarray:
    """Draws a spectrum but for its mean level, and returns the powers drawn."""
    cycles = np.arange(len(power))[1:][power[1:] > 0]
    drawn = power[cycles]
    axes.semilogy(cycles, drawn, color=colour, lw=1.5, marker="o", ms=2.5, label=label, zorder=3)
    axes.set_xlabel("coarse    →    fine  (cycles per picture)", **_LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return drawn


def _noise_lines(axes: "Axes", trace: Trace, chosen: Sequence[int], low: float, high: float) -> None:
    axes.set_ylim(low, high)
    named = low
    for i in chosen:
        power = trace[i].sigma ** 2
        if not low < power < high:
            continue
        axes.axhline(power, color=_QUIET, lw=0.7, ls=(0, (4, 2)), zorder=1)
        if math.log(power / named) > 0.06 * math.log(high / low):  # else the name would run into the one below
            where = axes.get_yaxis_transform()
            axes.text(
                1,
                power,
                f"noise at level {i}",
                transform=where,
                ha="right",
                va="bottom",
                color=_QUIET,
                fontsize=_TEXT - 2,
            )
            named = power


def _legend(axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    legend = axes.legend(
        handles,
        [_plain(label, _TEXT - 1, 2.5) for label in labels],
        fontsize=_TEXT - 1,
        framealpha=0.8,
        edgecolor="none",
        facecolor="white",
        labelcolor=_INK,
    )
    for text in legend.get_texts():
        text.set(**_AS_TYPED)


def _over_steps(axes: "Axes", count: int, chosen: Sequence[int] = (), name: str = "step") -> None:
    for i in chosen:
        axes.axvline(i, color=_FAINT, lw=0.8, ls=(0, (1, 2)))
    room = 0.02 * (count - 1) or 0.5
    axes.set_xlim(-room, count - 1 + room)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True) if count > 1 else FixedLocator([0]))
    axes.set_xlabel(name, **_LABEL)


# Words


def _recipe(trace: Trace) -> str:
    """The settings in one line."""
    s = trace.settings
    parts = [s.sampler, f"{s.steps} steps", f"guidance {s.guidance:g}", f"seed {s.seed}"]
    if len(trace) != s.steps:
        parts.insert(2, f"{len(trace)} evaluations")
    if trace.cancelled:
        parts.append("stopped early")
    parts += s.loras
    if s.negative_prompt:
        parts.append(f"negative prompt: {s.negative_prompt}")
    return " · ".join(part for part in parts if part)


def _plain(text: str, size: float, width: float, weight: str = "normal") -> str:
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


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _percent(share: float) -> str:
    # Most schedules leave a trace of picture in the noisiest level, and of noise in the cleanest: show it.
    return f"{100 * share:.0f} %" if 0.01 <= share <= 0.99 or share in (0, 1) else f"{100 * share:.1f} %"
