"""Samplers compared at equal work.

The work of a run is its model evaluations (both halves of guidance are one). A step of Heun takes two of them, so at
equal *steps* it does twice the work of Euler and looks better than it is.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from diffexplore.experiments.shared import a_model, cost_line, named_samplers, noise_added, own_fields, whole
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
    fitted,
    plain,
)
from diffexplore.looks.figures.paper import resampled
from diffexplore.model import Model
from diffexplore.settings import MAX_STEPS, Settings
from diffexplore.trace import Trace

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Race", "noise_added", "race"]

RACERS: Final = ("Euler", "Euler a", "DDIM", "Heun", "DPM++ 2M Karras", "UniPC", "Flow Euler", "Flow Heun")
"""Who runs if nobody is named, where they are right for the model."""
MAX_EVALUATIONS: Final = 2 * MAX_STEPS


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
    model = a_model(model)
    own_fields(settings, ("steps", "sampler"))
    budget = whole("evaluations", evaluations, 1, MAX_EVALUATIONS)
    base = Settings(**settings)
    model.resolve(base)
    chosen = [_affordable(model, base, name, budget) for name in named_samplers(model, samplers, RACERS)]
    # One by one: in a batch nobody has a time of their own.
    return Race(budget, {str(one.sampler): model.trace(one) for one in chosen})


def _affordable(model: Model, base: Settings, sampler: str, budget: int) -> Settings:
    """The settings with the most steps that cost no more than `budget`."""
    if sampler not in model.samplers:
        model.resolve(base.replace(sampler=sampler))  # says why
    refused = ""
    for steps in range(min(budget, MAX_STEPS), 0, -1):
        cost = model.evaluations(sampler, steps)
        if cost > budget:
            continue
        if cost < 0.9 * budget - 2:
            ended = f"{MAX_STEPS} steps are the most there are"
            more = ended if steps == MAX_STEPS else f"{steps + 1} steps cost {model.evaluations(sampler, steps + 1)}"
            refused = refused or more
            break
        try:
            return model.resolve(base.replace(sampler=sampler, steps=steps))
        except ValueError as error:
            refused = refused or str(error)
    raise ValueError(f"{sampler} cannot spend {budget} evaluations: {refused}")


class Race(Plotted):
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
                "noise": noise_added(name, trace),
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


# The figure


def _plot_race(race: Race) -> "Figure":
    from matplotlib.ticker import MaxNLocator

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
