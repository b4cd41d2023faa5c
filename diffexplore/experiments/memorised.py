"""How hard each prompt pulls at the first step, a sign of what a model has learned by heart.

Where a picture was learned by heart, the model knows from pure noise on where its prompt leads, so its predictions with
and without the prompt lie further apart than those of a prompt that leaves the picture open (Wen, Liu, Chen & Lyu 2024,
arXiv 2407.21720, who find it in Stable Diffusion's training prompts; its size is their magnitude at the first step).
Only the first step is computed, and of that nothing but the two halves that every guided run has.

It is a sign and no proof. It speaks of prompts, so it finds nothing that no prompt was tried for; a prompt that says
much pulls harder than one that says little, whatever was learned; and how hard is hard depends on the model, so a group
of prompts is held against another, by the area under the ROC curve (`ranks`). That a picture *is* a copy, only a look
at what was trained on can show: see `nearest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.experiments.ranks import Parted, parted
from diffexplore.experiments.seeds import numbers_of
from diffexplore.experiments.shared import Tabled, a_model, own_fields
from diffexplore.looks.figures.kit import AS_TYPED, COLOURS, FAINT, LABEL, TEXT, WIDTH, Figure, Plotted, heading, plain
from diffexplore.record.predictions import rms, share_of_noise
from diffexplore.settings import Settings
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.record.step import Step
    from diffexplore.trace import Trace

__all__ = ["MOST", "Pulls", "memorised"]

MOST = 2000
"""Prompts times seeds."""
_NAMED = 40  # prompts that a figure names


@dataclass(frozen=True)
class Pulls(Plotted, Tabled):
    """What :func:`memorised` measured.

    Attributes:
        name: what the group is called in figures.
        settings: what was drawn, but for prompt and seed.
        prompts: in the order they were given.
        seeds: of each prompt's runs.
        sizes: (prompts, seeds) float64: root mean square of the difference of the two predictions at the first step, as
            what the network predicts (noise, velocity, ...), so sizes of different models do not compare.
        share: of noise, at that step, 0 to 1.
    """

    name: str
    settings: Settings
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: np.ndarray
    share: float

    @property
    def means(self) -> np.ndarray:
        """(prompts,) the mean of each prompt's seeds."""
        made: np.ndarray = self.sizes.mean(axis=1)
        return made

    def against(self, other: Pulls) -> Parted:
        """How well the size tells this group of prompts from another: the chance that one of these pulls harder than
        one of those. Each prompt counts once, with the mean of its seeds.

        Of the same prompts with and without a LoRA the interval is rather too wide than too narrow, since it takes both
        groups for independent.

        Raises:
            ValueError: one sentence, for what was measured at another level of noise, which does not compare.
        """
        if not isinstance(other, Pulls):
            raise ValueError(f"what it is held against must be pulls of prompts too, got {shown(other)}")
        if abs(self.share - other.share) > 1e-3:
            raise ValueError(
                f"the first steps must be at one level of noise: they are at shares of {self.share:.4f} and "
                f"{other.share:.4f}; take one sampler and number of steps for both"
            )
        return parted(self.means, other.means)

    def table(self) -> list[dict[str, Any]]:
        """One row for each prompt and seed: ``group``, ``prompt``, ``seed``, ``size``."""
        return [
            {"group": self.name, "prompt": prompt, "seed": seed, "size": float(size)}
            for prompt, row in zip(self.prompts, self.sizes, strict=True)
            for seed, size in zip(self.seeds, row, strict=True)
        ]

    def __repr__(self) -> str:
        return f"Pulls({self.name!r}, {len(self.prompts)} prompts, {len(self.seeds)} seeds)"

    def __str__(self) -> str:
        means = self.means
        return (
            f"{self.name}: {len(self.prompts)} prompts pull with {np.median(means):.4f} in the middle, "
            f"{means.min():.4f} to {means.max():.4f} ({len(self.seeds)} seeds each, share of noise {self.share:.3f})"
        )

    def plot(self, *others: Pulls) -> Figure:
        """Each prompt a dot at its mean, its seeds a line from the smallest to the largest; groups one below the other,
        and how well the first is told from each of the `others`.
        """
        for one in others:
            self.against(one)  # refuses what cannot be held against it
        return _plot([self, *others])


