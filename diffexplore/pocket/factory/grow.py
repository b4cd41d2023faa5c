"""Grows a trained VAE to twice the side: the same latents, pictures of four times as many pixels.

A denoiser is the dear part of a model, and all that it has learned lies in the latents of one VAE. So that VAE keeps
them: the grown one encodes a picture to what the old one made of it at half the side, which is learned by looking at
both, and its decoder gets one more level, which has to invent the finer half. The old weights are where it begins;
what pulls at a picture is that of `vae`.

What a decoder is given in its life are a denoiser's latents, not an encoder's: their shapes are right and their edges
soft. So a part of what it learns from are guesses: latents to which noise was added, and what the denoiser, told the
caption, makes of them at once. The picture that it should have been is known.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexplore.pocket.factory.critic import along, make_critic
from diffexplore.pocket.factory.pool import Pool
from diffexplore.pocket.factory.sheets import save_grid
from diffexplore.pocket.factory.stage import Budget, Stage, tell
from diffexplore.pocket.factory.vae import Losses, read_sight

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

__all__ = ["RECIPE", "Recipe", "grown", "train"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides the grown VAE.

    Attributes:
        rate, batch: of the training.
        encoded: how many pictures of a batch the encoder learns from.
        blur: deviation of the noise on the latents that are decoded, at most.
        guessed: how many pictures of a batch are decoded from what the denoiser guesses.
        noise: first and last training step whose noise those were guessed through.
        perceptual, critic: length of their gradients at the picture, as shares of the pixels'.
        judged: share of the budget after which the critic is heard; it learns from half of that on.
        seed: of the new weights.
    """

    rate: float = 4e-4
    batch: int = 16
    encoded: int = 2
    blur: float = 0.1
    guessed: int = 8
    noise: tuple[int, int] = (50, 400)
    perceptual: float = 1.0
    critic: float = 1.0
    judged: float = 0.4
    seed: int = 2026


RECIPE = Recipe()


def grown(vae: AutoencoderKL) -> AutoencoderKL:
    """A VAE of the same latents with one more level around it, as wide as the old one's first.

    It begins as the old one with a picture's halving before and its bilinear doubling behind, as nearly as one level
    can say it: the new blocks add nothing yet, and the filters next to the picture are the old ones.
    """
    import torch
    from diffusers import AutoencoderKL

    config: Any = vae.config
    widths = (config.block_out_channels[0], *config.block_out_channels)
    made = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        mid_block_add_attention=config.mid_block_add_attention,
        sample_size=2 * config.sample_size,
        scaling_factor=config.scaling_factor,
        shift_factor=float(config.shift_factor or 0.0),
        force_upcast=False,
    )
    weights = made.state_dict()
    for name, value in vae.state_dict().items():
        # Counted from the picture down, each of the encoder's levels is one further; the decoder counts from below.
        parts = name.split(".")
        if parts[:2] == ["encoder", "down_blocks"]:
            name = ".".join([*parts[:2], str(int(parts[2]) + 1), *parts[3:]])
        weights[name] = value.clone()
    made.load_state_dict(weights)
    top: Any = made.decoder.up_blocks[-1]
    with torch.no_grad():
        for block in (*made.encoder.down_blocks[0].resnets, *top.resnets):
            block.conv2.weight.zero_()
            block.conv2.bias.zero_()
        halves: Any = made.encoder.down_blocks[0].downsamplers[0].conv
        doubles: Any = made.decoder.up_blocks[-2].upsamplers[0].conv
        # A picture is padded to the right and below before it is halved; what is doubled has each value four times.
        _each(halves, torch.tensor([1.0, 1.0, 0.0]) / 2)
        _each(doubles, torch.tensor([1.0, 2.0, 1.0]) / 4)
    return made


def _each(conv: torch.nn.Conv2d, line: torch.Tensor) -> None:
    """Let a convolution do the same to each channel, along both sides."""
    conv.weight.zero_()
    conv.weight.diagonal(dim1=0, dim2=1).copy_((line[:, None] * line)[..., None])
    conv.bias.zero_()  # type: ignore[union-attr]


