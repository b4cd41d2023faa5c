"""Trains the VAE that all pocket models share: (3, 128, 128) in -1..1 to (8, 16, 16) latents and back.

The decoder has to be sharp and small at once. Three things pull at a reconstruction, each by a gradient at the picture
whose length is set against that of the first: the pixels and their edges; what a judge at full size sees in both
(`eyes.sees`; perceptual losses: https://arxiv.org/abs/1801.03924); and, once it is good, a critic of patches
(https://arxiv.org/abs/1611.07004) with the balance of https://arxiv.org/abs/2012.09841.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.critic import along, hinge, make_critic, set_against
from diffexplore.pocket.factory.eyes import make_sight, sees
from diffexplore.pocket.factory.pool import Pool, compose
from diffexplore.pocket.factory.sheets import save_grid
from diffexplore.pocket.factory.stage import Budget, Stage, tell

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

__all__ = ["RECIPE", "Losses", "Recipe", "make_vae", "psnr", "read_sight", "train"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides the VAE.

    Attributes:
        size: pixels a side.
        channels: of the blocks, from the full side down; the decoder's cost lies in the first two.
        latent: channels of the latents.
        rate, batch: of the training, in whole pictures.
        kl: weight of the pull of the latents towards unit noise.
        perceptual, critic: length of their gradients at the picture, as shares of the pixels'.
        whole: share of the budget after which whole pictures are seen: before it quarters, four times as many.
        judged: share of the budget after which the critic is heard; it learns from :attr:`whole` on.
        half_scale: every so many steps half the latents have to be half the picture, which keeps the latents smooth
            and picture-like (https://arxiv.org/abs/2502.09509).
        seed: of the first weights.
    """

    size: int = 128
    channels: tuple[int, ...] = (24, 40, 96, 128)
    latent: int = 8
    rate: float = 1.5e-3
    batch: int = 48
    kl: float = 2e-4
    perceptual: float = 0.6
    critic: float = 0.35
    whole: float = 0.45
    judged: float = 0.60
    half_scale: int = 5
    seed: int = 2026


RECIPE = Recipe()


def make_vae(recipe: Recipe = RECIPE) -> AutoencoderKL:
    """The network, untrained."""
    from diffusers import AutoencoderKL

    levels = len(recipe.channels)
    return AutoencoderKL(
        block_out_channels=recipe.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=recipe.latent,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=recipe.size,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
    )


