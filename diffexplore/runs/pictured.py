"""What a model does with pictures and latents beside its runs: decode, encode, invert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffexplore.looks.pictures import Picture
from diffexplore.runs.plan import Planner, inversion
from diffexplore.runs.start import encoded, refined
from diffexplore.runs.threads import working

if TYPE_CHECKING:
    import numpy as np
    import torch

    from diffexplore.pipelines.base import Family
    from diffexplore.runs.decode import PictureDecoder
    from diffexplore.runs.desk import Desk
    from diffexplore.runs.schedules import Schedules
    from diffexplore.runs.threads import Threads
    from diffexplore.trace import Trace

__all__ = ["Pictured"]


class Pictured:
    """The part of a `Model` that turns pictures into latents and back."""

    pipeline: Any
    size: tuple[int, int]
    threads: Threads
    _family: Family
    _desk: Desk
    _decoder: PictureDecoder
    _planner: Planner
    _schedules: Schedules

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, h, w) to a picture, (H, W, 3) uint8, exactly as a final picture is decoded; safe on any
        thread, during a run too.

        Args:
            latents: float tensor (C, h, w), as a step has it; C and the factor to pixels are the pipeline's own.

        Raises:
            ValueError: they have another number of dimensions.
        """
        return self._desk.decode(latents)

    def output(self, latents: torch.Tensor, trace: Trace | None = None) -> Any:
        """What the pipeline makes of latents (C, *axes, h, w) after its last step, as ``trace.output`` has it; those of
        the run `trace`, or of the last one where it is None (only a pipeline of no named family asks).

        Raises:
            ValueError: one sentence, for latents of another shape, or before any run.
        """
        return self._desk.output(latents, trace)

    def encode(self, image: Picture) -> torch.Tensor:
        """A picture as latents (C, h, w) float32 on the CPU, scaled as the network knows them: what `decode` undoes.

        Args:
            image: a picture; of another size than the model's it is cropped around its centre and resampled.

        Raises:
            FileNotFoundError, ValueError: one sentence, for what is no picture, or a model without an encoder.
        """
        with working(self.threads.decoding(self.size)):
            return encoded(self._family, self.pipeline, image, *self.size)

    def invert(self, image: Picture, prompt: str = "", steps: int = 50, refine: int = 0) -> Trace:
        """The noise that a picture would be drawn from: a run the other way, without guidance, that ends in it as
        ``final``; ``trace(..., latents=inverted.final, sampler=inverted.settings.sampler)`` draws from it.

        Args:
            image: as in :meth:`encode`.
            prompt: what the network is told of it.
            steps: the more, the nearer a run from there comes to the picture.
            refine: how often its latents are corrected by what decoding and encoding again does to them; for a picture
                that this model drew, 2 are worth it.

        Raises:
            FileNotFoundError, ValueError: as :meth:`encode`; and for settings which are refused.
        """
        clean = refined(self.encode(image), self.encode, self.decode, refine)
        return self._desk.trace(*inversion(self._planner, self._schedules.names, clean, prompt, steps))

    def matrix(self) -> np.ndarray:
        """Latents to RGB without the decoder: (C + 1, 3) float32, fitted to a few decodes on first use and kept. Each
        latent is one pixel: ``rgb = (latent channels, 1) @ matrix``, about 0 to 1.
        """
        return self._decoder.matrix()
