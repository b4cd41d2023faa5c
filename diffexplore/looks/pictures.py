"""The one way pictures leave, and the one way they come in.

Out: :func:`encode` makes the bytes of an image file, :func:`save` a file that says how to draw it again. In:
:func:`read_picture` makes RGB of whatever people have: a file, a PIL image of any mode, an array. How a recipe is
written is in ``looks.recipe``.
"""

import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from diffexplore.looks import chunks
from diffexplore.looks.marks import packet, source_of
from diffexplore.looks.recipe import KEY, read_recipe, texts_of
from diffexplore.record.file import written
from diffexplore.settings import Settings
from diffexplore.values import a_file, a_path
from diffexplore.words import near, sentence, shown

__all__ = ["FORMATS", "MAX_PIXELS", "Picture", "animation", "encode", "fit", "read_picture", "read_recipe", "save"]

Picture = Image.Image | np.ndarray | str | bytes | os.PathLike[str]
"""What a picture may be given as, see :func:`read_picture`."""

FORMATS: Final[Mapping[str, str]] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
"""Suffix of a file -> format."""

MAX_PIXELS: Final = 2**26
"""Pixels of a picture that comes in, 8192 x 8192: more is refused before anything is decoded."""

_BEST: Final[dict[str, dict[str, Any]]] = {
    "png": {},
    "webp": {"lossless": True, "method": 4},
    "jpeg": {"quality": 95, "subsampling": 0},
}
# Measured on a 64 x 64 picture: WebP method 0 takes 0.3 ms, PNG 1 ms, WebP method 4 7 ms for a quarter fewer bytes.
_QUICK: Final[dict[str, dict[str, Any]]] = {
    "png": {},
    "webp": {"lossless": True, "method": 0, "quality": 50},
    "jpeg": {"quality": 88},
}
_READ: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "MPO")
_AT_MOST: Final = f"at most {MAX_PIXELS:,} are read, such as 8192 x 8192"
_ACCEPTED: Final = (
    "image must be a PIL image or an array (H, W), (H, W, 3) or (H, W, 4), uint8, uint16 or floats from 0 to 1, "
    "or the path of a picture"
)


# Out


def encode(
    image: "Image.Image | np.ndarray", format: str = "png", *, texts: Mapping[str, str] | None = None,
    xmp: str = "", quick: bool = False,
) -> bytes:  # fmt: skip
    """A picture as the bytes of an image file; PNG and WebP lose nothing.

    Args:
        image: a PIL image, or (H, W, 3) uint8.
        format: "png", "webp" or "jpeg".
        texts: what it carries, by key: of a PNG as text chunks, else in EXIF, which has room for the two of
            `looks.recipe.texts_of`.
        xmp: a packet of XMP that it carries, such as `looks.marks.packet`; "" for none.
        quick: for frames that are looked at once: rather fast than small, and a JPEG of quality 88 in place of 95.

    Raises:
        ValueError: one sentence, for an unknown format, or texts that a JPEG has no room for.
    """
    if format not in _BEST:
        raise ValueError(f"format must be one of {', '.join(_BEST)}; got {shown(format)}{near(format, _BEST)}")
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    options = dict((_QUICK if quick else _BEST)[format])
    if format == "png":
        options["pnginfo"] = pieces = PngImagePlugin.PngInfo()
        for key, text in (dict(texts or {}) | ({chunks.XMP: xmp} if xmp else {})).items():
            pieces.add_itxt(key, text)
    else:
        options |= {"exif": _exif(texts, 65_500 if format == "jpeg" else None)} if texts else {}
        options |= {"xmp": xmp.encode()} if xmp else {}
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format, **options)
    return buffer.getvalue()


