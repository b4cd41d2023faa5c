"""A pipeline that nobody knows: a transformer, a packing and a scheduler of its own, guidance as two calls and counted
from 0. It was made up for these tests; no family can have it."""

from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from PIL import Image
from tiny_families import characters, t5, vae


class Answer(BaseOutput):
    images: list


class Weaver(torch.nn.Module):
    """Tokens, words and a time in, a velocity out."""

    def __init__(self, width: int = 16, words: int = 16) -> None:
        super().__init__()
        self.into, self.words, self.time = (
            torch.nn.Linear(width, 24),
            torch.nn.Linear(words, 24),
            torch.nn.Linear(1, 24),
        )
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(24, 24) for _ in range(2))
        self.out = torch.nn.Linear(24, width)

    @property
    def dtype(self) -> torch.dtype:
        return self.out.weight.dtype

    def forward(self, tokens: torch.Tensor, when: torch.Tensor, words: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.into(tokens) + self.words(words).mean(1, keepdim=True) + self.time(when.reshape(-1, 1, 1))
        for block in self.blocks:
            seen = seen + torch.tanh(block(seen))
        return {"velocity": self.out(seen)}


class SlowEuler(FlowMatchEulerDiscreteScheduler):
    """A scheduler that nobody knows by its name."""


class HandmadePipeline(DiffusionPipeline):
    """Draws in tokens of 2 x 2 latents, their numbers channels last."""

    model_cpu_offload_seq = "reads->weaver->vae"

    def __init__(self, weaver: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(
            weaver=weaver, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler
        )
        self.vae_scale_factor = 4
        self.pictures = VaeImageProcessor(vae_scale_factor=4)

    def _read(self, text: str) -> torch.Tensor:
        ids = self.tokenizer(text or " ", return_tensors="pt").input_ids
        return self.text_encoder(ids).last_hidden_state

    def next_of(self, x: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """The latents after a step."""
        return made

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        negative_prompt: str = "",
        num_inference_steps: int = 8,
        guidance_scale: float = 3.0,
        width: int = 48,
        height: int = 32,
        warmth: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Answer:
        h, w = height // 4, width // 4
        x = torch.randn(1, 4, h, w, generator=generator)
        x = x.reshape(1, 4, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(1, h * w // 4, 16)
        with_prompt, without = self._read(prompt) * warmth, self._read(negative_prompt)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            when = (t / 1000).reshape(1)
            velocity = self.weaver(x, when, with_prompt)["velocity"]
            if guidance_scale > 0:
                velocity = velocity + guidance_scale * (velocity - self.weaver(x, when, without)["velocity"])
            x = self.next_of(x, self.scheduler.step(velocity, t, x, return_dict=False)[0])
        x = x.reshape(1, h // 2, w // 2, 2, 2, 4).permute(0, 5, 1, 3, 2, 4).reshape(1, 4, h, w)
        pixels = self.vae.decode(x / self.vae.config.scaling_factor, return_dict=False)[0]
        return Answer(images=self.pictures.postprocess(pixels, output_type="pil"))


class DemandingPipeline(HandmadePipeline):
    """Cannot do without a picture, and takes arguments of every kind."""

    def __call__(
        self,
        prompt: str,
        image: Image.Image,
        strength: float = 0.8,
        mask_image: Image.Image | None = None,
        warmth: float = 0,
        repeats: int | None = None,
        style: str = "plain",
        bright: bool = False,
        weights: list[float] | None = None,
        num_inference_steps: int = 8,
        guidance_scale: float = 3.0,
        generator: torch.Generator | None = None,
    ) -> Answer:
        if style not in ("plain", "bold"):
            raise KeyError(style)
        red = float(VaeImageProcessor(vae_scale_factor=4).preprocess(image)[:, 0].mean())
        return super().__call__(
            prompt, "", num_inference_steps, guidance_scale, warmth=1 + strength * red + warmth + bright,
            generator=generator,
        )  # fmt: skip


def handmade(cls: type[HandmadePipeline] = HandmadePipeline) -> HandmadePipeline:
    """One with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return cls(Weaver().eval(), vae(scaling_factor=0.5), t5(), characters(), SlowEuler(shift=3.0))
