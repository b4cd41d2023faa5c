"""Pipeline families: what differs between diffusers' text-to-image pipelines, in one place.

A family knows how to ask its pipelines for a picture (one meaning of *guidance* for all of them, see below), the
layout of their latents, and how those are decoded, through the very calls of the pipeline's own end, so that a
picture decoded here is bit-identical to the pipeline's.

Guidance is always ``noise = uncond + g (cond - uncond)`` (Ho & Salimans 2022, arXiv 2207.12598), so 1 is off.
Kandinsky 3 and Z-Image compute ``cond + g (cond - uncond)`` and are asked for one less. Networks that were distilled
for guidance (Flux dev, LCM; Meng et al. 2022, arXiv 2210.03142) take the number as an input: there it is passed on,
nothing can be split, and :meth:`Family.notes` says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from diffexplore.settings import Settings
from diffexplore.words import shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FAMILIES", "Family", "family_of", "known_pipelines"]


class Family:
    """Stable Diffusion 1.x and 2.x, and what most families share with it.

    Attributes:
        name: what the sampler menu calls it.
        pipelines: diffusers classes that belong to it; subclasses of theirs do too.
        network: name of the component that denoises.
        decoder: name of the component that makes pixels of latents.
        flow: whether its networks were trained by flow matching instead of diffusion.
        mixes: whether pictures of different guidance and negative prompts can share a batch.
    """

    name = "sd"
    pipelines: tuple[str, ...] = ("StableDiffusionPipeline",)
    network = "unet"
    decoder = "vae"
    flow = False
    mixes = True

    # Sizes and layout

    def factor(self, pipeline: Any) -> int:
        """Pixels per latent, along each side."""
        return int(pipeline.vae_scale_factor)

    def multiple(self, pipeline: Any) -> int:
        """What widths and heights in pixels must be a multiple of."""
        return self.factor(pipeline)

    def size(self, pipeline: Any) -> tuple[int, int]:
        """(width, height) in pixels which the pipeline draws if nothing else is asked for."""
        side = getattr(pipeline, self.network).config.sample_size
        rows, columns = (side, side) if isinstance(side, int) else side
        return columns * self.factor(pipeline), rows * self.factor(pipeline)

    def channels(self, pipeline: Any) -> int:
        """Channels of the latents as :meth:`unpack` gives them."""
        return int(getattr(pipeline, self.decoder).config.latent_channels)

    def axes(self, pipeline: Any) -> tuple[str, ...]:
        """Names of the axes of one picture's latents, as :meth:`unpack` gives them."""
        return "channels", "height", "width"

    def unpack(self, pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """The pipeline's own latents as (B, C, h, w); a view where the layout allows it."""
        return latents

    # Words

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        """The tokenizer that decides how much of a prompt is read, and for how many tokens there is room; None
        where the pipeline cannot read prompts.
        """
        tokenizer = getattr(pipeline, "tokenizer", None)
        if tokenizer is None or getattr(pipeline, "text_encoder", None) is None:
            return None
        return tokenizer, tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()

    # Asking for pictures

    def embedded(self, pipeline: Any) -> bool:
        """Whether guidance is an input of the network instead of a mix of two predictions."""
        return getattr(getattr(pipeline, self.network).config, "time_cond_proj_dim", None) is not None

    def guided(self, pipeline: Any, settings: Settings) -> bool:
        """Whether the pipeline will evaluate the negative prompt beside the prompt."""
        return settings.guidance > 1 and not self.embedded(pipeline)

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        """Keywords of the call which draws `settings`, one picture each; they must share a :meth:`batch_key`.

        Generators and the kind of output are the caller's.
        """
        first = settings[0]
        prompts = [one.prompt for one in settings]
        return {
            "prompt": prompts[0] if len(prompts) == 1 else prompts,
            "num_inference_steps": first.steps,
            "width": first.width,
            "height": first.height,
            # With several, the recorder mixes the halves anew for each picture: any number that is on will do.
            **self._guidance(pipeline, first),
            **self._negative(settings),
        }

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"guidance_scale": settings.guidance}

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        negatives = [one.negative_prompt for one in settings]
        if not any(negatives):
            return {"negative_prompt": None}
        return {"negative_prompt": negatives[0] if len(negatives) == 1 else negatives}

    def batch_key(self, pipeline: Any, settings: Settings) -> Hashable:
        """Settings with equal keys can be drawn in one batch."""
        key: tuple[Hashable, ...] = (
            settings.steps,
            settings.sampler,
            settings.width,
            settings.height,
            self.guided(pipeline, settings),
            settings.adapters,
        )
        if not self.mixes or self.embedded(pipeline):
            key += (settings.guidance, bool(settings.negative_prompt))
        return key

    def least(self, pipeline: Any) -> int:
        """Fewest steps that the pipeline's loop can take, whatever the sampler."""
        return 1

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        """Plain sentences on what the pipeline makes of guidance and negative prompt."""
        notes = []
        g = f"{settings.guidance:g}"
        if self.embedded(pipeline):
            notes.append(f"The guidance of {g} is an input of this network, so it cannot be taken apart step by step.")
            if settings.negative_prompt:
                notes.append("The negative prompt is ignored: this network was distilled to do without.")
            return notes
        if settings.guidance <= 1:
            if settings.negative_prompt:
                notes.append(f"The negative prompt is ignored: it needs a guidance above 1, here it is {g}.")
            if settings.guidance < 1:
                notes.append(f"A guidance of {g} acts as 1: this pipeline turns it off at 1 and below.")
        return notes

    # Pixels

    @torch.no_grad()
    def decode(self, pipeline: Any, latents: torch.Tensor, *, final: bool = False) -> list[Image.Image]:
        """Unpacked latents (B, C, h, w) to pictures; only `final` ones are checked for safety or marked."""
        pixels, flags = self._pixels(pipeline, latents), None
        if final:
            pixels, flags = self._finished(pipeline, pixels, latents.dtype)
        clear = [True] * len(pixels) if flags is None else [not flag for flag in flags]
        images: list[Image.Image] = pipeline.image_processor.postprocess(
            pixels, output_type="pil", do_denormalize=clear
        )
        return images

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        vae = pipeline.vae
        pixels: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return pixels

    def _finished(
        self, pipeline: Any, pixels: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, Sequence[bool] | None]:
        checked: tuple[torch.Tensor, Sequence[bool] | None] = pipeline.run_safety_checker(
            pixels, pipeline._execution_device, dtype
        )
        return checked


