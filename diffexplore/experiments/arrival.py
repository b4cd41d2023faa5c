"""Coarse to fine, measured: when each scale of the picture, and each thing in it, arrives on the way, over many seeds.

A scale has arrived once the run's estimate x0 agrees with the finished latents in it, and does so from then on; a thing
that the pocket model's judge reads has arrived once it reads in the decoded estimate what it reads in the finished
picture, and does so from then on. Both say when the *estimate* gets there: the latents themselves are noise for longer.

The judge learned from finished pictures. An early estimate is a blur, in which it guesses, and the guess may be the
right one; that it has to stay right keeps most of that out, not all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from diffexplore.experiments.shared import a_model, own_fields, whole
from diffexplore.looks.figures.kit import AS_TYPED, COLOURS, FAINT, LABEL, TEXT, WIDTH, Figure, Plotted, heading, plain
from diffexplore.looks.views import frame
from diffexplore.pocket.judge import judge_many, readable
from diffexplore.record.record import Record
from diffexplore.settings import MAX_SEED, Settings
from diffexplore.values import members
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["Arrival", "arrival", "bands_of"]

NEAR: Final = 0.25
"""A scale has arrived where the power of what is missing or too much is at most this part of its own: half of the
amplitude.
"""
MOST: Final = 500


@dataclass(frozen=True)
class Arrival(Plotted):
    """What :func:`arrival` found.

    Attributes:
        settings: what was drawn, but for the seed.
        seeds: of the runs.
        share: (steps,) the share of noise, b^2 / (a^2 + b^2), before each step.
        scales: name -> (seeds,) the step from which on it is there, counted from 1; coarse to fine.
        things: the same of what the judge reads; empty where it can read nothing.
        shown: thing -> in which share of the finished pictures it reads what the prompt says.
    """

    settings: Settings
    seeds: tuple[int, ...]
    share: np.ndarray
    scales: dict[str, np.ndarray]
    things: dict[str, np.ndarray]
    shown: dict[str, float]

    def table(self) -> list[dict[str, Any]]:
        """One row for each scale and thing, the earliest first: ``what``, ``kind`` ("scale" or "thing"), the median
        ``step`` and the quartiles ``step_low`` and ``step_high``, and the share of noise at the median, ``share``.
        """
        rows = []
        for kind, found in (("scale", self.scales), ("thing", self.things)):
            for name, steps in found.items():
                low, middle, high = (float(q) for q in np.percentile(steps, (25, 50, 75)))
                share = float(np.interp(middle, np.arange(1, len(self.share) + 1), self.share))
                rows.append(
                    {"what": name, "kind": kind, "step": middle, "step_low": low, "step_high": high, "share": share}
                )
        return sorted(rows, key=lambda row: (row["step"], row["step_high"]))

    def before(self, one: str, other: str) -> float:
        """In which share of the runs `one` came before `other`, 0 to 1; where both came at one step counts half.

        Raises:
            ValueError: one sentence, for what was not measured.
        """
        known = self.scales | self.things
        for name in (one, other):
            if name not in known:
                raise ValueError(f"it must be one of {', '.join(known)}; got {shown(name)}{near(name, known)}")
        first, second = known[one], known[other]
        return float(np.mean((first < second) + 0.5 * (first == second)))

    def plot(self) -> Figure:
        """When each arrives: a dot for every run, a bar from the lower to the upper quartile, a mark at the median."""
        rows = [*self.scales.items(), *self.things.items()]
        fig = Figure(figsize=(WIDTH * 0.8, 1.3 + 0.34 * len(rows)), facecolor="white", layout="constrained")
        axes = fig.add_subplot()
        heading(axes, "coarse to fine: when it is there", f"{len(self.seeds)} seeds, {len(self.share)} steps")
        scatter = np.random.default_rng(0)
        for row, (name, steps) in enumerate(rows):
            colour = COLOURS[0] if name in self.scales else COLOURS[1]
            low, middle, high = np.percentile(steps, (25, 50, 75))
            axes.plot([low, high], [row, row], color=colour, lw=7, alpha=0.25, solid_capstyle="round")
            jitter = scatter.uniform(-0.2, 0.2, (2, len(steps)))
            axes.plot(steps + jitter[0], row + jitter[1], ls="", marker="o", ms=2, color=colour, alpha=0.5)
            axes.plot([middle, middle], [row - 0.32, row + 0.32], color=colour, lw=2)
        names = [f"{name}: shown in {self.shown[name]:.0%}" if name in self.shown else name for name, _ in rows]
        axes.set_yticks(range(len(rows)), [plain(name, TEXT, 2.6) for name in names], fontsize=TEXT, **AS_TYPED)
        axes.invert_yaxis()
        axes.axhline(len(self.scales) - 0.5, color=FAINT, lw=0.8)
        count = len(self.share)
        axes.set_xlim(0.5, count + 0.5)
        ticks = np.unique(np.round(np.linspace(1, count, min(count, 8))).astype(int))
        axes.set_xticks(ticks, [f"{k}\n{_percent(self.share[k - 1])}" for k in ticks], **AS_TYPED)
        axes.set_xlabel("step, and the share of noise before it", **LABEL)
        return fig


def arrival(
    model: Model, settings: Settings | None = None, *, seeds: int | Sequence[int] = 24, **values: Any
) -> Arrival:
    """Measure when each scale of the picture, and each thing that the prompt names, arrives on the way.

    Args:
        model: what ``diffexplore.load`` returns. Things are read in the pocket model's world alone.
        settings: what to draw; or
        seeds: of the runs: how many, from the settings' own on, 2 to 500, or a list of them.
        **values: fields of settings (with `settings`: what to change in it), but the seed.

    Raises:
        ValueError: one sentence, for what is no model, for seeds that are none, and for settings which are refused.
    """
    model = a_model(model)
    if settings is None:
        settings = Settings(**values)
    elif values:
        own_fields(values, ("seed",))
        settings = settings.replace(**values)
    used = _seeds(settings.seed, seeds)
    base = model.resolve(settings)
    traces = model.trace_many([base.replace(seed=seed) for seed in used])
    share = traces[0].measure("noise_share")
    names = bands_of(_field(traces[0], -1).shape[-2:])
    found = np.stack([_scales(trace, list(names.values())) for trace in traces])  # (seeds, bands)
    scales = {name: found[:, k] for k, name in enumerate(names)}
    things, told = _things(traces)
    return Arrival(base, tuple(used), share, scales, things, told)


def _seeds(first: int, seeds: Any) -> list[int]:
    if isinstance(seeds, Sequence) and not isinstance(seeds, (str, bytes)):
        used = [whole("a seed", seed, 0, MAX_SEED) for seed in members("seeds", seeds, MOST)]
        if len(set(used)) < 2:
            raise ValueError(f"seeds must be two or more, each another, got {shown(seeds)}")
        return list(dict.fromkeys(used))
    return [first + k for k in range(whole("seeds", seeds, 2, MOST))]


def bands_of(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The scales of fields of (h, w), coarse to fine: name -> (h, w) bool, which frequencies belong to it.

    The mean, then octaves of cycles per shorter side, up to half of its latents; the corners belong to the finest.
    """
    height, width = shape
    shorter = min((side for side in (height, width) if side > 1), default=1)
    cycles = shorter * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring = np.floor(cycles + 0.5)
    found = {"mean colour": ring == 0}
    low = 1
    while low <= shorter // 2:
        last = 2 * low > shorter // 2
        inside = (ring >= low) & ((ring < 2 * low) | last)
        high = shorter // 2 if last else 2 * low - 1
        name = f"{low} to {high} cycles" if high > low else f"{low} cycle{'s' if low > 1 else ''}"
        found[f"{name} per picture"] = inside
        low *= 2
    return {name: inside for name, inside in found.items() if inside.any()}


