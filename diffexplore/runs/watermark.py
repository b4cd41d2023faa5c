"""A watermark in the starting noise: a part of it is drawn from a key, and is found again by who has the key.

The idea is that of tree rings (Wen et al. 2023, arXiv 2305.20030): nothing is drawn over the picture, the noise that it
grows from is chosen, and running the model backwards (DDIM inversion) gives that noise back, more or less. Two things
are otherwise here.

* *Which noise.* Rings are a constant for each radius of the noise's spectrum: a handful of numbers. Small models, and
  strong guidance, forget most of their noise, and no handful is found again. Here the key draws noise for *every*
  latent, and the run starts from ``sqrt(1 - s) * (the seed's noise) + sqrt(s) * (the key's noise)``, s = `SHARE`. A
  correlation of r between true and inverted noise, over N latents, is then seen with a z of about ``r sqrt(s N)``.
* *What it costs.* Both parts are standard normal and independent, so their sum is exactly standard normal: no picture
  is less likely than without a key, as in Gaussian Shading (Yang et al. 2024, arXiv 2404.04956). Pictures of one key
  would all be alike, though. The key's noise is therefore turned round like a wheel by a number of places that the
  seed decides, one of `places`: pictures of two seeds share it only by chance.

The statistic is exact: see :func:`scores`.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import torch

from diffexplore.pipelines.family import family_of
from diffexplore.runs.probes import Probe, going_on, tapped

__all__ = [
    "SHARE",
    "Watermark",
    "chance",
    "faint",
    "flattened",
    "least",
    "marked",
    "pattern",
    "place",
    "places",
    "scores",
]

SHARE: Final = 0.9
"""How much of the starting noise's variance is the key's."""
FEW: Final = 256
"""Latents for each place of the wheel: 4 places in the pocket model's 1,024, 64 in the 16,384 of Stable Diffusion."""
MOST: Final = 1024
"""Places at most."""
_GRAIN: Final = 2.0**16


def _digest(*parts: object) -> Any:
    said = "\0".join(str(part) for part in parts)
    return hashlib.shake_256(f"diffexplore watermark 1\0{said}".encode())


