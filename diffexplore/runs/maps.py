"""The maths of where words look: attention as probabilities, and maps of them on the places of a picture."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["LARGE", "crossed", "enlarged", "grid_of", "joined", "small", "softmaxed"]

ELEMENTS = 2**25  # of a softmax that is held at once, in float32: 128 MB
LARGE = 1024
"""Places of a map that is kept in float16."""


def crossed(module: Any, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The softmax of one layer, averaged over heads: (rows, places, vectors)."""
    heads = module.heads
    across = getattr(module, "norm_q", None), getattr(module, "norm_k", None)
    parts = []
    for given, norm in zip((query, key), across, strict=True):
        apart = given.unflatten(-1, (heads, -1))
        if norm is not None:  # of a head, or of all of them together (Wan, Sana Sprint)
            width = next((one.shape[-1] for one in norm.parameters()), apart.shape[-1])
            apart = norm(apart) if width == apart.shape[-1] else norm(given).unflatten(-1, (heads, -1))
        parts.append(apart.transpose(1, 2))
    if mask is not None and hasattr(module, "prepare_attention_mask"):
        mask = module.prepare_attention_mask(mask, key.shape[1], len(key)).view(len(key), heads, -1, key.shape[1])
    scale = parts[0].shape[-1] ** -0.5 if getattr(module, "scale_qk", True) else 1.0
    return softmaxed(parts[0], parts[1], scale, mask, slice(None))


def softmaxed(
    query: torch.Tensor, key: torch.Tensor, scale: float, mask: torch.Tensor | None, wanted: slice
) -> torch.Tensor:
    """softmax(q k^T scale + mask), the mean over heads, of the `wanted` keys: (rows, queries, keys), in float32."""
    heads = query.shape[1]
    if key.shape[1] != heads:
        key = key.repeat_interleave(heads // key.shape[1], dim=1)
    some = max(1, min(heads, ELEMENTS // (len(query) * query.shape[2] * key.shape[2])))
    total: torch.Tensor | None = None
    for at in range(0, heads, some):
        part = slice(at, at + some)
        scores = (query[:, part].float() * scale) @ key[:, part].float().transpose(-1, -2)
        if mask is not None:
            own = mask if mask.shape[1] == 1 else mask[:, part]
            scores = scores.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else scores + own
        found = scores.softmax(-1)[..., wanted].sum(1)
        total = found if total is None else total.add_(found)
    assert total is not None
    return total / heads


def joined(value: torch.Tensor) -> torch.Tensor:
    """(rows, heads, length, numbers) to (rows, length, heads x numbers)."""
    return value.transpose(1, 2).flatten(2)


def enlarged(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(words, h, w) smoothly at another size; the mean of each word stays."""
    if maps.shape[1:] == size:
        return maps
    large = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    if size[0] % maps.shape[1] == size[1] % maps.shape[2] == 0:
        return large
    now, then = large.mean((1, 2), keepdim=True), maps.mean((1, 2), keepdim=True)
    return large * (then / now.clamp_min(torch.finfo(torch.float32).tiny))


def small(maps: torch.Tensor) -> torch.Tensor:
    """(words, h, w) of 0 to 1 as they are kept; the sum of each word stays, to one part in 10,000: large maps are
    rounded to float16 up or down in turns, so that even of a flat one the errors cancel.
    """
    places = maps.shape[1] * maps.shape[2]
    if places < LARGE:
        return maps
    near = maps.to(torch.float16)
    bits = near.view(torch.int16) - (near.float() > maps).to(torch.int16)
    low, high = bits.view(torch.float16).float(), (bits + 1).view(torch.float16).float()
    turns = torch.arange(places, device=maps.device).mul(0.6180339887498949).frac().view(maps.shape[1:])
    return (bits + ((maps - low) / (high - low) > turns).to(torch.int16)).view(torch.float16)


def grid_of(count: int, sides: Sequence[int]) -> tuple[int, int] | None:
    """(height, width) of so many places of a picture of such sides; None where there is no such grid."""
    height, width = sides
    while height * width > count and height + width > 2:
        height, width = -(-height // 2), -(-width // 2)  # as strided layers round
    return (height, width) if height * width == count else None
