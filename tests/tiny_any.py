"""Pipelines of no named family, of all groups, from small configs and the parts of `tiny_families`: one line each where
that is possible. `CASES` says for each what its call takes beyond settings, and what is known to come of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tiny import make_tokenizer
from tiny_families import WIDTH, characters, clip, ddim, family, flow, t5, unet, vae


class Case(NamedTuple):
    """One class: how it is made, the arguments it needs, whether it makes a split ("one": a single prediction, "three":
    of three, "bent": no plain mix), the size that is asked for, and what its call gives.
    """

    make: Callable[[], Any]
    extra: Callable[[], dict[str, Any]] = dict
    split: str = "both"
    sized: tuple[int, int] | None = (48, 32)
    kind: str = "picture"


def of(cls: str, base: str, **more: Callable[[], Any]) -> Callable[[], Any]:
    """A class around the parts of a family's pipeline, and more of its own."""

    def make() -> Any:
        import diffusers

        wanted = getattr(diffusers, cls)
        takes = inspect.signature(wanted.__init__).parameters
        parts = {name: part for name, part in family(base).components.items() if name in takes} if base else {}
        parts |= {name: part() for name, part in more.items()}
        quiet = {"requires_safety_checker": False, "add_watermarker": False}
        return wanted(**parts, **{name: value for name, value in quiet.items() if name in takes})

    return make


def _picture(width: int = 48, height: int = 32) -> Image.Image:
    x = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray((x * [1, 0.6, 0.3]).astype(np.uint8))


def _mask(width: int = 48, height: int = 32) -> Image.Image:
    made = np.zeros((height, width), np.uint8)
    made[height // 4 : height // 2, width // 4 : width // 2] = 255
    return Image.fromarray(made)


def image() -> dict[str, Any]:
    return {"image": _picture(), "strength": 0.8}


def masked() -> dict[str, Any]:
    return {"image": _picture(), "mask_image": _mask(), "strength": 0.8}


def control() -> dict[str, Any]:
    return {"image": _picture()}


def controlled() -> dict[str, Any]:
    return {"image": _picture(), "control_image": _picture(), "strength": 0.8}


def controlnet(base: str) -> Callable[[], Any]:
    def make() -> Any:
        from diffusers import ControlNetModel

        return ControlNetModel.from_unet(family(base).unet, conditioning_embedding_out_channels=(8, 8, 8)).eval()

    return make


def motion() -> Any:
    from diffusers import MotionAdapter

    return MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=8, motion_num_attention_heads=2
    ).eval()


def wide_unet() -> Any:
    return unet(in_channels=8)


def square_unet() -> Any:
    return unet(sample_size=8)


def flux_transformer(channels: int, out: int = 16) -> Callable[[], Any]:
    def make() -> Any:
        from diffusers import FluxTransformer2DModel

        return FluxTransformer2DModel(
            patch_size=1, in_channels=channels, out_channels=out, num_layers=1, num_single_layers=1,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8), guidance_embeds=True,
        ).eval()  # fmt: skip

    return make


def chroma() -> Any:
    from diffusers import ChromaTransformer2DModel

    return ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8), approximator_hidden_dim=32, approximator_layers=1,
        approximator_num_channels=16,
    ).eval()  # fmt: skip


def aura() -> Any:
    from diffusers import AuraFlowTransformer2DModel

    return AuraFlowTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=WIDTH, out_channels=4,
        pos_embed_max_size=256,
    ).eval()  # fmt: skip


def sprint() -> Any:
    from diffusers import SanaTransformer2DModel

    return SanaTransformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2,
        attention_head_dim=4, num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8,
        caption_channels=WIDTH, qk_norm="rms_norm_across_heads", guidance_embeds=True,
    ).eval()  # fmt: skip


def scm() -> Any:
    from diffusers import SCMScheduler

    return SCMScheduler()


def dit() -> Any:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    ).eval()  # fmt: skip


def pixels() -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def sd3_control() -> Any:
    from diffusers import SD3ControlNetModel

    return SD3ControlNetModel.from_transformer(
        family("sd3").transformer, num_layers=1, num_extra_conditioning_channels=0
    ).eval()


def wan() -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=WIDTH, freq_dim=256, ffn_dim=32, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()  # fmt: skip


def wan_vae() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.7, 1.1, 2.0],
    ).eval()  # fmt: skip


