"""What a family of pipelines is: all that differs between diffusers' text-to-image pipelines, in one form.

A family knows how to ask its pipelines for a picture (one meaning of *guidance* for all of them, see below), the
layout of their latents, and how those are decoded, through the very calls of the pipeline's own end, so that a
picture decoded here is bit-identical to the pipeline's.

Guidance is always ``noise = uncond + g (cond - uncond)`` (Ho & Salimans 2022, arXiv 2207.12598), so 1 is off.
Kandinsky 3 and Z-Image compute ``cond + g (cond - uncond)`` and are asked for one less. Networks that were distilled
for guidance (Flux dev, LCM; Meng et al. 2022, arXiv 2210.03142) take the number as an input: there it is passed on,
nothing can be split, and :meth:`Family.notes` says so.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from diffexplore.pipelines.signature import Extra, extras_of
from diffexplore.pipelines.texts import Text, texts_of
from diffexplore.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Family", "Unchecked", "denoisers"]

# Where pipelines keep the networks of their loops. Two-stage ones (Wan, Stable Cascade) have several, of which
# whichever ran counts.
_DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")


def denoisers(pipeline: Any) -> list[torch.nn.Module]:
    """The network(s) that a pipeline's loop evaluates, of whatever class it is, the main one first."""
    found = (getattr(pipeline, name, None) for name in _DENOISERS)
    return [module for module in found if isinstance(module, torch.nn.Module)]


