"""Train the pocket model from nothing on two CPU cores: pictures, VAE, then text encoder and U-Net together.

    python -m diffexplore.pocket.factory.train prepare --art FOLDER      # draw and caption the pictures
    python -m diffexplore.pocket.factory.train vae               # pictures <-> latents
    python -m diffexplore.pocket.factory.train encode            # all pictures to latents, once
    python -m diffexplore.pocket.factory.train unet              # captions and noise -> latents
    python -m diffexplore.pocket.factory.train decoder           # optional: sharpen the decoder, latents unchanged
    python -m diffexplore.pocket.factory.train export --out FOLDER # a standard StableDiffusionPipeline folder, fp16
    python -m diffexplore.pocket.factory.train psnr --art FOLDER # how well the exported VAE keeps unseen pictures

To go on from exported weights where the checkpoints are gone, adopt them before ``encode``::

    python -m diffexplore.pocket.factory.train adopt --out FOLDER

Each stage can be stopped at any moment and goes on where it was when called again; state lies in ``--work`` (default
``runs/``). The learning rate is constant after a short warm-up and falls to almost nothing over the last part of a
stage (warmup-stable-decay), so a finished stage can be taken up again later with a longer budget: it resumes from the
state before the fall.

Sources: latent diffusion and its VAE, https://arxiv.org/abs/2112.10752; classifier-free guidance by condition
dropout, https://arxiv.org/abs/2207.12598; min-SNR weights, https://arxiv.org/abs/2303.09556; latents that scale with
the picture, https://arxiv.org/abs/2502.09509.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import multiprocessing.connection
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.pool import end_with_parent
from diffexplore.pocket.factory.sheets import save_grid
from diffexplore.pocket.factory.unet import make_tokenizer
from diffexplore.pocket.lesson import SNR_GAMMA, noise_levels
from diffexplore.pocket.world import NEAR, SIZE, caption, sample_scene, vocabulary, with_filler
from diffexplore.progress import progress
from diffexplore.record.file import written

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. Lengths in steps; the learning rates are AdamW's."""

    seed: int = 2026
    pictures: int = 60_000
    captions: int = 4
    vae_channels: tuple[int, ...] = (24, 48, 64)
    vae_batch: int = 16
    vae_steps: int = 20_000
    vae_rate: float = 1e-3
    kl: float = 2e-4
    half_scale: int = 5
    unet_channels: tuple[int, ...] = (48, 96, 192)
    unet_heads: tuple[int, ...] = (2, 3, 6)
    text_width: int = 128
    text_tokens: int = 40
    text_layers: int = 3
    unet_batch: int = 24
    unet_steps: int = 40_000
    unet_rate: float = 7e-4
    dropout: float = 0.12
    snr_gamma: float = SNR_GAMMA
    ema: float = 0.998
    sheet_steps: int = 20
    decoder_steps: int = 8_000
    decoder_rate: float = 4e-4


RECIPE = Recipe()

# --- pictures ------------------------------------------------------------------------------------------------------


def picture(art: scenes.Art, seed: int, index: int, captions: int) -> tuple[np.ndarray, list[str]]:
    """Picture number `index` of the training set and its captions: (64, 64, 3) uint8 and `captions` strings."""
    rng = np.random.default_rng([seed, index])
    scene = sample_scene(rng)
    pixels = scenes.draw(scene, art, rng)
    texts = []
    for _ in range(captions):
        text = caption(scene, rng)
        texts.append(with_filler(text, rng) if rng.random() < 0.08 else text)
    return pixels, texts


def _draw_share(job: tuple[str, int, int, int, int]) -> tuple[np.ndarray, list[list[str]]]:
    folder, seed, start, stop, captions = job
    art = scenes.Art(folder)
    drawn = [picture(art, seed, index, captions) for index in range(start, stop)]
    return np.stack([pixels for pixels, _ in drawn]), [texts for _, texts in drawn]


