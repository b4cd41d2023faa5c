"""When is it too late? The prompt is swapped for another at every share of noise in turn, all else locked: where that
stops making a difference, that part of the picture was decided.

Swapped before the first step, the second prompt draws alone; after the last one, the first. Between lies the noise
level at which the picture goes over from one to the other: for a subject, a setting, a light, a style, each its own.
Whether it has gone over is read by the pocket model's judge where that knows what differs between the prompts, and in
any case from how near the picture is to either end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from diffexplore.experiments.shared import a_model, own_fields, whole
from diffexplore.looks.figures.kit import (
    AS_TYPED,
    COLOURS,
    FAINT,
    INK,
    LABEL,
    QUIET,
    TEXT,
    Figure,
    Plotted,
    bare,
    heading,
    plain,
)
from diffexplore.pocket.judge import judge_many, named
from diffexplore.record.predictions import rms, share_of_noise
from diffexplore.settings import Settings
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

    from diffexplore.model import Model

__all__ = ["SwapTime", "half_way", "plot_order", "swap_time"]

FIELDS: Final = ("prompt", "negative_prompt")
"""What can be swapped."""
CLEAR: Final = 0.5
"""How far the judge has to tell the two ends of a seed apart, of 1, for that seed to count."""
MOST_SEEDS: Final = 200
_DRAWS: Final = 2000  # of the bootstrap
_TICKS: Final = (0.999, 0.99, 0.9, 0.5, 0.1, 0.01, 0.001)


@dataclass(frozen=True)
class SwapTime(Plotted):
    """What :func:`swap_time` found.

    Attributes:
        a: what a run begins with.
        b: what it goes on with.
        field: which of the `FIELDS` they are.
        settings: all else.
        seeds: of the runs, (n,).
        marks: the shares of noise at which it was swapped, (k,), falling; at the first, b draws alone, at the last, 0,
            a does.
        moved: (n, k) float64, how far each picture is on the way from a's (0) to b's (1): its distance from a's as a
            share of its distances from both, in final latents.
        judged: (n, k) float64, the same by the judge: how far what it reads has gone from what a names to what b
            names. NaN in the rows of seeds whose ends it does not tell apart; None where it knows nothing that differs.
        pictures: of the first seed, one a mark.
    """

    a: str
    b: str
    field: str
    settings: Settings
    seeds: np.ndarray
    marks: np.ndarray
    moved: np.ndarray
    judged: np.ndarray | None
    pictures: Sequence[Image.Image]

    @property
    def curve(self) -> np.ndarray:
        """(n, k): `judged` where the judge can tell in at least one seed, else `moved`."""
        judged = self.judged
        return self.moved if judged is None or np.isnan(judged).all() else judged

    @property
    def halves(self) -> np.ndarray:
        """(n,) float64: for each seed the share of noise at which its picture has gone half way; NaN where unknown."""
        return np.array([half_way(self.marks, row) for row in self.curve])

    @property
    def half(self) -> float:
        """The median of `halves`; NaN where there is none."""
        known = self.halves[np.isfinite(self.halves)]
        return float(np.median(known)) if known.size else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Where 95 % of the medians lie that other seeds might have given (a bootstrap over the seeds)."""
        known = self.halves[np.isfinite(self.halves)]
        if not known.size:
            return math.nan, math.nan
        drawn = np.random.default_rng(0).choice(known, (_DRAWS, known.size))
        low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
        return float(low), float(high)

    @property
    def spread(self) -> tuple[float, float]:
        """Between which shares of noise the middle half of the seeds goes over."""
        known = self.halves[np.isfinite(self.halves)]
        low, high = np.quantile(known, (0.25, 0.75)) if known.size else (math.nan, math.nan)
        return float(low), float(high)

    def __repr__(self) -> str:
        return f"SwapTime({self.a[:40]!r} to {self.b[:40]!r}, half way at {self.half:.3g}, {len(self.seeds)} seeds)"

    def table(self) -> list[dict[str, Any]]:
        """One row per mark: ``mark``, the means of ``moved`` and of ``judged`` (None where nothing is judged)."""
        judged = self.judged
        return [
            {
                "mark": float(mark),
                "moved": float(self.moved[:, k].mean()),
                "judged": None if judged is None or np.isnan(judged).all() else float(np.nanmean(judged[:, k])),
            }
            for k, mark in enumerate(self.marks)
        ]

    def plot(self) -> Figure:
        """The pictures of the first seed in a row, and below how far all have gone over, with where half way is."""
        return _plot(self)