def ltx() -> Any:
    from diffusers import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=1, caption_channels=WIDTH,
    ).eval()  # fmt: skip


def ltx_vae() -> Any:
    from diffusers import AutoencoderKLLTXVideo

    made = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5, upsample_residual=(False,) * 4, upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False, patch_size=1, patch_size_t=1, encoder_causal=True, decoder_causal=False,
    ).eval()  # fmt: skip
    made.use_framewise_encoding = made.use_framewise_decoding = False
    return made


def cog() -> Any:
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=WIDTH, num_layers=1, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=16,
    ).eval()  # fmt: skip


def cog_vae() -> Any:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()  # fmt: skip


def cog_scheduler() -> Any:
    from diffusers import CogVideoXDDIMScheduler

    return CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)


def latte() -> Any:
    from diffusers import LatteTransformer3DModel

    return LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=WIDTH,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        video_length=2,
    ).eval()  # fmt: skip


def cascade() -> Any:
    from diffusers import StableCascadeUNet

    return StableCascadeUNet(
        conditioning_dim=16, block_out_channels=(16, 16), num_attention_heads=(2, 2), down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1), switch_level=(False,), clip_image_in_channels=768, clip_text_in_channels=WIDTH,
        clip_text_pooled_in_channels=WIDTH, dropout=(0.0, 0.0),
    ).eval()  # fmt: skip


def wuerstchen() -> Any:
    from diffusers import DDPMWuerstchenScheduler

    return DDPMWuerstchenScheduler()


def sound() -> Any:
    from diffusers import StableAudioDiTModel

    return StableAudioDiTModel(
        sample_size=4, in_channels=3, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=3, cross_attention_dim=4, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=4,
    ).eval()  # fmt: skip


def sound_vae() -> Any:
    from diffusers import AutoencoderOobleck

    return AutoencoderOobleck(
        encoder_hidden_size=6, downsampling_ratios=[1, 2], decoder_channels=3, decoder_input_channels=3,
        audio_channels=2, channel_multiples=[2, 4], sampling_rate=4,
    ).eval()  # fmt: skip


def sound_words() -> Any:
    from diffusers import StableAudioProjectionModel

    return StableAudioProjectionModel(text_encoder_dim=WIDTH, conditioning_dim=4, min_value=0, max_value=32).eval()


def cosine() -> Any:
    from diffusers import CosineDPMSolverMultistepScheduler

    return CosineDPMSolverMultistepScheduler(
        solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
    )


def short() -> Any:
    return characters(64)


def nothing() -> None:
    return None


T5 = {"text_encoder": t5, "tokenizer": short}
SOME_FRAMES = {"num_frames": 9}

