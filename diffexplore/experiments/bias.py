"""What a vague prompt prefers: of what it leaves open, how often the pictures show each value, held against how often
the model was taught it, and how guidance amplifies that.

The pocket model's world is drawn from known chances, so what its training showed under "a fox" can be counted (see
`pocket.world.taught`). Of other models nobody has that number: there one counts, and compares with what one would have
expected.

What is measured is this model, this prompt, these settings and this reader. A share that differs from what was taught
may be the model's doing, the guidance's, or the reader's, who is wrong about a few pictures in a hundred.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.experiments.counts import LEVEL, as_expected, simultaneous
from diffexplore.experiments.seeds import Read, drawn, numbers_of, read_all
from diffexplore.experiments.shared import Tabled, a_model, own_fields, several
from diffexplore.looks.figures.kit import (
    AS_TYPED,
    COLOURS,
    FAINT,
    LABEL,
    TEXT,
    WIDTH,
    Figure,
    Plotted,
    heading,
    legend,
    plain,
)
from diffexplore.pocket import world
from diffexplore.pocket.judge import ATTRIBUTES, named
from diffexplore.settings import Settings
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["Bias", "bias", "taught_by"]

MISREAD = 0.03
"""Of how many pictures the pocket model's judge may be wrong: its card has 97 of 100 right and more."""
_DRAWS = 2000


@dataclass(frozen=True)
class Bias(Plotted, Tabled):
    """What :func:`bias` counted.

    Attributes:
        settings: what was drawn, but for the seed and the guidance.
        attribute: what was read.
        values: that it has.
        guidances: at which it was drawn.
        counts: (guidances, values) int, how many pictures showed each.
        taught: (values,) how often training showed each, of sum 1; None where nobody knows.
        seeds: of the pictures, the same at every guidance.
        misread: of how many pictures the reader may be wrong, 0 to 1.
    """

    settings: Settings
    attribute: str
    values: tuple[str, ...]
    guidances: tuple[float, ...]
    counts: np.ndarray
    taught: np.ndarray | None
    seeds: tuple[int, ...]
    misread: float = 0.0

    @property
    def expected(self) -> np.ndarray | None:
        """(values,) what such a reader reads where nothing is preferred: `taught`, with what is misread spread evenly
        over all values. None where nobody knows.
        """
        if self.taught is None:
            return None
        made: np.ndarray = (1 - self.misread) * self.taught + self.misread / len(self.values)
        return made

    @property
    def shares(self) -> np.ndarray:
        """(guidances, values) float64."""
        made: np.ndarray = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        return made

    @property
    def p(self) -> np.ndarray:
        """(guidances,) how often counts would be as far from `expected`, or farther, if the model drew as it was taught
        (`counts.as_expected`); NaN where nobody knows that.
        """
        if self.expected is None:
            return np.full(len(self.guidances), math.nan)
        return np.array([as_expected(row.tolist(), self.expected.tolist()) for row in self.counts])

    @property
    def distances(self) -> np.ndarray:
        """(guidances,) how far the shares are from `expected`: half the sum of their differences (total variation), 0
        to 1: the part of the pictures that would have to show something else. NaN where nobody knows.
        """
        if self.expected is None:
            return np.full(len(self.guidances), math.nan)
        made: np.ndarray = np.abs(self.shares - self.expected).sum(axis=1) / 2
        return made

    @property
    def by_chance(self) -> float:
        """The `distances` that as many pictures have on average where nothing is preferred; NaN where nobody knows."""
        of = int(self.counts.sum(axis=1).max())
        if self.expected is None or not of:
            return math.nan
        counts = np.random.default_rng(0).multinomial(of, self.expected, size=_DRAWS)
        return float((np.abs(counts / of - self.expected).sum(axis=1) / 2).mean())

    def preferred(self, guidance: float) -> dict[str, str]:
        """The values of which it can be said at a guidance that they came more or less often than they were taught:
        value -> "more" or "less". None where the counts as a whole are what chance would give (`p` of 5 % or more).

        Raises:
            ValueError: one sentence, for a guidance that was not drawn.
        """
        k = self._at(guidance)
        if self.expected is None or self.p[k] >= 1 - LEVEL:
            return {}
        found = {}
        for value, (low, high), share in zip(
            self.values, simultaneous(self.counts[k].tolist()), self.expected, strict=True
        ):
            if not low <= share <= high:
                found[value] = "more" if share < low else "less"
        return found

    def table(self) -> list[dict[str, Any]]:
        """One row for each guidance and value: ``guidance``, ``value``, ``count``, ``of``, ``share``, its interval
        ``low`` and ``high`` (of all values together 95 %), ``taught``.
        """
        rows = []
        for guidance, counts in zip(self.guidances, self.counts, strict=True):
            of = int(counts.sum())
            for k, (value, (low, high)) in enumerate(zip(self.values, simultaneous(counts.tolist()), strict=True)):
                rows.append(
                    {"guidance": guidance, "value": value, "count": int(counts[k]), "of": of,
                     "share": int(counts[k]) / max(of, 1), "low": low, "high": high,
                     "taught": None if self.taught is None else float(self.taught[k])}
                )  # fmt: skip
        return rows

    def __repr__(self) -> str:
        return (
            f"Bias({self.settings.prompt[:40]!r}, {self.attribute}, {len(self.seeds)} seeds, guidance {self.guidances})"
        )

    def __str__(self) -> str:
        lines = [f"{self.settings.prompt or '(no prompt)'}: {self.attribute}, {len(self.seeds)} seeds"]
        for k, guidance in enumerate(self.guidances):
            found = self.preferred(guidance)
            told = ", ".join(f"{value} {how} often than taught" for value, how in found.items())
            if self.taught is None:
                most = self.values[int(self.counts[k].argmax())]
                lines.append(f"guidance {guidance:g}: most often {most} ({100 * self.shares[k].max():.0f} %)")
            elif self.p[k] >= 1 - LEVEL:
                lines.append(f"guidance {guidance:g}: as it was taught, as far as can be told ({_chance(self.p[k])})")
            else:
                lines.append(f"guidance {guidance:g}: {told or 'not as it was taught'} ({_chance(self.p[k])})")
        return "\n".join(lines)

    def plot(self) -> Figure:
        """The share of each value at each guidance with its interval, what was taught as a bar behind it; and how far
        all of it is from what was taught, over guidance.
        """
        return _plot(self)

    def _at(self, guidance: float) -> int:
        if guidance not in self.guidances:
            raise ValueError(
                f"it was drawn at guidance {', '.join(f'{g:g}' for g in self.guidances)}, got {shown(guidance)}"
            )
        return self.guidances.index(guidance)


