"""Starting from a picture: a run that begins in the middle of its sampler's schedule, at a picture with noise on it.

SDEdit (Meng et al. 2022, arXiv 2108.01073): ``x_t = a x0 + b noise`` of an encoded picture, at the noise level from
which the sampler then goes on. How much is said as a *share of noise*, b^2 / (a^2 + b^2): the same number is the same
noise for every sampler and any number of steps, as near as the schedule has a level.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch

from diffexplore.looks.pictures import Picture, fit
from diffexplore.pipelines.family import Family, family_of
from diffexplore.record.numbers import Number, declare
from diffexplore.record.predictions import noise_of, share_of_noise, x0_of
from diffexplore.record.step import Step
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Probe, going_on, tapped

__all__ = ["LOSS", "STRENGTH", "Invert", "Retrace", "Start", "encoded", "first_order", "refined"]

STRENGTH: Final = 0.75
"""The share of noise a picture starts from where none is asked for."""

LOSS: Final = declare(
    Number(
        "loss", "loss", "mean squared error",
        "How far the predicted noise is from that which was added, squared and averaged: what training makes small.",
    )
)  # fmt: skip
"""Of a run that :class:`Retrace` led: of a network that says nothing 1, of one that knows all 0."""


_FIRST_ORDER: Final = ("DDIM", "Flow Euler", "Euler")


def first_order(samplers: Sequence[str]) -> str | None:
    """Of these samplers the one that evaluates the network once a step, at the levels of the schedule, and remembers
    nothing; None where there is none.
    """
    return next((name for name in _FIRST_ORDER if name in samplers), None)


def encoded(family: Family, pipeline: Any, image: Picture, width: int, height: int) -> Any:
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


def refined(
    clean: torch.Tensor,
    encode: Callable[[Any], torch.Tensor],
    decode: Callable[[torch.Tensor], Any],
    rounds: int,
) -> torch.Tensor:
    """The latents of an encoded picture, nearer to those that it was decoded from: an encoder is no exact inverse, and
    what decoding and encoding again adds to latents is taken off them.

    Args:
        clean: the encoded picture, (C, h, w).
        encode: pictures to latents.
        decode: latents to pictures.
        rounds: how often; 2 halve the error of a picture that the model drew.
    """
    made = clean
    for _ in range(rounds):
        made = made + (clean - encode(decode(made)))
    return made


class _OnPicture(Probe):
    """Puts a picture under the noise that a run starts from.

    The pipeline draws its starting noise as ever, from the run's own generator, so that a seed is the same noise with a
    picture and without.
    """

    changes = leads = True

    def __init__(self, clean: torch.Tensor) -> None:
        self._clean = clean
        self._undo = ExitStack()

    def key(self) -> Hashable:
        """The picture; where it begins is in the settings."""
        return type(self).__name__, hashlib.blake2b(self._clean.numpy().tobytes()).digest()

    def attach(self, pipeline: Any) -> None:
        self._family = family_of(pipeline)
        self._pipeline, self._scheduler = pipeline, pipeline.scheduler
        self._level: tuple[float, float] | None = None
        self._latents: torch.Tensor | None = None
        self._undo.enter_context(tapped(self._scheduler, "set_timesteps", self._set_timesteps))
        self._undo.enter_context(tapped(pipeline, "prepare_latents", self._prepare))

    def detach(self) -> None:
        self._undo.close()

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        self._level = self._first()
        # A flow model's pipeline draws its noise before it asks for a schedule, the others after it.
        self._begin()

    def _first(self) -> tuple[float, float]:
        """The a and b where the run begins."""
        raise NotImplementedError

    def _prepare(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made = inner(*args, **kwargs)
        self._latents = made[0] if isinstance(made, tuple) else made
        self._begin()
        return made

    @torch.no_grad()
    def _begin(self) -> None:
        """Put the picture there, as soon as both its noise and its level are known."""
        latents = self._latents
        if latents is None or self._level is None:
            return
        # Pipelines of flow models leave their noise as it was drawn, the others make it as large as the schedule says.
        unit = 1.0 if self._family.flow else float(getattr(self._scheduler, "init_noise_sigma", 1.0))
        packed = self._family.pack(self._pipeline, self._clean.unsqueeze(0)).to(latents)
        self._noise, self._packed = latents / unit, packed.reshape(latents.shape)
        latents.copy_(self._where(*self._level))

    def _where(self, a: float, b: float) -> torch.Tensor:
        """What the run starts from."""
        return self._at(a, b)

    def _at(self, a: float, b: float) -> torch.Tensor:
        """The picture with the noise on it, as the pipeline's loop keeps it."""
        return a * self._packed + b * self._noise


