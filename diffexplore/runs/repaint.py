"""A part of a picture drawn anew: outside of a mask a run is held to the picture that it starts from.

After each step, what is outside is the picture's own noised latents, ``a x0 + b noise`` with the noise that the run
began with, and after the last the picture itself: the forward half of RePaint (Lugmayr et al. 2022, arXiv 2201.09865,
eq. 8a) without its resampling, as diffusers' first inpainting pipelines did it. It takes no network that was trained
for it. What is inside sees its surroundings only through the network, so a seam may be seen; a network made for
inpainting knows the mask.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffexplore.looks.pictures import fit
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import going_on, tapped
from diffexplore.runs.regions import Region
from diffexplore.runs.start import Start

__all__ = ["Repaint", "mask_of"]


def mask_of(given: Any, width: int, height: int) -> Image.Image:
    """A mask as a picture in grey of this size, white where something is drawn anew.

    Args:
        given: a region, see `runs.edits`; or a picture, whose bright half it is, cropped and resampled as the picture
            that the run starts from.
        width: in pixels.
        height: in pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for what is neither.
    """
    bytes_of_picture = isinstance(given, np.ndarray) and given.dtype == np.uint8 and (given.ndim > 2 or given.max() > 1)
    if isinstance(given, (Image.Image, str, bytes, os.PathLike)) or bytes_of_picture:
        inside = np.asarray(fit(given, width, height).convert("L")) > 127
    else:
        inside = Region(given, some=False).of((1, height, width)).numpy()
    return Image.fromarray(inside.astype(np.uint8) * 255)


class Repaint(Start):
    """Lets a run begin at a picture, and holds it to that outside of a mask. To be attached before the recorder."""

    def __init__(self, clean: torch.Tensor, strength: float, mask: Image.Image) -> None:
        """What is drawn anew.

        Args:
            clean: the encoded picture, (C, h, w), as `start.encoded` gives it.
            strength: the share of noise that it begins with, above 0 to 1.
            mask: as :func:`mask_of` gives it; a latent of which more than half is dark is held.
        """
        super().__init__(clean, strength)
        self._inside = Region(mask, some=False).of(tuple(clean.shape)).expand(clean.shape)

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        self._undo.enter_context(tapped(self._scheduler, "step", self._step))

    def _first(self) -> tuple[float, float]:
        self._levels = Levels(self._scheduler)
        begin = super()._first()
        self._count = self.skipped
        return begin

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        self._count += 1
        a, b = self._levels.reached(self._count)
        result = going_on(result, lambda given: self._held(given, a, b))
        if isinstance(result, tuple) and len(result) > 1 and self._count == len(self._levels.schedule):
            # The estimate stands behind the latents, and is what a latent consistency model's pipeline ends with.
            behind = result[1]
            held = self._held(behind, 1.0, 0.0) if isinstance(behind, torch.Tensor) else behind
            return result[0], held, *result[2:]
        return result

    def _held(self, given: torch.Tensor, a: float, b: float) -> torch.Tensor:
        packed = self._family.pack(self._pipeline, self._inside.unsqueeze(0).to(self._clean))
        inside = packed.reshape(given.shape).to(given.device) > 0.5
        return torch.where(inside, given, self._at(a, b).to(given))
