"""`Tally`: pictures of many seeds, counted by clicking on those that show a thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from diffexplore.experiments.seeds import Seeds
from diffexplore.looks.pictures import encode
from diffexplore.widgets.browser import TALLY, TALLY_CSS
from diffexplore.words import shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Tally"]

_SIDE = 160  # px of a picture, for screens that have two for each of the page's
_MOST = 400


class Tally(anywidget.AnyWidget):  # type: ignore[misc]
    """A sheet of pictures, each a button: pressed for those that show what is counted.

    Args:
        sheet: What `diffexplore.seeds` drew. Each click is a mark in it (``sheet.mark``), for its shares and table.
        name: What is counted, such as "looks left".

    Attributes:
        chosen: The seeds whose pictures are pressed, as text.

    Raises:
        ValueError: One sentence, for what is no sheet, too many pictures, or no name.

    Examples:
        >>> sheet = dx.seeds(dx.load(), 24, prompt="a fox")  # doctest: +SKIP
        >>> dx.Tally(sheet, "looks left")  # doctest: +SKIP
        >>> sheet.shares("looks left")  # doctest: +SKIP
    """

    _esm = TALLY
    _css = TALLY_CSS
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    seeds = traitlets.List(traitlets.Unicode()).tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    told = traitlets.Unicode().tag(sync=True)
    chosen = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, sheet: Seeds, name: str = "shows it") -> None:
        """All that is marked under that name already is pressed; the class says what the arguments are."""
        if not isinstance(sheet, Seeds):
            raise ValueError(f"Tally takes what diffexplore.seeds drew, got {shown(sheet)}")
        if len(sheet) > _MOST:
            raise ValueError(f"nobody counts more than {_MOST} pictures by hand, got {len(sheet)}")
        before = sheet.marked(name)
        sheet.mark(name, before)
        self._sheet, self._name = sheet, name
        super().__init__()
        self.seeds = [str(seed) for seed in sheet.seeds]
        self.pictures = [_small(image) for image in sheet.images]
        self.title = f"{sheet.settings.prompt or '(no prompt)'}: press the pictures that count as “{name}”"
        self.chosen = [str(seed) for seed in before]
        self._count()
        self.observe(self._on_chosen, names="chosen")

    def __repr__(self) -> str:
        return f"Tally({self._name!r}, {len(self.chosen)} of {len(self.seeds)})"

    @traitlets.validate("chosen")
    def _checked(self, proposal: Any) -> list[str]:
        """What a page says, without what it cannot mean."""
        known = set(self.seeds)
        return [seed for seed in dict.fromkeys(proposal["value"]) if seed in known]

    def _on_chosen(self, _: Any) -> None:
        self._sheet.mark(self._name, [int(seed) for seed in self.chosen])
        self._count()

    def _count(self) -> None:
        shares = {one.value: one for one in self._sheet.shares(self._name)}
        one = shares.get("yes")
        of = len(self.seeds)
        self.told = (
            f"{one.count} of {one.of}, {100 * one.count / one.of:.0f} %; of all seeds between {100 * one.low:.0f} and "
            f"{100 * one.high:.0f} %, with a confidence of 95 %"
            if one
            else f"none of {of} yet"
        )


def _small(image: Image.Image) -> bytes:
    picture = image.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    return encode(picture, "webp", quick=True)
