"""How a pipeline lays out its latents, found by looking: each way that diffusers knows is tried against the tensor that
the decoder was given, and one that fits number for number (but for a scale and a shift of each channel) is it.

A layout turns (B, ...) latents as the pipeline keeps them into (B, C, *axes, h, w), and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

__all__ = ["LAYOUTS", "Grid", "Layout", "fitting", "found", "supposed"]

_OFF = 1e-3  # of the largest number: what a decoder's input may be off an affine function of the latents


class Grid(NamedTuple):
    """The latents as a decoder takes them: their channels, frames (0 for none), height and width."""

    channels: int
    frames: int
    height: int
    width: int


class Layout(NamedTuple):
    """One way to keep latents.

    Attributes:
        name: in a few words.
        shape: of one picture's latents as the pipeline keeps them, for a grid; None where the grid cannot lie so.
        unpack: (B, *shape) and the grid to (B, C, [f], h, w).
        pack: back.
    """

    name: str
    shape: Callable[[Grid], tuple[int, ...] | None]
    unpack: Callable[[torch.Tensor, Grid], torch.Tensor]
    pack: Callable[[torch.Tensor, Grid], torch.Tensor]


def _axes(g: Grid) -> tuple[int, ...]:
    return (g.channels, *((g.frames,) if g.frames else ()), g.height, g.width)


def _even(g: Grid) -> bool:
    return g.height % 2 == 0 and g.width % 2 == 0


def _rows(x: torch.Tensor, g: Grid) -> torch.Tensor:
    return x.transpose(1, 2).reshape(len(x), *_axes(g))


def _to_rows(x: torch.Tensor, g: Grid) -> torch.Tensor:
    return x.reshape(len(x), g.channels, -1).transpose(1, 2)


def _cells(order: str, *, grid: bool) -> Layout:
    """2 x 2 latents as one token, its numbers in the `order` "cpq" or "pqc"; in rows, or still in a grid."""
    first = order == "cpq"
    numbers = "channels first" if first else "channels last"

    def shape(g: Grid) -> tuple[int, ...] | None:
        if not _even(g) or (grid and g.frames):
            return None
        if grid:
            return 4 * g.channels, g.height // 2, g.width // 2
        return max(1, g.frames) * g.height * g.width // 4, 4 * g.channels

    def unpack(x: torch.Tensor, g: Grid) -> torch.Tensor:
        f, h, w = max(1, g.frames), g.height // 2, g.width // 2
        x = x.movedim(1, -1) if grid else x
        x = x.reshape(len(x), f, h, w, *((g.channels, 2, 2) if first else (2, 2, g.channels)))
        x = x.permute(0, 4, 1, 2, 5, 3, 6) if first else x.permute(0, 6, 1, 2, 4, 3, 5)
        return x.reshape(len(x), *_axes(g))

    def pack(x: torch.Tensor, g: Grid) -> torch.Tensor:
        f, h, w = max(1, g.frames), g.height // 2, g.width // 2
        x = x.reshape(len(x), g.channels, f, h, 2, w, 2)
        x = x.permute(0, 2, 3, 5, 1, 4, 6) if first else x.permute(0, 2, 3, 5, 4, 6, 1)
        x = x.reshape(len(x), f * h * w, 4 * g.channels)
        return x.transpose(1, 2).reshape(len(x), 4 * g.channels, h, w) if grid else x

    return Layout(f"2x2 as one{', in a grid' if grid else ''}, {numbers}", shape, unpack, pack)


def _moved(name: str, shape: Callable[[Grid], tuple[int, ...] | None], there: Sequence[int]) -> Layout:
    """The same axes in another order."""
    back = [list(there).index(k) for k in range(len(there))]
    return Layout(name, shape, lambda x, g: x.permute(*there), lambda x, g: x.permute(*back))


LAYOUTS: dict[str, Layout] = {
    one.name: one
    for one in (
        Layout("as it is", _axes, lambda x, g: x, lambda x, g: x),
        Layout(
            "one frame",
            lambda g: None if g.frames else (g.channels, 1, g.height, g.width),
            lambda x, g: x.squeeze(2),
            lambda x, g: x.unsqueeze(2),
        ),
        Layout(
            "one more axis",
            lambda g: (1, *_axes(g)),
            lambda x, g: x.squeeze(1),
            lambda x, g: x.unsqueeze(1),
        ),
        _moved(
            "frames first",
            lambda g: (g.frames, g.channels, g.height, g.width) if g.frames else None,
            (0, 2, 1, 3, 4),
        ),
        _moved(
            "channels last",
            lambda g: (g.frames, g.height, g.width, g.channels) if g.frames else None,
            (0, 4, 1, 2, 3),
        ),
        Layout(
            "one frame, channels last",
            lambda g: None if g.frames else (1, g.height, g.width, g.channels),
            lambda x, g: x.squeeze(1).permute(0, 3, 1, 2),
            lambda x, g: x.permute(0, 2, 3, 1).unsqueeze(1),
        ),
        _moved(
            "channels last, no frames",
            lambda g: None if g.frames else (g.height, g.width, g.channels),
            (0, 3, 1, 2),
        ),
        Layout("rows", lambda g: (max(1, g.frames) * g.height * g.width, g.channels), _rows, _to_rows),
        _cells("cpq", grid=False),
        _cells("pqc", grid=False),
        _cells("cpq", grid=True),
        _cells("pqc", grid=True),
    )
}
"""The ways that are tried, in this order, by name."""


def _grids(taken: torch.Tensor, kept: torch.Tensor) -> list[tuple[Grid, torch.Tensor]]:
    """What grids a decoder's input may stand for, each with that input as (B, C, [f], h, w)."""
    if taken.ndim == 5:
        f, h, w = taken.shape[2:]
        made = [(Grid(taken.shape[1], f, h, w), taken)]
        # A single frame is a picture.
        return [(Grid(taken.shape[1], 0, h, w), taken[:, :, 0]), *made] if f == 1 else made
    if taken.ndim == 4:
        c, h, w = taken.shape[1:]
        made = [(Grid(c, 0, h, w), taken)]
        if len(taken) > 1 and kept.ndim == 5 and kept[0].numel() == taken.numel():
            # Frames as a batch.
            made.insert(0, (Grid(c, len(taken), h, w), taken.movedim(0, 1).unsqueeze(0)))
        return made
    return []


