"""A very small picture world to train on: some pictures with real captions that arrive bit by bit, a VAE, recipes."""

import dataclasses

import numpy as np
import torch

from diffexplore.pocket import world
from diffexplore.pocket.factory import flow, turbo, unet, vae

SIDE = 32
VAE = dataclasses.replace(vae.RECIPE, size=SIDE, channels=(8, 8, 8, 16), latent=6, batch=2)
UNET = dataclasses.replace(
    unet.RECIPE, channels=(16, 32, 32), heads=(1, 2, 2), text_width=32, text_layers=1, batch=2, steps=6, sheet_steps=1,
    least=4,
)  # fmt: skip
FLOW = dataclasses.replace(
    flow.RECIPE, width=32, heads=2, layers=2, text_widths=(32, 32), text_layers=(2, 2), batch=2, steps=6, least=4
)
TURBO = dataclasses.replace(turbo.RECIPE, pocket=UNET, embedding=8, batch=2, steps=6, least=4)


class Arriving:
    """Pictures of noise, eight more at every call."""

    def __init__(self, tokenizer, capacity=24):
        rng = np.random.default_rng(0)
        texts = [world.caption(world.sample_scene(rng), rng) for _ in range(2 * capacity)]
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
        self.pictures = torch.from_numpy(rng.integers(0, 256, (capacity, 3, SIDE, SIDE), np.uint8))
        self.ids = torch.tensor(ids, dtype=torch.int16).view(capacity, 2, -1)
        self.subjects = torch.from_numpy(rng.integers(0, 256, (capacity, 16, 16), np.uint8))
        self.count = 0

    def take(self, wait=0.0, most=64):
        self.count = min(self.count + 8, len(self.pictures))
        return self.count


def write_vae(work, channels=6):
    """A small VAE of the factory's shape, 8 times down, as ``work/vae``."""
    from diffusers import AutoencoderKL

    torch.manual_seed(3)
    made = AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=0.9,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    made.save_pretrained(work / "vae")