def swap_time(
    model: Model,
    a: str,
    b: str,
    *,
    field: str = "prompt",
    seeds: int | Sequence[int] = 8,
    marks: int = 9,
    **settings: Any,
) -> SwapTime:
    """Swap a prompt for another at every share of noise in turn; blocking.

    Seeds that are swapped at one mark are drawn together, and what comes before a mark is remembered where the model
    remembers evaluations, so that about half of the work is left.

    Args:
        model: what draws.
        a: what a run begins with.
        b: what it goes on with; the two should differ in one thing, as "a fox in the snow" and "a fox in the desert".
        field: "prompt", or "negative_prompt".
        seeds: how many, from 0; or which.
        marks: at how many shares of noise, both ends among them: 3 to as many as a run has steps, and one.
        **settings: all other fields of ``Settings``.

    Raises:
        ValueError: one sentence, before any work, for what is refused: equal texts, a field that differs from run to
            run, a model that cannot change on its way.
    """
    model = a_model(model)
    if field not in FIELDS:
        raise ValueError(f"field must be one of {', '.join(FIELDS)}; got {shown(field)}{near(field, FIELDS)}")
    own_fields(settings, (field, "seed", "changes"))
    numbers = list(range(whole("seeds", seeds, 1, MOST_SEEDS))) if isinstance(seeds, (int, np.integer)) else list(seeds)
    if not 1 <= len(numbers) <= MOST_SEEDS:
        raise ValueError(f"seeds must be 1 to {MOST_SEEDS} of them, got {len(numbers)}")
    base = model.plan(Settings(**settings, **{field: a})).settings
    if a == b:
        raise ValueError(f"swapping takes two different texts, got {shown(a)} twice")
    model.plan(base.replace(changes={0.5: {field: b}}))
    ignored = model.plan(base).ignored.get(field) if field != "prompt" else ""
    if ignored:
        raise ValueError(ignored[:1].lower() + ignored[1:].rstrip("."))
    plans = [base.replace(seed=seed) for seed in numbers]
    first = model.trace(plans[0])
    levels = [share_of_noise(step.a, step.b) for step in first if not step.half]
    count = whole("marks", marks, 3, len(levels) + 1)
    # The first evaluation, where b draws alone, some between, and none.
    chosen = sorted({round(k * len(levels) / (count - 1)) for k in range(count - 1)})
    at = np.array([*(levels[k] for k in chosen), 0.0])

    finals: list[list[Any]] = []
    pictures: list[list[Image.Image]] = []
    # From the last mark on: what a run begins with is then known to those that are swapped sooner.
    for mark in at[::-1]:
        changes = {float(mark): {field: b}}
        traces = model.trace_many([plan.replace(changes=changes) for plan in plans])
        finals.append([trace.final for trace in traces])
        pictures.append([trace.image for trace in traces if trace.image is not None])
    finals.reverse()
    pictures.reverse()
    moved = np.array([[_between(finals[k][n], finals[-1][n], finals[0][n]) for k in range(len(at))]
                      for n in range(len(plans))])  # fmt: skip
    judged = _judged(a, b, pictures) if first.info.get("world") == "pocket" else None
    return SwapTime(a, b, field, base, np.array(numbers), at, moved, judged, [row[0] for row in pictures])


