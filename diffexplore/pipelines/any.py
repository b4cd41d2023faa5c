"""A pipeline of no named family, found by looking.

Whatever denoises with a scheduler (something with ``step`` and ``set_timesteps``) and networks can be opened. What its
call takes is read from its signature; what it does is seen in its first run and kept for the next: which networks
denoise, how its latents lie, from where it counts guidance. What cannot be found out is None, and
:meth:`Looked.abilities` says why.

Its picture comes out of its own call, to the last pixel; an estimate is decoded by the same call, made again with the
networks answering from the record (``runs.replay``).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from diffexplore.pipelines.base import Family
from diffexplore.pipelines.layout import Grid, Layout, found, supposed
from diffexplore.pipelines.signature import Extra, arguments_of, check_extra, extras_of, is_modular
from diffexplore.record.record import Record
from diffexplore.settings import Settings
from diffexplore.words import shown

__all__ = ["Looked", "schedulers_of"]

_FIRST = ("unet", "transformer", "prior", "decoder")
_DECODERS = ("vae", "vqvae", "movq", "vqgan", "image_vae", "video_vae", "audio_vae")
_ENCODERS = (
    "text_encoder",
    "tokenizer",
    "image_encoder",
    "feature_",
    "safety_",
    "prior_text",
    "prior_image",
    "vocoder",
)
_RESAID = ("intermediate_timesteps", "max_area")  # arguments of settings in the words of few pipelines
_GUIDANCE = ("guidance_scale", "true_cfg_scale", "cfg_scale", "prior_guidance_scale", "text_guidance_scale")


def schedulers_of(pipeline: Any) -> dict[str, Any]:
    """Component name -> scheduler, of all that can step, the main one first."""
    steps = {
        name: part
        for name, part in pipeline.components.items()
        if callable(getattr(part, "step", None)) and hasattr(part, "set_timesteps")
    }
    return dict(sorted(steps.items(), key=lambda one: one[0] != "scheduler"))


def _networks_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Component name -> network, of all that may denoise, the likeliest first."""
    found = {}
    for name, part in pipeline.components.items():
        coder = callable(getattr(part, "encode", None)) and callable(getattr(part, "decode", None))
        if isinstance(part, torch.nn.Module) and not coder and not name.startswith(_ENCODERS):
            found[name] = part
    own = {name: part for name, part in found.items() if not type(part).__module__.startswith("transformers.")}
    found = own or found

    def rank(name: str) -> tuple[int, int]:
        helps = any(word in name for word in ("controlnet", "adapter", "projection", "connector", "upsampl"))
        return helps, next((k for k, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST))

    return dict(sorted(found.items(), key=lambda one: rank(one[0])))


