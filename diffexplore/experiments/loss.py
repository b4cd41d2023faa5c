"""The loss at every noise level: what training shows a network, shown to a trained one.

A picture gets noise, level by level, and the network is asked at each which noise that was. Where it errs little it
knows much: of a picture that is nearly clean nobody can tell the noise from the detail, of one that is nearly noise all
of it can be told.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from diffexplore.experiments.shared import a_model, pipeline_of
from diffexplore.looks.figures import Figure
from diffexplore.looks.figures.kit import COLOURS, FAINT, INK, LABEL, QUIET, WIDTH, heading
from diffexplore.looks.pictures import Picture, fit
from diffexplore.looks.views import frame
from diffexplore.pipelines.family import family_of
from diffexplore.record.step import Step
from diffexplore.runs.start import LOSS, Retrace, first_order
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.runs.plan import Plan

__all__ = ["LossByLevel", "Question", "loss_by_level"]

SPLIT: Final = "The noise that was added is known exactly, and no prompt has a part in it."


@dataclass(frozen=True)
class LossByLevel:
    """What :func:`loss_by_level` found; noisiest level first, as a run goes.

    Attributes:
        added: the picture with the noise that was added to it: ``step.noise`` is that noise, ``step.x0`` the picture.
        guessed: the same x_t, with what the network said: ``step.noise`` is its answer, ``step.x0`` the picture it
            thinks of.
    """

    added: Trace
    guessed: Trace

    @property
    def loss(self) -> np.ndarray:
        """(levels,) mean squared error of the noise; 1 is that of a network which says nothing."""
        return self.guessed.curve(LOSS.name)

    @property
    def share(self) -> np.ndarray:
        """(levels,) share of noise, b^2 / (a^2 + b^2)."""
        return self.guessed.curve("noise_share")

    def table(self) -> list[dict[str, float]]:
        """One row a level: ``timestep``, ``share`` and ``loss``."""
        rows = zip(self.guessed.curve("timestep"), self.share, self.loss, strict=True)
        return [{"timestep": float(t), "share": float(share), "loss": float(loss)} for t, share, loss in rows]

    def plot(self, columns: int = 6) -> Figure:
        """The picture with noise, the noise added and guessed, and the picture the network thinks of, at some levels;
        below, the loss over the share of noise.

        Args:
            columns: levels that are shown, 2 to 12.

        Raises:
            ValueError: for columns out of range.
        """
        if not isinstance(columns, int) or isinstance(columns, bool) or not 2 <= columns <= 12:
            raise ValueError(f"columns must be a whole number from 2 to 12, got {shown(columns)}")
        count = len(self.guessed)
        chosen = sorted({round(float(k)) for k in np.linspace(0, count - 1, min(columns, count))})
        rows = (
            ("noisy picture", self.added, "latents"), ("noise added", self.added, "noise"),
            ("noise guessed", self.guessed, "noise"), ("picture guessed", self.guessed, "x0"),
        )  # fmt: skip
        fig = Figure(figsize=(WIDTH, WIDTH * (0.72 * len(rows) / len(chosen) + 0.3)), facecolor="white")
        grid = fig.add_gridspec(
            len(rows), len(chosen), left=0.13, right=0.99, top=0.95, bottom=0.36, wspace=0.05, hspace=0.06
        )
        for row, (word, trace, kind) in enumerate(rows):
            for column, i in enumerate(chosen):
                axes = fig.add_subplot(grid[row, column])
                axes.imshow(frame(trace, kind, i), interpolation="nearest" if kind != "x0" else None)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if row == 0:
                    axes.set_title(f"{100 * self.share[i]:.3g} % noise", **LABEL)
                if column == 0:
                    axes.set_ylabel(word.replace(" ", "\n"), rotation=0, ha="right", va="center", **LABEL)
        axes = fig.add_subplot(fig.add_gridspec(1, 1, left=0.13, right=0.99, top=0.27, bottom=0.09)[0])
        heading(axes, "the loss", LOSS.unit)
        axes.axhline(1, color=FAINT, lw=0.8)
        axes.annotate("says nothing", (0, 1), xytext=(-4, -9), textcoords="offset points", color=QUIET, ha="right",
                      **{name: one for name, one in LABEL.items() if name != "color"})  # fmt: skip
        axes.plot(self.share, self.loss, color=COLOURS[0], lw=1.3, marker="o", ms=2.5)
        axes.set_xlim(1.02, -0.02)
        axes.set_ylim(0, max(1.08, 1.08 * float(np.nanmax(self.loss))))
        axes.set_xlabel("share of noise: a run goes from 1 to 0", **LABEL)
        axes.tick_params(colors=INK)
        return fig


def loss_by_level(
    model: Model,
    image: Picture,
    prompt: str = "",
    *,
    steps: int = 20,
    guidance: float = 1.0,
    seed: int = 0,
) -> LossByLevel:
    """Ask a model at every noise level for the noise on a picture, and hold it against that which was added.

    Args:
        model: what ``diffexplore.load`` returns; one with an encoder for pictures.
        image: a picture as ``looks.pictures.read_picture`` takes it; another size than the model's is cropped around
            its centre and resampled.
        prompt: what the network is told of the picture.
        steps: how many levels, evenly spaced in the model's schedule.
        guidance: 1 asks as training does; above, the guided prediction is held against the noise.
        seed: of the noise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for what is no model or has no encoder, and for a picture or settings which cannot be.
    """
    model = a_model(model)
    question = Question(model, image, Settings(prompt=prompt, steps=steps, guidance=guidance, seed=seed))
    guessed = model.trace(question.plan, probes=[question.probe()])
    return LossByLevel(question.added(model, guessed), guessed)


class Question:
    """One picture and how a model is asked about it, checked before any work.

    Attributes:
        plan: the run that asks.
        picture: the picture as it is encoded, at the model's size.
        clean: its latents, (C, h, w).
    """

    def __init__(self, model: Model, image: Picture, settings: Settings) -> None:
        """The question of these `settings`; their sampler is one that evaluates the network once a level.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: one sentence, as in :func:`loss_by_level`.
        """
        pipeline = pipeline_of(model)
        if family_of(pipeline).looked:
            title = type(pipeline).__name__
            raise ValueError(f"how a {title} starts from a picture of one's own is not known: it is of no named family")
        self.plan = _plan(model, settings)
        self.picture = fit(image, *model.size)
        self.clean = model.encode(self.picture)

    def about(self, model: Model, settings: Settings) -> Question:
        """The question of other `settings`, about the same picture."""
        made = copy.copy(self)
        made.plan = _plan(model, settings)
        return made

    def probe(self) -> Retrace:
        """What leads the run: one for each run."""
        return Retrace(self.clean, self.picture.size)

    def blank(self, model: Model) -> Trace:
        """The forward process, to be filled with a :meth:`step` for each of the run that asks."""
        info = {"forward": True, "model": model.name, "family": model.family, "notes": [SPLIT], **self.plan.info}
        return Trace(self.plan.settings, decode=model.decode, matrix=model.matrix, info=info)

    def added(self, model: Model, guessed: Trace) -> Trace:
        """The forward process on the levels of a run that asked: what was added, where the run has what was guessed."""
        made = self.blank(model)
        for one in guessed:
            made.append(self.step(one))
        made.final, made.image, made.output = self.clean, self.picture, self.picture
        made.expected = guessed.expected
        return made

    def step(self, one: Step) -> Step:
        """What one step of the run that asked is in it."""
        return Step(
            index=one.index, timestep=one.timestep, seconds=0.0, a=one.a, b=one.b, kind="flow_prediction",
            latents=one.latents, output=one.tensors["added"] - self.clean, split=SPLIT,
        )  # fmt: skip


def _plan(model: Model, settings: Settings) -> Plan:
    return model.plan(settings.replace(sampler=first_order(model.samplers), strength=None))