def animation(
    frames: Sequence[Image.Image],
    format: str,
    fps: float,
    settings: Settings | None = None,
    info: Mapping[str, Any] | None = None,
) -> bytes:
    """Frames as the bytes of an animation that goes round and round.

    Args:
        frames: PIL images of one size.
        format: "webp", which loses nothing, or "gif", of 256 colours.
        fps: frames a second.
        settings: what was asked for, for a WebP that says how to draw it again; a GIF has no place for that.
        info: as in :func:`save`.
    """
    first, *others = [one.convert("RGB") for one in frames]
    options: dict[str, Any] = {"loop": 0, "duration": max(1, round(1000 / fps)), "save_all": True}

    def made(texts: Mapping[str, str] | None, xmp: str) -> bytes:
        more: dict[str, Any] = {"xmp": xmp.encode()} if xmp else {}
        more |= {"exif": _exif(texts, None)} if texts else {}
        buffer = io.BytesIO()
        first.save(buffer, format, append_images=others, **options, **more)
        return buffer.getvalue()

    if format != "webp":
        return made(None, "")
    options |= _BEST["webp"]
    return _marked(made, settings, info)


def _exif(texts: Mapping[str, str], room: int | None) -> bytes:
    """The recipe as EXIF: our own text as the description, the common one as the user comment if there is room."""
    exif = Image.Exif()
    exif[chunks.DESCRIPTION] = f"{KEY}:{texts.get(KEY, '')}"
    own = exif.tobytes()
    if room is not None and len(own) > room:
        raise ValueError(f"a JPEG holds {room:,} bytes of recipe and this one has {len(own):,}: save a .png or .webp")
    exif.get_ifd(0x8769)[chunks.USER_COMMENT] = b"UNICODE\0" + texts.get("parameters", "").encode("utf-16-be")
    # The standard wants a comment's bytes to be of no type (7); Pillow writes all bytes as numbers (1). What stands
    # before the entry is ASCII, so its tag is found there first.
    tag = chunks.USER_COMMENT.to_bytes(2, "big")
    both = exif.tobytes().replace(tag + b"\0\1", tag + b"\0\7", 1)
    return own if room is not None and len(both) > room else both


