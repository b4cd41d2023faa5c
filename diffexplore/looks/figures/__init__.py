"""A run on paper: matplotlib figures of its views and curves.

Object-oriented matplotlib only: no pyplot, no list of open figures, no rcParams touched, so figures can be
made on any thread. A :class:`Figure` from here shows itself as the last line of a notebook cell, which a
plain one does not do before pyplot has been imported. Text that people typed (prompts, labels) is drawn as it
is: a ``$`` starts no formula.

What is named here is opened when it is asked for: matplotlib takes a while, and most who could draw never do.

- ``kit``: ink, sizes, words; ``paper``: a page in inches.
- ``strip``, ``heard``, ``table``, ``lines``: the forms, fed with pixels, numbers and words.
- ``pull``: guidance taken apart; ``words``: where words look.
- ``runs``: which of them a record fills, and with what.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from diffexplore.looks.figures.kit import Figure
    from diffexplore.looks.figures.lines import plot_rows
    from diffexplore.looks.figures.pull import plot_guidance
    from diffexplore.looks.figures.runs import plot, plot_curves, plot_forward, plot_parting, plot_spectrum
    from diffexplore.looks.figures.table import Cell, plot_sheet, plot_table
    from diffexplore.looks.figures.words import plot_attention

__all__ = [
    "Cell",
    "Figure",
    "plot",
    "plot_attention",
    "plot_curves",
    "plot_forward",
    "plot_guidance",
    "plot_parting",
    "plot_rows",
    "plot_sheet",
    "plot_spectrum",
    "plot_table",
]

_HOMES: Final = {
    "Cell": "table", "Figure": "kit", "plot": "runs", "plot_attention": "words", "plot_curves": "runs",
    "plot_forward": "runs", "plot_guidance": "pull", "plot_parting": "runs", "plot_rows": "lines",
    "plot_sheet": "table",
    "plot_spectrum": "runs", "plot_table": "table",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