@functools.lru_cache(16)
def _pattern(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    count = math.prod(shape)
    raw = np.frombuffer(_digest("noise", "x".join(map(str, shape)), key).digest(8 * count), "<u8")
    even = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    normal = torch.special.ndtri(torch.from_numpy(even))
    # On a grid, so that the last bit of a logarithm, which machines differ in, decides nothing.
    return ((normal * _GRAIN).round() / _GRAIN).to(torch.float32).reshape(shape)


def pattern(key: str, shape: Sequence[int]) -> torch.Tensor:
    """The key's noise: standard normal, float32 on the CPU, the same on every machine. From SHAKE-256 of the key, so
    that nothing is learnt of the key from the noise.

    Args:
        key: any text.
        shape: of one picture's latents, (C, *axes, h, w).
    """
    return _pattern(key, tuple(int(side) for side in shape)).clone()


def places(count: int) -> int:
    """How many ways there are to turn the wheel for a noise of so many latents."""
    return max(1, min(MOST, count // FEW))


def place(key: str, seed: int, count: int) -> int:
    """Which of the :func:`places` a seed has, for a noise of so many latents; without the key, as good as random."""
    return int.from_bytes(_digest("place", seed, key).digest(8), "little") % places(count)


def _turned(noise: torch.Tensor, by: int) -> torch.Tensor:
    """The wheel turned by so many places: all latents moved on in the order in which they lie."""
    count = noise.numel()
    return torch.roll(noise.flatten(), by * (count // places(count))).reshape(noise.shape)


def marked(noise: torch.Tensor, key: str, seed: int) -> torch.Tensor:
    """Starting noise with the key's in it.

    Args:
        noise: that of the seed, (C, *axes, h, w), standard normal.
        key: any text.
        seed: of the run.

    Returns:
        Of the noise's dtype and device, and again standard normal.
    """
    own = _turned(pattern(key, noise.shape), place(key, seed, noise.numel())).to(noise.device)
    return (math.sqrt(1 - SHARE) * noise.to(torch.float32) + math.sqrt(SHARE) * own).to(noise.dtype)


class Watermark(Probe):
    """Puts the key's noise into what each picture starts from, as its settings say.

    The pipeline draws its noise as ever; this is the first that touches it, so that a variation goes from one marked
    noise to another, and a run that starts from a picture has the marked noise on it.
    """

    leads = True

    def __init__(self, asked: Sequence[tuple[str | None, int]], size: tuple[int, int]) -> None:
        """What to put where.

        Args:
            asked: of each picture of the batch its ``Settings.watermark`` and its seed.
            size: (width, height) of the pictures in pixels.
        """
        self._asked = list(asked)
        self._size = size
        self._undo = ExitStack()

    def attach(self, pipeline: Any) -> None:
        self._pipeline, self._family = pipeline, family_of(pipeline)
        self._undo.enter_context(tapped(pipeline, "prepare_latents", self._prepare))

    def detach(self) -> None:
        self._undo.close()

    @torch.no_grad()
    def _prepare(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return going_on(inner(*args, **kwargs), self._put)

    def _put(self, latents: torch.Tensor) -> torch.Tensor:
        pipeline, family = self._pipeline, self._family
        # Pipelines of flow models leave their noise as it was drawn, the others make it as large as the schedule says.
        unit = 1.0 if family.flow else float(getattr(pipeline.scheduler, "init_noise_sigma", 1.0))
        plain = family.unpack(pipeline, latents, *self._size)
        made = [
            one if key is None else (unit * marked(one.to(torch.float32) / unit, key, seed)).to(one)
            for one, (key, seed) in zip(plain, self._asked, strict=True)
        ]
        return family.pack(pipeline, torch.stack(made)).reshape(latents.shape)


def faint(strength: float) -> str:
    """What is to be said of a mark in a run that starts from a picture, with less than all noise on it."""
    return (
        f"The watermark is in the noise, and at a strength of {strength:g} the picture keeps to what it starts from: "
        "the mark may not be found again."
    )


def flattened(noise: torch.Tensor) -> torch.Tensor:
    """Inverted noise (C, *axes, h, w) with all frequencies of each channel brought nearer to one strength, float64:
    what a network says of noise is louder where pictures are.

    Each Fourier coefficient is divided by the root of its magnitude. No key has a part in it.
    """
    waves = torch.fft.fft2(noise.to(torch.float64))
    size = waves.abs()
    even: torch.Tensor = torch.fft.ifft2(waves / size.clamp_min(1e-12).sqrt()).real
    return even


def scores(noise: torch.Tensor, key: str) -> np.ndarray:
    """How well a noise goes with that of a key, turned to each of its places.

    The noise, as one vector of length 1, times the key's: a weighted sum of the key's numbers, which are independent
    and standard normal. For a picture that has nothing to do with the key it is therefore *exactly* standard normal,
    whatever the picture: what is random is the key. Nothing is fitted and nothing is assumed of pictures or models.

    Args:
        noise: what an inversion found, (C, *axes, h, w).
        key: any text.

    Returns:
        (places,) float64.
    """
    even = flattened(noise)
    length = even.norm()
    if not bool(torch.isfinite(length)) or length == 0:
        return np.zeros(places(noise.numel()))
    own = pattern(key, noise.shape).to(torch.float64)
    return np.array([float((even * _turned(own, by)).sum() / length) for by in range(places(noise.numel()))])


def chance(score: float, tried: int) -> float:
    """A bound on how often the best of `tried` scores of a key that has nothing to do with the picture is as good:
    ``tried`` times the upper tail of the normal law (Bonferroni), at most 1.
    """
    return min(1.0, tried * 0.5 * math.erfc(score / math.sqrt(2)))


def least(level: float, tried: int) -> float:
    """The score from which on :func:`chance` is at most `level`."""
    return NormalDist().inv_cdf(1 - level / tried)
