"""Samplers compared fairly: :func:`race` at equal work, :func:`diminishing_returns` over the number of steps.

The work of a run is its model evaluations (both halves of guidance are one). A step of Heun takes two of them, so at
equal *steps* it does twice the work of Euler and looks better than it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from diffexplore.looks.figures.kit import (
    AS_TYPED,
    COLOURS,
    FAINT,
    INK,
    LABEL,
    QUIET,
    TEXT,
    Figure,
    bare,
    finite,
    fitted,
    heading,
    legend,
    plain,
    wrapped,
)
from diffexplore.looks.figures.paper import resampled
from diffexplore.model import Model
from diffexplore.samplers import SAMPLERS, facts_of, unknown
from diffexplore.settings import MAX_STEPS, Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

__all__ = ["Race", "Returns", "diminishing_returns", "noise_added", "race"]

RACERS: Final = ("Euler", "Euler a", "DDIM", "Heun", "DPM++ 2M Karras", "UniPC", "Flow Euler", "Flow Heun")
"""Who runs if nobody is named, where they are right for the model."""
CONVERGERS: Final = ("Euler", "Heun", "DPM++ 2M Karras", "Euler a", "Flow Euler", "Flow Heun")
STEPS: Final = (3, 4, 6, 8, 12, 16, 24, 36, 50)
MAX_EVALUATIONS: Final = 2 * MAX_STEPS
FALLEN: Final = 0.5
RISEN: Final = 2.0
"""A curve falls if its last distance is below `FALLEN` times its largest and no more than `RISEN` times its least."""


def noise_added(sampler: str) -> str:
    """What a sampler of the menu adds on the way: "" for nothing, "fresh" or "path".

    "fresh": independent noise at every step (ancestral samplers, SDE solvers, DDPM, LCM, TCD, SA-Solver). The number of
    steps decides how much is drawn from the seed, so two numbers of steps are two random pictures, and there is nothing
    to converge to. "path": increments of one Brownian path, fixed by the seed whatever the steps (DPM++ SDE); more
    steps refine one picture in principle; with coarse steps it can still end in another one, so whether the distance
    falls is measured (:attr:`Returns.falls`).

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(unknown(sampler))
    entry = SAMPLERS[sampler]
    facts = facts_of(entry.cls)
    return facts.noise(entry.config) if facts is not None else ""


# Equal work


def race(model: Model, evaluations: int = 20, samplers: Sequence[str] | None = None, **settings: Any) -> "Race":
    """Run each sampler with as many steps as cost a given number of model evaluations; blocking, one after the other.

    Where a sampler cannot cost exactly that (Heun: 2 n - 1), it gets the most steps that cost no more.

    Args:
        model: what draws.
        evaluations: of the model, 1 to 2000, for each.
        samplers: names from ``model.samplers``; None: a few well-known ones.
        **settings: fields of ``Settings`` but steps and sampler.

    Raises:
        ValueError: one sentence, before any work, for what is refused: also for a sampler that has no number of steps
            within the budget, or that ends (LCM: 50 steps) far below it.
    """
    _check(model, settings, ("steps", "sampler"))
    budget = _whole("evaluations", evaluations, 1, MAX_EVALUATIONS)
    base = Settings(**settings)
    model.resolve(base)
    chosen = [_affordable(model, base, name, budget) for name in _names(model, samplers, RACERS)]
    # One by one: in a batch nobody has a time of their own.
    return Race(budget, {str(one.sampler): model.trace(one) for one in chosen})


def _affordable(model: Model, base: Settings, sampler: str, budget: int) -> Settings:
    """The settings with the most steps that cost no more than `budget`."""
    if sampler not in model.samplers:
        model.resolve(base.replace(sampler=sampler))  # says why
    entry, refused = SAMPLERS[sampler], ""
    for steps in range(min(budget, MAX_STEPS), 0, -1):
        if entry.evaluations(steps) > budget:
            continue
        if entry.evaluations(steps) < 0.9 * budget - 2:
            ended = f"{MAX_STEPS} steps are the most there are"
            more = ended if steps == MAX_STEPS else f"{steps + 1} steps cost {entry.evaluations(steps + 1)}"
            refused = refused or more
            break
        try:
            return model.resolve(base.replace(sampler=sampler, steps=steps))
        except ValueError as error:
            refused = refused or str(error)
    raise ValueError(f"{sampler} cannot spend {budget} evaluations: {refused}")


class Race:
    """What :func:`race` returns.

    Attributes:
        evaluations: what each sampler could spend.
        traces: sampler -> its run, in the order they were named.
    """

    def __init__(self, evaluations: int, traces: dict[str, Trace]) -> None:
        self.evaluations, self.traces = evaluations, traces

    def __repr__(self) -> str:
        return f"Race({self.evaluations} evaluations: {', '.join(self.traces)})"

    @property
    def images(self) -> "dict[str, Image.Image | None]":
        """Sampler -> final picture."""
        return {name: trace.image for name, trace in self.traces.items()}

    def table(self) -> list[dict[str, Any]]:
        """One dict per sampler: ``sampler``, ``steps``, ``evaluations``, ``seconds`` (wall time), ``reused`` (the model
        remembered the run and the time says nothing), ``noise`` (see :func:`noise_added`), ``sigma_max``, ``sigma_min``
        (noise levels b / a of the first and the last evaluation).
        """
        return [
            {
                "sampler": name,
                "steps": trace.settings.steps,
                "evaluations": len(trace),
                "seconds": trace.seconds,
                "reused": bool(trace.info.get("reused")),
                "noise": noise_added(name),
                "sigma_max": trace[0].sigma,
                "sigma_min": trace[-1].sigma,
            }
            for name, trace in self.traces.items()
        ]

    def plot(self) -> "Figure":
        """The final pictures with time and evaluations; beside each the noise levels it went through, log scale, over
        the evaluations, the others' in grey.
        """
        return _plot_race(self)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.plot()._repr_png_()


