"""What a negative prompt did, word by word: each word is left out in turn, and the picture drawn without it.

All runs share seed and settings and are drawn together, so what differs between two pictures is what the word did. This
is leave-one-out attribution: it says what a word adds to the others, not what it would do alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffexplore.experiments.shared import a_model
from diffexplore.looks.figures import Cell, Figure, plot_sheet
from diffexplore.record.predictions import rms
from diffexplore.settings import Settings

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.trace import Trace

__all__ = ["NegativeWords", "negative_words"]

MOST = 12
"""Most parts of a negative prompt that are looked at."""


@dataclass(frozen=True)
class NegativeWords:
    """The runs with the whole negative prompt, with none, and without each of its parts.

    Attributes:
        whole, none: The two runs everything is measured between.
        without: Part -> the run that leaves it out.
    """

    whole: Trace
    none: Trace
    without: Mapping[str, Trace]

    @property
    def moved(self) -> dict[str, float]:
        """Part -> how far its absence moves the finished latents, as a share of what the whole negative prompt moves.

        0: leaving it out changes nothing; 1: as much as leaving out everything. It is a distance without a direction:
        a word that works against the others moves the picture too, so look at `plot`. The shares do not add up to 1,
        as words overlap and reinforce one another. All 0 where the negative prompt did nothing at all.
        """
        total = _distance(self.whole, self.none)
        return {part: _distance(self.whole, run) / total if total else 0.0 for part, run in self.without.items()}

    def table(self) -> list[dict[str, Any]]:
        """One row per part, the most moving first: ``word`` and ``moved``."""
        rows = sorted(self.moved.items(), key=lambda row: -row[1])
        return [{"word": part, "moved": share} for part, share in rows]

    def plot(self) -> Figure:
        """The pictures side by side: with none, with all, and without each part, with its share."""
        cells = [Cell(self.none.image, "no negative prompt"), Cell(self.whole.image, "all of it")]
        for row in self.table():
            cells.append(Cell(self.without[row["word"]].image, f"without {row['word']}\nmoved {row['moved']:.0%}"))
        return plot_sheet(cells)


def negative_words(model: Model, settings: Settings | None = None, **values: Any) -> NegativeWords:
    """Find which words of a negative prompt moved the picture, by leaving each out.

    Args:
        model: Any model that evaluates a negative prompt.
        settings: What to draw; or `values`, as ``Model.trace`` takes them. Commas separate the parts of the negative
            prompt; where it has none, its words are the parts.

    Raises:
        ValueError: One sentence, before any work: there is no model, or no negative prompt; it has one part only or
            more than `MOST`, or it is ignored at these settings.
    """
    model = a_model(model)
    base = (settings or Settings()).replace(**values)
    parts = _parts(base.negative_prompt)
    if not 2 <= len(parts) <= MOST:
        raise ValueError(f"leaving words out takes a negative prompt of 2 to {MOST} parts, got {len(parts)}")
    ignored = model.plan(base).ignored.get("negative_prompt", "")
    if ignored:
        raise ValueError(ignored[:1].lower() + ignored[1:].rstrip("."))
    joint = ", " if "," in base.negative_prompt else " "
    texts = [base.negative_prompt, ""]
    texts += [joint.join(part for k, part in enumerate(parts) if k != gone) for gone in range(len(parts))]
    whole, none, *rest = model.trace_many([base.replace(negative_prompt=text) for text in texts])
    return NegativeWords(whole, none, dict(zip(parts, rest, strict=True)))


def _parts(text: str) -> list[str]:
    found = re.split(r"[,\n]" if "," in text else r"\s+", text)
    return list(dict.fromkeys(part.strip() for part in found if part.strip()))


def _distance(one: Trace, other: Trace) -> float:
    assert one.final is not None, "a run that came back from trace_many is finished"
    assert other.final is not None, "a run that came back from trace_many is finished"
    return rms(one.final - other.final)