def prepare(work: Path, art: str, recipe: Recipe) -> None:
    """Draw and caption the training pictures into ``pictures.npy`` and ``captions.json``."""
    work.mkdir(parents=True, exist_ok=True)
    step = 500
    jobs = [
        (art, recipe.seed, start, min(start + step, recipe.pictures), recipe.captions)
        for start in range(0, recipe.pictures, step)
    ]
    out = np.lib.format.open_memmap(work / "pictures.part.npy", "w+", np.uint8, (recipe.pictures, SIZE, SIZE, 3))
    texts: list[list[str]] = []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), end_with_parent) as pool:
        for pixels, part in progress(pool.imap(_draw_share, jobs), "drawing", total=len(jobs)):
            out[len(texts) : len(texts) + len(part)] = pixels
            texts += part
    out.flush()
    (work / "captions.json").write_text(json.dumps(texts))
    (work / "pictures.part.npy").replace(work / "pictures.npy")


# --- parts ---------------------------------------------------------------------------------------------------------


def make_vae(recipe: Recipe) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    levels = len(recipe.vae_channels)
    return AutoencoderKL(
        block_out_channels=recipe.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
        scaling_factor=1.0,
        force_upcast=False,
    )


def make_text_encoder(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    width = recipe.text_width
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        projection_dim=width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=width // 32,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
    )
    return CLIPTextModel(config)


def make_unet(recipe: Recipe) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=recipe.unet_channels,
        # Attention at 16x16 would cost more than all the rest together: it stays at 8x8, and at 4x4 in the middle.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        attention_head_dim=recipe.unet_heads,  # diffusers means the number of heads
        norm_num_groups=16,
    )


