"""``Step``: one evaluation of the model in a run.

A step keeps what the sampler and the net exchanged (x_t, the guided output, both halves of it) and the two
numbers of ``x_t = a * x0 + b * noise``. Everything else is affine in those and is computed when asked for,
anew each time: a latent is small, the formula costs microseconds, and a long run would otherwise hold every
derived tensor twice.
"""

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch

from diffexplore.record import predictions

__all__ = ["Step", "WhatIf", "own"]

_SETTLING = threading.Lock()  # steps of a live run are read by one thread while another fills them in


class WhatIf(NamedTuple):
    """The prediction of one step, recombined with another guidance; both (C, h, w) float32 on the CPU."""

    noise: torch.Tensor
    x0: torch.Tensor


class Step:
    """One model evaluation.

    Attributes:
        index: 0-based number of this evaluation.
        timestep: what the network was told.
        seconds: wall time of this evaluation, from the end of the one before (or the start of the loop).
        a: signal level and
        b: noise level of x_t: ``x_t = a * x0 + b * noise``.
        kind: prediction type of the network's output, one of ``predictions.KINDS``.
        half: True for the second evaluation of a two-stage step (Heun, DPM2): its x_t is an intermediate
            guess.

    Every tensor attribute is a fresh (C, h, w) float32 tensor on the CPU: changing it does not change the
    trace.
    """

    index: int
    timestep: float
    seconds: float
    a: float
    b: float
    kind: str
    half: bool

    __slots__ = (
        "_cond",
        "_guidance",
        "_latents",
        "_output",
        "_pieces",
        "_split",
        "_uncond",
        "a",
        "b",
        "half",
        "index",
        "kind",
        "seconds",
        "timestep",
    )

    def __init__(
        self,
        *,
        index: int,
        timestep: float,
        seconds: float,
        a: float,
        b: float,
        kind: str,
        latents: torch.Tensor,
        output: torch.Tensor,
        cond: torch.Tensor | None = None,
        uncond: torch.Tensor | None = None,
        guidance: float | None = None,
        split: str = "",
        half: bool = False,
        pieces: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """A step as the recorder makes it; tensors are shaped (C, h, w), on any device, in any float type.

        Args:
            index: this and all that is not named here are the attributes of that name.
            latents: x_t before the step.
            output: the guided prediction as handed to the sampler, in the meaning of `kind`.
            cond: its half with the prompt; given with `uncond` or not at all.
            uncond: its half without.
            guidance: what `output` mixes them with.
            split: why there are no halves, one sentence; "" where they are given.
            pieces: instead of the four above: the denoiser's raw outputs; the halves are found in them on first use, or
                never.
        """
        self.index, self.timestep, self.seconds = index, timestep, seconds
        self.a, self.b, self.kind, self.half = a, b, kind, half
        self._latents, self._output = latents, output
        self._cond, self._uncond, self._guidance = cond, uncond, guidance
        if pieces is None and cond is None and not split:
            split = "This pipeline makes no split into prompt and negative prompt."
        self._split = split
        self._pieces = pieces

    def __repr__(self) -> str:
        shape = tuple(self._latents.shape)
        return f"Step({self.index}, timestep={self.timestep:g}, sigma={self.sigma:.4g}, shape={shape})"

    @property
    def sigma(self) -> float:
        """Noise level ``b / a``; finite even at pure noise, where diffusers' own bound (4096) is returned."""
        return self.b / max(self.a, predictions.TINY)

    @property
    def latents(self) -> torch.Tensor:
        """x_t, before the step."""
        return own(self._latents)

    @property
    def output(self) -> torch.Tensor:
        """The guided prediction as the network's own kind of output."""
        return own(self._output)

    @property
    def noise(self) -> torch.Tensor:
        """The guided prediction as noise, whatever the prediction type."""
        return self._noise(self._output)

    @property
    def noise_cond(self) -> torch.Tensor | None:
        """The noise predicted with the prompt; None where :attr:`split` says why."""
        self._resolve()
        return None if self._cond is None else self._noise(self._cond)

    @property
    def noise_uncond(self) -> torch.Tensor | None:
        """The noise predicted with the negative (or empty) prompt; None where :attr:`split` says why."""
        self._resolve()
        return None if self._uncond is None else self._noise(self._uncond)

    @property
    def x0(self) -> torch.Tensor:
        """The clean latents which the guided prediction stands for."""
        return self._x0(self._output)

    @property
    def x0_cond(self) -> torch.Tensor | None:
        """The clean latents predicted with the prompt alone."""
        self._resolve()
        return None if self._cond is None else self._x0(self._cond)

    @property
    def x0_uncond(self) -> torch.Tensor | None:
        """The clean latents predicted with the negative (or empty) prompt alone."""
        self._resolve()
        return None if self._uncond is None else self._x0(self._uncond)

    @property
    def guidance(self) -> float | None:
        """The guidance found in the tensors: ``noise = uncond + guidance * (cond - uncond)``. None without a
        split.
        """
        self._resolve()
        return self._guidance

    @property
    def split(self) -> str:
        """ "" where the halves are known, else one plain sentence why not."""
        self._resolve()
        return self._split

    def what_if(self, guidance: float) -> WhatIf:
        """The prediction of this very step with another guidance; no model call.

        Raises:
            ValueError: where the step has no split, or the guidance is no finite number.
        """
        self._resolve()
        if self._cond is None or self._uncond is None:
            raise ValueError(f"step {self.index} cannot be guided anew: {self._split}")
        if not math.isfinite(guidance):
            raise ValueError(f"guidance must be a finite number, got {guidance!r}")
        mixed = predictions.guide(own(self._cond), own(self._uncond), guidance)
        return WhatIf(self._noise(mixed), self._x0(mixed))

    def settle(self) -> None:
        """Move everything to the CPU; called once, when a run ends.

        Until then a step refers to the run's tensors where they are: a copy per step would stall a GPU's
        queue.
        """
        with _SETTLING:
            if self._pieces is not None:
                self._pieces = [piece.detach().cpu() for piece in self._pieces]
            if self._cond is not None and self._uncond is not None:
                self._cond, self._uncond = self._cond.detach().cpu(), self._uncond.detach().cpu()
            self._latents, self._output = self._latents.detach().cpu(), self._output.detach().cpu()

    def _resolve(self) -> None:
        if self._pieces is None:
            return
        with _SETTLING:
            if self._pieces is not None:
                found = predictions.separate(self._output, self._pieces, self._guidance)
                self._cond, self._uncond = found.cond, found.uncond
                self._guidance, self._split = found.guidance, found.reason
                # Last: a thread that sees None here looks no further.
                self._pieces = None

    def _noise(self, output: torch.Tensor) -> torch.Tensor:
        return predictions.noise_of(self.kind, own(self._latents), own(output), self.a, self.b)

    def _x0(self, output: torch.Tensor) -> torch.Tensor:
        return predictions.x0_of(self.kind, own(self._latents), own(output), self.a, self.b)


def own(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
