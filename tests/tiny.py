"""A real Stable Diffusion pipeline with random weights, small enough to be built in a moment, with no hub.

Sizes are chosen so that mistakes show: latents are wider than high, their channels are no multiple of three, and the
picture is four times as large as the latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

WORDS = (
    "a",
    "red",
    "blue",
    "fox",
    "cat",
    "in",
    "the",
    "snow",
    "desert",
    "at",
    "night",
    "blurry",
    "quality",
    "low",
)


def make_tokenizer(length: int = 16):  # type: ignore[no-untyped-def]
    """A CLIPTokenizer with a tiny vocabulary of its own: single characters, and :data:`WORDS` as whole
    tokens.
    """
    from transformers import CLIPTokenizer

    characters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    vocab = [*characters, *(c + "</w>" for c in characters)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            left, right = parts[0], parts[1]
            if (left, right) not in merges:
                merges.append((left, right))
                if left + right not in vocab:
                    vocab.append(left + right)
            parts = [left + right, *parts[2:]]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocab)}, merges=merges, model_max_length=length)


def make_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A fresh StableDiffusionPipeline with random weights: pictures 48x32 (latents 4x8x12), epsilon
    prediction, on the CPU.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = make_tokenizer()
        pipeline = StableDiffusionPipeline(
            unet=UNet2DConditionModel(
                sample_size=(8, 12),
                block_out_channels=(16, 32),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=8,
                norm_num_groups=8,
            ),
            vae=AutoencoderKL(
                block_out_channels=(8, 8, 16),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=48,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=16,
                    intermediate_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    max_position_embeddings=16,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            ),
            tokenizer=tokenizer,
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def record(pipeline, emits, cancel, **options):  # type: ignore[no-untyped-def]
    """Record, and be able to cancel, one call of a pipeline made within the block; see `Recorder` and `Cancel`."""
    from diffexplore.pipelines.base import denoisers
    from diffexplore.runs.probes import Cancel, attached
    from diffexplore.runs.recorder import Recorder

    return attached(pipeline, [Recorder(emits, **options), Cancel(cancel, denoisers(pipeline))])
