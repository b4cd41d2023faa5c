"""Pipelines of the sizes people work with, their weights random: what they cost is real, what they draw is noise.

No network and no hub is needed: the layouts are those of Stable Diffusion 1.5, Stable Diffusion XL and Stable Diffusion
3 medium (without T5), written out here; the tokenizer is that of the pocket model.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from diffexplore.pipelines.open import quiet

if TYPE_CHECKING:
    import torch

__all__ = ["NETS", "Net"]


@dataclasses.dataclass(frozen=True)
class Net:
    """A pipeline to be made.

    Attributes:
        name: what it is as large as.
        side: pixels a side that it is made for.
        dtype: what its weights are kept as, a torch dtype by name.
        make: makes it around a scheduler, and
        scheduler: makes that; both called by :meth:`build`.
    """

    name: str
    side: int
    dtype: str
    make: Callable[[bool, Any], Any]
    scheduler: Callable[[], Any]

    def build(self, device: str = "cuda", *, small: bool = False) -> Any:
        """The pipeline on a `device`, the same random weights every time; `small`: of the same layout, but of a few
        thousand weights, to try out what is done with it.
        """
        import torch

        kind = torch.float32 if device == "cpu" else getattr(torch, self.dtype)
        scheduler = self.scheduler()  # its tables belong in main memory, whatever the networks are made on
        with quiet():
            with _made_on(device, kind):
                pipeline = self.make(small, scheduler)
            pipeline.to(device=device, dtype=kind)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@contextlib.contextmanager
def _made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Within the block, networks are made where they are to work, which takes a hundredth of the time."""
    import torch

    before = torch.get_default_dtype()
    devices = [torch.device(device)] if device != "cpu" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    from diffexplore.model import POCKET

    return CLIPTokenizer.from_pretrained(POCKET / "tokenizer", model_max_length=77)


def _clip(width: int, layers: int, heads: int, *, projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = _tokenizer()
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=77,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        hidden_act="gelu",
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _vae(small: bool, channels: int = 4, **config: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 32) if small else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if small else 2,
        latent_channels=channels,
        sample_size=512,
        force_upcast=False,
        **config,
    ).eval()


def _euler() -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )


def _flow_euler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _sd(small: bool, scheduler: Any) -> Any:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    width = 64 if small else 768
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 32, 64, 64) if small else (320, 640, 1280, 1280),
        layers_per_block=1 if small else 2,
        cross_attention_dim=width,
        attention_head_dim=8,
    )
    return StableDiffusionPipeline(
        unet=unet.eval(),
        vae=_vae(small),
        text_encoder=_clip(64, 2, 2) if small else _clip(768, 12, 12),
        tokenizer=_tokenizer(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(small: bool, scheduler: Any) -> Any:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    # Six numbers of sizes and crops, each 256 wide (small: 8), beside the pooled text.
    pooled, numbers = (64, 6 * 8) if small else (1280, 6 * 256)
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(32, 64, 64) if small else (320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1 if small else 2,
        transformer_layers_per_block=1 if small else (1, 2, 10),
        attention_head_dim=(2, 4, 4) if small else (5, 10, 20),
        cross_attention_dim=128 if small else 2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8 if small else 256,
        projection_class_embeddings_input_dim=pooled + numbers,
    )
    return StableDiffusionXLPipeline(
        unet=unet.eval(),
        vae=_vae(small, scaling_factor=0.13025),
        text_encoder=_clip(64, 2, 2) if small else _clip(768, 12, 12),
        text_encoder_2=_clip(64, 2, 2, projection=True) if small else _clip(1280, 32, 20, projection=True),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        scheduler=scheduler,
        add_watermarker=False,
    )


def _flow(small: bool, scheduler: Any) -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    first, second = (64, 64) if small else (768, 1280)
    transformer = SD3Transformer2DModel(
        sample_size=32 if small else 128,
        num_layers=2 if small else 24,
        num_attention_heads=2 if small else 24,
        attention_head_dim=16 if small else 64,
        joint_attention_dim=first + second if small else 4096,
        caption_projection_dim=32 if small else 1536,
        pooled_projection_dim=first + second,
        in_channels=16,
        out_channels=16,
        pos_embed_max_size=192,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        vae=_vae(
            small, 16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=_clip(64, 2, 2, projection=True) if small else _clip(768, 12, 12, projection=True),
        text_encoder_2=_clip(64, 2, 2, projection=True) if small else _clip(1280, 32, 20, projection=True),
        text_encoder_3=None,
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        tokenizer_3=None,
        scheduler=scheduler,
    )


NETS = (
    Net("SD 1.5", 512, "float16", _sd, _euler),
    Net("SDXL", 1024, "float16", _sdxl, _euler),
    Net("flow 2 B", 1024, "bfloat16", _flow, _flow_euler),
)
"""The sizes that are measured: 0.86, 2.6 and 2.0 billion weights in the network that denoises."""
