"""Families whose networks were trained by flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from diffexplore.pipelines.base import Unchecked
from diffexplore.pipelines.stable import Unbinned
from diffexplore.settings import Settings

__all__ = ["SD3", "Flux", "Packed", "QwenImage", "Sana", "Transformer", "ZImage"]


class Sana(Unbinned):
    name = "sana"
    pipelines: tuple[str, ...] = ("SanaPipeline",)
    flow = True

    def multiple(self, pipeline: Any) -> int:
        return 32  # what SanaPipeline.check_inputs asks for, whatever its decoder


class Transformer(Unchecked):
    """Transformers trained by flow matching, whose decoders scale and shift."""

    network = "transformer"
    flow = True

    def size(self, pipeline: Any) -> tuple[int, int]:
        side = int(pipeline.default_sample_size) * self.factor(pipeline)
        return side, side

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        vae = pipeline.vae
        pixels: torch.Tensor = vae.decode(
            (latents / vae.config.scaling_factor) + vae.config.shift_factor, return_dict=False
        )[0]
        return pixels


class SD3(Transformer):
    name = "sd3"
    pipelines = ("StableDiffusion3Pipeline",)

    def multiple(self, pipeline: Any) -> int:
        return self.factor(pipeline) * int(pipeline.patch_size)

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        made = super().arguments(pipeline, settings)
        if _silent(pipeline):  # the network would compute hundreds of tokens that say the same: nothing
            made["max_sequence_length"] = pipeline.tokenizer_3.num_special_tokens_to_add()
        return made

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        heard = getattr(pipeline, "text_encoder_3", None) is not None and not _silent(pipeline)
        if heard and pipeline.tokenizer_3 is not None:
            tokenizer = pipeline.tokenizer_3  # T5 reads on where both CLIPs have stopped
            return tokenizer, 256 - tokenizer.num_special_tokens_to_add()
        return super().reader(pipeline)


def _silent(pipeline: Any) -> bool:
    """Whether its T5 has no layers: it stands in its place so that a folder opens, and answers with zeros."""
    encoder = getattr(pipeline, "text_encoder_3", None)
    layers = getattr(getattr(encoder, "config", None), "num_layers", None)
    if encoder is None or layers != 0 or pipeline.tokenizer_3 is None:
        return False
    return not bool(encoder.get_input_embeddings().weight.any())


class Packed(Transformer):
    """Transformers that keep 2 x 2 latents as one token."""

    mixes = False
    spaces = True

    def multiple(self, pipeline: Any) -> int:
        return 2 * self.factor(pipeline)

    def unpack(self, pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        unpacked: torch.Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
        return unpacked

    def pack(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = pipeline._pack_latents(latents, *latents.shape)
        return packed

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        return {}


class Flux(Packed):
    name = "flux"
    pipelines = ("FluxPipeline",)
    reads = ("tokenizer_2", "text_encoder_2")
    limit = 512

    def embedded(self, pipeline: Any) -> bool:
        return True

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        notes = super().notes(pipeline, settings)
        if not pipeline.transformer.config.guidance_embeds:
            notes[0] = "Guidance does nothing here: this network was distilled to do without."
        return notes


class QwenImage(Packed):
    name = "qwen"
    pipelines = ("QwenImagePipeline",)
    order = (0, 1)  # it brings each token of the mix to the length that it has with the prompt

    def channels(self, pipeline: Any) -> int:
        return int(pipeline.vae.config.z_dim)

    def unpack(self, pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return super().unpack(pipeline, latents, width, height).squeeze(2)

    def _coded(self, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
        return super()._coded(vae, pixels.unsqueeze(2)).squeeze(2)  # it knows videos: a picture is one frame

    def _scaled(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
        return (latents - mean[:, None, None]) / std[:, None, None]

    def room(self, pipeline: Any, tokenizer: Any) -> int:
        return int(pipeline.tokenizer_max_length)

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"true_cfg_scale": settings.guidance}

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        made = super().arguments(pipeline, settings)
        if self.guided(pipeline, settings[0]):
            # Without a negative prompt this pipeline leaves guidance off; its own examples pass a blank one.
            negatives = [one.negative_prompt or " " for one in settings]
            made["negative_prompt"] = negatives[0] if len(negatives) == 1 else negatives
        return made

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        vae = pipeline.vae
        shape = (1, int(vae.config.z_dim), 1, 1, 1)
        latents = latents.unsqueeze(2).to(vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(shape).to(latents.device, latents.dtype)
        # Divided by the inverse, as the pipeline does: the other way round differs in the last bit.
        inverse = 1.0 / torch.tensor(vae.config.latents_std).view(shape).to(latents.device, latents.dtype)
        pixels: torch.Tensor = vae.decode(latents / inverse + mean, return_dict=False)[0][:, :, 0]
        return pixels


class ZImage(Transformer):
    name = "zimage"
    pipelines = ("ZImagePipeline",)
    mixes = False
    spaces = True

    def multiple(self, pipeline: Any) -> int:
        return 2 * self.factor(pipeline)

    def size(self, pipeline: Any) -> tuple[int, int]:
        return 1024, 1024

    def room(self, pipeline: Any, tokenizer: Any) -> int:
        return 512

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"guidance_scale": max(0.0, settings.guidance - 1)}

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        notes = super().notes(pipeline, settings)
        if settings.guidance > 1:
            asked = f"{settings.guidance - 1:g}"
            notes.append(
                f"Z-Image counts guidance from 0: it was asked for {asked}, which is {settings.guidance:g} here."
            )
        return notes

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        return super()._pixels(pipeline, latents.to(pipeline.vae.dtype))
