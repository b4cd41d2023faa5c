"""How many pictures come out degraded, over steps, guidance and sampler: counted, each share with its interval.

Of the pocket model its judge says what is degraded: a picture that it reads as blurry, noisy, pixelated or low in
contrast, or in which it does not find something that the prompt names. It has learned from composed pictures, flaws of
their kind included, and from nothing else: of composed pictures it calls 2 in 1,000 the wrong quality, but what a run
with too few steps or too much guidance breaks is none of the flaws it was taught, and it gives such a picture the
nearest name it has. So it is the count that says something, and less the name. Pictures of other models are read by a
function of one's own, or by eye.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.experiments.counts import Difference, paired, wilson
from diffexplore.experiments.seeds import Read, drawn, numbers_of, read_all
from diffexplore.experiments.shared import Tabled, a_model, named_samplers, own_fields, several
from diffexplore.looks.figures.kit import COLOURS, LABEL, WIDTH, Figure, Plotted, heading, legend
from diffexplore.pocket.judge import judge_many, named, readable
from diffexplore.settings import Settings
from diffexplore.words import shown

if TYPE_CHECKING:
    from PIL import Image

    from diffexplore.model import Model

__all__ = ["CLEAN", "FAULTY", "NOT_ASKED", "USUAL", "Degraded", "degraded"]

USUAL = ("DPM++ 2M Karras", "Euler a", "DDIM")
"""The samplers that are tried where none are named."""
CLEAN, FAULTY, NOT_ASKED = "clean", "degraded", "not as asked"
MOST = 4000
"""Pictures of one study."""
_ACROSS = 4  # panels in a row


@dataclass(frozen=True)
class Degraded(Plotted, Tabled):
    """What :func:`degraded` counted.

    Attributes:
        settings: what was drawn, but for the seed, steps, guidance and sampler.
        samplers, guidances, steps: that were tried, all with all.
        seeds: of the pictures, the same in each cell.
        read: (samplers, guidances, steps, seeds) of text: "clean"; else what the judge found, the name of a flaw or
            "not as asked", or "degraded", where a function of the user's said so.
    """

    settings: Settings
    samplers: tuple[str, ...]
    guidances: tuple[float, ...]
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    read: np.ndarray

    @property
    def faulty(self) -> np.ndarray:
        """(samplers, guidances, steps, seeds) bool."""
        made: np.ndarray = self.read != CLEAN
        return made

    @property
    def counts(self) -> np.ndarray:
        """(samplers, guidances, steps) int, how many of the seeds are degraded."""
        made: np.ndarray = self.faulty.sum(axis=-1)
        return made

    def compare(self, first: tuple[str, float, int], second: tuple[str, float, int]) -> Difference:
        """Whether a second cell, a (sampler, guidance, steps), has more of them than a first, in pairs of equal seeds.

        Choose the two before looking: the best and the worst of many cells lie further apart than they are.

        Raises:
            ValueError: one sentence, for a cell that was not drawn.
        """
        return paired(self.faulty[self._at(first)].tolist(), self.faulty[self._at(second)].tolist())

    def table(self) -> list[dict[str, Any]]:
        """One row for each cell: ``sampler``, ``guidance``, ``steps``, ``count``, ``of``, ``share``, its interval
        ``low`` and ``high`` (Wilson's, 95 % of each cell by itself), and ``mostly``, what was found most often.
        """
        rows = []
        for s, g, k in self._cells():
            found, of = Counter(one for one in self.read[s, g, k].tolist() if one != CLEAN), len(self.seeds)
            count = found.total()
            low, high = wilson(count, of)
            rows.append(
                {"sampler": self.samplers[s], "guidance": self.guidances[g], "steps": self.steps[k], "count": count,
                 "of": of, "share": count / of, "low": low, "high": high,
                 "mostly": found.most_common(1)[0][0] if found else ""}
            )  # fmt: skip
        return rows

    def __repr__(self) -> str:
        shape = " x ".join(str(len(one)) for one in (self.samplers, self.guidances, self.steps))
        return f"Degraded({self.settings.prompt[:40]!r}, {shape} cells, {len(self.seeds)} seeds)"

    def __str__(self) -> str:
        rows = self.table()
        few, many = (pick(rows, key=lambda row: row["count"]) for pick in (min, max))
        told = f"{self.settings.prompt or '(no prompt)'}, {len(self.seeds)} seeds in each of {len(rows)} cells"
        if few["count"] == many["count"]:
            return f"{told}: everywhere {_said(few)} degraded"
        ends = [f"at {_where(one)}{_and_more(rows, one)}, {_said(one)}" for one in (few, many)]
        return f"{told}: fewest degraded {ends[0]}; most {ends[1]}"

    def plot(self) -> Figure:
        """A panel for each sampler: the share that is degraded over steps, a line for each guidance, with intervals."""
        return _plot(self)

    def _cells(self) -> itertools.product[tuple[int, ...]]:
        return itertools.product(*(range(size) for size in self.read.shape[:-1]))

    def _at(self, cell: Any) -> tuple[int, int, int]:
        try:
            sampler, guidance, steps = cell
            return self.samplers.index(sampler), self.guidances.index(guidance), self.steps.index(steps)
        except (TypeError, ValueError):
            have = f"{', '.join(self.samplers)}; {', '.join(f'{g:g}' for g in self.guidances)}; {self.steps}"
            raise ValueError(f"a cell is a (sampler, guidance, steps) of {have}; got {shown(cell)}") from None


def degraded(
    model: Model,
    n: int | Sequence[int] = 16,
    *,
    steps: int | Sequence[int] = (3, 6, 12, 20),
    guidance: float | Sequence[float] = (1.0, 5.0, 12.0),
    samplers: Sequence[str] | None = None,
    read: Read | None = None,
    **settings: Any,
) -> Degraded:
    """Draw the same seeds with each sampler, guidance and number of steps, and count what is degraded; blocking.

    Args:
        model: what draws.
        n: how many seeds, from 0; or a list of them.
        steps, guidance: one or several of each.
        samplers: names; None: a few that are right for the model.
        read: says of a picture (PIL) whether it is degraded, True or False. None: the judge of the pocket model, see
            above; pictures of other models nobody reads.
        **settings: the other fields of ``Settings``; of the pocket model a prompt that names no flaw.

    Raises:
        ValueError: one sentence, before any work, for what is refused; for a picture that `read` fails on, after.
    """
    model = a_model(model)
    own_fields(settings, ("seed", "sampler"))
    if read is not None and not callable(read):
        raise ValueError(f"read must be a function of a picture, got {shown(read)}")
    base = Settings(**settings)
    if read is None:
        if model.origin.kind != "pocket":
            raise ValueError("nobody reads the pictures of this model: hand over read=, a function of a picture")
        flaw = named(base.prompt).get("quality", CLEAN)
        if flaw != CLEAN:
            raise ValueError(f"the prompt asks for a degraded picture ({flaw}): leave that out")
    names, numbers = named_samplers(model, samplers, USUAL), numbers_of("n", n)
    ways = [_several("guidance", guidance), _several("steps", steps)]
    cells = [
        model.plan(base.replace(sampler=sampler, guidance=level, steps=count)).settings
        for sampler in names
        for level in ways[0]
        for count in ways[1]
    ]
    if len(cells) * len(numbers) > MOST:
        raise ValueError(f"at most {MOST} pictures are drawn, got {len(cells)} cells of {len(numbers)} seeds")
    rows = []
    for cell in cells:
        traces = drawn(model, [cell.replace(seed=seed) for seed in numbers])
        images = [trace.image for trace in traces if trace.image is not None]
        if len(images) < len(traces):
            raise ValueError("this model makes no pictures, so there is nothing to look at")
        rows.append(_by_judge(images, base.prompt) if read is None else _by_user(images, read))
    shape = (len(names), len(ways[0]), len(ways[1]), len(numbers))
    levels = tuple(cells[k * shape[2]].guidance for k in range(shape[1]))
    counts = tuple(cell.steps for cell in cells[: shape[2]])
    return Degraded(base, tuple(names), levels, counts, tuple(numbers), np.array(rows, dtype=object).reshape(shape))


def _several(name: str, value: Any) -> list[Any]:
    found = several(name, value)
    return [one for k, one in enumerate(found) if one not in found[:k]]


def _by_judge(images: Sequence[Image.Image], prompt: str) -> list[str]:
    wanted = {name: value for name, value in readable(prompt).items() if name != "quality"}
    told = []
    for one in judge_many(images):
        best = {name: max(values, key=values.__getitem__) for name, values in one.items()}
        right = all(best[name] == value for name, value in wanted.items())
        told.append(best["quality"] if best["quality"] != CLEAN else CLEAN if right else NOT_ASKED)
    return told


def _by_user(images: Sequence[Image.Image], read: Read) -> list[str]:
    told = []
    for one in read_all(images, read, False):
        (word,) = one.values() if len(one) == 1 else ("",)
        if word not in ("yes", "no"):
            raise ValueError(f"read must say True or False of a picture, got {shown(one)}")
        told.append(FAULTY if word == "yes" else CLEAN)
    return told


def _where(row: dict[str, Any]) -> str:
    return f"{row['sampler']}, guidance {row['guidance']:g}, {row['steps']} steps"


def _and_more(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> str:
    """How many other cells count as many: one of several is named."""
    others = sum(one["count"] == row["count"] for one in rows) - 1
    return f" (and {others} more)" if others else ""


def _said(row: dict[str, Any]) -> str:
    return f"{row['count']} of {row['of']} ({100 * row['low']:.0f} to {100 * row['high']:.0f} %)"


def _plot(found: Degraded) -> Figure:
    across = min(len(found.samplers), _ACROSS)
    down = -(-len(found.samplers) // across)
    fig = Figure(figsize=(WIDTH, 0.6 + 2.6 * down), facecolor="white", layout="constrained")
    panels = fig.subplots(down, across, sharey=True, squeeze=False).flat
    table = found.table()
    per = len(found.guidances) * len(found.steps)
    for s, axes in enumerate(panels):
        if s >= len(found.samplers):
            axes.set_visible(False)
            continue
        heading(axes, found.samplers[s], f"degraded, % of {len(found.seeds)} seeds")
        for g, guidance in enumerate(found.guidances):
            rows = table[s * per + g * len(found.steps) :][: len(found.steps)]
            x = np.arange(len(rows)) + 0.12 * (g - (len(found.guidances) - 1) / 2)
            share, low, high = (100 * np.array([row[name] for row in rows]) for name in ("share", "low", "high"))
            colour = COLOURS[g % len(COLOURS)]
            axes.vlines(x, low, high, color=colour, lw=2, alpha=0.4)
            axes.plot(x, share, color=colour, lw=1.2, marker="o", ms=4, label=f"guidance {guidance:g}")
        axes.set_xticks(range(len(found.steps)), [str(count) for count in found.steps])
        axes.set_xlabel("steps", **LABEL)
        axes.set_yticks(range(0, 101, 20))
        axes.set_ylim(-3, 103 + 14 * len(found.guidances))  # with room for the names of the lines
        if s == 0:
            legend(axes)
    return fig