def _pixels(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error, the error of edges, which keeps outlines from going soft, and that of patches.

    The mean colour of a patch of 8x8 is a small part of a pixel's error but the first thing a person sees.
    """
    import torch.nn.functional as F

    error = made - true
    loss = error.abs().mean() + 0.5 * error.square().mean() + F.avg_pool2d(error, 8).abs().mean()
    for shift in (1, 2):
        loss = loss + 0.5 * (error[..., shift:] - error[..., :-shift]).abs().mean()
        loss = loss + 0.5 * (error[..., shift:, :] - error[..., :-shift, :]).abs().mean()
    return loss


class Losses:
    """What a reconstruction is pulled by, as one gradient at the picture.

    Args:
        perceptual, heard: length of the gradients of the sight and of the critic, as shares of the pixels'.
        sight: what it is to keep, see `eyes.sees`; None: nothing but pixels.
        critic: see `critic.make_critic`.
    """

    def __init__(
        self, perceptual: float, heard: float, sight: torch.nn.Sequential | None, critic: torch.nn.Sequential
    ) -> None:
        self.perceptual, self.heard, self.sight, self.critic = perceptual, heard, sight, critic

    def pull(self, made: torch.Tensor, true: torch.Tensor, *, judged: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """(gradient at `made`, loss of the pixels)."""
        import torch

        picture = made.detach().requires_grad_(True)
        loss = _pixels(picture, true)
        pull = first = torch.autograd.grad(loss, picture)[0]
        if self.sight is not None:
            with torch.no_grad():
                wanted = sees(self.sight, true)
            far = sum((a - b).square().sum(1).mean() for a, b in zip(sees(self.sight, picture), wanted, strict=True))
            pull = pull + self._seen(first, far, picture, self.perceptual)
        if judged:
            pull = pull + self._seen(first, -self.critic(picture).mean(), picture, self.heard)
        return pull.detach(), loss.detach()

    @staticmethod
    def _seen(first: torch.Tensor, loss: Any, picture: torch.Tensor, share: float) -> torch.Tensor:
        """The gradient of `loss` at the picture, set against the first; nothing else has one from it."""
        import torch

        return set_against(first, torch.autograd.grad(loss.float(), picture)[0].float(), share)

    def learn(self, made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """The critic's own loss, see `critic.hinge`."""
        return hinge(self.critic(made.detach()), self.critic(true))


def train(work: Path, pool: Pool, budget: Budget, recipe: Recipe = RECIPE, *, steps: int | None = None) -> None:
    """Train; state in ``vae.pt``, the averaged network as a diffusers folder ``vae``, its latents standardised.

    The sight is that of ``sight.pt`` or ``judges.pt``, where it was trained; without it there is no perceptual loss.
    """
    import torch
    import torch.nn.functional as F

    torch.manual_seed(recipe.seed)
    parts: dict[str, torch.nn.Module] = {"vae": make_vae(recipe), "critic": make_critic()}
    stage = Stage(work, "vae", parts, steps=steps, budget=budget, rate=recipe.rate, ema=0.998)
    vae: Any = stage.parts["vae"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    losses = Losses(recipe.perceptual, recipe.critic, read_sight(work, stage.device), stage.parts["critic"])  # type: ignore[arg-type]
    pool.wait(8 * recipe.batch)

    def loss_of(step: int) -> torch.Tensor:
        whole = stage.share >= recipe.whole
        size = recipe.batch if whole else 3 * recipe.batch
        index = torch.randint(pool.count, (size,), device=stage.device)
        true = pool.pictures[index].float() / 127.5 - 1
        half = recipe.size // 2
        if not whole:
            y, x = (int(n) // 8 * 8 for n in rng.integers(0, half + 1, 2))
            true = true[..., y : y + half, x : x + half]
        true = true.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(true).latent_dist
        latents = posterior.sample()
        if step % recipe.half_scale == 1:
            latents, true = F.avg_pool2d(latents, 2), F.avg_pool2d(true, 2)
        made = vae.decode(latents).sample.float()
        pull, loss = losses.pull(made, true, judged=whole and stage.share >= recipe.judged)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        spread = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total = loss + along(made, pull) + recipe.kl * min(1.0, (step + 1) / 1000) * spread
        if whole and step % recipe.half_scale != 1:
            total = total + losses.learn(made, true)
        return total

    rng = np.random.default_rng([recipe.seed, stage.step])
    stage.run(loss_of, lambda path: _sheet(stage.average["vae"], pool, path), every=120, feed=pool.take)
    finish(stage.average["vae"], pool, work)


def read_sight(work: Path, device: torch.device) -> torch.nn.Sequential | None:
    """The sight, trained alone (``sight.pt``) or with the judges (``judges.pt``); None, and said, if there is none."""
    import torch

    for path in (work / "sight.pt", work / "judges.pt"):
        if path.is_file():
            parts = torch.load(path, weights_only=True, map_location="cpu")["parts"]
            if "sight" in parts:
                sight = make_sight()
                sight.load_state_dict(parts["sight"])
                return sight.to(device).eval().requires_grad_(False)
    tell("no sight.pt and no judges.pt, so no perceptual loss")
    return None


def finish(vae: Any, pool: Pool, work: Path, count: int = 8192) -> None:
    """Write the network as ``work/vae``, its latents of mean 0 and deviation 1 per channel over `count` pictures."""
    import copy

    import torch

    vae = copy.deepcopy(vae).eval().float()
    device = next(vae.parameters()).device
    found = []
    with torch.no_grad():
        for start in range(0, min(count, pool.count), 64):
            true = pool.pictures[start : start + 64].to(device).float() / 127.5 - 1
            found.append(vae.encode(true).latent_dist.mode().float())
    latents = torch.cat(found)
    _standardise(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    vae.cpu().to(memory_format=torch.contiguous_format).save_pretrained(work / "vae")


def _standardise(vae: Any, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Fold (z - mean) / std per channel into the two 1x1 convolutions around the latents, exactly."""
    import torch

    with torch.no_grad():
        before, after, n = vae.quant_conv, vae.post_quant_conv, len(mean)
        before.weight[:n] /= std[:, None, None, None]
        before.bias[:n] = (before.bias[:n] - mean) / std
        before.bias[n:] -= 2 * std.log()
        after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
        after.weight *= std[None, :, None, None]


def psnr(vae: Any, art: str, size: int = RECIPE.size, count: int = 256) -> float:
    """Peak signal-to-noise ratio in dB (mean over pictures) of a VAE on clean pictures it never saw.

    Pictures of another side than it draws are brought to that by their means, and back by cubic interpolation: what a
    VAE has to beat that draws as many pixels itself.
    """
    import torch
    import torch.nn.functional as F

    cutouts = scenes.Art(art)
    device = next(vae.parameters()).device
    found = []
    with torch.inference_mode():
        for start in range(0, count, 16):
            drawn = [compose(cutouts, 1, 10_000_000 + start + k, size, clean=True).pixels for k in range(16)]
            true = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
            read = F.interpolate(true, (vae.config.sample_size,) * 2, mode="area")
            made = vae.decode(vae.encode(read).latent_dist.mode()).sample
            made = F.interpolate(made, (size, size), mode="bicubic").clamp(-1, 1)
            found.append(-10 * ((made - true) / 2).square().mean((1, 2, 3)).log10())
    return float(torch.cat(found).mean())


def _sheet(vae: Any, pool: Pool, path: Path) -> None:
    import torch

    device = next(vae.parameters()).device
    with torch.no_grad():
        true = pool.pictures[:24].to(device).float() / 127.5 - 1
        made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
    rows = torch.stack([true, made], 1).reshape(-1, *true.shape[1:])
    save_grid(rows, path.with_name("vae-sheet.png"), columns=8)
