"""One real pipeline of every family with random weights and real text encoders, built in a moment, with no hub.

Pictures are small but never the smallest possible, latents have their family's own layout, and every config that
decides a number (scaling, shift, guidance inputs, learned variance) is set to something that shows if it is ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tiny import make_pipeline, make_tokenizer

if TYPE_CHECKING:
    import torch

    from diffexplore.model import Model

WIDTH = 16  # of every text encoder here


def characters(length: int = 4096, *, chat: bool = False) -> Any:
    """A fast tokenizer with one token per character, as T5, Gemma or Qwen might have: an end token, padding."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocab |= {chr(c): 3 + i for i, c in enumerate(range(32, 127))}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )
    if chat:
        tokenizer.chat_template = "{% for m in messages %}user: {{ m.content }}{% endfor %} assistant:"
    return tokenizer


def t5() -> torch.nn.Module:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=98, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).eval()


def clip(*, projection: bool = False) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = make_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae(channels: int = 4, **options: Any) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=48,
        **options,
    ).eval()


def unet(**options: Any) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {
        "sample_size": (8, 12),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**config, **options}).eval()


def ddim(**options: Any) -> Any:
    from diffusers import DDIMScheduler

    config: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**{**config, "clip_sample": False, "steps_offset": 1, **options})


def flow(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def sdxl() -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        unet=unet(
            sample_size=(8, 12),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            cross_attention_dim=2 * WIDTH,
            transformer_layers_per_block=1,
        ),
        vae=vae(force_upcast=True, scaling_factor=0.13),
        text_encoder=clip(),
        text_encoder_2=clip(projection=True),
        tokenizer=make_tokenizer(),
        tokenizer_2=make_tokenizer(),
        scheduler=ddim(),
        add_watermarker=False,
    )


def lcm() -> Any:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    return LatentConsistencyModelPipeline(
        unet=unet(time_cond_proj_dim=32),
        vae=vae(),
        text_encoder=clip(),
        tokenizer=make_tokenizer(),
        scheduler=LCMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", original_inference_steps=50
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=2 * WIDTH,
        ).eval(),
        vae=vae(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=clip(projection=True),
        text_encoder_2=clip(projection=True),
        text_encoder_3=_wide_t5(),
        tokenizer=make_tokenizer(),
        tokenizer_2=make_tokenizer(),
        tokenizer_3=characters(),
        scheduler=flow(shift=3.0),
    )


def _wide_t5() -> torch.nn.Module:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=98, d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).eval()


def flux() -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ).eval(),
        vae=vae(scaling_factor=0.36, shift_factor=0.11),
        text_encoder=clip(),
        text_encoder_2=t5(),
        tokenizer=make_tokenizer(),
        tokenizer_2=characters(),
        scheduler=flow(shift=3.0, use_dynamic_shifting=True),
    )


def kandinsky3() -> Any:
    from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel

    return Kandinsky3Pipeline(
        unet=Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(32, 64),
            cross_attention_dim=4,
            encoder_hid_dim=WIDTH,
        ).eval(),
        movq=VQModel(
            block_out_channels=(32, 32, 32, 32),  # spatial norm has 32 groups
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=4,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ).eval(),
        text_encoder=t5(),
        tokenizer=characters(128),
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False),
    )


def pixart() -> Any:
    from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel

    return PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=8,  # a learned variance behind the prediction
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=3,
            cross_attention_dim=24,
            caption_channels=WIDTH,
            use_additional_conditions=False,
        ).eval(),
        vae=vae(scaling_factor=0.13),
        text_encoder=t5(),
        tokenizer=characters(),
        scheduler=ddim(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )


def sana() -> Any:
    from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    return SanaPipeline(
        transformer=SanaTransformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=WIDTH,
        ).eval(),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            encoder_qkv_multiscales=((), (5,), (5,)),
            decoder_qkv_multiscales=((), (5,), (5,)),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41,
        ).eval(),
        text_encoder=Gemma2Model(
            Gemma2Config(
                vocab_size=98,
                hidden_size=WIDTH,
                head_dim=8,
                intermediate_size=32,
                num_attention_heads=2,
                num_key_value_heads=2,
                num_hidden_layers=1,
            )
        ).eval(),
        tokenizer=characters(),
        scheduler=flow(shift=3.0),
    )


def zimage() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        ).eval(),
        vae=vae(scaling_factor=0.36, shift_factor=0.11),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=98,
                hidden_size=WIDTH,
                head_dim=8,
                intermediate_size=32,
                num_attention_heads=2,
                num_key_value_heads=2,
                num_hidden_layers=2,
            )
        ).eval(),
        tokenizer=characters(chat=True),
        scheduler=flow(shift=3.0),
    )


def qwen() -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 98,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
        vae=AutoencoderKLQwenImage(
            base_dim=12,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.5, 0.7, 1.1, 2.0],
        ).eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=5, video_token_id=6)
        ).eval(),
        tokenizer=characters(),
        scheduler=flow(shift=1.0, use_dynamic_shifting=True),
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "sd": make_pipeline, "sdxl": sdxl, "lcm": lcm, "sd3": sd3, "flux": flux, "kandinsky3": kandinsky3,
    "pixart": pixart, "sana": sana, "zimage": zimage, "qwen": qwen,
}  # fmt: skip
SIZES = {"kandinsky3": (128, 64), "sana": (64, 32)}


@functools.cache
def family(name: str) -> Any:
    """A pipeline of a family; the same object for all tests of a process."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        pipeline = MAKERS[name]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@functools.cache
def model(name: str) -> Model:
    """A model of a family, which remembers nothing: every run of it is a real one."""
    from diffexplore.model import Model

    return Model(family(name), reuse=0)


def size(name: str) -> dict[str, int]:
    """A size that every part of the family's pipeline can draw, wider than high."""
    width, height = SIZES.get(name, (48, 32))
    return {"width": width, "height": height}