CASES: dict[str, Case] = {
    # Of Stable Diffusion's parts
    "StableDiffusionImg2ImgPipeline": Case(
        of("StableDiffusionImg2ImgPipeline", "sd", unet=square_unet, scheduler=ddim), image, sized=None
    ),
    "StableDiffusionInpaintPipeline": Case(
        of("StableDiffusionInpaintPipeline", "sd", unet=square_unet, scheduler=ddim), masked
    ),
    "StableDiffusionPAGPipeline": Case(
        of("StableDiffusionPAGPipeline", "sd", unet=square_unet, scheduler=ddim), lambda: {"pag_scale": 0.9}
    ),
    "StableDiffusionPAGImg2ImgPipeline": Case(
        of("StableDiffusionPAGImg2ImgPipeline", "sd", unet=square_unet, scheduler=ddim), image, sized=None
    ),
    "StableDiffusionPAGInpaintPipeline": Case(
        of("StableDiffusionPAGInpaintPipeline", "sd", unet=square_unet, scheduler=ddim), masked
    ),
    "StableDiffusionControlNetPipeline": Case(
        of("StableDiffusionControlNetPipeline", "sd", scheduler=ddim, controlnet=controlnet("sd")), control
    ),
    "StableDiffusionControlNetImg2ImgPipeline": Case(
        of("StableDiffusionControlNetImg2ImgPipeline", "sd", scheduler=ddim, controlnet=controlnet("sd")), controlled
    ),
    "StableDiffusionControlNetInpaintPipeline": Case(
        of("StableDiffusionControlNetInpaintPipeline", "sd", scheduler=ddim, controlnet=controlnet("sd")),
        lambda: {**controlled(), "mask_image": _mask()},
    ),
    "StableDiffusionControlNetPAGPipeline": Case(
        of("StableDiffusionControlNetPAGPipeline", "sd", scheduler=ddim, controlnet=controlnet("sd")), control
    ),
    "StableDiffusionInstructPix2PixPipeline": Case(
        of("StableDiffusionInstructPix2PixPipeline", "sd", scheduler=ddim, unet=wide_unet),
        control, split="three", sized=None,
    ),
    "AnimateDiffPipeline": Case(
        of("AnimateDiffPipeline", "sd", scheduler=ddim, motion_adapter=motion), lambda: {"num_frames": 3}, kind="video"
    ),
    "AnimateDiffVideoToVideoPipeline": Case(
        of("AnimateDiffVideoToVideoPipeline", "sd", scheduler=ddim, motion_adapter=motion),
        lambda: {"video": [_picture()] * 3, "strength": 0.8}, kind="video",
    ),
    "LatentConsistencyModelImg2ImgPipeline": Case(
        of("LatentConsistencyModelImg2ImgPipeline", "lcm"), image, split="one", sized=None
    ),
    # Of SDXL's
    "StableDiffusionXLImg2ImgPipeline": Case(of("StableDiffusionXLImg2ImgPipeline", "sdxl"), image, sized=None),
    "StableDiffusionXLInpaintPipeline": Case(of("StableDiffusionXLInpaintPipeline", "sdxl"), masked),
    "StableDiffusionXLPAGPipeline": Case(of("StableDiffusionXLPAGPipeline", "sdxl")),
    "StableDiffusionXLPAGImg2ImgPipeline": Case(of("StableDiffusionXLPAGImg2ImgPipeline", "sdxl"), image, sized=None),
    "StableDiffusionXLPAGInpaintPipeline": Case(of("StableDiffusionXLPAGInpaintPipeline", "sdxl"), masked),
    "StableDiffusionXLControlNetPipeline": Case(
        of("StableDiffusionXLControlNetPipeline", "sdxl", controlnet=controlnet("sdxl")), control
    ),
    "StableDiffusionXLControlNetImg2ImgPipeline": Case(
        of("StableDiffusionXLControlNetImg2ImgPipeline", "sdxl", controlnet=controlnet("sdxl")), controlled
    ),
    "StableDiffusionXLControlNetInpaintPipeline": Case(
        of("StableDiffusionXLControlNetInpaintPipeline", "sdxl", controlnet=controlnet("sdxl")),
        lambda: {**controlled(), "mask_image": _mask()},
    ),
    "StableDiffusionXLControlNetPAGPipeline": Case(
        of("StableDiffusionXLControlNetPAGPipeline", "sdxl", controlnet=controlnet("sdxl")), control
    ),
    # Of SD 3's
    "StableDiffusion3Img2ImgPipeline": Case(of("StableDiffusion3Img2ImgPipeline", "sd3"), image),
    "StableDiffusion3PAGPipeline": Case(
        of("StableDiffusion3PAGPipeline", "sd3"), lambda: {"pag_scale": 0.7}
    ),
    "StableDiffusion3PAGImg2ImgPipeline": Case(of("StableDiffusion3PAGImg2ImgPipeline", "sd3"), image),
    "StableDiffusion3ControlNetPipeline": Case(
        of("StableDiffusion3ControlNetPipeline", "sd3", controlnet=sd3_control),
        lambda: {"control_image": _picture()},
    ),
    # Of Flux's
    "FluxImg2ImgPipeline": Case(of("FluxImg2ImgPipeline", "flux"), image, split="one"),
    "FluxInpaintPipeline": Case(of("FluxInpaintPipeline", "flux"), masked, split="one"),
    "FluxKontextPipeline": Case(
        of("FluxKontextPipeline", "flux"),
        lambda: {"image": _picture(), "_auto_resize": False},
        split="one",
    ),
    "FluxControlPipeline": Case(
        of("FluxControlPipeline", "flux", transformer=flux_transformer(32)),
        lambda: {"control_image": _picture()},
        split="one",
    ),
    "FluxControlImg2ImgPipeline": Case(
        of("FluxControlImg2ImgPipeline", "flux", transformer=flux_transformer(32)), controlled, split="one"
    ),
    "ChromaPipeline": Case(of("ChromaPipeline", "flux", transformer=chroma, **T5)),
    "ChromaImg2ImgPipeline": Case(of("ChromaImg2ImgPipeline", "flux", transformer=chroma, **T5), image),
    # Of the others'
    "ZImageImg2ImgPipeline": Case(of("ZImageImg2ImgPipeline", "zimage"), image),
    "ZImageInpaintPipeline": Case(of("ZImageInpaintPipeline", "zimage"), masked),
    "QwenImageImg2ImgPipeline": Case(of("QwenImageImg2ImgPipeline", "qwen"), image, split="bent"),
    "QwenImageInpaintPipeline": Case(of("QwenImageInpaintPipeline", "qwen"), masked, split="bent"),
    "Kandinsky3Img2ImgPipeline": Case(
        of("Kandinsky3Img2ImgPipeline", "kandinsky3"), lambda: {"image": _picture(128, 64), "strength": 0.8}, sized=None
    ),
    "PixArtSigmaPAGPipeline": Case(of("PixArtSigmaPAGPipeline", "pixart"), sized=(32, 32)),
    "SanaPAGPipeline": Case(of("SanaPAGPipeline", "sana"), sized=(64, 32)),
    "SanaSprintPipeline": Case(
        of("SanaSprintPipeline", "sana", transformer=sprint, scheduler=scm), split="one", sized=(64, 32)
    ),
    "AuraFlowPipeline": Case(of("AuraFlowPipeline", "", transformer=aura, vae=vae, scheduler=flow, **T5)),
    # Video
    "WanPipeline": Case(
        of("WanPipeline", "", transformer=wan, vae=wan_vae, scheduler=flow, **T5),
        lambda: SOME_FRAMES, sized=(32, 16), kind="video",
    ),
    "LTXPipeline": Case(
        of("LTXPipeline", "", transformer=ltx, vae=ltx_vae, scheduler=flow, **T5),
        lambda: SOME_FRAMES, sized=(64, 32), kind="video",
    ),
    "LTXImageToVideoPipeline": Case(
        of("LTXImageToVideoPipeline", "", transformer=ltx, vae=ltx_vae, scheduler=flow, **T5),
        lambda: {**SOME_FRAMES, "image": _picture(64, 32)}, sized=(64, 32), kind="video",
    ),
    "LTXConditionPipeline": Case(
        of("LTXConditionPipeline", "", transformer=ltx, vae=ltx_vae, scheduler=flow, **T5),
        lambda: {**SOME_FRAMES, "image": _picture(64, 32)}, sized=(64, 32), kind="video",
    ),
    "CogVideoXPipeline": Case(
        of("CogVideoXPipeline", "", transformer=cog, vae=cog_vae, scheduler=cog_scheduler, **T5),
        lambda: {"num_frames": 8, "max_sequence_length": 16}, sized=(32, 32), kind="video",
    ),
    "LattePipeline": Case(
        of("LattePipeline", "", transformer=latte, vae=vae, scheduler=ddim, **T5),
        lambda: {"video_length": 2, "clean_caption": False}, sized=(32, 32), kind="video",
    ),
    # Sound, and what is no picture of words
    "StableAudioPipeline": Case(
        of("StableAudioPipeline", "", transformer=sound, vae=sound_vae, scheduler=cosine,
           projection_model=sound_words, **T5),
        sized=None, kind="sound",
    ),
    "DiTPipeline": Case(
        of("DiTPipeline", "", transformer=dit, vae=vae, scheduler=ddim), lambda: {"class_labels": [3]}, sized=None
    ),
    "DDIMPipeline": Case(of("DDIMPipeline", "", unet=pixels, scheduler=ddim), split="one", sized=None),
    "StableCascadePriorPipeline": Case(
        of("StableCascadePriorPipeline", "", prior=cascade, scheduler=wuerstchen, tokenizer=make_tokenizer,
           text_encoder=lambda: clip(projection=True), feature_extractor=nothing, image_encoder=nothing),
        sized=(64, 64), kind="numbers",
    ),
}  # fmt: skip


@functools.cache
def pipeline(name: str) -> Any:
    """A pipeline of a class; the same object for all tests of a process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        made = CASES[name].make()
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    made.set_progress_bar_config(disable=True)
    return made
