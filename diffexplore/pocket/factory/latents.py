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
    """Where pictures come from: the first `count` rows of the buffers are filled, and `take` lets in what has arrived.

    Attributes:
        pictures: (capacity, 3, H, W) uint8 on the device.
        ids: (capacity, captions, tokens) integers on the device.
        count: how many rows are filled.
    """

    pictures: torch.Tensor
    ids: torch.Tensor
    count: int

    def take(self) -> Any:
        """Let in what has arrived."""


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
    """Latents of all pictures that have arrived, and batches of them with captions.

    Args:
        pool: the pictures.
        vae: encodes them, on the pool's device.
        tokenizer: for the empty caption.
        bf16: encode in bfloat16.
        block: how many pictures are encoded at once.
    """

    def __init__(
        self, pool: Pictures, vae: AutoencoderKL, tokenizer: CLIPTokenizer, *, bf16: bool, block: int = 256
    ) -> None:
        import torch

        self.pool, self.vae, self.tokenizer, self.bf16, self.block = pool, vae, tokenizer, bf16, block
        self.device = pool.pictures.device
        capacity, side = len(pool.pictures), pool.pictures.shape[-1]
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        shape = (capacity, vae.config.latent_channels, side // factor, side // factor)
        self.z = torch.zeros(shape, dtype=torch.float16, device=self.device)
        self.done = 0
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

    def feed(self, blocks: int = 1) -> None:
        """Let in what has arrived, and encode at most so many blocks of it; a last, smaller block when all are here."""
        self.pool.take()
        for _ in range(blocks):
            arrived = int(self.pool.count)
            stop = min(self.done + self.block, arrived)
            if stop - self.done < self.block and arrived < len(self.z) and self.done:
                return
            if stop <= self.done:
                return
            self.z[self.done : stop] = self.encode(self.pool.pictures[self.done : stop]).half()
            self.done = stop
            self.count.fill_(stop)

    def wait(self, least: int, seconds: float = 60) -> None:
        """Wait until so many pictures are encoded, or all there will ever be.

        Raises:
            TimeoutError: not one picture has arrived in this time.
        """
        until = time.monotonic() + seconds
        while self.done < min(least, len(self.z)):
            before = self.done
            self.feed(8)
            if self.done == before:
                time.sleep(0.05)
            if time.monotonic() > until:
                if not self.done:
                    raise TimeoutError(f"no picture has arrived in {seconds:g} s; is the art folder right?")
                return

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
        which = torch.randint(self.pool.ids.shape[1], (size,), device=self.device)
        words = self.pool.ids[said, which].long()
        words = torch.where(chance(dropout)[:, None], self.empty, words)
        return self.z[index].float(), words