def save(
    image: "Image.Image | np.ndarray", path: str | os.PathLike[str], settings: Settings | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a picture to a file; with `settings`, one that says how to draw it again (``diffexplore.read_recipe``)
    and that a model made it (``diffexplore.is_marked``). What of that cannot be said does not keep the picture from
    being saved: a warning says what is missing, and why, such as a recipe that a JPEG has no room for.

    Args:
        image: a PIL image, or (H, W, 3) uint8.
        path: where to write; an existing file is replaced. The suffix decides the format: .png, .webp (both lose
            nothing), .jpg or .jpeg. ``~`` is the home folder.
        settings: what was asked for.
        info: facts of the run; its ``model`` is named.

    Raises:
        ValueError: one sentence, for another suffix.
        OSError: the file cannot be written.
    """
    place = Path(a_path(path)).expanduser()
    if place.suffix.lower() not in FORMATS:
        raise ValueError(f"a picture is saved as one of {', '.join(FORMATS)}; got {shown(os.fspath(path), 200)}")
    format = FORMATS[place.suffix.lower()]
    data = _marked(lambda texts, xmp: encode(image, format, texts=texts, xmp=xmp), settings, info)
    with written(place) as file:
        file.write(data)


def _marked(
    made: Callable[[Mapping[str, str] | None, str], bytes], settings: Settings | None, info: Mapping[str, Any] | None
) -> bytes:
    """A picture that says as much of its making as it can; warns of what it cannot say. `made` writes it with texts and
    a packet of XMP."""
    if settings is None:
        return made(None, "")
    texts, why = None, ""
    try:
        texts = texts_of(settings, info)
        return made(texts, packet(source_of(settings, info)))
    except Exception as error:  # whatever it is, the picture is worth more than what is written beside it
        why = sentence(error)
    data = made(None, packet(source_of(settings, info)))
    warnings.warn(f"the picture was saved without its recipe: {why}", stacklevel=_outside())
    return data


def _outside() -> int:
    """The `stacklevel` of the first line that is not of this package: that is where a warning is of use."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "diffexplore":
        level, frame = level + 1, frame.f_back
    return level


# In


def read_picture(image: Picture) -> Image.Image:
    """Any picture as RGB: the right values whatever its mode, upright, what is transparent white.

    16 bits are scaled to 8, as are floats from 0 to 1. PIL's own conversions give modes "I" and "F" values from 0 to
    255, so those are read as such where they lie above 1 (F), or do not lie above 255 and come from no file (I); else
    I is 16 bits. Of an animation it is the first frame.

    Args:
        image: a PIL image of any mode; an array (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16, or floats from 0 to
            1; the path of a picture, where ``~`` is the home folder; or what is in such a file.

    Returns:
        An image of its own: changing it changes nothing else.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, for what is no picture, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(image, np.ndarray):
        return _on_white(_from_array(image))
    if isinstance(image, Image.Image):
        return _from_pil(image, "the picture")
    if isinstance(image, bytes):
        return _from_file(io.BytesIO(image), "the file")
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(f"{_ACCEPTED}; got {shown(image)}")
    return _from_file(a_file(image), shown(os.fspath(image), 200))


def _from_file(file: Path | io.BytesIO, name: str) -> Image.Image:
    Image.init()
    try:
        opened = Image.open(file, formats=[one for one in _READ if one in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{name} has too many pixels: {_AT_MOST}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no picture in a format that is read: {', '.join(_READ)}") from None
    except Exception as error:  # Pillow raises almost anything for a hostile file
        raise ValueError(f"{name} cannot be read as a picture: {sentence(error)}") from None
    with opened:
        return _from_pil(opened, name)


def fit(image: Picture, width: int, height: int) -> Image.Image:
    """A picture as RGB of exactly this size: its largest centred part of the right shape, resampled.

    Resampling is Lanczos. What is transparent becomes white, and a camera's note on which side is up is
    followed. The pixels of a picture of the right size stay as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for what is no picture; says what is accepted.
    """
    picture = read_picture(image)
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def _from_pil(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width:,} x {height:,} pixels: {_AT_MOST}")
    if not width or not height:
        raise ValueError(f"{name} has no pixels, its size is {width} x {height}")
    from_file = image.format is not None  # a copy has none
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
    except Exception as error:
        raise ValueError(f"{name} cannot be read as a picture: {sentence(error)}") from None
    return _on_white(_in_8_bits(upright, name, from_file))


def _in_8_bits(image: Image.Image, name: str, from_file: bool) -> Image.Image:
    """A picture in a mode that PIL converts to RGB as one expects."""
    if image.mode == "F":
        floats = np.asarray(image)
        low, high = float(floats.min()), float(floats.max())
        if not (low >= 0 and high <= 255):  # NaN too
            raise ValueError(f"{name} must hold floats from 0 to 1, it has values from {low:g} to {high:g}")
        return _grey(_bytes(floats) if high <= 1 else (floats + 0.5).astype(np.uint8), image)
    if image.mode.startswith("I"):
        whole = np.asarray(image)
        low, high = int(whole.min()), int(whole.max())
        if low < 0 or high > 65_535:
            raise ValueError(f"{name} must hold whole numbers from 0 to 65535, it has values from {low} to {high}")
        plain = image.mode == "I" and high <= 255 and not from_file
        return _grey(whole.astype(np.uint8) if plain else _halved(whole), image)
    if image.mode == "LAB":
        raise ValueError(f"{name} is in LAB colours, which are not read: convert it to RGB")
    return image.convert("LA") if image.mode == "La" else image


def _grey(grey: np.ndarray, image: Image.Image) -> Image.Image:
    """(H, W) uint8 as a picture; where one value of the `image` it was made from is transparent, with that."""
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.stack([grey, np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8)], axis=-1))


def _from_array(image: np.ndarray) -> Image.Image:
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"{_ACCEPTED}; got the shape {image.shape}")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ValueError(f"the picture has {image.shape[1]:,} x {image.shape[0]:,} pixels: {_AT_MOST}")
    if image.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(image))
    if image.dtype == np.uint16:
        return Image.fromarray(_halved(image))
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"{_ACCEPTED}; got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if math.isnan(low) or low < 0 or high > 1:
        raise ValueError(f"{_ACCEPTED}; got values from {low:g} to {high:g}")
    return Image.fromarray(_bytes(image))


def _bytes(values: np.ndarray) -> np.ndarray:
    """0 to 1 as uint8, rounded."""
    return np.asarray((values.astype(np.float32) * 255 + 0.5).astype(np.uint8))


def _halved(values: np.ndarray) -> np.ndarray:
    """0 to 65535 as uint8, rounded."""
    return np.asarray(((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB") if image.mode != "RGB" else image.copy()