def fitting(shape: Sequence[int], grid: Grid) -> list[Layout]:
    """Those by which one picture's latents of this shape can lie on a grid."""
    return [one for one in LAYOUTS.values() if one.shape(grid) == tuple(shape)]


def found(kept: torch.Tensor, taken: torch.Tensor) -> tuple[Layout, Grid, bool] | None:
    """The layout by which the last latents that a pipeline `kept` became what its decoder has `taken`.

    Returns:
        The layout, the grid, and whether the numbers agree (else only one way fits the shapes); None where neither the
        numbers nor the shapes tell.
    """
    kept, shapes = kept.detach(), []
    for grid, target in _grids(taken.detach(), kept):
        for one in fitting(kept.shape[1:], grid):
            made = one.unpack(kept, grid)
            if made.shape == target.shape and _affine(made, target):
                return one, grid, True
            shapes.append((one, grid))
    return (*shapes[0], False) if len({one.name for one, _ in shapes}) == 1 else None


def supposed(shape: Sequence[int], channels: int | None, height: int | None, width: int | None) -> tuple[Layout, Grid]:
    """What is taken for the layout of one picture's latents before a decoder has seen any.

    Args:
        shape: of the latents.
        channels: of what the decoder takes, where it says.
        height: of the picture in latents, where it is known.
        width: likewise.
    """
    shape = tuple(shape)
    kept = LAYOUTS["as it is"]
    if len(shape) == 4 and channels is not None and shape[0] != channels:
        for name, c in (("frames first", 1), ("channels last", 3)):
            if shape[c] == channels:
                rest = [n for k, n in enumerate(shape) if k != c]
                return LAYOUTS[name], Grid(channels, rest[0], rest[1], rest[2])
    if len(shape) == 2 and height and width:
        for c in dict.fromkeys((channels or shape[1], shape[1] // 4, shape[1])):
            each = [one for one in fitting(shape, Grid(c, 0, height, width)) if c]
            if each:
                return each[0], Grid(c, 0, height, width)
            cells = height * width // (1 if c == shape[1] else 4)
            if c and cells and shape[0] % cells == 0:
                grid = Grid(c, shape[0] // cells, height, width)
                each = fitting(shape, grid)
                if each:
                    return each[0], grid
    if len(shape) == 4:
        return kept, Grid(*shape)
    return kept, Grid(shape[0], 0, *(shape[1:] if len(shape) == 3 else (1, math.prod(shape[1:]))))


def _affine(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether y = a x + b with one a and b for each channel."""
    dims = tuple(range(2, x.ndim))
    if math.prod(x.shape[2:]) < 3:
        return True  # a line through two points says nothing
    x, y = x.double(), y.to(x.device).double()
    mx, my = x.mean(dims, keepdim=True), y.mean(dims, keepdim=True)
    spread = ((x - mx) ** 2).mean(dims, keepdim=True).clamp(min=1e-24)
    slope = ((x - mx) * (y - my)).mean(dims, keepdim=True) / spread
    off = (y - slope * (x - mx) - my).abs().max()
    return bool(off <= _OFF * (y - my).abs().max().clamp(min=1e-6))
