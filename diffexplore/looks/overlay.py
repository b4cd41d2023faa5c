"""Where words look, as pictures: a map of attention over the estimate, and the maps of a step in a few bytes.

A map is shown by how much more of its attention a word has at a place than on the mean of the picture: nothing up to
the mean, all of it from `FULL` times the mean, in between as the square root, so that a word which looks at everything
a little and one that looks at one thing are both readable. How much attention it has in all is another question,
answered by its share. The scale is fixed: nothing depends on the brightest place of a frame.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from diffexplore.looks.views import view
from diffexplore.record.heat import NEGATIVE, PROMPT, heat, words_of

if TYPE_CHECKING:
    from diffexplore.record.record import Record

__all__ = ["COLOUR", "FULL", "SIDE", "overlay", "packed", "strength"]

FULL: Final = 4.0
SIDE: Final = 24
"""Most places along a side of a map in a film."""
RANGE: Final = 8.0
"""How many times its mean a map in a film can be; its bytes are square roots up to there."""
COLOUR: Final = (255, 176, 32)
DIM: Final = 0.45


def strength(found: np.ndarray) -> np.ndarray:
    """(h, w) of a map, as 0 to 1: how far it is above its mean."""
    mean = float(found.mean())
    if not np.isfinite(found).all() or mean <= 0:
        return np.zeros(found.shape, np.float32)
    return np.sqrt(np.clip((found / mean - 1) / (FULL - 1), 0, 1)).astype(np.float32)


def overlay(
    trace: Record, kind: str, i: int, size: int | None = None, *, colour: tuple[int, int, int] = COLOUR
) -> Image.Image:
    """Where one word looks at one evaluation, over the estimate of it.

    Args:
        trace: a run that kept where words look.
        kind: "attention:fox", or "attention_negative:blurry" for a word of the negative prompt.
        i: which evaluation, from 0.
        size: the longest side in pixels; None: as large as the run's own picture.
        colour: of the map.

    Raises:
        ValueError: one sentence, for a word that is not there or a run that kept no maps.
        IndexError: for an evaluation that is not there.
    """
    which, _, word = kind.partition(":")
    found = strength(heat(trace, word, i, negative=which == NEGATIVE))
    under = view(trace, "x0", i, size)
    picture = np.asarray(under, np.float32)
    mask = Image.fromarray(found).resize(under.size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(mask), 0, 1)[..., None] * 0.8
    grey = picture * (1 - DIM)
    return Image.fromarray((grey * (1 - share) + np.asarray(colour, np.float32) * share + 0.5).astype(np.uint8))


def packed(trace: Record, i: int) -> dict[str, Any] | None:
    """The maps of the prompt's words at one evaluation, for a page.

    Returns:
        ``size``, (height, width) of each; ``shares``, the mean of each; and ``maps``, one byte a place, base64: 255
        times the root of how many times its mean it is there, of `RANGE`. None where the run kept none.
    """
    found = trace[i].tensors.get(PROMPT)
    if found is None or found.shape[0] != len(words_of(trace)):
        return None
    maps = np.nan_to_num(found.float().numpy())
    while max(maps.shape[1:]) > SIDE:  # the mean of 2 x 2 places, the last of an odd side left out
        height, width = (max(2, side - side % 2) for side in maps.shape[1:])
        maps = maps[:, :height, :width].reshape(len(maps), height // 2, 2, width // 2, 2).mean((2, 4))
    shares = maps.mean((1, 2))
    ratio = maps / np.maximum(shares, 1e-12)[:, None, None]
    data = (255 * np.sqrt(np.clip(ratio / RANGE, 0, 1)) + 0.5).astype(np.uint8)
    return {
        "size": list(maps.shape[1:]),
        "shares": [float(f"{share:.4g}") for share in shares],
        "maps": base64.b64encode(data.tobytes()).decode(),
    }
