"""What more steps bring: each sampler with few steps, held against itself with many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from diffexplore.experiments.shared import a_model, named_samplers, noise_added, own_fields, whole
from diffexplore.looks.figures.kit import (
    AS_TYPED,
    COLOURS,
    INK,
    LABEL,
    QUIET,
    Figure,
    Plotted,
    finite,
    heading,
    legend,
    plain,
    wrapped,
)
from diffexplore.model import Model
from diffexplore.record.predictions import rms
from diffexplore.settings import MAX_STEPS, Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Convergence", "Returns", "diminishing_returns", "knee"]

CONVERGERS: Final = ("Euler", "Heun", "DPM++ 2M Karras", "Euler a", "Flow Euler", "Flow Heun")
STEPS: Final = (3, 4, 6, 8, 12, 16, 24, 36, 50)
FALLEN: Final = 0.5
RISEN: Final = 2.0
"""A curve falls if its last distance is below `FALLEN` times its largest and no more than `RISEN` times its least."""


@dataclass(frozen=True)
class Returns:
    """What :func:`diminishing_returns` found for one sampler; arrays over its numbers of steps, ascending.

    Attributes:
        sampler: its name.
        reference: the run it is held against.
        traces: the runs.
        steps: (n,) int.
        evaluations: (n,) int, model evaluations.
        latents: (n,) float64, RMS of final latents minus the reference's, in units of latents.
        picture: (n,) float64, RMS of picture minus the reference's, values 0 to 1.
        noise: see :func:`noise_added`.
        falls: measured: whether the latents' distance falls, its last value below half of its largest and at most twice
            its least.
        knee: steps after which more bring little, by :func:`knee` on `picture` over `steps`; None where the sampler
            has nothing to converge to, where the distance does not fall, or where there is no bend.
    """

    sampler: str
    reference: Trace
    traces: tuple[Trace, ...]
    steps: np.ndarray
    evaluations: np.ndarray
    latents: np.ndarray
    picture: np.ndarray
    noise: str
    falls: bool
    knee: int | None

    @property
    def note(self) -> str:
        """What the curve means, one sentence."""
        if self.noise == "fresh":
            return (
                f"{self.sampler} adds fresh noise at every step: another number of steps is another picture, "
                "there is nothing to converge to."
            )
        if not self.falls:
            many = self.reference.settings.steps
            if self.noise == "path":
                return (
                    f"{self.sampler} adds noise from one Brownian path, which more steps should refine, but here its "
                    f"distance to {many} steps does not settle."
                )
            return f"{self.sampler} does not settle on its {many} steps within the steps tried."
        if self.knee is None:
            return f"{self.sampler} comes closer with more steps, with no clear knee."
        return f"{self.sampler} gains little after {self.knee} steps."


def diminishing_returns(
    model: Model,
    samplers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    reference: int = 100,
    **settings: Any,
) -> "Convergence":
    """How far each number of steps is from what a sampler would draw with many; blocking.

    Each sampler is held against itself, same seed, with `reference` steps. For one that solves an equation without
    added noise, that distance is its error (up to the reference's own). A sampler that adds fresh noise has no such
    limit: its curve is drawn, said to be one, and gets no knee.

    Args:
        model: what draws.
        samplers: names from ``model.samplers``; None: a few well-known ones.
        steps: numbers of steps to try, each 1 to `reference` - 1; sorted, each taken once.
        reference: steps of the runs which all are held against.
        **settings: fields of ``Settings`` but steps and sampler.

    Raises:
        ValueError: one sentence, before any work, for what is refused.
    """
    model = a_model(model)
    own_fields(settings, ("steps", "sampler"))
    most = whole("reference", reference, 2, MAX_STEPS)
    if isinstance(steps, (str, bytes)) or not isinstance(steps, Sequence) or not len(steps):
        raise ValueError(f"steps must be a list of at least one whole number, got {shown(steps)}")
    counts = sorted({whole("each of steps", count, 1, most - 1) for count in steps})
    base = Settings(**settings)
    plan = {
        name: [model.resolve(base.replace(sampler=name, steps=count)) for count in (*counts, most)]
        for name in named_samplers(model, samplers, CONVERGERS)
    }
    return Convergence(most, {name: _returns(name, [model.trace(one) for one in ones]) for name, ones in plan.items()})


def _returns(sampler: str, runs: Sequence[Trace]) -> Returns:
    *traces, reference = runs
    steps = np.array([trace.settings.steps for trace in traces])
    latents = np.array([rms(_latents(trace) - _latents(reference)) for trace in traces])
    picture = np.array([rms(_picture(trace) - _picture(reference)) for trace in traces])
    noise = noise_added(sampler, reference)
    falls = bool(
        np.isfinite(latents).all() and latents[-1] < FALLEN * latents.max() and latents[-1] <= RISEN * latents.min()
    )
    found = Returns(
        sampler=sampler,
        reference=reference,
        traces=tuple(traces),
        steps=steps,
        evaluations=np.array([len(trace) for trace in traces]),
        latents=latents,
        picture=picture,
        noise=noise,
        falls=falls,
        knee=None,
    )
    if noise == "fresh" or not falls:
        return found
    at = knee(steps, picture)
    return found if at is None else replace(found, knee=int(steps[at]))


def knee(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> int | None:
    """Where a falling curve bends most: the index of the point farthest below the chord from its first to its last.

    Both axes are linear and scaled to 0..1, as in Kneedle (Satopaa, Albrecht, Irwin & Raghavan 2011, "Finding a
    'Kneedle' in a Haystack", ICDCS Workshops, section III; for a falling convex curve, distances below the line
    x + y = 1). In log-log a power law would be a straight line with no knee at all. On linear axes the knee depends on
    the range of x: it answers "within what was tried". Kneedle's smoothing is left out, since runs carry no noise of
    measurement, and so is its threshold on how soon the distance drops again: the one largest distance is taken.

    Args:
        x: (n,) strictly ascending.
        y: (n,).

    Returns:
        None for fewer than three points, values that are not finite, a curve that does not fall from its first point to
        its last, or one with no point below the chord.

    Raises:
        ValueError: for x and y of different lengths, or x that does not ascend.
    """
    across, down = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if across.ndim != 1 or across.shape != down.shape or not (np.diff(across) > 0).all():
        raise ValueError(f"a knee needs ascending x and as many y, got shapes {across.shape} and {down.shape}")
    if len(across) < 3 or not np.isfinite(across).all() or not np.isfinite(down).all() or down[-1] >= down[0]:
        return None
    below = 1 - (across - across[0]) / (across[-1] - across[0]) - (down - down[-1]) / (down[0] - down[-1])
    best = int(below.argmax())
    return best if below[best] > 1e-9 else None


class Convergence(Plotted):
    """What :func:`diminishing_returns` returns.

    Attributes:
        reference: steps of the runs which all are held against.
        returns: sampler -> :class:`Returns`, in the order they were named.
    """

    def __init__(self, reference: int, returns: dict[str, Returns]) -> None:
        self.reference, self.returns = reference, returns

    def __repr__(self) -> str:
        knees = ", ".join(f"{name}: {one.knee or 'none'}" for name, one in self.returns.items())
        return f"Convergence(to {self.reference} steps, knees {knees})"

    @property
    def notes(self) -> list[str]:
        """One sentence per sampler."""
        return [one.note for one in self.returns.values()]

    def table(self) -> list[dict[str, Any]]:
        """One dict per run but the references: ``sampler``, ``steps``, ``evaluations``, ``latents`` (RMS distance to
        the reference), ``picture`` (the same of the picture, 0 to 1), ``knee`` (True at it), ``noise``.
        """
        return [
            {
                "sampler": name,
                "steps": int(one.steps[i]),
                "evaluations": int(one.evaluations[i]),
                "latents": float(one.latents[i]),
                "picture": float(one.picture[i]),
                "knee": one.knee == int(one.steps[i]),
                "noise": one.noise,
            }
            for name, one in self.returns.items()
            for i in range(len(one.steps))
        ]

    def plot(self) -> "Figure":
        """Left the pictures' distance on linear axes, with the knees; right the latents' on logarithmic ones, where an
        error that falls as steps to the power -p is a line of slope -p. Samplers that add fresh noise are dashed.
        """
        return _plot_returns(self)


# Numbers


def _latents(trace: Trace) -> torch.Tensor:
    assert trace.final is not None, "runs here are never cancelled"
    return trace.final.double()


def _picture(trace: Trace) -> torch.Tensor:
    assert trace.image is not None, "runs here are never cancelled"
    return torch.from_numpy(np.asarray(trace.image.convert("RGB"), dtype=np.float64) / 255)


# The figure


def _plot_returns(found: Convergence) -> "Figure":
    notes = [wrapped(note, 7.5, 9.5, 2) for note in found.notes]
    lines = sum(note.count("\n") + 1 for note in notes)
    width, height = 10.0, 3.95 + 0.145 * lines
    figure = Figure(figsize=(width, height), facecolor="white")
    shared = next(iter(found.returns.values())).reference.settings
    title = f"What more steps bring: {shared.prompt or '(no prompt)'}"
    words = {"va": "top", **AS_TYPED}
    figure.text(0.015, 1 - 0.12 / height, plain(title, 11, 9.7, "bold"), fontsize=11, fontweight="bold", color=INK,
                **words)  # fmt: skip
    line = f"distance of each run to the same sampler's {found.reference} steps · guidance {shared.guidance:g} · seed "
    figure.text(0.015, 1 - 0.36 / height, f"{line}{shared.seed}", fontsize=8, color=QUIET, **words)

    def panel(left: float) -> "Axes":
        return figure.add_axes((left / width, 1 - 3.4 / height, 4.2 / width, 2.3 / height))

    linear, logs = panel(0.65), panel(5.6)
    heading(linear, "the picture, with knees", "RMS of the difference, picture from 0 to 1")
    heading(logs, "the latents, log-log", "RMS of the difference, latent units")
    for number, (name, one) in enumerate(found.returns.items()):
        colour = COLOURS[number % len(COLOURS)]
        dashed = one.noise == "fresh"
        label = f"{name} (fresh noise)" if dashed else name if one.knee is None else f"{name}: knee at {one.knee}"
        style: dict[str, Any] = {"color": colour, "lw": 1.4, "marker": "o", "ms": 2.5, "ls": "--" if dashed else "-"}
        linear.plot(one.steps, finite(one.picture), label=label, **style)
        logs.plot(one.steps, np.where(one.latents > 0, finite(one.latents), np.nan), **style)
        if one.knee is not None:
            at = int(np.flatnonzero(one.steps == one.knee)[0])
            linear.plot(
                one.knee, one.picture[at], marker="o", ms=9, mfc="none", mec=colour, mew=1.6, ls="", clip_on=False
            )
    linear.set_ylim(bottom=0)
    linear.set_xlabel("steps", **LABEL)
    if any((one.latents > 0).any() for one in found.returns.values()):
        logs.set_yscale("log")
    logs.set_xscale("log")
    ticks = sorted({int(count) for one in found.returns.values() for count in one.steps})
    logs.set_xticks(ticks, [str(count) for count in ticks])
    logs.minorticks_off()
    logs.set_xlabel("steps", **LABEL)
    legend(linear)
    y = 3.9
    for note in notes:
        figure.text(0.015, 1 - y / height, note, fontsize=7.5, color=QUIET, linespacing=1.3, **words)
        y += 0.145 * (note.count("\n") + 1)
    return figure