# More steps


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
    _check(model, settings, ("steps", "sampler"))
    most = _whole("reference", reference, 2, MAX_STEPS)
    if isinstance(steps, (str, bytes)) or not isinstance(steps, Sequence) or not len(steps):
        raise ValueError(f"steps must be a list of at least one whole number, got {shown(steps)}")
    counts = sorted({_whole("each of steps", count, 1, most - 1) for count in steps})
    base = Settings(**settings)
    plan = {
        name: [model.resolve(base.replace(sampler=name, steps=count)) for count in (*counts, most)]
        for name in _names(model, samplers, CONVERGERS)
    }
    return Convergence(most, {name: _returns(name, [model.trace(one) for one in ones]) for name, ones in plan.items()})


def _returns(sampler: str, runs: Sequence[Trace]) -> Returns:
    *traces, reference = runs
    steps = np.array([trace.settings.steps for trace in traces])
    latents = np.array([_apart(_latents(trace), _latents(reference)) for trace in traces])
    picture = np.array([_apart(_picture(trace), _picture(reference)) for trace in traces])
    noise = noise_added(sampler)
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


class Convergence:
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

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.plot()._repr_png_()


# Checks and numbers


def _check(model: Any, settings: dict[str, Any], own: Sequence[str]) -> None:
    if not isinstance(model, Model):
        raise ValueError(f"a model is needed, such as diffexplore.load(), got {shown(model)}")
    for name in own:
        if name in settings:
            raise ValueError(f"{name} differs from run to run here and cannot be set, got {shown(settings[name])}")


def _names(model: Model, samplers: Any, usual: Sequence[str]) -> list[str]:
    if samplers is None:
        return [name for name in usual if name in model.samplers] or model.samplers[:4]
    if isinstance(samplers, (str, bytes)) or not isinstance(samplers, Sequence) or not len(samplers):
        raise ValueError(f"samplers must be a list of at least one name, got {shown(samplers)}")
    for name in samplers:
        noise_added(name)  # refuses an unknown one
    return list(dict.fromkeys(samplers))


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}")
    return int(value)


def _latents(trace: Trace) -> np.ndarray:
    assert trace.final is not None, "runs here are never cancelled"
    return trace.final.numpy().astype(np.float64)


def _picture(trace: Trace) -> np.ndarray:
    assert trace.image is not None, "runs here are never cancelled"
    return np.asarray(trace.image.convert("RGB"), dtype=np.float64) / 255


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference."""
    return math.sqrt(float(np.mean(np.square(one - other))))


# Figures


def _plot_race(race: Race) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    from diffexplore.experiments.sweep import cost_line

    runs = list(race.traces.items())
    across = min(2, len(runs))
    down = math.ceil(len(runs) / across)
    side, panel, pair, top, between = 1.5, 2.4, 5.0, 0.72, 0.62
    width, height = across * pair, top + down * (side + between)
    figure = Figure(figsize=(width, height), facecolor="white")

    def text(x: float, y: float, words: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, words, **{"fontsize": 8, "color": INK, **style, **AS_TYPED})

    shared = runs[0][1].settings
    title = f"{race.evaluations} model evaluations each: {shared.prompt or '(no prompt)'}"
    text(0.15, 0.12, plain(title, 11, width - 0.3, "bold"), fontsize=11, fontweight="bold", va="top")
    line = (
        f"guidance {shared.guidance:g} · seed {shared.seed} · right of each picture: noise level σ at each evaluation"
    )
    text(0.15, 0.36, plain(line, 8, width - 0.3), color=QUIET, va="top")
    sigmas = {name: trace.curve("sigma") for name, trace in runs}
    levels = np.concatenate(list(sigmas.values()))
    levels = levels[levels > 0]
    longest = max(len(values) for values in sigmas.values())
    for number, (name, trace) in enumerate(runs):
        x, y = (number % across) * pair + 0.15, top + (number // across) * (side + between) + 0.2
        assert trace.image is not None
        own_w, own_h = fitted(trace.image.width / trace.image.height, side, side)
        axes = figure.add_axes((x / width, 1 - (y + own_h) / height, own_w / width, own_h / height))
        axes.imshow(resampled(trace.image, own_w, own_h), interpolation="antialiased", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=FAINT, linewidth=0.6)
        text(x, y - 0.05, name, fontweight="bold", va="bottom")
        words = f"{trace.settings.steps} steps · {cost_line(trace)}"
        text(x + side + 0.6, y - 0.05, plain(words, 7.5, panel), fontsize=7.5, color=QUIET, va="bottom")
        beside = figure.add_axes(
            ((x + side + 0.6) / width, 1 - (y + side) / height, panel / width, side / height), facecolor="white"
        )
        for other, values in sigmas.items():
            mine = other == name
            beside.plot(
                np.arange(1, len(values) + 1),
                np.where(values > 0, values, np.nan),
                color=COLOURS[number % len(COLOURS)] if mine else FAINT,
                lw=1.4 if mine else 0.8,
                marker="o" if mine and len(values) <= 40 else "",
                ms=2.5,
                zorder=3 if mine else 1,
            )
        bare(beside, TEXT - 1.5)
        if levels.size:
            beside.set_yscale("log")
            beside.set_ylim(levels.min() / 1.6, levels.max() * 1.6)
        beside.set_xlim(0.5, longest + 0.5)
        beside.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        beside.set_ylabel("σ", labelpad=1, **LABEL)
        if number >= len(runs) - across:
            beside.set_xlabel("evaluation", labelpad=1, **LABEL)
    return figure


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
