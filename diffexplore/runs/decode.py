"""Latents to pictures, as a model's pipeline makes them: exactly, and by a small matrix that needs no decoder."""

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffexplore.pipelines.family import Family
from diffexplore.runs.decides import Placed, device_of
from diffexplore.runs.threads import Threads, working

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PictureDecoder"]


class PictureDecoder:
    """Decodes latents of one pipeline; safe on any thread, during a run too."""

    def __init__(self, family: Family, pipeline: Any, threads: Threads) -> None:
        """A decoder for `pipeline`, which is of `family`; what is computed on `threads` is decoded on as many."""
        self._family = family
        self._pipeline = pipeline
        self._network: Any = getattr(pipeline, family.network)
        self._threads = threads
        self._factor = family.factor(pipeline)
        self._decoding = threading.Lock()
        self._fitting = threading.Lock()
        self._matrix: np.ndarray | None = None
        # Looking costs a fifth of what decoding does.
        self._where = Placed(lambda: (self._network, self.module), lambda: (device_of(pipeline), self._network.dtype))

    @property
    def module(self) -> torch.nn.Module:
        """The network that decodes."""
        module: torch.nn.Module = getattr(self._pipeline, self._family.decoder)
        return module

    def pixels(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, h, w) to a picture, (H, W, 3) uint8, exactly as a final picture is decoded.

        Raises:
            ValueError: they have another number of dimensions.
        """
        if latents.ndim != 3:
            raise ValueError(f"latents to decode must be (C, h, w), got the shape {tuple(latents.shape)}")
        return np.asarray(self.image(latents))

    def image(self, latents: torch.Tensor, *, final: bool = False) -> "Image.Image":
        """Latents (C, h, w) to a picture; only a `final` one is checked for safety or marked."""
        device, dtype = self._where()
        # A preview looks the same whatever is switched on around whoever asks for it; numpy's remark on a picture of
        # NaN helps nobody.
        ambient = contextlib.nullcontext() if final else torch.autocast(device.type, enabled=False)
        factor = self._factor
        count = self._threads.decoding((latents.shape[-1] * factor, latents.shape[-2] * factor))
        with self._decoding, ambient, np.errstate(invalid="ignore"), working(count):
            latents = latents.unsqueeze(0).to(device)
            if not final:
                latents = latents.to(dtype)
            return self._family.decode(self._pipeline, latents, final=final)[0]

    def matrix(self) -> np.ndarray:
        """Latents to RGB without the network: (C + 1, 3) float32, fitted to a few decodes on first use and kept.

        Each latent is one pixel: ``rgb = (latent channels, 1) @ matrix``, about 0 to 1. The fit decodes smooth random
        fields, drawn from a generator of its own: the same for every process, and no run's randomness is touched.
        """
        with self._fitting:
            if self._matrix is None:
                channels, factor = self._family.channels(self._pipeline), self._family.factor(self._pipeline)
                self._matrix = _fit_matrix(self.pixels, channels, factor)
            return self._matrix


def _fit_matrix(decode: Callable[[torch.Tensor], np.ndarray], channels: int, factor: int) -> np.ndarray:
    generator = torch.Generator("cpu").manual_seed(0)
    inputs, targets = [], []
    for cells in (2, 4, 8, 16):
        # From nearly one colour to a colour per latent; the scaled latents of pictures have about unit
        # variance.
        field = torch.randn(1, channels, cells, cells, generator=generator)
        field = torch.nn.functional.interpolate(field, size=(16, 16), mode="nearest")[0]
        pixels = decode(field).astype(np.float64) / 255
        targets.append(pixels.reshape(16, factor, 16, factor, 3).mean((1, 3)).reshape(-1, 3))
        inputs.append(field.flatten(1).T.double().numpy())
    x = np.concatenate(inputs)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    matrix: np.ndarray = np.linalg.lstsq(x, np.concatenate(targets), rcond=None)[0].astype(np.float32)
    return matrix