def make_scheduler() -> DPMSolverMultistepScheduler:
    """The training noise schedule (that of Stable Diffusion) with the sampler the package starts with."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="linspace",
        use_karras_sigmas=True,
    )


# --- the loop that all stages share ----------------------------------------------------------------------------------


def _rank() -> tuple[int, int]:
    """This process's number and how many train together."""
    import torch

    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a stage may use: `minutes` of all its runs together (None: as long as the recipe says), and `bf16`, matrix
    arithmetic in bfloat16, which halves the time on processors that have it (AVX512-BF16, AMX) and none on others."""

    minutes: float | None = None
    bf16: bool = False


class Stage:
    """A resumable training loop: parameters in, one optimiser, averaged weights, checkpoints, a log of the loss.

    Args:
        work: folder of the state, ``<name>.pt`` (newest) and ``<name>-stable.pt`` (before the rate falls).
        parts: modules by name, trained together.
        steps, budget: the length; steps or minutes, whichever is used up first, end the stage. With several processes
            each computes its own batch and the gradients are averaged, so a step counts as many batches as there are
            processes.
        rate: AdamW's learning rate.
        ema: weight of the past in the averaged copy, 0 for none.
    """

    FALL = 0.30
    WARM = 200

    def __init__(
        self, work: Path, name: str, parts: dict[str, torch.nn.Module], *, steps: int, budget: Budget,
        rate: float, ema: float,
    ) -> None:  # fmt: skip
        import torch

        self.work, self.name, self.parts, self.steps = work, name, parts, steps
        self.minutes, self.bf16, self.rate, self.ema = budget.minutes, budget.bf16, rate, ema
        self.average = {key: copy.deepcopy(part).requires_grad_(False) for key, part in parts.items()}
        self.weights = [p for part in parts.values() for p in part.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.step, self.seconds, self.fallen = 0, 0.0, False
        self.rank, self.workers = _rank()
        self._resume()
        # The weights above start equal in every process; what follows (noise, noise levels) must not.
        torch.manual_seed(1_000_003 * self.step + self.rank)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "fallen": self.fallen,
            "parts": {k: p.state_dict() for k, p in self.parts.items()},
            "average": {k: p.state_dict() for k, p in self.average.items()},
            "optimiser": self.optimiser.state_dict(),
        }

    def _resume(self) -> None:
        import torch

        newest, stable = self.work / f"{self.name}.pt", self.work / f"{self.name}-stable.pt"
        for path in (newest, stable):
            if not path.is_file():
                continue
            state = torch.load(path, weights_only=True)
            if path == newest and state["fallen"] and self._progress_of(state) < 1 - self.FALL and stable.is_file():
                continue  # a longer budget than last time: go on from before the rate fell
            for key, part in self.parts.items():
                part.load_state_dict(state["parts"][key])
                self.average[key].load_state_dict(state["average"][key])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds, self.fallen = state["step"], state["seconds"], state["fallen"]
            return

    def _progress_of(self, state: dict[str, Any]) -> float:
        share = state["step"] / self.steps
        if self.minutes:
            share = max(share, state["seconds"] / 60 / self.minutes)
        return share

    def _save(self, suffix: str = "") -> None:
        import torch

        with written(self.work / f"{self.name}{suffix}.pt") as file:
            torch.save(self._state(), file)

    def run(self, loss_of: Callable[[int], torch.Tensor], sheet: Callable[[Path], None], every: float = 240) -> None:
        """Train to the end of the budget. `loss_of(step)` gives the loss; `sheet(path)` draws samples to look at."""
        import torch

        bar = progress(self.steps, self.name, done=self.step, quiet=self.rank > 0)
        saved, mean, last = time.monotonic(), 0.0, time.monotonic()
        while (share := self._progress_of({"step": self.step, "seconds": self.seconds})) < 1:
            if share >= 1 - self.FALL and not self.fallen:
                if not self.rank:
                    self._save("-stable")
                self.fallen = True
            fall = min(1.0, (1 - share) / self.FALL) if self.fallen else 1.0
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * min(1.0, (self.step + 1) / self.WARM) * max(0.01, fall)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = loss_of(self.step)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            now = time.monotonic()
            took = self._average_gradients(now - last)
            last = now
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimiser.step()
            self._follow()
            self.step += 1
            self.seconds += took
            if self.rank:
                continue
            mean = loss.item() if not mean else 0.99 * mean + 0.01 * loss.item()
            bar.update()
            if self.step % 100 == 0:
                with (self.work / f"{self.name}.log").open("a") as log:
                    log.write(f"{self.step} {self.seconds:.0f} {mean:.5f}\n")
                bar.set_postfix_str(f"loss {mean:.4f}")
            if now - saved > every:
                self._save()
                sheet(self.work / f"{self.name}.png")
                saved = last = time.monotonic()
        bar.close()
        if self.rank:
            return
        self._save()
        sheet(self.work / f"{self.name}.png")

    def _average_gradients(self, took: float) -> float:
        """Mean over all processes of the gradients, in place, and of the seconds the step took (returned)."""
        import torch

        if self.workers == 1:
            return took
        grads = [p.grad for p in self.weights if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads] + [torch.tensor([took])])
        torch.distributed.all_reduce(flat)
        flat /= self.workers
        for grad, mean in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
        return float(flat[-1])

    def _follow(self) -> None:
        import torch

        keep = min(self.ema, (1 + self.step) / (10 + self.step)) if self.ema else 0.0
        with torch.no_grad():
            for key, part in self.parts.items():
                mine: list[torch.Tensor] = list(self.average[key].parameters())
                torch._foreach_lerp_(mine, list(part.parameters()), 1 - keep)


def _batch(pictures: np.ndarray, index: np.ndarray) -> torch.Tensor:
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(pictures[np.sort(index)]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _sharp_loss(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
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


def train_vae(work: Path, recipe: Recipe, budget: Budget) -> None:
    """Pictures to latents and back: (3, 64, 64) in -1..1 to (4, 16, 16)."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(recipe.seed)
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    stage = Stage(
        work,
        "vae",
        {"vae": make_vae(recipe)},
        steps=recipe.vae_steps,
        budget=budget,
        rate=recipe.vae_rate,
        ema=0.998,
    )
    vae: Any = stage.parts["vae"]
    rng = np.random.default_rng([recipe.seed, 1, stage.step, stage.rank])

    def loss_of(step: int) -> torch.Tensor:
        true = _batch(pictures, rng.integers(0, len(pictures), recipe.vae_batch))
        if not stage.fallen and step % 10:
            # Quarter pictures while the rate is high: four times the updates for the same arithmetic. Decided by the
            # step, not at random, so that processes which train together take equally long.
            y, x = rng.integers(0, SIZE // 2, 2)
            true = true[..., y : y + SIZE // 2, x : x + SIZE // 2]
        posterior = vae.encode(true).latent_dist
        latents = posterior.sample()
        if step % recipe.half_scale == 1:
            # Half the latents must be half the picture: this keeps the latent space smooth and picture-like.
            latents, true = F.avg_pool2d(latents, 2), F.avg_pool2d(true, 2)
        made = vae.decode(latents).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        spread = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return _sharp_loss(made, true) + recipe.kl * min(1.0, step / 1000) * spread

    def sheet(path: Path) -> None:
        _vae_sheet(stage.average["vae"], _batch(pictures, np.arange(24)), path)

    stage.run(loss_of, sheet)


def _vae_sheet(vae: Any, true: torch.Tensor, path: Path) -> None:
    import torch

    with torch.no_grad():
        latents = vae.encode(true).latent_dist.mode()
        made = vae.decode(latents).sample.clamp(-1, 1)
    error = ((made - true) / 2).square().mean((1, 2, 3))
    rows = torch.stack([true, made], 1).reshape(-1, *true.shape[1:])
    save_grid(rows, path, columns=12, side=128)
    line = f"psnr {(-10 * error.log10()).mean():.2f} std {[round(v, 2) for v in latents.std((0, 2, 3)).tolist()]}\n"
    with path.with_suffix(".txt").open("a") as scores:
        scores.write(line)


def trained_vae(work: Path, recipe: Recipe) -> AutoencoderKL:
    """The averaged VAE, with the newest decoder if the decoder stage ran."""
    import torch

    vae = make_vae(recipe)
    vae.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["average"]["vae"])
    if (work / "vae-scale.json").is_file():
        scale = json.loads((work / "vae-scale.json").read_text())
        _standardise(vae, torch.tensor(scale["mean"]), torch.tensor(scale["std"]))
    if (work / "decoder.pt").is_file():
        state = torch.load(work / "decoder.pt", weights_only=True)["average"]
        vae.decoder.load_state_dict(state["decoder"])
        vae.post_quant_conv.load_state_dict(state["post"])
    return vae.eval().requires_grad_(False)


def _standardise(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Fold (z - mean) / std per channel into the two 1x1 convolutions around the latents, exactly."""
    import torch

    with torch.no_grad():
        before, after = vae.quant_conv, vae.post_quant_conv
        before.weight[:4] /= std[:, None, None, None]
        before.bias[:4] = (before.bias[:4] - mean) / std
        before.bias[4:] -= 2 * std.log()
        after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
        after.weight *= std[None, :, None, None]


def encode(work: Path, recipe: Recipe) -> None:
    """All pictures to latents, (N, 4, 16, 16) float16 with mean 0 and deviation 1 in every channel."""
    import torch

    (work / "vae-scale.json").unlink(missing_ok=True)
    (work / "decoder.pt").unlink(missing_ok=True)
    vae = trained_vae(work, recipe)
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    chunks = range(0, len(pictures), 128)
    parts = []
    with torch.inference_mode():
        for start in progress(chunks, "encoding"):
            true = _batch(pictures, np.arange(start, min(start + 128, len(pictures))))
            parts.append(vae.encode(true).latent_dist.mode().numpy())
    latents = np.concatenate(parts)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    np.save(work / "latents.npy", ((latents - mean[:, None, None]) / std[:, None, None]).astype(np.float16))
    (work / "vae-scale.json").write_text(json.dumps({"mean": mean.tolist(), "std": std.tolist()}))


def train_decoder(work: Path, recipe: Recipe, budget: Budget) -> None:
    """Train the decoder alone on fixed latents, a little noise on them as a sampler leaves it."""
    import torch

    torch.manual_seed(recipe.seed + 3)
    vae = trained_vae(work, recipe).train()
    parts = {"decoder": vae.decoder.requires_grad_(True), "post": vae.post_quant_conv.requires_grad_(True)}
    stage = Stage(
        work,
        "decoder",
        parts,
        steps=recipe.decoder_steps,
        budget=budget,
        rate=recipe.decoder_rate,
        ema=0.998,
    )
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    latents = np.load(work / "latents.npy", mmap_mode="r")
    rng = np.random.default_rng([recipe.seed, 3, stage.step, stage.rank])

    def loss_of(step: int) -> torch.Tensor:
        index = np.sort(rng.integers(0, len(pictures), recipe.vae_batch))
        z = torch.from_numpy(latents[index]).float()
        z = z + 0.05 * torch.randn_like(z) * torch.rand(len(z), 1, 1, 1)
        return _sharp_loss(parts["decoder"](parts["post"](z)).float(), _batch(pictures, index))

    def sheet(path: Path) -> None:
        copy_of = trained_vae(work, recipe)
        _vae_sheet(copy_of, _batch(pictures, np.arange(24)), path)

    stage.run(loss_of, sheet)


def train_unet(work: Path, recipe: Recipe, budget: Budget) -> None:
    """Text encoder and U-Net together: predict the noise in a latent from the latent, its noise level and a caption."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.manual_seed(recipe.seed + 2)
    tokenizer = make_tokenizer(work)
    texts = json.loads((work / "captions.json").read_text())
    flat = [text for group in texts for text in group]
    ids = torch.tensor(
        tokenizer(flat, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids,
        dtype=torch.int16,
    ).view(len(texts), len(texts[0]), -1)
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=tokenizer.model_max_length).input_ids)
    latents = torch.from_numpy(np.load(work / "latents.npy"))
    parts = {"text": make_text_encoder(recipe, tokenizer), "unet": make_unet(recipe)}
    stage = Stage(work, "unet", parts, steps=recipe.unet_steps, budget=budget, rate=recipe.unet_rate, ema=recipe.ema)
    text, unet = stage.parts["text"], stage.parts["unet"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    clean = make_scheduler().alphas_cumprod
    chance, weight = noise_levels(clean, recipe.snr_gamma)
    rng = np.random.default_rng([recipe.seed, 2, stage.step, stage.rank])

    def loss_of(step: int) -> torch.Tensor:
        size = recipe.unet_batch
        index = torch.from_numpy(rng.integers(0, len(latents), size))
        which = torch.from_numpy(rng.integers(0, ids.shape[1], size))
        words = ids[index, which].long()
        words[torch.from_numpy(rng.random(size) < recipe.dropout)] = empty
        z = latents[index].float()
        t = torch.multinomial(chance, size, replacement=True)
        a, noise = clean[t].view(-1, 1, 1, 1), torch.randn_like(z)
        x = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused kernel is slow backwards at these sizes
            guess = unet(x, t, text(words)[0]).sample.float()
        return ((guess - noise).square().mean((1, 2, 3)) * weight[t]).mean()

    def sheet(path: Path) -> None:
        draw_sheet(make_pipeline(work, recipe, tokenizer, stage.average["text"], stage.average["unet"]), recipe, path)

    stage.run(loss_of, sheet, every=900)


def draw_sheet(pipeline: Any, recipe: Recipe, path: Path) -> None:
    """Draw the prompts of ``sheet.txt``, eight to a row."""
    prompts = (Path(__file__).parents[1] / "sheet.txt").read_text().splitlines()
    save_grid(_samples(pipeline, prompts, recipe.sheet_steps), path, columns=8, side=128)


def released_sheet(folder: Path, recipe: Recipe) -> None:
    """The sheet of exported weights, as ``sheet.png`` beside their folder."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    draw_sheet(pipeline, recipe, folder.with_name("sheet.png"))


def _samples(pipeline: Any, prompts: list[str], steps: int, guidance: float = 5.0) -> torch.Tensor:
    import torch

    made = []
    for start in range(0, len(prompts), 8):
        batch = prompts[start : start + 8]
        generators = [torch.Generator("cpu").manual_seed(start + k) for k in range(len(batch))]
        out = pipeline(
            batch, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="pt"
        )
        made.append(out.images * 2 - 1)
    return torch.cat(made).float()


def make_pipeline(work: Path, recipe: Recipe, tokenizer: Any, text: Any, unet: Any) -> Any:
    """The parts as a StableDiffusionPipeline."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=trained_vae(work, recipe),
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


def export(work: Path, recipe: Recipe, out: Path) -> None:
    """Write the averaged weights as a diffusers folder in fp16, loadable with no argument but its path."""
    import torch

    tokenizer = make_tokenizer(work)
    state = torch.load(work / "unet.pt", weights_only=True)["average"]
    text, unet = make_text_encoder(recipe, tokenizer), make_unet(recipe)
    text.load_state_dict(state["text"])
    unet.load_state_dict(state["unet"])
    pipeline = make_pipeline(work, recipe, tokenizer, text.eval(), unet.eval())
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        torch.nn.Module.half(part)
    pipeline.save_pretrained(out, safe_serialization=True)
    # transformers would otherwise load the text encoder as it is stored (fp16) and diffusers the rest in fp32.
    config = out / "text_encoder" / "config.json"
    fields = json.loads(config.read_text())
    fields["dtype"] = "float32"
    config.write_text(json.dumps(fields, indent=2) + "\n")
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)
    (out / "words.json").write_text(json.dumps(vocabulary(), indent=0) + "\n")
    (out / "near.json").write_text(json.dumps(NEAR, indent=0) + "\n")


def psnr(folder: Path, art: str, recipe: Recipe, count: int = 256) -> float:
    """Peak signal-to-noise ratio in dB (mean over pictures) of the exported VAE on clean pictures it never saw."""
    import torch
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL.from_pretrained(folder / "vae")
    cutouts, drawn = scenes.Art(art), []
    for index in range(count):
        rng = np.random.default_rng([recipe.seed, recipe.pictures + index])
        drawn.append(scenes.draw(sample_scene(rng, clean=True), cutouts, rng))
    true = _batch(np.stack(drawn), np.arange(count))
    with torch.inference_mode():
        made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
    error = ((made - true) / 2).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def adopt(work: Path, recipe: Recipe, folder: Path) -> None:
    """Take exported weights as checkpoints of finished stages, so that a longer budget goes on from them."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    work.mkdir(parents=True, exist_ok=True)
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(work / "tokenizer")
    found: dict[str, dict[str, torch.nn.Module]] = {
        "vae": {"vae": AutoencoderKL.from_pretrained(folder / "vae")},
        "unet": {
            "text": CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
            "unet": UNet2DConditionModel.from_pretrained(folder / "unet"),
        },
    }
    for name, rate in (("vae", recipe.vae_rate), ("unet", recipe.unet_rate)):
        stage = Stage(work, name, found[name], steps=1, budget=Budget(), rate=rate, ema=recipe.ema)
        stage._save("-stable")
        stage._save()


def main(argv: list[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.train", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "stage", choices=["prepare", "vae", "encode", "unet", "decoder", "export", "adopt", "psnr", "sheet"]
    )
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of pictures and checkpoints")
    parser.add_argument("--art", help="unpacked npm package @lobehub/fluent-emoji-3d (for prepare and psnr)")
    weights = Path(__file__).parents[1] / "weights"
    parser.add_argument("--out", type=Path, default=weights, help="the folder export writes, the others read")
    parser.add_argument("--minutes", type=float, help="stop (and let the rate fall) after this long")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 (AVX512-BF16, AMX)")
    parser.add_argument("--processes", type=int, default=2, help="processes that train together, one thread each")
    args = parser.parse_args(argv)
    if args.stage in ("prepare", "psnr") and not args.art:
        parser.error(f"{args.stage} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d, then unpack it")
    if args.stage == "prepare":
        prepare(args.work, args.art, RECIPE)
    elif args.stage == "encode":
        encode(args.work, RECIPE)
    elif args.stage == "export":
        export(args.work, RECIPE, args.out)
    elif args.stage == "adopt":
        adopt(args.work, RECIPE, args.out)
    elif args.stage == "sheet":
        released_sheet(args.out, RECIPE)
    elif args.stage == "psnr":
        print(f"{psnr(args.out, args.art, RECIPE):.2f} dB")
    else:
        budget = Budget(args.minutes, args.bf16)
        if args.processes == 1:
            _train(0, 1, args.stage, args.work, budget)
            return
        from torch.multiprocessing import start_processes

        (args.work / f"{args.stage}.meet").unlink(missing_ok=True)
        start_processes(_train, (args.processes, args.stage, args.work, budget), args.processes)


def _train(rank: int, workers: int, stage: str, work: Path, budget: Budget) -> None:
    import torch

    end_with_parent()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{work.resolve()}/{stage}.meet", rank=rank, world_size=workers
        )
    {"vae": train_vae, "unet": train_unet, "decoder": train_decoder}[stage](work, RECIPE, budget)


if __name__ == "__main__":
    main()
