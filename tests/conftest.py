"""Fixtures for all rooms: the tiny pipeline of `tiny`, a model around it, one of its runs. No hub is ever asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once
os.environ["DIFFEXPLORE_TIMES"] = "off"  # what runs take is written into nobody's home
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes beside each other: a core for each, not each for all

from tiny import make_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import StableDiffusionPipeline

    from diffexplore.model import Model
    from diffexplore.trace import Trace

# How fast the machine is decides nothing here.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny_pipeline() -> StableDiffusionPipeline:
    return make_pipeline()


@pytest.fixture(scope="session")
def tiny_model(tiny_pipeline: StableDiffusionPipeline) -> Model:
    from diffexplore.model import Model

    return Model(tiny_pipeline)


@pytest.fixture(scope="session")
def tiny_trace(tiny_model: Model) -> Trace:
    """Four DDIM steps with guidance 5."""
    return tiny_model.trace(prompt="a red fox", negative_prompt="blurry", steps=4, guidance=5.0, seed=3, sampler="DDIM")


@pytest.fixture(scope="session")
def broken_trace() -> Trace:
    """Three steps of a network that predicts NaN."""
    from diffexplore.model import Model

    pipeline = make_pipeline()
    pipeline.unet.conv_out.bias.data[0] = float("nan")
    return Model(pipeline).trace(prompt="a red fox", steps=3, sampler="DDIM")


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the tiny pipeline's attention with random weights, as its own save writes it."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = make_pipeline()
    pipeline.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("lora")
    weights = {key: 40 * value for key, value in get_peft_model_state_dict(pipeline.unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights, weight_name="my style.safetensors")
    return folder / "my style.safetensors"


@pytest.fixture(scope="session")
def art_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for the emoji, each of another colour and width: the real ones are not in the repository."""
    import colorsys

    from PIL import Image, ImageDraw

    from diffexplore.pocket import world

    folder = tmp_path_factory.mktemp("art")
    (folder / "assets").mkdir()
    for i, (code, _, _) in enumerate(world.SUBJECTS.values()):
        picture = Image.new("RGBA", (256, 256))
        red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(i / len(world.SUBJECTS), 0.6, 0.9))
        ImageDraw.Draw(picture).ellipse((40, 60, 180 + i // 2, 220), fill=(red, green, blue))
        picture.save(folder / "assets" / f"{code}.webp")
    return folder
