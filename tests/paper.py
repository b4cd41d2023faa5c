"""Reading figures: their words, as a reader finds them on the page."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from matplotlib.text import Text

if TYPE_CHECKING:
    from diffexplore.looks.figures import Figure


def own_words(figure: Figure) -> list[str]:
    """The texts of a figure itself, every one of them on the page; drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)
    own = [text for text in figure.texts if text.get_text().strip() and text.get_visible()]
    for text in own:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    return [text.get_text() for text in own]


def words(figure: Figure) -> list[str]:
    """All texts of a figure, those of its panels too; else as `own_words`."""
    own_words(figure)
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]