def _chance(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def bias(
    model: Model,
    attribute: str = "setting",
    *,
    n: int | Sequence[int] = 60,
    guidance: float | Sequence[float] = (1.0, 5.0, 12.0),
    read: Read | None = None,
    taught: Mapping[str, float] | None = None,
    **settings: Any,
) -> Bias:
    """Draw a prompt that leaves something open from many seeds, and count what the model puts there; blocking.

    Args:
        model: what draws.
        attribute: what is left open: of the pocket model "subject", "setting" or "light", else a name that `read`
            gives.
        n: how many seeds, from 0; or a list of them.
        guidance: at which guidance; several show how it amplifies.
        read: as in `seeds`; None: the judge, who reads the pocket model's world alone.
        taught: value -> how often it is to be expected, of any sum; None: of the pocket model what its training showed,
            of others nothing.
        **settings: the other fields of ``Settings``.

    Raises:
        ValueError: one sentence, before any work, for what is refused: an attribute that the prompt names.
    """
    model = a_model(model)
    own_fields(settings, ("seed", "guidance"))
    levels = several("guidance", guidance)
    if read is not None and not callable(read):
        raise ValueError(f"read must be a function of a picture, got {shown(read)}")
    if not isinstance(attribute, str):
        raise ValueError(f"attribute must be a name, got {shown(attribute)}")
    base = model.plan(Settings(**settings)).settings
    numbers, ways = numbers_of("n", n), [base.replace(guidance=level) for level in levels]
    pocket = model.origin.kind == "pocket"
    if read is None:
        if not pocket:
            raise ValueError("nobody reads the pictures of this model: hand over read=, a function of a picture")
        expected = taught_by(base.prompt, attribute)
    if taught is not None:
        expected = _expected(taught)
    elif read is not None:
        expected = {}

    rows: list[list[str]] = []
    for way in ways:
        traces = drawn(model, [way.replace(seed=seed) for seed in numbers])
        images = [trace.image for trace in traces if trace.image is not None]
        found = read_all(images, read, pocket)
        if not any(attribute in one for one in found):
            known = list(dict.fromkeys(name for one in found for name in one))
            raise ValueError(f"read said nothing of {shown(attribute)}{near(attribute, known)}")
        rows.append([one[attribute] for one in found if attribute in one and _readable(attribute, one, read)])
    seen = {value for row in rows for value in row}
    # What the judge sees and training never showed is a value too; but what neither has is none.
    values = [*expected, *sorted(seen - expected.keys())]
    counts = np.array([[row.count(value) for value in values] for row in rows])
    shares = np.array([expected.get(value, 0.0) for value in values]) if expected else None
    return Bias(
        base, attribute, tuple(values), tuple(way.guidance for way in ways), counts, shares, tuple(numbers),
        0.0 if read is not None else MISREAD,
    )  # fmt: skip


def taught_by(prompt: str, attribute: str) -> dict[str, float]:
    """What the pocket model's training showed of an attribute under a prompt: value -> share, of sum 1.

    Raises:
        ValueError: one sentence, for an attribute that the prompt names, or that has no choice.
    """
    if attribute not in ATTRIBUTES:
        raise ValueError(
            f"attribute must be one of {', '.join(ATTRIBUTES)}; got {shown(attribute)}{near(attribute, ATTRIBUTES)}"
        )
    said = {name: value for name, value in named(prompt).items() if name != "quality"}
    if attribute in said:
        raise ValueError(
            f"the prompt names the {attribute} ({said[attribute]}): leave it open to see what the model prefers"
        )
    if said.get("setting") == "none":
        raise ValueError("of plain backgrounds nothing is left open: leave the background out")
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    kinds = [name for name, (_, kind, _) in world.SUBJECTS.items() if kind in words]
    found = world.taught(said, kinds).get(attribute, {})
    if len(found) < 2:
        only = f"always {next(iter(found))}" if found else "nothing to be read"
        raise ValueError(f"training showed {only} as the {attribute} of such a prompt, so there is nothing to prefer")
    return {value: found[value] for value in ATTRIBUTES[attribute] if value in found}


def _readable(attribute: str, one: Mapping[str, str], read: Read | None) -> bool:
    """Whether the judge's reading is more than a guess: there is no light in space."""
    if read is not None or attribute != "light":
        return True
    return one["setting"] not in ("space", "none") and one["style"] != "line"


def _expected(taught: Mapping[str, float]) -> dict[str, float]:
    good = isinstance(taught, Mapping) and all(
        isinstance(share, int | float) and not isinstance(share, bool) and math.isfinite(share) and share >= 0
        for share in taught.values()
    )
    if not good or not sum(taught.values()):
        raise ValueError(
            f"taught must map values to shares of 0 or more, such as {{'snow': 0.5, 'sea': 0.5}}; got {shown(taught)}"
        )
    total = sum(taught.values())
    return {str(value): share / total for value, share in taught.items()}


def _plot(found: Bias) -> Figure:
    known = found.taught is not None and len(found.guidances) > 1
    rows, per = len(found.values), len(found.guidances)
    fig = Figure(figsize=(WIDTH, 1.5 + 0.11 * rows * (per + 1)), facecolor="white", layout="constrained")
    first, *rest = fig.subplots(1, 2, width_ratios=(5, 2)) if known else [fig.add_subplot()]
    heading(
        first, f"{found.attribute} of “{found.settings.prompt or '(no prompt)'}”", f"share of {len(found.seeds)} seeds"
    )
    table = found.table()
    for k, guidance in enumerate(found.guidances):
        for j in range(rows):
            row = table[k * rows + j]
            y = j + (k - (per - 1) / 2) * 0.8 / per
            colour = COLOURS[k % len(COLOURS)]
            first.plot([row["low"], row["high"]], [y, y], color=colour, lw=2, alpha=0.5, solid_capstyle="round")
            label = f"guidance {guidance:g}" if j == 0 else None
            first.plot([row["share"]], [y], ls="", marker="o", ms=4, color=colour, label=label)
    if found.taught is not None:
        first.barh(range(rows), found.taught, height=0.86, color=FAINT, alpha=0.6, zorder=0, label="taught")
    first.set_yticks(range(rows), [plain(value, TEXT, 1.6) for value in found.values], fontsize=TEXT, **AS_TYPED)
    first.invert_yaxis()
    first.set_xlim(0, max(0.05, min(1.0, 1.05 * max(row["high"] for row in table))))
    legend(first)
    for axes in rest:
        heading(axes, "how far from what was taught", "part of the pictures")
        axes.plot(found.guidances, found.distances, color=COLOURS[0], marker="o")
        axes.axhline(found.by_chance, color=FAINT, lw=1, ls="--")
        axes.text(found.guidances[0], found.by_chance, " by chance", fontsize=TEXT, va="bottom", color=FAINT)
        axes.set_ylim(0, max(0.1, 1.15 * float(found.distances.max())))
        axes.set_xlabel("guidance", **LABEL)
    return fig