def memorised(
    model: Model, prompts: Sequence[str], *, n: int | Sequence[int] = 4, name: str | None = None, **settings: Any
) -> Pulls:
    """How far the predictions with and without each prompt lie apart at the first step; blocking.

    Runs are stopped after their first step, so a prompt costs one evaluation a seed. Compare what comes out with that
    of other prompts, or of the same prompts without a LoRA: ``memorised(...).against(other)``.

    Args:
        model: what would draw.
        prompts: what it is asked for, each once.
        n: how many seeds, from 0, or a list of them.
        name: what to call the group; None: the LoRAs that are on, or "plain".
        **settings: the other fields of ``Settings``; no negative prompt, with which the sign means nothing.

    Raises:
        ValueError: one sentence, before any work, for what is refused: a model whose predictions with and without the
            prompt cannot be told apart, guidance that is off, a negative prompt.
    """
    model = a_model(model)
    own_fields(settings, ("seed", "prompt"))
    asked = _prompts(prompts)
    if name is not None and not isinstance(name, str):
        raise ValueError(f"name must be a text or None, got {shown(name)}")
    numbers = numbers_of("n", n)
    if len(asked) * len(numbers) > MOST:
        raise ValueError(f"at most {MOST} runs are measured at once, got {len(asked)} prompts times {len(numbers)}")
    base = model.plan(Settings(**settings)).settings
    if base.negative_prompt.strip():
        raise ValueError(
            "a negative prompt takes the place of the empty one, so the difference is no longer the prompt's alone: "
            f"leave negative_prompt empty, got {shown(base.negative_prompt)}"
        )
    told = model.abilities.get("split")
    if isinstance(told, str):
        raise ValueError(f"the predictions with and without the prompt are needed: {told}")
    if base.guidance <= 1:
        raise ValueError(f"guidance must be above 1: without it there is one prediction only; got {base.guidance:g}")
    wanted = [base.replace(prompt=prompt, seed=seed) for prompt in asked for seed in numbers]
    steps = _first_steps(model, wanted)
    sizes = np.array([_size(step) for step in steps]).reshape(len(asked), len(numbers))
    named = name or ", ".join(f"{one} {scale:g}" for one, scale in base.adapters if scale) or "plain"
    share = share_of_noise(steps[0].a, steps[0].b)
    return Pulls(named, base.replace(prompt=""), tuple(asked), tuple(numbers), sizes, share)


def _prompts(prompts: Any) -> list[str]:
    good = isinstance(prompts, Sequence) and not isinstance(prompts, (str, bytes)) and len(prompts)
    if not good:
        raise ValueError(f"prompts must be a list of at least one text, got {shown(prompts)}")
    for one in prompts:
        if not isinstance(one, str) or not one.strip():
            raise ValueError(f"a prompt must be a text of at least one word, got {shown(one)}")
    return list(dict.fromkeys(prompts))


def _first_steps(model: Model, wanted: Sequence[Settings]) -> list[Step]:
    """The first step of each run; the rest is not drawn. What can share a batch does."""
    order = {one: k for k, one in enumerate(model.resolve(one) for one in wanted)}
    found: list[Step | None] = [None] * len(wanted)
    for batch in model.batches(list(wanted)):
        for one, trace in zip(batch, _begun(model, batch), strict=True):
            found[order[one]] = trace[0]
    assert all(step is not None for step in found)
    return [step for step in found if step is not None]


def _begun(model: Model, batch: Sequence[Settings]) -> list[Trace]:
    jobs: list[Any] = []

    def on_step(_: Step) -> None:
        # Jobs of one batch are stopped together, so all have to have their first step; where it was split, the halves.
        if jobs and all(len(job.trace) for job in jobs):
            jobs[0].cancel()

    jobs += model.submit_many(list(batch), on_step, lane=object())
    return [job.result() for job in jobs]


def _size(step: Step) -> float:
    cond, uncond = step.output_cond, step.output_uncond
    if cond is None or uncond is None:
        raise ValueError(f"the predictions with and without the prompt are needed: {step.split}")
    return rms(cond - uncond)


def _plot(groups: Sequence[Pulls]) -> Figure:
    rows = [(group, k) for group in range(len(groups)) for k in np.argsort(-groups[group].means)]
    named = len(rows) <= _NAMED
    high = 1.2 + len(rows) * (0.17 if named else 0.05)
    fig = Figure(figsize=(WIDTH, high), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    first, others = groups[0], groups[1:]
    told = "; ".join(f"against {other.name}: {first.against(other)}" for other in others)
    heading(axes, "how hard each prompt pulls at the first step", told or f"{len(first.seeds)} seeds a prompt")
    for y, (group, k) in enumerate(rows):
        row, colour = groups[group].sizes[k], COLOURS[group % len(COLOURS)]
        axes.plot([row.min(), row.max()], [y, y], color=colour, lw=2, alpha=0.4, solid_capstyle="round")
        axes.plot([row.mean()], [y], ls="", marker="o", ms=4, color=colour)
        if y and group != rows[y - 1][0]:
            axes.axhline(y - 0.5, color=FAINT, lw=1)
    if named:
        words = [plain(groups[group].prompts[k], TEXT - 1, 3.2) for group, k in rows]
        axes.set_yticks(range(len(rows)), words, fontsize=TEXT - 1, **AS_TYPED)
    else:
        axes.set_yticks([])
    at = 0
    for group, one in enumerate(groups):
        axes.annotate(
            plain(one.name, TEXT, 3.0), (1, at), xycoords=("axes fraction", "data"), ha="right", va="center",
            fontsize=TEXT, color=COLOURS[group % len(COLOURS)], fontweight="bold", **AS_TYPED,
        )  # fmt: skip
        at += len(one.prompts)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.2 * max(float(one.sizes.max()) for one in groups) or 1.0)
    axes.set_xlabel(
        "size of the difference between the predictions with and without the prompt (root mean square)", **LABEL
    )
    return fig