def half_way(marks: Sequence[float] | np.ndarray, curve: Sequence[float] | np.ndarray) -> float:
    """The share of noise at which a curve first falls below one half, along falling marks.

    Between two marks it is taken for a line over ``log(s / (1 - s)) = 2 log(b / a)``, the logarithm of the noise level,
    on which a sampler's steps are about even.

    Returns:
        NaN for a curve that does not begin above one half and fall below it.
    """
    x, y = _logits(np.asarray(marks, dtype=np.float64)), np.asarray(curve, dtype=np.float64)
    if not np.isfinite(y).all() or y[0] < 0.5:
        return math.nan
    below = np.flatnonzero(y < 0.5)
    if not below.size:
        return math.nan
    k = int(below[0])
    place = x[k - 1] + (x[k] - x[k - 1]) * (y[k - 1] - 0.5) / (y[k - 1] - y[k])
    return float(1 / (1 + math.exp(-place)))


def _logits(marks: np.ndarray) -> np.ndarray:
    """log(s / (1 - s)), where 1 and 0 stand a little beyond what is between them."""
    inside = marks[(marks > 0) & (marks < 1)]
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.5, 0.5)
    kept = np.clip(marks, low / 2, 1 - (1 - high) / 2)
    made: np.ndarray = np.log(kept / (1 - kept))
    return made


def _between(one: Any, a: Any, b: Any) -> float:
    from_a, from_b = rms(one - a), rms(one - b)
    return from_a / (from_a + from_b) if from_a + from_b else math.nan


def _judged(a: str, b: str, pictures: Sequence[Sequence[Image.Image]]) -> np.ndarray | None:
    """How far what the judge reads has gone from what `a` names to what `b` names, (seeds, marks)."""
    ours, theirs = named(a), named(b)
    wanted = [(name, value, 1.0) for name, value in theirs.items() if ours.get(name) != value]
    wanted += [(name, value, -1.0) for name, value in ours.items() if theirs.get(name) != value]
    if not wanted:
        return None
    rows = [judge_many(row) for row in pictures]
    score = np.array([[sum(sign * one[name][value] for name, value, sign in wanted) for one in row] for row in rows]).T
    low, high = score[:, -1:], score[:, :1]
    apart = np.abs(high - low) / len(wanted) >= CLEAR
    with np.errstate(all="ignore"):
        return np.where(apart, (score - low) / (high - low), np.nan)


# The figures


