"""Networks that look at composed pictures, for the factory alone.

The *second judge* is of another make than the judge that ships (depthwise filters and layer normalisation, after
ConvNeXt, https://arxiv.org/abs/2201.03545), sees whole pictures, and is trained on pictures that are turned, cut and
shaken: nothing is ever chosen by it, so that it can say what a denoiser is worth. The *sight* is a judge at full size;
a VAE is trained to keep what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.pocket.judge import ATTRIBUTES, make_network

if TYPE_CHECKING:
    import torch

__all__ = ["features", "make_second", "make_sight", "read_second", "sees", "shaken"]

SECOND = ((64, 2), (128, 3), (192, 2))
"""Channels and blocks of the three stages of the second judge, at an eighth of the side, a sixteenth, a thirty-second.

Patches of 8 pixels are cut at once, as where whole pictures are read as words: a quarter of what patches of 4 would
cost, and the finest detail is still in them.
"""
SIGHT = (32, 64, 96, 128)


def make_sight() -> torch.nn.Sequential:
    """A judge's network for pictures of full size."""
    return make_network(SIGHT)


def make_second() -> torch.nn.Module:
    """The second judge: (N, 3, S, S) in -1..1 to (N, 104) scores; its attribute ``features`` gives (N, 192)."""
    import torch
    from torch import nn

    class Norm(nn.LayerNorm):
        """Over the channels of (N, C, H, W)."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Block(nn.Module):
        def __init__(self, wide: int) -> None:
            super().__init__()
            self.far = nn.Conv2d(wide, wide, 7, padding=3, groups=wide)
            self.norm = Norm(wide)
            self.up, self.down = nn.Conv2d(wide, 4 * wide, 1), nn.Conv2d(4 * wide, wide, 1)
            self.scale = nn.Parameter(torch.full((1, wide, 1, 1), 0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.down(nn.functional.gelu(self.up(self.norm(self.far(x)))))
            return x + self.scale * y

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            before = 3
            for wide, blocks in SECOND:
                layers += [nn.Conv2d(before, wide, 8, 8) if before == 3 else nn.Conv2d(before, wide, 2, 2), Norm(wide)]
                layers += [Block(wide) for _ in range(blocks)]
                before = wide
            self.body = nn.Sequential(*layers)
            self.norm = nn.LayerNorm(before)
            self.head = nn.Linear(before, sum(len(values) for values in ATTRIBUTES.values()))

        def features(self, x: torch.Tensor) -> torch.Tensor:
            seen: torch.Tensor = self.norm(self.body(x).mean((2, 3)))
            return seen

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.head(self.features(x))
            return scores

    return Second().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def shaken(x: torch.Tensor) -> torch.Tensor:
    """Pictures mirrored, turned by up to 15 degrees, moved, larger or smaller, brighter or darker, with a patch gone;
    nothing that would change what a judge has to read: no hue, no blur, little grain.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    n, device = len(x), x.device

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape or (n,), device=device) * (high - low) + low

    angle, scale = between(-0.26, 0.26), between(0.85, 1.25)
    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [
        torch.stack([cos * mirror, -sin, between(-0.15, 0.15)], 1),
        torch.stack([sin * mirror, cos, between(-0.15, 0.15)], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    x = grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    x = x * between(0.85, 1.15, n, 1, 1, 1) + between(-0.1, 0.1, n, 1, 1, 1)
    side = x.shape[-1]
    place = torch.arange(side, device=device)
    top, left, extent = between(0, side), between(0, side), between(0, 0.3 * side)
    down = (place >= top[:, None]) & (place < (top + extent)[:, None])
    across = (place >= left[:, None]) & (place < (left + extent)[:, None])
    gone = (down[:, :, None] & across[:, None, :])[:, None]
    x = torch.where(gone, between(-1, 1, n, 3, 1, 1), x)
    return x + 0.03 * between(0, 1, n, 1, 1, 1) * torch.randn_like(x)


def sees(sight: torch.nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """What the sight makes of pictures after each of its blocks, each place of length 1: (N, C, h, w) four times."""
    found = []
    for layer in list(sight)[:6]:
        x = layer(x)
        if len(list(layer.children())):
            found.append(x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt())
    return found[1:]


def read_second(path: Path) -> torch.nn.Module:
    """The trained second judge, from safetensors."""
    from safetensors.torch import load_file

    made = make_second()
    made.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return made.eval().requires_grad_(False)


def features(network: Any, pictures: Sequence[np.ndarray], size: int, device: str = "cpu") -> Any:
    """What the second judge sees in pictures of any size, brought to one: features (N, 192) and scores (N, 104)."""
    import torch
    from torch.nn.functional import interpolate

    network = network.to(device)
    seen, said = [], []
    with torch.inference_mode():
        for start in range(0, len(pictures), 128):
            x = (
                torch.from_numpy(np.stack(pictures[start : start + 128])).permute(0, 3, 1, 2).to(device).float() / 127.5
                - 1
            )
            if x.shape[-1] != size:
                x = interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
            part = network.features(x)
            seen.append(part.float().cpu())
            said.append(network.head(part).float().cpu())
    return torch.cat(seen).numpy(), torch.cat(said).numpy()
