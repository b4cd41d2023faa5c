"""Families whose networks were trained by diffusion."""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from diffexplore.pipelines.base import Family, Unchecked
from diffexplore.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LCM", "SDXL", "Kandinsky3", "PixArtAlpha", "PixArtSigma", "Unbinned"]


class LCM(Family):
    name = "lcm"
    pipelines = ("LatentConsistencyModelPipeline",)
    mixes = False
    usual_steps = 4

    def guided(self, pipeline: Any, settings: Settings) -> bool:
        return False

    def embedded(self, pipeline: Any) -> bool:
        return True

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        return {}


class SDXL(Family):
    name = "sdxl"
    pipelines = ("StableDiffusionXLPipeline",)

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        found = super().reader(pipeline)
        if found is None and getattr(pipeline, "text_encoder_2", None) is not None and pipeline.tokenizer_2 is not None:
            tokenizer = pipeline.tokenizer_2  # a refiner has the second one alone
            return tokenizer, self.room(pipeline, tokenizer)
        return found

    def batch_key(self, pipeline: Any, settings: Settings) -> Hashable:
        # Without a negative prompt SDXL takes zeros instead of the embedding of "": the two cannot share a call.
        return super().batch_key(pipeline, settings), bool(settings.negative_prompt)

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        vae = pipeline.vae
        # SDXL's own VAE overflows in half precision.
        upcast = vae.dtype == torch.float16 and vae.config.force_upcast
        if upcast:
            pipeline.upcast_vae()
            latents = latents.to(next(iter(vae.post_quant_conv.parameters())).dtype)
        try:
            mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
            if mean is not None and std is not None:
                mean = torch.tensor(mean).view(1, -1, 1, 1).to(latents.device, latents.dtype)
                std = torch.tensor(std).view(1, -1, 1, 1).to(latents.device, latents.dtype)
                latents = latents * std / vae.config.scaling_factor + mean
            else:
                latents = latents / vae.config.scaling_factor
            pixels: torch.Tensor = vae.decode(latents, return_dict=False)[0]
            return pixels
        finally:
            if upcast:
                vae.to(dtype=torch.float16)

    def _finished(
        self, pipeline: Any, pixels: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, Sequence[bool] | None]:
        return (pixels if pipeline.watermark is None else pipeline.watermark.apply_watermark(pixels)), None


class Kandinsky3(Family):
    name = "kandinsky3"
    pipelines = ("Kandinsky3Pipeline",)
    decoder = "movq"
    mixes = False
    limit = 128
    unguided = 2

    def factor(self, pipeline: Any) -> int:
        return int(2 ** (len(pipeline.movq.config.block_out_channels) - 1))

    def multiple(self, pipeline: Any) -> int:
        return 64

    def size(self, pipeline: Any) -> tuple[int, int]:
        return 1024, 1024

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"guidance_scale": settings.guidance - 1}

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        g = f"{settings.guidance:g}"
        if settings.guidance > 2:
            return [
                f"Kandinsky 3 counts guidance from 0: it was asked for {settings.guidance - 1:g}, which is {g} here."
            ]
        notes = [f"A guidance of {g} acts as 1: Kandinsky 3 turns it off at 2 and below."] if g != "1" else []
        return notes + list(self.ignored(pipeline, settings).values())

    def _scaled(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def decode(self, pipeline: Any, latents: torch.Tensor, *, final: bool = False) -> list[Image.Image]:
        with torch.no_grad():
            pixels = pipeline.movq.decode(latents, force_not_quantize=True)["sample"]
            pixels = (pixels * 0.5 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
            images: list[Image.Image] = pipeline.numpy_to_pil(pixels)
            return images


class Unbinned(Unchecked):
    """Transformers whose pipelines look for the nearest size of their training set, unless they are told not to."""

    network = "transformer"
    limit = 300  # max_sequence_length of their calls

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        # The size asked for is the size drawn.
        return {**super().arguments(pipeline, settings), "use_resolution_binning": False}

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        negatives = [one.negative_prompt for one in settings]
        return {"negative_prompt": negatives[0] if len(negatives) == 1 else negatives}

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        return super()._pixels(pipeline, latents.to(pipeline.vae.dtype))


class PixArtSigma(Unbinned):
    name = "pixart"
    pipelines: tuple[str, ...] = ("PixArtSigmaPipeline",)

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        # What the pipeline itself would do, without its paragraph of advice at every call.
        clean = all(map(importlib.util.find_spec, ("bs4", "ftfy")))
        return {**super().arguments(pipeline, settings), "clean_caption": clean}


class PixArtAlpha(PixArtSigma):
    pipelines = ("PixArtAlphaPipeline",)
    limit = 120
    fewest = 2  # at its only step it reads a second value of the scheduler, which most schedulers do not give
