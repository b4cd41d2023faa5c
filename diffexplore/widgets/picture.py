"""`PictureField`: a picture that is dropped, pasted or chosen on a page, checked in the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anywidget
import traitlets
from PIL import Image

from diffexplore.looks.pictures import encode, read_picture
from diffexplore.widgets.browser import PICTURE, PICTURE_CSS
from diffexplore.widgets.controls import layout, marked
from diffexplore.words import sentence, shown

__all__ = ["PictureField"]

_EMPTY: Final = "drop or paste a picture here, or press to choose one"
_THUMB: Final = (120, 52)  # px, for screens that have two for each of the page's


class PictureField(anywidget.AnyWidget):  # type: ignore[misc]
    """A field for one picture.

    From a page comes ``{"kind": "picture", "name": ...}`` with the bytes of a file.

    Args:
        taken: Hears of a picture that was handed over on a page, and what its file is called.
        refused: Hears why a file is not taken, one sentence.
    """

    _esm = PICTURE
    _css = PICTURE_CSS
    about = traitlets.Unicode(_EMPTY).tag(sync=True)
    """What is said beside it."""
    thumb = traitlets.Bytes().tag(sync=True)
    """It, small, as PNG; empty for none."""

    def __init__(self, taken: Callable[[Image.Image, str], object], refused: Callable[[str], object]) -> None:
        """Empty; the class says what the arguments are."""
        self._taken, self._refused = taken, refused
        super().__init__(layout=layout())
        marked(self, "picture")
        self.on_msg(self._on_message)

    def show(self, picture: Image.Image | None, about: str = "") -> None:
        """Show a picture, and say something of it; None for none."""
        if picture is None:
            self.thumb, self.about = b"", _EMPTY
            return
        small = picture.convert("RGB")
        small.thumbnail(_THUMB)
        self.thumb, self.about = encode(small), about

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict) or content.get("kind") != "picture" or not buffers:
            return
        self.receive(bytes(buffers[0]), str(content.get("name") or ""))

    def receive(self, data: bytes, name: str) -> None:
        """A file was handed over, of this name."""
        try:
            picture = read_picture(data)
        except ValueError as error:
            self._refused(f"{shown(name)} is not taken: {sentence(error)}" if name else sentence(error))
        else:
            self._taken(picture, name)
