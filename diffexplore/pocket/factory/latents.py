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


CACHED = 16
"""Pictures that a processor encodes at once: what they become on the way stays in its caches, so each takes 9 ms at 128
pixels where it takes 16 among 256."""


class Pictures(Protocol):
    """Where pictures come from, as `pool.Pool` holds them: the first `count` rows of the buffers are filled.

    Attributes:
        pictures: (capacity, 3, H, W) uint8 on the device.
        ids: (capacity, captions, tokens) integers on the device.
        subjects: (capacity, places, places) uint8 on the device: where each one's subject is.
        count: how many have arrived.
    """

    pictures: torch.Tensor
    ids: torch.Tensor
    subjects: torch.Tensor
    count: int

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
        side, factor = pool.pictures.shape[-1], 2 ** (len(vae.config.block_out_channels) - 1)
        shape = (len(pool.pictures), vae.config.latent_channels, side // factor, side // factor)
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

        config, on_cpu = self.vae.config, self.device.type == "cpu"

        def mode(some: torch.Tensor) -> torch.Tensor:
            x = some.float() / 127.5 - 1
            if on_cpu:
                x = x.contiguous(memory_format=torch.channels_last)
            return self.vae.encode(x).latent_dist.mode().float()

        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            modes = torch.cat([mode(some) for some in pictures.split(CACHED if on_cpu else len(pictures))])
        latents: torch.Tensor = (modes - (config.shift_factor or 0.0)) * config.scaling_factor
        return latents

    def feed(self, blocks: int = 1, *, partly: bool = False, wait: float = 0.0) -> None:
        """Let in what has arrived, and encode at most so many blocks of it.

        Args:
            blocks: of `block` pictures.
            partly: encode a block that is not full yet, too.
            wait: seconds to wait for pictures where none have come.
        """
        self.pool.take(wait, 2 * blocks)
        for _ in range(blocks):
            new = min(self.block, self.pool.count - self.done)
            last = self.pool.count == len(self.z)
            if new < (1 if partly or last else self.block):
                return
            rows = slice(self.done, self.done + new)
            self.z[rows] = self.encode(self.pool.pictures[rows]).half()
            self.done += new
            self.count.fill_(self.done)

    def wait(self, least: int, seconds: float = 60) -> None:
        """Wait until so many pictures are encoded, or all that fit, or so many seconds have passed.

        Raises:
            TimeoutError: not one picture has arrived in this time.
        """
        until = time.monotonic() + seconds
        while self.done < min(least, len(self.z)) and time.monotonic() < until:
            self.feed(8, partly=True, wait=0.2)
        if not self.done:
            raise TimeoutError(f"no picture has arrived in {seconds:g} s; is the art folder right?")

    def batch(
        self, size: int, *, dropout: float, astray: float, subject: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """So many latents with captions, picked on the device.

        Args:
            size: how many.
            dropout: share of captions left empty, for classifier-free guidance.
            astray: share of captions that are another picture's, as on the web; guidance leads away from what they
                do to a picture.
            subject: what an error in the subject weighs, of one around it.

        Returns:
            Latents (B, C, h, w) float32, captions (B, tokens) int64, and the weights of errors (B, 1, h, w) float32,
            whose mean over each picture is 1.
        """
        import torch
        from torch.nn.functional import interpolate

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
        share = interpolate(self.pool.subjects[index][:, None].float() / 255, self.shape[1:], mode="area")
        weight = 1 + (subject - 1) * share
        return self.z[index].float(), words, weight / weight.mean((2, 3), keepdim=True)