class Family:
    """Stable Diffusion 1.x and 2.x, and what most families share with it.

    Attributes:
        name: what the sampler menu calls it.
        pipelines: diffusers classes that belong to it; subclasses of theirs do too.
        network: name of the component that denoises.
        decoder: name of the component that makes pixels of latents.
        scheduler: name of the component that steps.
        flow: whether its networks were trained by flow matching instead of diffusion.
        mixes: whether pictures of different guidance and negative prompts can share a batch.
        reads: names of the tokenizer and the text encoder that decide how much of a prompt is read.
        limit: how many tokens of a prompt its call takes; None: as many as the tokenizer says.
        fewest: steps that the pipeline's loop takes at least.
        usual_steps: how many a first look takes.
        unguided: the largest guidance at which the pipeline leaves the negative prompt out.
        order: the places of the predictions with and without the prompt among the network's answers at a step, where
            the mix that the pipeline makes of them does not tell.
        spaces: whether its pipelines hand noise levels to their scheduler when they are called.
        looked: whether nothing is known of its pipelines but what is found by looking (``any.Looked``).
    """

    name = "sd"
    pipelines: tuple[str, ...] = ("StableDiffusionPipeline",)
    network = "unet"
    decoder = "vae"
    scheduler = "scheduler"
    flow = False
    mixes = True
    reads = ("tokenizer", "text_encoder")
    limit: int | None = None
    fewest = 1
    usual_steps = 20
    unguided = 1
    order: tuple[int, int] | None = None
    spaces = False
    looked = False

    # Parts

    def networks(self, pipeline: Any) -> list[torch.nn.Module]:
        """All networks that the pipeline's loop evaluates, the main one first."""
        return denoisers(pipeline)

    def lacking(self, pipeline: Any) -> str:
        """What its pipeline has not and cannot draw a picture without, one sentence without a full stop; "" where all
        is there.
        """
        if self.looked:
            return ""
        title = type(pipeline).__name__
        if self.reader(pipeline) is None:
            return f"a pipeline needs a tokenizer and a text encoder, got a {title} without"
        for name, what in ((self.network, "a network that denoises"), (self.decoder, "a decoder of its latents")):
            if getattr(pipeline, name, None) is None:
                return f"a pipeline needs {what} ({name}), got a {title} without"
        return ""

    def wanting(self, pipeline: Any, given: Collection[str] = ()) -> str:
        """What its pipeline asks for beside settings, of arguments that are not in `given`, one sentence without a full
        stop; "" where nothing is missing.
        """
        network = getattr(pipeline, self.network, None)
        config = getattr(network, "config", None)
        pictures = ("ip_adapter_image", "ip_adapter_image_embeds")
        named = next((name for name in pictures if name in given), "")
        optional = getattr(network, "image_proj", None) is not None  # Stable Diffusion 3's goes without a picture too
        if getattr(config, "encoder_hid_dim_type", None) != "ip_image_proj" and not optional:
            return f"{named} is for an IP-Adapter, and this pipeline has none: pipeline.load_ip_adapter()" * bool(named)
        if named == pictures[0] and getattr(pipeline, "image_encoder", None) is None:
            return f"{named} needs an image encoder, and this pipeline has none: hand over {pictures[1]}"
        if named or optional:
            return ""
        return (
            f"this pipeline has an IP-Adapter, which needs a picture ({' or '.join(pictures)}): "
            "take it out with pipeline.unload_ip_adapter()"
        )

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
        """Names of the axes of one picture's latents, as :meth:`unpack` gives them; height and width last."""
        return "channels", "height", "width"

    def unpack(self, pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """The pipeline's own latents as (B, C, *axes, h, w); a view where the layout allows it."""
        return latents

    def pack(self, pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
        """What :meth:`unpack` undoes: latents (B, C, *axes, h, w) as the pipeline's loop keeps them, to the bit."""
        return latents

    # What it can do

    def extras(self, pipeline: Any) -> list[Extra]:
        """What a run takes beyond settings: what the pipeline's call does, and, where there is an encoder for it, a
        picture to start from and a mask of what of it is drawn anew.
        """
        settled = self.arguments(pipeline, [Settings(width=8, height=8)])
        found = extras_of(pipeline, [name for name in settled if "guidance" in name or "cfg" in name])
        ours = [Extra(name, "picture", None, False) for name in ("image", "mask")]
        return found if self.blind(pipeline) else [*ours, *found]

    def abilities(self, pipeline: Any) -> dict[str, bool | str | None]:
        """What it can do: True, or one sentence why not."""
        built_in = "Guidance is an input of this network, so there is one prediction at each step."
        embedded = self.embedded(pipeline)
        blind = self.blind(pipeline)
        return {
            "prompt": True,
            "negative_prompt": not embedded or built_in,
            "guidance": True,
            "size": True,
            "image": f"{blind[0].upper()}{blind[1:]}." if blind else True,
            "split": not embedded or built_in,
            "layout": True,
            "decode": True,
            "batch": True,
            "samplers": True,
        }

    # Words

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        """The tokenizer that decides how much of a prompt is read, and for how many tokens there is room; None
        where the pipeline cannot read prompts.
        """
        tokenizer, encoder = (getattr(pipeline, name, None) for name in self.reads)
        return None if tokenizer is None or encoder is None else (tokenizer, self.room(pipeline, tokenizer))

    def room(self, pipeline: Any, tokenizer: Any) -> int:
        """For how many tokens of a prompt there is room."""
        limit = tokenizer.model_max_length if self.limit is None else self.limit
        return int(limit - tokenizer.num_special_tokens_to_add())

    def texts(self, pipeline: Any, prompt: str, extra: Mapping[str, Any], *, negative: bool = False) -> list[Text]:
        """What encoders are given of a prompt, in the order of the vectors that the network reads; [] where nobody
        knows.

        Args:
            pipeline: the pipeline.
            prompt: a prompt.
            extra: arguments of the call beyond settings.
            negative: whether it is a negative one.
        """
        reader = self.reader(pipeline)
        network = getattr(pipeline, self.network)
        return [] if reader is None else texts_of(pipeline, network, reader[0], prompt, extra, negative=negative)

    # Asking for pictures

    def embedded(self, pipeline: Any) -> bool:
        """Whether guidance is an input of the network instead of a mix of two predictions."""
        return getattr(getattr(pipeline, self.network).config, "time_cond_proj_dim", None) is not None

    def guided(self, pipeline: Any, settings: Settings) -> bool:
        """Whether the pipeline will evaluate the negative prompt beside the prompt."""
        return settings.guidance > self.unguided and not self.embedded(pipeline)

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
            settings.skips,
            settings.sigmas,
            settings.fresh_noise,
        )
        if not self.mixes or self.embedded(pipeline):
            key += (settings.guidance, bool(settings.negative_prompt))
        stages = settings.stages()
        if len(stages) > 1:  # pictures that change on their way do so together
            key += tuple((mark, stage.guidance, self.batch_key(pipeline, stage)) for mark, stage in stages)
        return key

    def least(self, pipeline: Any) -> int:
        """Fewest steps that the pipeline's loop can take, whatever the sampler."""
        return self.fewest

    def ignored(self, pipeline: Any, settings: Settings) -> dict[str, str]:
        """Which settings the pipeline passes over, by name, and why, one sentence each."""
        if not settings.negative_prompt or self.guided(pipeline, settings):
            return {}
        if self.embedded(pipeline):
            return {"negative_prompt": "The negative prompt is ignored: this network was distilled to do without."}
        least, g = self.unguided, f"{settings.guidance:g}"
        return {
            "negative_prompt": f"The negative prompt is ignored: it needs a guidance above {least}, here it is {g}."
        }

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        """Plain sentences on what the pipeline makes of guidance and negative prompt."""
        notes = []
        g = f"{settings.guidance:g}"
        ignored = self.ignored(pipeline, settings).values()
        if self.embedded(pipeline):
            notes.append(f"The guidance of {g} is an input of this network, so it cannot be taken apart step by step.")
            return [*notes, *ignored]
        notes += ignored
        if settings.guidance < 1:
            notes.append(f"A guidance of {g} acts as 1: this pipeline turns it off at 1 and below.")
        return notes

    # Pixels

    def blind(self, pipeline: Any) -> str:
        """Why a run cannot start from a picture, one sentence without a full stop; "" where it can."""
        encoder = getattr(pipeline, self.decoder, None)
        if getattr(encoder, "encoder", None) is None:
            return f"a {type(pipeline).__name__} has no encoder for pictures"
        return ""

    @torch.no_grad()
    def encode(self, pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) from -1 to 1 as latents (B, C, h, w) float32 on the CPU, scaled as the network knows
        them: the inverse of what is done before they are decoded.

        Most encoders give a distribution; its mode is taken, so that a picture has one code.
        """
        vae = getattr(pipeline, self.decoder)
        if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
            # It would overflow in half precision. A copy, since another thread may be decoding with this one.
            vae = copy.deepcopy(vae).float()
        coded = self._coded(vae, pixels.to(pipeline._execution_device, vae.dtype))
        return self._scaled(vae, coded.float().cpu())

    def _coded(self, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
        """What an encoder makes of pictures, not scaled yet."""
        coded = vae.encode(pixels)
        # AutoencoderKL gives a distribution, the others the latents themselves, by one of three names.
        if hasattr(coded, "latent_dist"):
            mode: torch.Tensor = coded.latent_dist.mode()
            return mode
        latents: torch.Tensor = coded.latent if hasattr(coded, "latent") else coded.latents
        return latents

    def _scaled(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        config = vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            latents = (latents - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        else:
            latents = latents - float(config.get("shift_factor") or 0.0)
        return latents * float(config.scaling_factor)

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


class Unchecked(Family):
    """Families whose pipelines neither check nor mark their pictures."""

    def _finished(
        self, pipeline: Any, pixels: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, Sequence[bool] | None]:
        return pixels, None
