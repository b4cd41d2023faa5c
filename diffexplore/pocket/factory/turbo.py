"""The fast model: the pocket model distilled to one to four steps.

A *consistency* model answers, at any point of a sampler's path, with the end of that path. The student starts as a copy
of its teacher and learns from steps of it: from a noised latent the teacher takes one step down, with guidance, and the
student's answer before it shall be its own answer after it. How strong the guidance is goes into the student as a
number, so one evaluation of it stands for two of the teacher's and guidance can still be chosen.

The steps are long at first, so that what is known at the end of a path soon reaches its beginning, and become shorter.
Later a `critic` is heard as well: the student shall not answer with the mean of what may come, but with one of it.

Sources: consistency models, https://arxiv.org/abs/2303.01469; latent consistency models, https://arxiv.org/abs/2310.04378;
no average on the target's side and the loss, https://arxiv.org/abs/2310.14189.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexplore.pocket.factory import unet as pocket
from diffexplore.pocket.factory.critic import Critic, along, make_heads, set_against
from diffexplore.pocket.factory.latents import Latents
from diffexplore.pocket.factory.stage import Budget, Stage
from diffexplore.pocket.factory.unet import SHOWS, attention

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, LCMScheduler
    from transformers import CLIPTokenizer

SIGMA_DATA, SCALING = 0.5, 10.0
"""What `LCMScheduler` mixes a sample and the answer by: near the end of a path the answer is the sample itself."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out; `steps` None: as long as the budget's minutes last.

    `critic` is the length of the critic's gradient at the answer, as a share of that of the distillation; it learns
    from the beginning and is heard from the share `judged` of the budget on.
    """

    seed: int = 2026
    pocket: pocket.Recipe = pocket.RECIPE
    embedding: int = 64
    guidance: tuple[float, float] = (1.0, 9.0)
    leaps: tuple[float, float] = (100.0, 25.0)
    huber: float = 0.03
    critic: float = 0.5
    judged: float = 0.25
    batch: int = 16
    steps: int | None = None
    rate: float = 2e-4
    warm: int = 100
    ema: float = 0.995
    sheet_steps: int = 4
    least: int = 2_000


RECIPE = Recipe()
GPU = dataclasses.replace(RECIPE, pocket=pocket.GPU, batch=256, rate=4e-4, least=10_000)
"""What changes where a batch costs no more than a single picture."""


def make_scheduler() -> LCMScheduler:
    from diffusers import LCMScheduler

    return LCMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        original_inference_steps=50,
        timestep_scaling=SCALING,
    )


def student_of(teacher: Any, recipe: Recipe, shape: tuple[int, int, int]) -> Any:
    """A U-Net with the teacher's weights and one more input, the guidance, which it does not heed yet."""
    import torch

    made = pocket.make_unet(recipe.pocket, shape, time_cond_proj_dim=recipe.embedding)
    made.load_state_dict(teacher.state_dict(), strict=False)
    with torch.no_grad():
        made.time_embedding.cond_proj.weight.zero_()
    return made


