"""The pocket model: text encoder and U-Net, trained together to see the noise in a latent.

The layout is Stable Diffusion's. Sources: latent diffusion, https://arxiv.org/abs/2112.10752; classifier-free guidance
by condition dropout, https://arxiv.org/abs/2207.12598; min-SNR weights, https://arxiv.org/abs/2303.09556.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexplore.pocket.factory.latents import Latents
from diffexplore.pocket.factory.stage import Budget, Stage
from diffexplore.pocket.lesson import SNR_GAMMA, noise_levels
from diffexplore.pocket.world import FILLERS, vocabulary

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

SHOWS = (0.01, 0.03, 0.1, 0.3, 0.65, 1.0)
"""The shares of a training at which it is looked at."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out; `steps` None: as long as the budget's minutes last.

    `subject` is what an error in the subject weighs, of one around it: skies and meadows are easily drawn well, and a
    face that is lost among them costs next to nothing.
    """

    seed: int = 2026
    channels: tuple[int, ...] = (64, 96, 192)
    heads: tuple[int, ...] = (2, 3, 6)
    text_width: int = 128
    text_tokens: int = 40
    text_layers: int = 3
    batch: int = 24
    steps: int | None = None
    rate: float = 7e-4
    warm: int = 200
    dropout: float = 0.12
    astray: float = 0.12
    snr_gamma: float = SNR_GAMMA
    subject: float = 3.0
    ema: float = 0.998
    channels_last: bool = True
    sheet_steps: int = 20
    least: int = 2_000


RECIPE = Recipe()
GPU = dataclasses.replace(RECIPE, batch=384, rate=1.2e-3, warm=400, ema=0.999, least=10_000)
"""What changes where a batch costs no more than a single picture."""


def make_tokenizer(work: Path, tokens: int = RECIPE.text_tokens) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learned from the captions: a known word is one token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    folder = work / "tokenizer"
    if not (folder / "tokenizer_config.json").is_file():
        words = vocabulary()
        raw = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
        raw.normalizer = normalizers.Lowercase()
        raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.BpeTrainer(
            vocab_size=4000,
            min_frequency=1,
            end_of_word_suffix="</w>",
            initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-:;()&+/\"#"),
            show_progress=False,
        )
        alphabet = [f"x{c} {c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-:;()&+/\"#"]
        raw.train_from_iterator([*words, *FILLERS, *alphabet, ","], trainer)
        model = json.loads(raw.to_str())["model"]
        vocab = {token: i for i, token in enumerate(sorted(model["vocab"], key=model["vocab"].get))}
        for special in ("<|startoftext|>", "<|endoftext|>"):
            vocab[special] = len(vocab)
        folder.mkdir(parents=True, exist_ok=True)
        merges = [tuple(m) if isinstance(m, list) else tuple(m.split()) for m in model["merges"]]
        made = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=tokens)
        made.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int) -> Any:
    """A CLIP text encoder's config for the pocket world's tokens; 32 numbers a head."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
    )


def make_text_encoder(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    from transformers import CLIPTextModel

    return CLIPTextModel(text_config(tokenizer, recipe.text_width, recipe.text_layers))


def make_unet(recipe: Recipe, shape: tuple[int, int, int], **options: Any) -> UNet2DConditionModel:
    """The U-Net for latents of `shape` (channels, height, width)."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        block_out_channels=recipe.channels,
        # Attention at 16x16 would cost more than all the rest together: it stays at 8x8, and at 4x4 in the middle.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        attention_head_dim=recipe.heads,  # diffusers means the number of heads
        norm_num_groups=16,
        **options,
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
        steps_offset=1,
        use_karras_sigmas=True,
    )


def attention(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The kernel of attention to train with: on a CPU the fused one is slow backwards at these sizes."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()


def pipeline_of(vae: AutoencoderKL, tokenizer: CLIPTokenizer, text: Any, unet: Any) -> Any:
    """The parts as a StableDiffusionPipeline."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
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
    """The averaged weights of ``unet.pt`` as a pipeline on the CPU.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    import torch

    tokenizer = make_tokenizer(work, recipe.text_tokens)
    state = torch.load(work / "unet.pt", weights_only=True, map_location="cpu")["average"]
    text, unet = make_text_encoder(recipe, tokenizer), make_unet(recipe, shape)
    text.load_state_dict(state["text"])
    unet.load_state_dict(state["unet"])
    return pipeline_of(vae, tokenizer, text.eval(), unet.eval())


def train(
    work: Path, recipe: Recipe, budget: Budget, latents: Latents,
    show: Callable[[Any, int], None] = lambda pipeline, step: None,
) -> None:  # fmt: skip
    """Text encoder and U-Net together: predict the noise in a latent from the latent, its noise level and a caption.

    `show(pipeline, step)` is called at the shares `SHOWS` of the training with the averaged weights as they are then.
    """
    import torch

    torch.manual_seed(recipe.seed + 2)
    tokenizer = latents.tokenizer
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    parts: dict[str, Any] = {
        "text": make_text_encoder(recipe, tokenizer),
        "unet": make_unet(recipe, latents.shape).to(memory_format=layout),  # type: ignore[call-overload]
    }
    stage = Stage(
        work, "unet", parts, steps=recipe.steps, budget=budget, rate=recipe.rate, ema=recipe.ema, warm=recipe.warm
    )
    text, unet = stage.parts["text"], stage.parts["unet"]
    clean = make_scheduler().alphas_cumprod.to(stage.device)
    chance, weight = noise_levels(clean, recipe.snr_gamma)
    steps_up = (chance.cumsum(0) / chance.sum()).contiguous()
    latents.wait(recipe.least)

    def loss_of(step: int) -> torch.Tensor:
        z, words, places = latents.batch(
            recipe.batch, dropout=recipe.dropout, astray=recipe.astray, subject=recipe.subject
        )
        u = torch.rand(recipe.batch, device=stage.device)
        t = torch.searchsorted(steps_up, u).clamp(max=len(clean) - 1)
        a, noise = clean[t].view(-1, 1, 1, 1), torch.randn_like(z)
        x = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=layout)
        with attention(stage.device):
            guess = unet(x, t, text(words)[0]).sample.float()
        return ((places * (guess - noise).square()).mean((1, 2, 3)) * weight[t]).mean()

    def look(step: int) -> None:
        show(pipeline_of(latents.vae, tokenizer, stage.average["text"], stage.average["unet"]), step)

    stage.run(loss_of, feed=latents.feed, graph=True, shows=SHOWS, show=look, every=120)