class _Guesses:
    """What a denoiser makes of noised latents, told what they show.

    Args:
        teacher: a pipeline of the pocket model's kind, see `unet.pipeline_of`.
        noise: as in `Recipe`.
        device: where it looks.
    """

    def __init__(self, teacher: Any, noise: tuple[int, int], device: torch.device) -> None:
        self.text = teacher.text_encoder.to(device).eval().requires_grad_(False)
        self.unet = teacher.unet.to(device).eval().requires_grad_(False)
        self.clean, self.noise = teacher.scheduler.alphas_cumprod.to(device), noise

    def __call__(self, latents: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and captions (B, tokens) to (B, C, h, w), without a gradient."""
        import torch

        with torch.no_grad():
            t = torch.randint(*self.noise, (len(latents),), device=latents.device)
            a = self.clean[t].view(-1, 1, 1, 1)
            x = a.sqrt() * latents + (1 - a).sqrt() * torch.randn_like(latents)
            noise = self.unet(x, t, self.text(words)[0]).sample.float()
            return (x - (1 - a).sqrt() * noise) / a.sqrt()


def train(work: Path, pool: Pool, budget: Budget, teacher: Any, recipe: Recipe = RECIPE, *,
          steps: int | None = None) -> None:  # fmt: skip
    """Train; state in ``grow.pt``, the averaged network as a diffusers folder ``vae``. The sight is read as `vae` does.

    Args:
        work: folder of the state.
        pool: pictures of twice the side that the teacher draws.
        budget, steps: how long.
        teacher: the pipeline whose VAE grows and whose denoiser guesses.
        recipe: how.
    """
    import torch
    import torch.nn.functional as F

    torch.manual_seed(recipe.seed)
    parts: dict[str, torch.nn.Module] = {"vae": grown(teacher.vae), "critic": make_critic()}
    stage = Stage(work, "grow", parts, steps=steps, budget=budget, rate=recipe.rate, ema=0.998)
    vae: Any = stage.parts["vae"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average: Any = stage.average["vae"]
    base = teacher.vae.to(stage.device).eval().requires_grad_(False)
    guesses, few = _Guesses(teacher, recipe.noise, stage.device), recipe.guessed
    losses = Losses(recipe.perceptual, recipe.critic, read_sight(work, stage.device), stage.parts["critic"])  # type: ignore[arg-type]
    pool.wait(8 * recipe.batch)

    def loss_of(step: int) -> torch.Tensor:
        index = torch.randint(pool.count, (recipe.batch,), device=stage.device)
        true = (pool.pictures[index].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = base.encode(F.avg_pool2d(true, 2)).latent_dist.parameters.float()
        latents = wanted.chunk(2, 1)[0]
        blur = recipe.blur * torch.rand((recipe.batch, 1, 1, 1), device=stage.device)
        shown = latents + blur * torch.randn_like(latents)
        if few:
            which = torch.randint(pool.ids.shape[1], (few,), device=stage.device)
            shown = torch.cat([guesses(latents[:few], pool.ids[index[:few], which].long()), shown[few:]])
        made = vae.decode(shown).sample.float()
        pull, loss = losses.pull(made, true, judged=stage.share >= recipe.judged)
        read = vae.encode(true[: recipe.encoded]).latent_dist.parameters.float()
        mean, logvar = (read - wanted[: recipe.encoded]).square().mean((0, 2, 3)).chunk(2)
        total = loss + along(made, pull) + mean.mean() + 0.01 * logvar.mean()
        if stage.share >= recipe.judged / 2:
            total = total + losses.learn(made, true)
        return total

    def sheet(path: Path) -> None:
        """Pictures, what the old one keeps of them, and what the new one does; the lower half, of what is guessed."""
        with torch.no_grad():
            true = pool.pictures[:24].to(stage.device).float() / 127.5 - 1
            old = base.encode(F.avg_pool2d(true, 2)).latent_dist.mode()
            new = average.encode(true).latent_dist.mode()
            tell(f"grow: latents differ by {float((new - old).square().mean()):.4f} of their variance")
            old = torch.cat([old[:12], guesses(old[12:], pool.ids[12:24, 0].long())])
            small = F.interpolate(base.decode(old).sample, scale_factor=2, mode="bicubic")
            rows = torch.stack([true, small, average.decode(old).sample], 1).clamp(-1, 1)
        save_grid(rows.flatten(0, 1), path.with_name("grow-sheet.png"), columns=12)

    stage.run(loss_of, sheet, every=120, feed=pool.take)
    average.cpu().eval().save_pretrained(work / "vae")