def _noise_axis(axes: Axes, low: float, high: float) -> None:
    """An axis of falling shares of noise, even in the logarithm of the noise level."""
    ticks = [tick for tick in _TICKS if low < tick < high]
    axes.set_xticks([math.log(tick / (1 - tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("share of noise at which it was swapped    (the run goes →)", **LABEL)


def _plot(found: SwapTime) -> Figure:
    count = len(found.marks)
    width, cell = 10.0, (10.0 - 0.3) / count - 0.06
    size = found.pictures[0].size
    high = cell * size[1] / size[0]
    height = 0.62 + high + 0.3 + 3.0
    figure = Figure(figsize=(width, height), facecolor="white")
    bold: dict[str, Any] = {"fontsize": 11, "fontweight": "bold", "color": INK, "va": "top"}
    figure.text(0.015, 1 - 0.1 / height, plain(f"When is it too late? {found.a}  →  {found.b}", 11, 9.6, "bold"),
                **bold, **AS_TYPED)  # fmt: skip
    told = f"{found.field.replace('_', ' ')} swapped on the way · seed {found.seeds[0]} · {found.settings.sampler} · "
    told += f"{found.settings.steps} steps · guidance {found.settings.guidance:g}"
    figure.text(0.015, 1 - 0.34 / height, plain(told, 8, 9.6), fontsize=8, color=QUIET, va="top", **AS_TYPED)
    for k, (picture, mark) in enumerate(zip(found.pictures, found.marks, strict=True)):
        left = 0.15 + k * (cell + 0.06)
        axes = figure.add_axes((left / width, 1 - (0.62 + high) / height, cell / width, high / height))
        axes.imshow(np.asarray(picture.convert("RGB")), interpolation="lanczos")
        axes.set_axis_off()
        name = "second alone" if k == 0 else "first alone" if k == count - 1 else f"{mark:.3g}"
        figure.text((left + cell / 2) / width, 1 - (0.66 + high) / height, name, ha="center", va="top",
                    fontsize=TEXT - 1, color=QUIET)  # fmt: skip
    axes = figure.add_axes((0.65 / width, 0.48 / height, (width - 0.95) / width, 2.05 / height))
    curve, x = found.curve, _logits(found.marks)
    how = "by the judge" if curve is found.judged else "by distance in final latents"
    heading(
        axes,
        f"how far the picture has gone over, {len(found.seeds)} seeds",
        f"0: as the first, 1: as the second, {how}",
    )
    for row in curve:
        axes.plot(x, row, color=FAINT, lw=0.8)
    known = curve[~np.isnan(curve).any(axis=1)]
    if known.size:
        axes.plot(x, known.mean(axis=0), color=COLOURS[0], lw=2, marker="o", ms=3)
    if math.isfinite(found.half):
        low, high_end = (math.log(one / (1 - one)) for one in found.interval)
        axes.axvspan(low, high_end, color=COLOURS[1], alpha=0.18, lw=0)
        middle = math.log(found.half / (1 - found.half))
        axes.axvline(middle, color=COLOURS[1], lw=1.4)
        axes.text(middle, 1.12, f" half way at {found.half:.2g}", color=COLOURS[1], fontsize=TEXT, va="top", ha="left")
    axes.set_ylim(-0.15, 1.15)
    axes.set_xlim(x[0] + 0.2, x[-1] - 0.2)
    inside = found.marks[(found.marks > 0) & (found.marks < 1)]
    _noise_axis(axes, float(inside.min()) / 2, 1 - (1 - float(inside.max())) / 2)
    return figure


def plot_order(found: Mapping[str, SwapTime]) -> Figure:
    """Which part of a picture is decided when: for each study its half-way point, as a dot with its 95 % interval; the
    thin line is the middle half of the seeds. The first decided is on top.

    Args:
        found: name -> study.

    Raises:
        ValueError: for none.
    """
    if not found:
        raise ValueError("there is nothing to plot, got no study")
    rows = sorted(found.items(), key=lambda row: -row[1].half if math.isfinite(row[1].half) else math.inf)
    height = 0.95 + 0.36 * len(rows)
    figure = Figure(figsize=(7.6, height + 0.3), facecolor="white", layout="constrained")
    axes = figure.add_subplot(1, 1, 1)
    longest = max(len(one.seeds) for one in found.values())
    heading(
        axes, "What is decided when", f"half way between two prompts, median of up to {longest} seeds, 95 % interval"
    )
    bare(axes, TEXT)
    ends: list[float] = []
    for k, (_, one) in enumerate(rows):
        if not math.isfinite(one.half):
            axes.text(0.5, k, "not to be told", transform=axes.get_yaxis_transform(), va="center", ha="center", **LABEL)
            continue
        middle, *edges = (math.log(s / (1 - s)) for s in (one.half, *one.spread, *one.interval))
        axes.plot(edges[:2], [k, k], color=FAINT, lw=1.5, zorder=1)
        axes.plot(edges[2:], [k, k], color=COLOURS[0], lw=4, alpha=0.5, solid_capstyle="butt")
        axes.plot([middle], [k], color=COLOURS[0], marker="o", ms=7, ls="")
        axes.text(middle, k - 0.2, f"{one.half:.2g}", ha="center", va="bottom", fontsize=TEXT - 1, color=INK)
        ends += [middle, *edges]
    axes.set_yticks(range(len(rows)), [plain(name, TEXT, 2.5) for name, _ in rows], **AS_TYPED)
    axes.set_ylim(len(rows) - 0.5, -0.75)
    if ends:
        low, high = min(ends) - 0.6, max(ends) + 0.6
        axes.set_xlim(high, low)
        _noise_axis(axes, 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high)))
    return figure
