"""Whether a pipeline came out as its files say: every weight there, none made up, all in the dtype that was asked for.

Loaders fill what they miss with random numbers, and some versions of them pass over a dtype; neither is said aloud.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from diffexplore.words import shown

__all__ = ["check_weights", "in_dtype"]

_FEW = 8  # elements of each weight that are compared


def in_dtype(pipeline: Any, dtype: torch.dtype) -> None:
    """Convert each network of which nothing came in the dtype asked for; some keep parts in float32 on purpose."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            kinds = {weight.dtype for weight in part.parameters() if weight.dtype.is_floating_point}
            if kinds and dtype not in kinds:
                part.to(dtype)


def check_weights(pipeline: Any, folder: Path) -> None:
    """Compare each network with the weights in its folder.

    Names are compared by their ends, since loaders rename what lies in old files; weights that go by another name are
    matched by their size.

    Raises:
        ValueError: one sentence, for a network with weights that are in no file, or that has other numbers than those.
    """
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            files = _files(folder / name)
            if files:
                _check_network(name, part, files)


def _files(folder: Path) -> list[Path]:
    """Those that loaders read: beside them may lie variants with other numbers."""
    for stem in ("model", "diffusion_pytorch_model"):
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
        parts = sorted(folder.glob(f"{stem}-?????-of-?????.safetensors"))
        if parts:
            return parts
    return []


def _check_network(name: str, network: torch.nn.Module, files: list[Path]) -> None:
    from safetensors import safe_open

    weights = {key: weight for key, weight in network.named_parameters() if weight.dtype.is_floating_point}
    homeless, strange, compared = dict(weights), Counter[int](), 0
    other: list[str] = []
    for file in files:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - safe_open is no dict
                slices = opened.get_slice(key)
                own = _meant(key, weights)
                if own is None:
                    size = 1
                    for length in slices.get_shape():
                        size *= length
                    strange[size] += 1
                    continue
                homeless.pop(own, None)
                weight = weights[own].detach()
                if weight.device.type != "meta" and list(weight.shape) == slices.get_shape() and weight.ndim:
                    compared += 1
                    theirs = slices[:1].flatten()[:_FEW].to(weight.dtype)
                    if not torch.equal(theirs, weight[:1].flatten()[:_FEW].cpu()) and not theirs.isnan().any():
                        other.append(own)
    missing = [key for key, weight in weights.items() if weight.device.type == "meta" and key in homeless]
    if not missing:
        left = []
        for key, weight in homeless.items():
            if strange[weight.numel()] > 0:
                strange[weight.numel()] -= 1
            else:
                left.append(key)
        # Loaders may join several tensors of a file to one weight, or cut one into several.
        spare = sum(size * count for size, count in strange.items())
        missing = left if sum(homeless[key].numel() for key in left) > spare else []
    if missing:
        many = "a tensor is" if len(missing) == 1 else f"{len(missing)} tensors are"
        raise ValueError(f"of its {name} {many} missing, such as {shown(missing[0], 150)}")
    if len(other) > compared / 2:
        raise ValueError(
            f"its {name} was not loaded: {len(other)} of {compared} weights are not those of the file, such as "
            f"{shown(other[0], 150)}; this version of transformers or diffusers cannot read it"
        )


def _meant(key: str, weights: dict[str, torch.nn.Parameter]) -> str | None:
    """The weight that a tensor of a file is: of the same name, or of one with more or less in front."""
    parts = key.split(".")
    for start in range(min(3, len(parts))):
        short = ".".join(parts[start:])
        if short in weights:
            return short
    for front in ("text_model.", "model.", "encoder.", "transformer."):
        if front + key in weights:
            return front + key
    return None