class Looked(Family):
    """What is known of one pipeline, from its signature and from its runs.

    Attributes:
        offset: what guidance is asked for less than meant: 1 where the pipeline counts it from 0.
        measured: how guidance was mixed in the last run, one sentence; "" before.
        denoising: the names of the networks that denoised; empty before the first run.
        stages: what ran before the steps that are recorded, in words.
        kind: what its call gave: "picture", "video", "sound" or "numbers"; "" before.
    """

    name = "any"
    mixes = False
    looked = True

    def __init__(self, pipeline: Any) -> None:
        """Look at a pipeline.

        Raises:
            ValueError: one sentence, for one that has no scheduler to step with, or no network that could denoise.
        """
        title = type(pipeline).__name__
        parts = getattr(pipeline, "components", None)
        if not isinstance(parts, Mapping) or not callable(pipeline):
            raise ValueError(f"a pipeline must have components and be called, got {shown(title)}")
        if not schedulers_of(pipeline):
            raise ValueError(f"a pipeline must denoise with a scheduler that steps, {shown(title)} has none")
        networks = _networks_of(pipeline)
        if not networks:
            raise ValueError(f"a pipeline must have a network that denoises, {shown(title)} has none")
        self._takes = self.takes = arguments_of(pipeline)
        if not {"num_inference_steps", "timesteps", "sigmas"} & self._takes.keys():
            raise ValueError(f"a pipeline must take a number of steps, the call of {shown(title)} has no word for it")
        self.network = next(iter(networks))
        self.decoder = next((name for name in _DECODERS if parts.get(name) is not None), "")
        self.scheduler = next(iter(schedulers_of(pipeline)))
        self.flow = False
        self.offset = 0
        self.measured = ""
        self.embeds: bool | None = None
        self.denoising: tuple[str, ...] = ()
        self.stages: tuple[str, ...] = ()
        # A call that takes a length in seconds makes a sound: it is known before the first run.
        self.kind = "sound" if {"audio_length_in_s", "audio_end_in_s"} & self._takes.keys() else ""
        self.decodes: bool | None = None
        self._last_shape: tuple[int, ...] = ()
        self._layouts: dict[tuple[int, ...], tuple[Layout, Grid, bool]] = {}
        self._guided_by = self._guidance_argument()
        # The objects that mix predictions in modular pipelines, and in a few others.
        guiders = [part for name, part in parts.items() if "guider" in name and part is not None]
        self._mixer = type(guiders[0]).__name__ if guiders and not self._guided_by else ""
        self.guider = bool(self._mixer) and is_modular(pipeline)

    # What its call takes

    def _guidance_argument(self) -> str:
        default = self._takes["true_cfg_scale"].default if "true_cfg_scale" in self._takes else None
        if isinstance(default, int | float) and default > 1:
            return "true_cfg_scale"  # the other word is for networks that take guidance as an input
        return next((name for name in _GUIDANCE if name in self._takes), "")

    @property
    def ours(self) -> tuple[str, ...]:
        """Names of arguments that settings decide, beyond those that all pipelines have."""
        return (self._guided_by,) if self._guided_by else ()

    def extras(self, pipeline: Any) -> list[Extra]:
        """What the pipeline takes beyond settings."""
        return extras_of(pipeline, self.ours)

    def check(self, pipeline: Any, extra: Mapping[str, Any]) -> None:
        """Whether these arguments can be handed to the pipeline beside settings.

        Raises:
            ValueError: one sentence.
        """
        check_extra(pipeline, extra, self.ours)

    def arguments(
        self, pipeline: Any, settings: Sequence[Settings], extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Keywords of the call which draws the first of `settings`, with `extra` ones; a generator is the caller's."""
        first, extra, takes = settings[0], dict(extra or {}), self._takes
        given: dict[str, Any] = {"num_inference_steps": first.steps}
        embedded = any(name.endswith("prompt_embeds") or name == "prompt_embeds" for name in extra)
        if first.prompt or not embedded:
            given["prompt"] = first.prompt
        if first.negative_prompt:
            given["negative_prompt"] = first.negative_prompt
        elif self._guided_by == "true_cfg_scale" and self.guided(pipeline, first) and not embedded:
            given["negative_prompt"] = " "  # without one these pipelines leave guidance off
        if first.width and first.height:
            given |= {"width": first.width, "height": first.height, "use_resolution_binning": False}
            # Flux Kontext keeps no more of a size than its shape, and draws so many pixels.
            given["max_area"] = first.width * first.height
        given |= self._guidance(pipeline, first)
        if first.steps != 2:
            given["intermediate_timesteps"] = None  # of Sana Sprint, whose default is for two steps alone
        return {name: value for name, value in given.items() if name in takes} | extra

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {self._guided_by: max(0.0, settings.guidance - self.offset)} if self._guided_by else {}

    def asked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Of the arguments of a call, those by which settings are said in the pipeline's own words."""
        return {name: value for name, value in arguments.items() if name in (*self.ours, *_RESAID)}

    def batch_key(self, pipeline: Any, settings: Settings) -> Hashable:
        return object()  # one at a time: nobody knows what shares a call here

    def embedded(self, pipeline: Any) -> bool:
        return bool(self.embeds)

    def guided(self, pipeline: Any, settings: Settings) -> bool:
        return settings.guidance > 1 and bool(self._guided_by) and not self.embeds

    # Parts

    def networks(self, pipeline: Any) -> list[torch.nn.Module]:
        return list(_networks_of(pipeline).values())

    def named(self, pipeline: Any) -> dict[str, torch.nn.Module]:
        """Component name -> network, of all that may denoise."""
        return _networks_of(pipeline)

    # Sizes and layout

    def factor(self, pipeline: Any) -> int:
        said = getattr(pipeline, "vae_scale_factor", None) or getattr(pipeline, "vae_scale_factor_spatial", None)
        blocks = getattr(getattr(getattr(pipeline, self.decoder, None), "config", None), "block_out_channels", None)
        if isinstance(said, int | float) and said >= 1:
            return int(said)
        return int(2 ** (len(blocks) - 1)) if blocks else 1

    def multiple(self, pipeline: Any) -> int:
        return 8  # what settings ask for; the pipeline itself says what else it needs

    def size(self, pipeline: Any) -> tuple[int, int]:
        width, height = (self._takes[name].default if name in self._takes else None for name in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int):
            return width, height
        side = getattr(pipeline, "default_sample_size", None)
        if side is None:
            side = getattr(getattr(getattr(pipeline, self.network, None), "config", None), "sample_size", None)
        if isinstance(side, int):
            side = (side, side)
        if isinstance(side, Sequence) and len(side) == 2 and all(isinstance(one, int) and one > 0 for one in side):
            return side[1] * self.factor(pipeline), side[0] * self.factor(pipeline)
        return 512, 512

    def sized(self) -> bool:
        """Whether a width and a height can be asked for."""
        return {"width", "height"} <= self._takes.keys()

    def channels(self, pipeline: Any) -> int:
        return self._decoded_channels(pipeline) or 1

    def _decoded_channels(self, pipeline: Any) -> int | None:
        config = getattr(getattr(pipeline, self.decoder, None), "config", None)
        for name in ("latent_channels", "z_dim"):
            if isinstance(getattr(config, name, None), int):
                return int(getattr(config, name))
        return None

    def layout(
        self, pipeline: Any, latents: torch.Tensor, width: int | None, height: int | None
    ) -> tuple[Layout, Grid]:
        """How a batch of latents lies, as far as is known by now."""
        known = self._layouts.get(tuple(latents.shape[1:]))
        if known is not None:
            return known[:2]
        factor = self.factor(pipeline)
        sides = (height or self.size(pipeline)[1], width or self.size(pipeline)[0])
        h, w = (math.ceil(side / factor) for side in sides)
        if not self.sized():
            h = w = math.isqrt(latents[0].numel() // (latents.shape[-1] or 1)) if latents.ndim == 3 else 0
        if getattr(self, "kind", "") == "sound" or (latents.ndim == 3 and not self.sized()):
            h = w = 0
        return supposed(latents.shape[1:], self._decoded_channels(pipeline), h, w)

    def unpack(
        self, pipeline: Any, latents: torch.Tensor, width: int | None = None, height: int | None = None
    ) -> torch.Tensor:
        layout, grid = self.layout(pipeline, latents, width, height)
        return layout.unpack(latents, grid)

    def learn_layout(self, kept: torch.Tensor, taken: Sequence[torch.Tensor]) -> bool:
        """See how the last latents became what the decoder was given; whether that tells more than was known."""
        shape = self._last_shape = tuple(kept.shape[1:])
        before = self._layouts.get(shape)
        for one in reversed(taken):
            seen = found(kept, one)
            if seen is not None and (before is None or seen[2] or not before[2]):
                self._layouts[shape] = seen
                return before is None or before[:2] != seen[:2]
        return False

    def layout_known(self, shape: Sequence[int]) -> bool | None:
        """Whether the layout of latents of a shape was seen in numbers; None where it is supposed."""
        known = self._layouts.get(tuple(shape))
        return None if known is None else known[2]

    def axes(self, pipeline: Any) -> tuple[str, ...]:
        return ()

    def axes_of(self, shape: Sequence[int]) -> tuple[str, ...]:
        """Names of the axes of latents of a shape (C, *axes, h, w)."""
        names: dict[int, tuple[str, ...]] = {
            1: ("values",),
            2: ("channels", "time") if self.kind == "sound" else ("tokens", "values"),
            3: ("channels", "height", "width"),
            4: ("channels", "frames", "height", "width"),
        }
        if len(shape) == 3 and self.kind == "sound":
            return "channels", "time", "frequency"
        return names.get(len(shape), ("channels", *(f"axis {k}" for k in range(1, len(shape) - 2)), "height", "width"))

    # Words

    def reader(self, pipeline: Any) -> tuple[Any, int] | None:
        for name in ("tokenizer_3", "tokenizer_2", "tokenizer", "tokenizer_4"):
            tokenizer = getattr(pipeline, name, None)
            encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
            if tokenizer is None or encoder is None or not getattr(tokenizer, "is_fast", False):
                continue
            return tokenizer, self.room(pipeline, tokenizer)
        return None

    def room(self, pipeline: Any, tokenizer: Any) -> int:
        said = self._takes["max_sequence_length"].default if "max_sequence_length" in self._takes else None
        limit = said if isinstance(said, int) else min(int(tokenizer.model_max_length), 10**6)
        return max(1, limit - int(tokenizer.num_special_tokens_to_add()))

    def ignored(self, pipeline: Any, settings: Settings) -> dict[str, str]:
        made = {}
        if settings.prompt and "prompt" not in self._takes:
            made["prompt"] = "The prompt is ignored: this pipeline takes none."
        if settings.negative_prompt and "negative_prompt" not in self._takes:
            made["negative_prompt"] = "The negative prompt is ignored: this pipeline takes none."
        elif settings.negative_prompt and settings.guidance <= 1:
            made["negative_prompt"] = "The negative prompt may be ignored: most pipelines need guidance for it."
        return made

    def notes(self, pipeline: Any, settings: Settings) -> list[str]:
        notes = list(self.ignored(pipeline, settings).values())
        if self.guider:
            notes.append(f"Guidance is set on a copy of this pipeline's own guider ({self._mixer}).")
        if self._mixer and not self.guider:
            notes.append(f"Guidance is left to this pipeline's own guider ({self._mixer}), as it came.")
        elif not self._guided_by and not self.guider:
            notes.append("This pipeline takes no guidance that settings could set.")
        if self.offset and settings.guidance > 1:
            asked = f"{settings.guidance - self.offset:g}"
            notes.append(
                f"This pipeline counts guidance from 0: it was asked for {asked}, which is {settings.guidance:g} here."
            )
        return notes

    def counted(self, settings: Settings) -> list[str]:
        """What there is to say once it was seen from where the pipeline counts guidance."""
        return [one for one in self.notes(None, settings) if "counts guidance" in one]

    def told(self, record: Record, trouble: str) -> list[str]:
        """Plain sentences on what a run has shown."""
        notes = [trouble] if trouble else []
        if self.stages:
            notes.append(f"Before these steps the pipeline took {' and '.join(self.stages)}.")
        if not len(record) and not trouble:
            notes.append("No step of its scheduler was seen, so there are no steps to show.")
        if self.embeds and self._guided_by:
            notes.append("One prediction at each step: guidance is an input of this network, or does nothing here.")
        elif len(record) and self.measured not in ("", "both"):
            notes.append(self.measured)
        if len(record) and self.layout_known(self._last_shape) is None and self.kind in ("picture", "video"):
            notes.append("How its latents lie was not seen in what its decoder was given: taken from their shape.")
        return notes

    # What is known of it

    def abilities(self, pipeline: Any) -> dict[str, bool | str | None]:
        """What it can do: True, or one sentence why not; None for what its first run will tell."""
        takes = self._takes
        pictures = [one.name for one in self.extras(pipeline) if one.kind == "picture"]
        shapes = list(self._layouts.values())
        return {
            "prompt": "prompt" in takes or "It takes no prompt.",
            "negative_prompt": "negative_prompt" in takes or "It takes no negative prompt.",
            "guidance": bool(self._guided_by) or self.guider or "Its call has no word for guidance that is known here.",
            "size": self.sized() or "Its pictures have the size of what they are made from, or one of its own.",
            "image": bool(pictures) or "Its call takes no picture.",
            "split": None if not self.denoising else self.measured in ("", "both") or self.measured,
            "layout": None if not self.denoising else bool(shapes) or "How its latents lie in a picture was not found.",
            "decode": None
            if self.decodes is None
            else self.decodes or "A call with recorded answers does not end on the same picture.",
            "batch": "It draws one at a time: what can share a call is not known.",
            "samplers": "It draws with the scheduler that it came with.",
        }

    def looks(self, pipeline: Any) -> dict[str, Any]:
        """What was found, as plain facts for ``trace.info``."""
        return {
            "networks": list(self.denoising),
            "stages": list(self.stages),
            "guidance_argument": self._guided_by,
            "guidance_offset": self.offset,
            "modular": is_modular(pipeline),
            "layouts": {"x".join(map(str, shape)): one[0].name for shape, one in self._layouts.items()},
        }
