"""Regions of a picture, as latents have them: a rectangle in shares of it, or a mask."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from diffexplore.words import shown

__all__ = ["Region"]

LARGEST: Final = 8192  # of a side, in places: as pictures are at most
_ACCEPTED: Final = (
    "a region is None for all of the picture, a rectangle (left, top, right, bottom) in shares of it from 0 to 1, or a "
    "mask (height, width) of True and False"
)


class Region:
    """A part of a picture. What it was given as may be any of: None for all of it; a rectangle (left, top, right,
    bottom) in shares of the picture, from its upper left corner; a mask (height, width) of True and False, as large as
    the latents or of the picture's proportions; a picture, whose bright half is inside; a region; or its text.

    Attributes:
        rectangle: the shares; None for a mask.
        mask: (height, width) bool; None for a rectangle.
    """

    rectangle: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None

    def __init__(self, given: Any = None, *, some: bool = True) -> None:
        """Check what is given.

        Args:
            given: a region in any form.
            some: refuse one with nothing in it.

        Raises:
            ValueError: one sentence, for what is no region.
        """
        if isinstance(given, Region):
            self.rectangle, self.mask = given.rectangle, given.mask
        elif given is None:
            self.rectangle = (0.0, 0.0, 1.0, 1.0)
        elif isinstance(given, str):
            self.mask = _read(given)
        elif isinstance(given, (list, tuple)) and len(given) == 4 and all(map(_a_number, given)):
            self.rectangle = _checked(given)
        else:
            self.mask = _mask(given)
        if some and self.mask is not None and not self.mask.any():
            raise ValueError("a region must have something in it, got a mask that is False everywhere")

    def __repr__(self) -> str:
        return repr(self.told)

    @property
    def whole(self) -> bool:
        """Whether it is all of the picture."""
        return self.share == 1.0

    @property
    def share(self) -> float:
        """How much of the picture it is, 0 to 1."""
        if self.mask is not None:
            return float(self.mask.mean())
        assert self.rectangle is not None
        left, top, right, bottom = self.rectangle
        return (right - left) * (bottom - top)

    @property
    def told(self) -> list[float] | str | None:
        """It, as JSON takes it and as this class reads it: None for everything, four shares, or a mask as text."""
        if self.whole:
            return None
        if self.mask is None:
            assert self.rectangle is not None
            return list(self.rectangle)
        height, width = self.mask.shape
        bits = zlib.compress(np.packbits(self.mask).tobytes(), 9)
        return f"{height}x{width}:{base64.b64encode(bits).decode()}"

    def of(self, shape: Sequence[int]) -> torch.Tensor:
        """The places of latents that are inside: (h, w) bool.

        Args:
            shape: of the latents, (C, *axes, h, w).

        Raises:
            ValueError: one sentence, for latents that are no picture's, and a mask of other proportions.
        """
        if len(shape) < 3:
            raise ValueError(f"a region is of latents with a height and a width, those here have the shape {shape}")
        h, w = int(shape[-2]), int(shape[-1])
        if self.mask is None:
            assert self.rectangle is not None
            left, top, right, bottom = (
                round(share * side, 6) for share, side in zip(self.rectangle, (w, h, w, h), strict=True)
            )
            made = torch.zeros(h, w, dtype=torch.bool)
            made[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)] = True
            return made
        tall, wide = self.mask.shape
        if tall * w != wide * h:
            raise ValueError(
                f"a mask must have the proportions of the latents, {h} x {w} (height x width), got {tall} x {wide}"
            )
        field = torch.from_numpy(self.mask.astype(np.float32))[None, None]
        if tall > h:
            return torch.nn.functional.adaptive_avg_pool2d(field, (h, w))[0, 0] >= 0.5
        return torch.nn.functional.interpolate(field, size=(h, w), mode="nearest")[0, 0] > 0


def _a_number(one: object) -> bool:
    return isinstance(one, (int, float, np.number)) and not isinstance(one, (bool, np.bool_))


def _checked(given: Sequence[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, given)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"a rectangle is (left, top, right, bottom) in shares of the picture, each from 0 to 1, got {shown(given)}"
        )
    return left, top, right, bottom


def _mask(given: Any) -> np.ndarray:
    if isinstance(given, Image.Image):
        return np.asarray(given.convert("L")) > 127
    try:
        taken = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given)
    except (TypeError, ValueError):  # rows of different lengths
        raise ValueError(f"{_ACCEPTED}; got {shown(given)}") from None
    fits = taken.ndim == 2 and min(taken.shape) > 0 and max(taken.shape) <= LARGEST
    if not fits or taken.dtype.kind not in "buif" or not np.isin(taken, (0, 1)).all():
        raise ValueError(f"{_ACCEPTED}; got {shown(given)}")
    return taken.astype(bool)


def _read(text: str) -> np.ndarray:
    """A mask from its text."""
    wrong = ValueError(f"{_ACCEPTED}; got {shown(text)}")
    head, _, body = text.partition(":")
    height, _, width = head.partition("x")
    if not (height.isdecimal() and width.isdecimal() and len(head) < 10):
        raise wrong
    tall, wide = int(height), int(width)
    if not (0 < tall <= LARGEST and 0 < wide <= LARGEST):
        raise wrong
    size = -(-tall * wide // 8)
    try:
        bits = zlib.decompressobj().decompress(base64.b64decode(body, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise wrong from None
    if len(bits) != size:
        raise wrong
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=tall * wide).reshape(tall, wide).astype(bool)