class _LCM(Family):
    name = "lcm"
    pipelines = ("LatentConsistencyModelPipeline",)
    mixes = False

    def guided(self, pipeline: Any, settings: Settings) -> bool:
        return False

    def embedded(self, pipeline: Any) -> bool:
        return True

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        return {}


class _Unchecked(Family):
    """Families whose pipelines neither check nor mark their pictures."""

    def _finished(
        self, pipeline: Any, pixels: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, Sequence[bool] | None]:
        return pixels, None


class _SDXL(Family):
    name = "sdxl"
    pipelines = ("StableDiffusionXLPipeline",)

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


class _PixArt(_Unchecked):
    name = "pixart"
    pipelines: tuple[str, ...] = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    network = "transformer"

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        read = super().reader(pipeline)
        room = 120 if "Alpha" in type(pipeline).__name__ else 300  # max_sequence_length of the two calls
        return read and (read[0], room - read[0].num_special_tokens_to_add())

    def least(self, pipeline: Any) -> int:
        # PixArt-alpha reads a second value of the scheduler at its only step, which most schedulers do not give.
        return 2 if "Alpha" in type(pipeline).__name__ else 1

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        # The size asked for is the size drawn: no detour over the nearest size of the training set.
        made = {**super().arguments(pipeline, settings), "use_resolution_binning": False}
        if self.name == "pixart":
            # What the pipeline itself would do, without its paragraph of advice at every call.
            made["clean_caption"] = all(map(importlib.util.find_spec, ("bs4", "ftfy")))
        return made

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        negatives = [one.negative_prompt for one in settings]
        return {"negative_prompt": negatives[0] if len(negatives) == 1 else negatives}

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        return super()._pixels(pipeline, latents.to(pipeline.vae.dtype))


class _Sana(_PixArt):
    name = "sana"
    pipelines: tuple[str, ...] = ("SanaPipeline",)
    flow = True

    def multiple(self, pipeline: Any) -> int:
        return 32  # what SanaPipeline.check_inputs asks for, whatever its decoder

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        read = Family.reader(self, pipeline)
        return read and (read[0], 300 - read[0].num_special_tokens_to_add())


