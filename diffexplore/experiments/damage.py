"""What is done to pictures on their way: saved anew, made smaller, cropped, blurred, taken off a screen, drawn again.

All but what says otherwise is done by a program that carries nothing over but pixels, as most do.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageFilter, PngImagePlugin

from diffexplore.settings import Settings
from diffexplore.words import sentence

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["AGAIN", "AS_SAVED", "THINGS", "done_to", "suffix_of"]

AS_SAVED: Final = "as saved"

AGAIN: Final = 0.5
"""The share of noise from which on a model draws a picture again."""

# To the pixels: each gives the bytes of a file that carries nothing but them.


def _written(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    plain_image = Image.fromarray(np.asarray(image))  # none of what Pillow would carry over from where it was read
    buffer = io.BytesIO()
    plain_image.save(buffer, format, **options)
    return buffer.getvalue()


def _halved(image: Image.Image) -> bytes:
    small = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
    return _written(small.resize(image.size, Image.Resampling.LANCZOS))


def _cropped(image: Image.Image) -> bytes:
    across, down = round(image.width * 0.05), round(image.height * 0.05)
    return _written(image.crop((across, down, image.width - across, image.height - down)))


def _photographed(image: Image.Image) -> bytes:
    size = (round(image.width * 1.25), round(image.height * 1.25))
    return _written(image.resize(size, Image.Resampling.BILINEAR))


_PIXELS: Final[Mapping[str, tuple[str, Callable[[Image.Image], bytes]]]] = {
    "metadata stripped": ("The same pixels in a new PNG, as chat programs and sites send them on.", _written),
    "JPEG 95": ("Saved as a JPEG of quality 95.", lambda image: _written(image, "JPEG", quality=95)),
    "JPEG 80": ("Saved as a JPEG of quality 80.", lambda image: _written(image, "JPEG", quality=80)),
    "JPEG 50": ("Saved as a JPEG of quality 50.", lambda image: _written(image, "JPEG", quality=50)),
    "WebP 80": ("Saved as a WebP of quality 80.", lambda image: _written(image, "WEBP", quality=80)),
    "half and back": ("Resized to half of its width and height, and back.", _halved),
    "cropped to 90 %": ("A twentieth cut off at each side.", _cropped),
    "blurred": (
        "A Gaussian blur of one pixel.", lambda image: _written(image.filter(ImageFilter.GaussianBlur(1))),
    ),
    "screenshot": ("Shown 1.25 times as large, and that taken off the screen.", _photographed),
    "mirrored": (
        "Left and right exchanged.", lambda image: _written(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ),
}  # fmt: skip

_CAREFUL: Final = "PNG with its texts"
_RETOUCHED: Final = "one pixel changed"
_AGAIN: Final = "drawn again"

THINGS: Final[Mapping[str, str]] = {
    AS_SAVED: "Nothing was done: what it is held against.",
    _CAREFUL: "Saved as a PNG by a program that carries texts, EXIF and XMP over.",
    _RETOUCHED: "One level of one colour of one pixel, all else in the file left as it is.",
    **{name: told for name, (told, _) in _PIXELS.items()},
    _AGAIN: f"Drawn by the model itself, from {AGAIN:.0%} noise of another seed on: much the same, of other noise.",
}
"""What is done to a picture -> what that is, in a sentence."""


def _careful(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        pieces = PngImagePlugin.PngInfo()
        for key, text in getattr(image, "text", {}).items():
            pieces.add_itxt(key, text)
        more = {"exif": image.info["exif"]} if "exif" in image.info else {}
        if "xmp" in image.info and "XML:com.adobe.xmp" not in getattr(image, "text", {}):
            pieces.add_itxt("XML:com.adobe.xmp", image.info["xmp"].decode("utf-8", "replace"))
        return _written(image.convert("RGB"), pnginfo=pieces, **more)


def _retouched(data: bytes) -> bytes:
    """A PNG whose pixels are others by one level of one of them; its other pieces are those of `data`.

    Raises:
        ValueError: it is no PNG.
    """
    if not data.startswith(b"\x89PNG"):
        raise ValueError("only of a PNG the pixels are exchanged and all else left")
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image.convert("RGB"))
    pixels[0, 0, 0] ^= 1
    head, body = _pieces(data), _pieces(_written(Image.fromarray(pixels)))
    made = [next(one for one in body if one[0] == b"IHDR")]
    drawn = [one for one in body if one[0] == b"IDAT"]
    for kind, content in head:
        if kind == b"IDAT":
            made, drawn = made + drawn, []  # all of them where the first one was
        elif kind not in (b"IHDR", b"PLTE", b"tRNS"):
            made.append((kind, content))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in made
    )


def _pieces(data: bytes) -> list[tuple[bytes, bytes]]:
    """The pieces of a PNG that can be read, (kind, content)."""
    found, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def done_to(
    data: bytes, image: Image.Image, chosen: Sequence[str], model: Model | None, asked: Settings | None
) -> tuple[dict[str, bytes], dict[str, str]]:
    """A picture after each of several things.

    Args:
        data: its file.
        image: its pixels.
        chosen: which of `THINGS`.
        model: that draws it again; None: nobody does.
        asked: what was drawn, where that is known.

    Returns:
        What was done -> the file after it; and what was not -> why, in a sentence.
    """
    files: dict[str, bytes] = {}
    left_out: dict[str, str] = {}
    for done in chosen:
        try:
            if done == AS_SAVED:
                files[done] = data
            elif done in (_CAREFUL, _RETOUCHED):
                files[done] = (_careful if done == _CAREFUL else _retouched)(data)
            elif done == _AGAIN:
                files[done] = _again(model, image, asked)
            else:
                files[done] = _PIXELS[done][1](image)
        except Exception as error:  # such as a picture of one pixel, of which nothing can be cut off
            left_out[done] = sentence(error)
    return files, left_out


def _again(model: Model | None, image: Image.Image, asked: Settings | None) -> bytes:
    if model is None:
        raise ValueError("a model draws it: model=")
    prompt, seed = (asked.prompt, asked.seed ^ 1) if asked else ("", 0)  # a seed that is not the picture's own
    drawn = model.trace(Settings(prompt=prompt, seed=seed, strength=AGAIN), image=image).image
    if drawn is None:
        raise ValueError("the model draws no pictures")
    return _written(drawn)


def suffix_of(data: bytes) -> str:
    """What a file is called by what is in it: ".png", ".webp" or ".jpg"."""
    return ".png" if data.startswith(b"\x89PNG") else ".webp" if data[:4] == b"RIFF" else ".jpg"