def guidance_embedding(strength: torch.Tensor, size: int) -> torch.Tensor:
    """Guidance minus one, (B,), as latent consistency pipelines hand it to a U-Net: (B, size)."""
    import torch

    half = size // 2
    rates = torch.exp(torch.arange(half, device=strength.device) * (-math.log(10_000) / (half - 1)))
    angles = 1000.0 * strength.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def answer(sample: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The end of the path from `sample`, given the noise seen in it at `t` (B,), as `LCMScheduler` works it out."""
    a = clean[t].view(-1, 1, 1, 1)
    scaled = SCALING * t.view(-1, 1, 1, 1).float()
    skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    out = scaled / (scaled**2 + SIGMA_DATA**2).sqrt()
    return out * (sample - (1 - a).sqrt() * noise) / a.sqrt() + skip * sample


def pipeline_of(vae: AutoencoderKL, tokenizer: CLIPTokenizer, text: Any, unet: Any) -> Any:
    """The parts as a LatentConsistencyModelPipeline."""
    from diffusers import LatentConsistencyModelPipeline

    pipeline = LatentConsistencyModelPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def trained(work: Path, recipe: Recipe, vae: AutoencoderKL, shape: tuple[int, int, int]) -> Any:
    """The averaged weights of ``turbo.pt``, and the teacher's text encoder, as a pipeline on the CPU.

    Raises:
        FileNotFoundError: there is no checkpoint, or none of the teacher.
    """
    import torch

    teacher = pocket.trained(work, recipe.pocket, vae, shape)
    state = torch.load(work / "turbo.pt", weights_only=True, map_location="cpu")["average"]
    student = student_of(teacher.unet, recipe, shape)
    student.load_state_dict(state["unet"])
    return pipeline_of(vae, teacher.tokenizer, teacher.text_encoder, student.eval())


def train(
    work: Path, recipe: Recipe, budget: Budget, latents: Latents,
    show: Callable[[Any, int], None] = lambda pipeline, step: None,
) -> None:  # fmt: skip
    """Distil the averaged weights of ``unet.pt``; the text encoder stays the teacher's.

    `show(pipeline, step)` is called at the shares `SHOWS` of the training with the averaged weights as they are then.

    Raises:
        FileNotFoundError: the teacher was not trained yet.
    """
    import torch

    torch.manual_seed(recipe.seed + 5)
    device = torch.device(budget.device)
    whole = pocket.trained(work, recipe.pocket, latents.vae, latents.shape)
    text = whole.text_encoder.to(device).eval().requires_grad_(False)
    layout = torch.channels_last if recipe.pocket.channels_last else torch.contiguous_format
    teacher = whole.unet.to(device=device, memory_format=layout).eval().requires_grad_(False)
    student = student_of(teacher, recipe, latents.shape).to(memory_format=layout)
    parts = {"unet": student, "critic": make_heads(recipe.pocket.channels)}
    stage = Stage(
        work, "turbo", parts, steps=recipe.steps, budget=budget, rate=recipe.rate, ema=recipe.ema, warm=recipe.warm,
        decay=0.0,
    )  # fmt: skip
    unet, size = stage.parts["unet"], recipe.batch
    clean = make_scheduler().alphas_cumprod.to(device)
    critic = Critic(teacher, stage.parts["critic"], clean)  # type: ignore[arg-type]
    leap, heard = torch.full((), recipe.leaps[0], device=device), torch.zeros((), device=device)
    low, high = recipe.guidance
    latents.wait(recipe.least)

    def loss_of(step: int) -> torch.Tensor:
        with torch.no_grad():
            z, words, _ = latents.batch(size, dropout=0.0, astray=0.0)
            seen, nothing = text(words)[0], text(latents.empty[None])[0].expand(size, -1, -1)
            t = 1 + (torch.rand(size, device=device) * (len(clean) - 1)).long()
            t = t.clamp(max=len(clean) - 1)
            s = (t - leap.round().long()).clamp(min=0)
            a, b = clean[t].view(-1, 1, 1, 1), clean[s].view(-1, 1, 1, 1)
            x = (a.sqrt() * z + (1 - a).sqrt() * torch.randn_like(z)).contiguous(memory_format=layout)
            strength = low + (high - low) * torch.rand(size, device=device)
            both = teacher(torch.cat([x, x]), torch.cat([t, t]), torch.cat([nothing, seen])).sample.float()
            without, within = both.chunk(2)
            noise = without + strength.view(-1, 1, 1, 1) * (within - without)
            down = b.sqrt() * (x - (1 - a).sqrt() * noise) / a.sqrt() + (1 - b).sqrt() * noise
            down = down.contiguous(memory_format=layout)
            told = guidance_embedding(strength - 1, recipe.embedding)
            # The student as it is now, not an average of it.
            aim = answer(down, unet(down, s, seen, timestep_cond=told).sample.float(), s, clean)
        with attention(device):
            guess = answer(x, unet(x, t, seen, timestep_cond=told).sample.float(), t, clean)
        loss = ((guess - aim).square() + recipe.huber**2).sqrt().mean() - recipe.huber
        if not recipe.critic:
            return loss
        own = torch.autograd.grad(loss, guess, retain_graph=True)[0]
        pull = set_against(own, critic.pull(guess, seen), heard)
        return loss + critic.learn(guess, z, seen) + along(guess, pull)

    def feed() -> None:
        latents.feed()
        first, last = recipe.leaps
        leap.fill_(first * (last / first) ** min(1.0, 1.5 * stage.share))
        heard.fill_(recipe.critic if stage.share >= recipe.judged else 0.0)

    def look(step: int) -> None:
        show(pipeline_of(latents.vae, latents.tokenizer, text, stage.average["unet"]), step)

    stage.run(loss_of, feed=feed, graph=True, shows=SHOWS, show=look, every=120)
