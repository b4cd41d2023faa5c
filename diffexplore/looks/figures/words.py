"""Where words look in one run: over the estimate, word by word and step by step, and how much each looks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from diffexplore.looks.figures.kit import (
    AS_TYPED,
    COLOURS,
    INK,
    LABEL,
    QUIET,
    TEXT,
    WIDTH,
    Figure,
    heading,
    legend,
    plain,
)
from diffexplore.looks.overlay import overlay
from diffexplore.record.heat import NEGATIVE, PROMPT, SINKS, heat, words_of
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.record.record import Record

__all__ = ["plot_attention"]

MOST = 8


def plot_attention(
    trace: "Record", words: Sequence[str] | None = None, columns: int = 6, *, negative: bool = False
) -> Figure:
    """Where words look: a row for each over the estimates of some steps, and beside them the share of all attention
    that each word has, over the steps.

    Args:
        trace: a run that kept where words look.
        words: which, up to 8; None: those of the prompt that look most, in its order, without its begin and end.
        columns: how many steps, evenly spaced, 2 to 12.
        negative: of the negative prompt.

    Raises:
        ValueError: one sentence: the run kept no maps, a word that is not there, too many; columns out of range.
    """
    if not isinstance(columns, int) or isinstance(columns, bool) or not 2 <= columns <= 12:
        raise ValueError(f"columns must be a whole number from 2 to 12, got {shown(columns)}")
    known = list(dict.fromkeys(word for word in words_of(trace, negative) if word not in SINKS))
    if words is None:
        totals = {word: float(heat(trace, word, negative=negative).mean()) for word in known}
        kept = sorted(totals, key=lambda word: -totals[word])[:MOST]
        words = [word for word in known if word in kept] or ["<end>"]
    if isinstance(words, str) or not 1 <= len(words) <= MOST:
        raise ValueError(f"words must be 1 to {MOST} of {', '.join(known)}; got {shown(words)}")
    shares = {
        word: np.array([heat(trace, word, i, negative=negative).mean() for i in range(len(trace))]) for word in words
    }
    chosen = sorted({round(float(place)) for place in np.linspace(0, len(trace) - 1, min(columns, len(trace)))})
    fig = Figure(figsize=(WIDTH, max(2.6, 0.45 + 1.05 * len(words))), facecolor="white")
    top = 1 - 0.3 / fig.get_figheight()
    grid = fig.add_gridspec(
        len(words), len(chosen), left=0.1, right=0.66, top=top, bottom=0.03, wspace=0.06, hspace=0.06
    )
    for row, word in enumerate(words):
        for column, i in enumerate(chosen):
            axes = fig.add_subplot(grid[row, column])
            axes.imshow(np.asarray(overlay(trace, f"{NEGATIVE if negative else PROMPT}:{word}", i, 192)))
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if row == 0:
                axes.set_title(f"step {i + 1}", fontsize=TEXT, color=QUIET, pad=4)
            if column == 0:
                axes.set_ylabel(
                    plain(word, TEXT + 1, 0.9, "bold"), rotation=0, ha="right", va="center", labelpad=6,
                    fontsize=TEXT + 1, fontweight="bold", color=INK, **AS_TYPED,
                )  # fmt: skip
    axes = fig.add_axes((0.72, 0.14, 0.27, top - 0.28))
    heading(axes, "how much each looks", "share of the attention of all places")
    for k, (word, share) in enumerate(shares.items()):
        style = "solid" if k < len(COLOURS) else (0, (3, 2))
        axes.plot(np.arange(1, len(share) + 1), share, color=COLOURS[k % len(COLOURS)], lw=1.3, ls=style, label=word)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step", **LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return fig
