"""Starting from a picture: a run that begins in the middle of its sampler's schedule, at a picture with noise on it.

SDEdit (Meng et al. 2022, arXiv 2108.01073): ``x_t = a x0 + b noise`` of an encoded picture, at the noise level from
which the sampler then goes on. How much is said as a *share of noise*, b^2 / (a^2 + b^2): the same number is the same
noise for every sampler and any number of steps, as near as the schedule has a level.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from diffexplore.looks.pictures import fit
from diffexplore.pipelines.base import Family, denoisers
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Probe, hooked, tapped

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["STRENGTH", "Start", "encoded"]

STRENGTH: Final = 0.75
"""The share of noise a picture starts from where none is asked for."""


def encoded(
    family: Family, pipeline: Any, image: Image.Image | np.ndarray | str | os.PathLike[str], width: int, height: int
) -> Any:
    """A picture as latents (C, h, w) float32 on the CPU, scaled as the network knows them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for what is no picture, or a pipeline without an encoder.
    """
    blind = family.blind(pipeline)
    if blind:
        raise ValueError(blind)
    pixels = torch.from_numpy(np.array(fit(image, width, height))).permute(2, 0, 1).unsqueeze(0)
    return family.encode(pipeline, pixels / 127.5 - 1)[0]


class Start(Probe):
    """Lets a run begin at a picture. To be attached before the recorder, which then reads what is left of the schedule.

    The pipeline draws its starting noise as ever, from the run's own generator, so that a seed is the same noise with a
    picture and without; what it then goes on with is that noise on the picture.

    Attributes:
        share: the share of noise that it began at, of the levels that the schedule has the nearest at or below what was
            asked for; of one whose levels are all above, the last. nan before the run.
        skipped: how many evaluations were left out.
    """

    changes = True

    def __init__(self, family: Family, clean: torch.Tensor, strength: float) -> None:
        """Where to begin.

        Args:
            family: of the pipeline.
            clean: the encoded picture, (C, h, w), as :func:`encoded` gives it.
            strength: the share of noise, above 0 to 1.
        """
        self._family = family
        self._clean = clean
        self._strength = strength
        self._undo = ExitStack()
        self.share = float("nan")
        self.skipped = 0

    def attach(self, pipeline: Any) -> None:
        self._pipeline, self._scheduler = pipeline, pipeline.scheduler
        self._whole: Any = None  # the schedule, while the pipeline sees a part of it
        self._level: tuple[float, float] | None = None
        self._latents: torch.Tensor | None = None
        self._unit = 1.0
        self._undo.enter_context(tapped(self._scheduler, "set_timesteps", self._set_timesteps))
        self._undo.enter_context(tapped(pipeline, "prepare_latents", self._prepare))
        self._undo.enter_context(hooked(denoisers(pipeline), before=self._restore))

    def detach(self) -> None:
        self._undo.close()

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        scheduler = self._scheduler
        levels, order = Levels(scheduler), int(getattr(scheduler, "order", 1))
        self._whole = whole = scheduler.timesteps
        indexed = hasattr(scheduler, "set_begin_index")
        for k in range(0, len(whole), order):
            if indexed:
                scheduler.set_begin_index(k)
            a, b, _ = levels.at(k)
            self.share, self.skipped, self._level = b * b / (a * a + b * b), k, (a, b)
            if self.share <= self._strength + 1e-6:  # levels are read from tables of 32 bits
                break
        scheduler.timesteps = whole[self.skipped :]
        # A flow model's pipeline draws its noise before it asks for a schedule, the others after it.
        self._begin()

    def _prepare(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made = inner(*args, **kwargs)
        self._latents = made[0] if isinstance(made, tuple) else made
        self._begin()
        return made

    @torch.no_grad()
    def _begin(self) -> None:
        """Put the picture under the noise, as soon as both it and its level are known."""
        latents = self._latents
        if latents is None or self._level is None:
            return
        a, b = self._level
        clean = self._family.pack(self._pipeline, self._clean.unsqueeze(0)).to(latents)
        # Pipelines of flow models leave their noise as it was drawn, the others make it as large as the schedule says.
        unit = 1.0 if self._family.flow else float(getattr(self._scheduler, "init_noise_sigma", 1.0))
        latents.copy_(a * clean.reshape(latents.shape) + (b / unit) * latents)

    def _restore(self, module: torch.nn.Module, args: Any) -> None:
        self.restore()

    def restore(self) -> None:
        """Before the network is asked, whoever answers for it: the loop has its part of the schedule; schedulers that
        look up their place in it need all of it, and some pipelines have told theirs to begin at the first.
        """
        if self._whole is not None:
            self._scheduler.timesteps, self._whole = self._whole, None
            if hasattr(self._scheduler, "set_begin_index"):
                self._scheduler.set_begin_index(self.skipped)