def _field(trace: Record, i: int) -> np.ndarray:
    """The estimate of a step, with everything but its two sides flat: (any, h, w)."""
    values = trace[i].x0.numpy().astype(np.float64)
    return values.reshape(-1, *(values.shape[-2:] if values.ndim > 2 else (1, int(np.prod(values.shape[1:])))))


def _scales(trace: Record, bands: Sequence[np.ndarray]) -> np.ndarray:
    """(bands,) the step from which on each is there."""
    final = np.asarray(trace[-1].x0 if trace.final is None else trace.final, dtype=np.float64)
    end = np.fft.fft2(final.reshape(_field(trace, -1).shape))
    off = []
    for i in range(len(trace)):
        wrong = np.abs(np.fft.fft2(_field(trace, i)) - end) ** 2
        off.append([wrong[:, band].sum() / max(float((np.abs(end[:, band]) ** 2).sum()), 1e-30) for band in bands])
    there = np.array(off) <= NEAR  # (steps, bands)
    return np.array([_first(there[:, k]) for k in range(len(bands))])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share > 0.99 or share < 0.1 else f"{100 * share:.0f} %"


def _first(there: np.ndarray) -> float:
    """The step, counted from 1, from which on it is there; the one after the last where it never is."""
    gone = np.flatnonzero(~there)
    return float(gone[-1] + 2 if gone.size else 1)


def _things(traces: Sequence[Record]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What the prompt names and the judge can read: when it is there in each run, and how often it is as asked."""
    prompt = traces[0].settings.prompt
    wanted = readable(prompt) if traces[0].info.get("world") == "pocket" else {}
    if not wanted or not all(trace.image is not None and trace.decoded for trace in traces):
        return {}, {}
    pictures = [frame(trace, "x0", i) for trace in traces for i in range(len(trace))]
    read = judge_many([*pictures, *(trace.image for trace in traces if trace.image is not None)])
    best = [{name: max(values, key=values.__getitem__) for name, values in one.items()} for one in read]
    ends, at = best[len(pictures) :], 0
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for trace, end in zip(traces, ends, strict=True):
        mine = best[at : at + len(trace)]
        at += len(trace)
        for name in wanted:
            found[name].append(_first(np.array([one[name] == end[name] for one in mine])))
    told = {name: float(np.mean([end[name] == value for end in ends])) for name, value in wanted.items()}
    return {name: np.array(steps) for name, steps in found.items()}, told