class Start(_OnPicture):
    """Lets a run begin at a picture, and go on from there. To be attached before the recorder, which then reads what is
    left of the schedule.

    Attributes:
        share: the share of noise that it began at, of the levels that the schedule has the nearest at or below what was
            asked for; of one whose levels are all above, the last. nan before the run.
        skipped: how many evaluations were left out.
    """

    def __init__(self, clean: torch.Tensor, strength: float) -> None:
        """Where to begin.

        Args:
            clean: the encoded picture, (C, h, w), as :func:`encoded` gives it.
            strength: the share of noise, above 0 to 1.
        """
        super().__init__(clean)
        self._strength = strength
        self.share = float("nan")
        self.skipped = 0

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        self._whole: Any = None  # the schedule, while the pipeline sees a part of it

    def _first(self) -> tuple[float, float]:
        scheduler = self._scheduler
        levels, order = Levels(scheduler), int(getattr(scheduler, "order", 1))
        self._whole = whole = scheduler.timesteps
        indexed = hasattr(scheduler, "set_begin_index")
        a, b = 1.0, 0.0
        for k in range(0, len(whole), order):
            if indexed:
                scheduler.set_begin_index(k)
            a, b, _ = levels.at(k)
            self.share, self.skipped = share_of_noise(a, b), k
            if self.share <= self._strength + 1e-6:  # levels are read from tables of 32 bits
                break
        scheduler.timesteps = whole[self.skipped :]
        return a, b

    def restore(self) -> None:
        """Before the network is asked, whoever answers for it: the loop has its part of the schedule; schedulers that
        look up their place in it need all of it, and some pipelines have told theirs to begin at the first.
        """
        if self._whole is not None:
            self._scheduler.timesteps, self._whole = self._whole, None
            if hasattr(self._scheduler, "set_begin_index"):
                self._scheduler.set_begin_index(self.skipped)


class Retrace(_OnPicture):
    """Asks the network at every level of the schedule for the noise on a picture: whatever it answers, the next level
    is again the picture with the noise of the seed on it. So a run is led along the forward process, and each of its
    steps is what training asks for (Ho et al. 2020, arXiv 2006.11239, algorithm 1). It ends in the picture.

    Every step gets the noise that was added as its tensor ``added``, and :data:`LOSS` as a number.
    """

    def __init__(self, clean: torch.Tensor, size: tuple[int, int]) -> None:
        """What to show the network.

        Args:
            clean: the encoded picture, (C, h, w), as :func:`encoded` gives it.
            size: (width, height) of the picture in pixels.
        """
        super().__init__(clean)
        self._size = size

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        self._added: torch.Tensor | None = None
        self._undo.enter_context(tapped(self._scheduler, "step", self._step))

    def _first(self) -> tuple[float, float]:
        self._levels, self._count = Levels(self._scheduler), 0
        a, b, _ = self._levels.at(0)
        return a, b

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        self._count += 1
        a, b = self._levels.reached(self._count)
        return going_on(result, lambda given: self._at(a, b).to(given))

    def on_step(self, step: Step) -> None:
        if self._added is None:
            self._added = self._family.unpack(self._pipeline, self._noise, *self._size)[0].float().cpu()
        step.tensors["added"] = self._added
        step.numbers[LOSS.name] = float((step.noise - self._added).square().mean())


class Invert(_OnPicture):
    """Runs the other way, from a picture to the noise that it would be drawn from: every step takes the noise that the
    network sees in x_t for that of the next noisier level (DDIM inversion: Song et al. 2021, arXiv 2010.02502, eq. 14;
    of a flow its Euler steps, backwards). The run ends at its noisiest level.

    What it takes for granted, that the network sees the same noise at both ends of a step, is nearly true of short
    steps without guidance, so ask for many, at guidance 1.
    """

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        self._undo.enter_context(tapped(self._scheduler, "step", self._step))

    def _first(self) -> tuple[float, float]:
        scheduler = self._scheduler
        scheduler.timesteps = scheduler.timesteps.flip(0)
        if self._family.flow:
            # From no noise on, which belongs to no timestep of its own; the last level is only arrived at.
            scheduler.sigmas = scheduler.sigmas.flip(0)
            scheduler.timesteps = scheduler.sigmas[:-1] * scheduler.config.num_train_timesteps
        self._levels, self._count = Levels(scheduler), 0
        self._inputs = inspect.signature(scheduler.step)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        self._here = self._levels.at(0)[:2]
        if not self._family.flow:
            scheduler.timesteps = scheduler.timesteps[:-1]
        return self._here

    def _where(self, a: float, b: float) -> torch.Tensor:
        return self._packed  # as it is: the cleanest level has next to no noise

    @torch.no_grad()
    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = self._inputs.bind_partial(*args, **kwargs).arguments
        x, output = given["sample"], given["model_output"][:, : given["sample"].shape[1]]
        kind = self._levels.kind
        clean, noise = x0_of(kind, x, output, *self._here), noise_of(kind, x, output, *self._here)
        result = inner(*args, **kwargs)
        self._count += 1
        self._here = a, b = self._levels.at(self._count)[:2]
        return going_on(result, lambda given: (a * clean + b * noise).to(given))
