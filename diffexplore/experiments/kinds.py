"""Kinds of models beside each other: the same prompt and seed, drawn by each of them with few and with many steps.

A step is not the same work everywhere. A model that is guided by mixing two predictions asks its network twice in a
step, one that was distilled with its guidance once; so pictures are compared by *calls* of the network.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from diffexplore.experiments.shared import Tabled, a_model, cost_line, own_fields, whole
from diffexplore.looks.curves import adherence_of
from diffexplore.looks.figures.kit import COLOURS, LABEL, Figure, Plotted, heading, legend
from diffexplore.looks.figures.table import Cell, plot_table
from diffexplore.model import Model, load
from diffexplore.pipelines.open import POCKETS
from diffexplore.settings import MAX_STEPS, Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Kind", "Kinds", "kinds"]

STEPS: Final = (1, 2, 4, 8, 20)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One picture of :func:`kinds`.

    Attributes:
        model: what drew it, by its name there.
        steps: how many.
        trace: the run.
        calls: how often the network was asked, with and without the prompt counted as two, where the two are known.
        adherence: how far it shows what the prompt names, 0 to 1; None where nobody can read that.
    """

    model: str
    steps: int
    trace: Trace
    calls: int
    adherence: float | None


def kinds(
    models: Mapping[str, Model] | Sequence[Model | str | os.PathLike[str]] | None = None,
    steps: Sequence[int] = STEPS,
    **settings: Any,
) -> "Kinds":
    """Let several models draw the same prompt from the same seed, each by its own sampler; blocking.

    Models that share their latents (those that come with the package) start from the same noise.

    Args:
        models: models by the name that they shall have, or a list of models, and of names and paths as
            ``diffexplore.load`` takes them; None: all that come with the package.
        steps: numbers of steps, each 1 to 1000; sorted, each taken once.
        **settings: fields of ``Settings`` but steps and sampler.

    Raises:
        ValueError: one sentence, before anything is drawn, for what is refused; for two models of one name.
    """
    own_fields(settings, ("steps", "sampler"))
    if isinstance(steps, (str, bytes)) or not isinstance(steps, Sequence) or not len(steps):
        raise ValueError(f"steps must be a list of at least one whole number, got {shown(steps)}")
    counts = sorted({whole("each of steps", count, 1, MAX_STEPS) for count in steps})
    base = Settings(**settings)
    named = _named(list(POCKETS) if models is None else models)
    plan = {
        name: [model.plan(base, steps=count, sampler=model.sampler).settings for count in counts]
        for name, model in named.items()
    }
    return Kinds([_drawn(name, named[name], one) for name, ones in plan.items() for one in ones])


def _named(models: Any) -> dict[str, Model]:
    if isinstance(models, Mapping):
        found = [(str(name), a_model(model)) for name, model in models.items()]
    elif isinstance(models, Sequence) and not isinstance(models, (str, bytes)):
        wanted = [one if isinstance(one, (str, os.PathLike)) else a_model(one) for one in models]
        opened = [one if isinstance(one, Model) else load(one) for one in wanted]
        found = [(model.name, model) for model in opened]
    else:
        raise ValueError(f"models must be a list of models, or models by name, got {shown(models)}")
    if not found:
        raise ValueError("models must be at least one model, got none")
    twice = [name for k, (name, _) in enumerate(found) if name in dict(found[:k])]
    if twice:
        raise ValueError(f"two models are called {shown(twice[0])}: give them by name, as {{'one': model, ...}}")
    return dict(found)


def _drawn(name: str, model: Model, settings: Settings) -> Kind:
    trace = model.trace(settings)
    calls = sum(1 if step.noise_uncond is None else 2 for step in trace)
    read = adherence_of(trace)
    return Kind(name, settings.steps, trace, calls, None if math.isnan(read) else read)


class Kinds(Plotted, Tabled):
    """What :func:`kinds` returns.

    Attributes:
        kinds: the pictures with what they cost, model by model, fewest steps first.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = list(kinds)

    def __repr__(self) -> str:
        return f"Kinds({', '.join(self.models)}; {', '.join(map(str, self.steps))} steps)"

    @property
    def models(self) -> list[str]:
        """Their names, in the order that was asked for."""
        return list(dict.fromkeys(one.model for one in self.kinds))

    @property
    def steps(self) -> list[int]:
        """The numbers of steps, ascending."""
        return sorted({one.steps for one in self.kinds})

    @property
    def traces(self) -> dict[tuple[str, int], Trace]:
        """(model, steps) -> the run."""
        return {(one.model, one.steps): one.trace for one in self.kinds}

    @property
    def images(self) -> "dict[tuple[str, int], Image.Image | None]":
        """(model, steps) -> the picture."""
        return {key: trace.image for key, trace in self.traces.items()}

    def table(self) -> list[dict[str, Any]]:
        """One dict per picture: ``model``, ``steps``, ``calls`` (of the network), ``seconds`` (wall time), ``reused``
        (the model remembered the run and the time says nothing), ``adherence`` (0 to 1, None where nobody reads it).
        """
        return [
            {
                "model": one.model,
                "steps": one.steps,
                "calls": one.calls,
                "seconds": one.trace.seconds,
                "reused": bool(one.trace.info.get("reused")),
                "adherence": one.adherence,
            }
            for one in self.kinds
        ]

    def plot(self) -> Figure:
        """The pictures: a row a model, a column a number of steps."""
        by = {(one.model, one.steps): one for one in self.kinds}
        cells = [[_cell(by[model, count]) for count in self.steps] for model in self.models]
        first = self.kinds[0].trace.settings
        told = f"guidance {first.guidance:g} · seed {first.seed} · each by its own sampler"
        return plot_table(
            cells, first.prompt or "(no prompt)", told, ("steps", [str(count) for count in self.steps]),
            ("model", self.models), ratio=_ratio(self.kinds),
        )  # fmt: skip

    def plot_adherence(self) -> Figure:
        """How far the pictures show what the prompt names, over the calls they took.

        Raises:
            ValueError: one sentence, where nobody can read that.
        """
        if all(one.adherence is None for one in self.kinds):
            raise ValueError("nobody reads these pictures: the judge knows those of the pocket models' world")
        figure = Figure(figsize=(6.4, 3.4), facecolor="white")
        axes = figure.add_axes((0.09, 0.15, 0.88, 0.65))
        heading(axes, self.kinds[0].trace.settings.prompt or "(no prompt)", "share of what the prompt names, as read")
        for number, name in enumerate(self.models):
            mine = [(one.calls, one.adherence) for one in self.kinds if one.model == name and one.adherence is not None]
            style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "lw": 1.4, "marker": "o", "ms": 3.5}
            axes.plot([calls for calls, _ in mine], [read for _, read in mine], label=name, **style)
        ticks = sorted({one.calls for one in self.kinds})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(count) for count in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("calls of the network for one picture", **LABEL)
        legend(axes)
        return figure


def _cell(one: Kind) -> Cell:
    return Cell(one.trace.image, _spent(one), "" if one.trace.image is not None else "no picture")


def _spent(one: Kind) -> str:
    return f"{cost_line(one.trace).split(' · ')[0]} · {one.calls} call{'s' if one.calls != 1 else ''}"


def _ratio(found: Sequence[Kind]) -> float:
    shapes = [one.trace.image.width / one.trace.image.height for one in found if one.trace.image is not None]
    return float(np.median(shapes)) if shapes else 1.0