class _Kandinsky3(Family):
    name = "kandinsky3"
    pipelines = ("Kandinsky3Pipeline",)
    decoder = "movq"
    mixes = False

    def factor(self, pipeline: Any) -> int:
        return int(2 ** (len(pipeline.movq.config.block_out_channels) - 1))

    def multiple(self, pipeline: Any) -> int:
        return 64

    def size(self, pipeline: Any) -> tuple[int, int]:
        return 1024, 1024

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        read = super().reader(pipeline)
        return read and (read[0], 128 - read[0].num_special_tokens_to_add())

    def guided(self, pipeline: Any, settings: Settings) -> bool:
        return settings.guidance > 2

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"guidance_scale": settings.guidance - 1}

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        g = f"{settings.guidance:g}"
        if settings.guidance > 2:
            return [
                f"Kandinsky 3 counts guidance from 0: it was asked for {settings.guidance - 1:g}, which is {g} here."
            ]
        notes = [f"A guidance of {g} acts as 1: Kandinsky 3 turns it off at 2 and below."] if g != "1" else []
        if settings.negative_prompt:
            notes.append(f"The negative prompt is ignored: it needs a guidance above 2, here it is {g}.")
        return notes

    def decode(self, pipeline: Any, latents: torch.Tensor, *, final: bool = False) -> list[Image.Image]:
        with torch.no_grad():
            pixels = pipeline.movq.decode(latents, force_not_quantize=True)["sample"]
            pixels = (pixels * 0.5 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
            images: list[Image.Image] = pipeline.numpy_to_pil(pixels)
            return images


class _SD3(_Unchecked):
    name = "sd3"
    pipelines = ("StableDiffusion3Pipeline",)
    network = "transformer"
    flow = True

    def multiple(self, pipeline: Any) -> int:
        return self.factor(pipeline) * int(pipeline.patch_size)

    def size(self, pipeline: Any) -> tuple[int, int]:
        side = int(pipeline.default_sample_size) * self.factor(pipeline)
        return side, side

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        if getattr(pipeline, "text_encoder_3", None) is not None and pipeline.tokenizer_3 is not None:
            tokenizer = pipeline.tokenizer_3  # T5 reads on where both CLIPs have stopped
            return tokenizer, 256 - tokenizer.num_special_tokens_to_add()
        return super().reader(pipeline)

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        vae = pipeline.vae
        pixels: torch.Tensor = vae.decode(
            (latents / vae.config.scaling_factor) + vae.config.shift_factor, return_dict=False
        )[0]
        return pixels


class _Flux(_SD3):
    name = "flux"
    pipelines = ("FluxPipeline",)
    mixes = False

    def multiple(self, pipeline: Any) -> int:
        return 2 * self.factor(pipeline)

    def unpack(self, pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        unpacked: torch.Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
        return unpacked

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        tokenizer = getattr(pipeline, "tokenizer_2", None)
        if tokenizer is None or getattr(pipeline, "text_encoder_2", None) is None:
            return None
        return tokenizer, 512 - tokenizer.num_special_tokens_to_add()

    def embedded(self, pipeline: Any) -> bool:
        return True

    def _negative(self, settings: Sequence[Settings]) -> dict[str, Any]:
        return {}

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        notes = super().notes(pipeline, settings)
        if not pipeline.transformer.config.guidance_embeds:
            notes[0] = "Guidance does nothing here: this network was distilled to do without."
        return notes


class _QwenImage(_Flux):
    name = "qwen"
    pipelines = ("QwenImagePipeline",)

    def channels(self, pipeline: Any) -> int:
        return int(pipeline.vae.config.z_dim)

    def unpack(self, pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return super().unpack(pipeline, latents, width, height).squeeze(2)

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        read = Family.reader(self, pipeline)
        return read and (read[0], int(pipeline.tokenizer_max_length))

    def embedded(self, pipeline: Any) -> bool:
        return False

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"true_cfg_scale": settings.guidance}

    def arguments(self, pipeline: Any, settings: Sequence[Settings]) -> dict[str, Any]:
        made = super().arguments(pipeline, settings)
        if self.guided(pipeline, settings[0]):
            # Without a negative prompt this pipeline leaves guidance off; its own examples pass a blank one.
            negatives = [one.negative_prompt or " " for one in settings]
            made["negative_prompt"] = negatives[0] if len(negatives) == 1 else negatives
        return made

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        return Family.notes(self, pipeline, settings)

    def _pixels(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        vae = pipeline.vae
        shape = (1, int(vae.config.z_dim), 1, 1, 1)
        latents = latents.unsqueeze(2).to(vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(shape).to(latents.device, latents.dtype)
        # Divided by the inverse, as the pipeline does: the other way round differs in the last bit.
        inverse = 1.0 / torch.tensor(vae.config.latents_std).view(shape).to(latents.device, latents.dtype)
        pixels: torch.Tensor = vae.decode(latents / inverse + mean, return_dict=False)[0][:, :, 0]
        return pixels


class _ZImage(_SD3):
    name = "zimage"
    pipelines = ("ZImagePipeline",)
    mixes = False

    def multiple(self, pipeline: Any) -> int:
        return 2 * self.factor(pipeline)

    def size(self, pipeline: Any) -> tuple[int, int]:
        return 1024, 1024

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        read = Family.reader(self, pipeline)
        return read and (read[0], 512)

    def embedded(self, pipeline: Any) -> bool:
        return False

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


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(), _SDXL(), _SD3(), _Flux(), _Kandinsky3(), _LCM(), _PixArt(), _Sana(), _ZImage(), _QwenImage(),
    )
}  # fmt: skip
"""All families by name."""


def known_pipelines() -> list[str]:
    """Names of the diffusers classes that can be opened."""
    return [name for family in FAMILIES.values() for name in family.pipelines]


def family_of(pipeline: type) -> Family:
    """The family of a pipeline's class.

    Raises:
        ValueError: one sentence, for a class that belongs to none.
    """
    for cls in pipeline.__mro__:
        for family in FAMILIES.values():
            if cls.__name__ in family.pipelines:
                return family
    raise ValueError(f"a pipeline must be one of {', '.join(known_pipelines())}, got {shown(pipeline.__name__)}")
