"""What the denoisers are trained on: the latents of composed pictures and their captions, on the device.

Pictures keep arriving while a denoiser trains; they are encoded block by block between two steps, into buffers that
stay where they are, so that a step which was captured as a graph sees them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer


class Pictures(Protocol):
    """Where pictures come from, as `pool.Pool` holds them: a ring in which new ones take the place of the oldest.

    Attributes:
        pictures: (capacity, 3, H, W) uint8 on the device.
        ids: (capacity, captions, tokens) integers on the device.
        drawn: how many have arrived in all; number n lies in row n % capacity.
    """

    pictures: torch.Tensor
    ids: torch.Tensor
    drawn: int

    def take(self, wait: float = 0.0, most: int = 64) -> int:
        """Let in what has arrived, so many blocks at most; wait so many seconds for the first."""


def read_vae(work: Path, device: str) -> AutoencoderKL:
    """The trained VAE of ``work/vae``, for looking only, in fp32.

    Raises:
        FileNotFoundError: it was not trained yet.
    """
    from diffusers import AutoencoderKL

    folder = work / "vae"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no VAE; train it first: the denoisers learn in its latents")
    vae: Any = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False)
    vae.register_to_config(shift_factor=float(vae.config.shift_factor or 0.0))  # flow pipelines add it, so it must be
    made: AutoencoderKL = vae.float().to(device).eval().requires_grad_(False)
    return made


class Latents:
    """Latents of the pictures that have arrived, and batches of them with captions.

    Latents are a twelfth of the pictures' size, so many more of them are kept than of the pictures.

    Args:
        pool: the pictures.
        vae: encodes them, on the pool's device.
        tokenizer: for the empty caption.
        bf16: encode in bfloat16.
        capacity: how many are kept; once it is full, new ones take the place of the oldest.
        block: how many pictures are encoded at once.
    """

    def __init__(
        self, pool: Pictures, vae: AutoencoderKL, tokenizer: CLIPTokenizer, *, bf16: bool, capacity: int,
        block: int = 256,
    ) -> None:  # fmt: skip
        import torch

        self.pool, self.vae, self.tokenizer, self.bf16, self.block = pool, vae, tokenizer, bf16, block
        self.device = pool.pictures.device
        side, factor = pool.pictures.shape[-1], 2 ** (len(vae.config.block_out_channels) - 1)
        shape = (capacity, vae.config.latent_channels, side // factor, side // factor)
        self.z = torch.zeros(shape, dtype=torch.float16, device=self.device)
        self.ids = torch.zeros((capacity, *pool.ids.shape[1:]), dtype=pool.ids.dtype, device=self.device)
        self.seen, self.kept = 0, 0
        self.count = torch.ones((), dtype=torch.int64, device=self.device)
        room = tokenizer.model_max_length
        self.empty = torch.tensor(tokenizer("", padding="max_length", max_length=room).input_ids, device=self.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent: channels, height, width."""
        channels, height, width = self.z.shape[1:]
        return channels, height, width

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) uint8 -> (N, C, H / f, W / f) float32, as the denoisers see them."""
        import torch

        config = self.vae.config
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            mode = self.vae.encode(pictures.float() / 127.5 - 1).latent_dist.mode().float()
        latents: torch.Tensor = (mode - (config.shift_factor or 0.0)) * config.scaling_factor
        return latents

    def feed(self, blocks: int = 1, *, partly: bool = False, wait: float = 0.0) -> None:
        """Let in what has arrived, and encode at most so many blocks of it.

        Args:
            blocks: of `block` pictures.
            partly: encode a block that is not full yet, too.
            wait: seconds to wait for pictures where none have come.
        """
        self.pool.take(wait, 2 * blocks)
        held, room = len(self.pool.pictures), len(self.z)
        for _ in range(blocks):
            arrived = self.pool.drawn
            self.seen = max(self.seen, arrived - held)  # what was replaced before it was looked at is gone
            start, to = self.seen % held, self.kept % room
            count = min(self.block, held - start, room - to)
            if arrived - self.seen < (1 if partly else count):
                return
            count = min(count, arrived - self.seen)
            self.z[to : to + count] = self.encode(self.pool.pictures[start : start + count]).half()
            self.ids[to : to + count] = self.pool.ids[start : start + count]
            self.seen += count
            self.kept += count
            self.count.fill_(min(self.kept, room))

    def wait(self, least: int, seconds: float = 60) -> None:
        """Wait until so many pictures are encoded, or as many as are kept, or so many seconds have passed.

        Raises:
            TimeoutError: not one picture has arrived in this time.
        """
        until = time.monotonic() + seconds
        while self.kept < min(least, len(self.z)) and time.monotonic() < until:
            self.feed(8, partly=True, wait=0.2)
        if not self.kept:
            raise TimeoutError(f"no picture has arrived in {seconds:g} s; is the art folder right?")

    def batch(self, size: int, *, dropout: float, astray: float) -> tuple[torch.Tensor, torch.Tensor]:
        """So many latents with captions, picked on the device.

        Args:
            size: how many.
            dropout: share of captions left empty, for classifier-free guidance.
            astray: share of captions that are another picture's, as on the web; guidance leads away from what they
                do to a picture.

        Returns:
            (B, C, h, w) float32 and (B, tokens) int64.
        """
        import torch

        def chance(share: float) -> torch.Tensor:
            return torch.rand(size, device=self.device) < share

        def anything() -> torch.Tensor:
            index = (torch.rand(size, device=self.device) * self.count).long()
            return torch.minimum(index, self.count - 1)

        index = anything()
        said = torch.where(chance(astray), anything(), index)
        which = torch.randint(self.ids.shape[1], (size,), device=self.device)
        words = self.ids[said, which].long()
        words = torch.where(chance(dropout)[:, None], self.empty, words)
        return self.z[index].float(), words
