"""What a pipeline's call takes beyond our settings, read from its signature (or, of a modular one, from its blocks)."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from diffexplore.words import near, shown

__all__ = ["Extra", "arguments_of", "check_extra", "described", "extras_of", "is_modular"]

# What settings or the run itself decide; none can be handed in beside them.
_SETTLED = {
    "prompt": "settings have it", "negative_prompt": "settings have it", "num_inference_steps": "it is steps= here",
    "width": "settings have it", "height": "settings have it", "generator": "it is made of seed=",
    "output_type": "a run gives pictures", "return_dict": "a run reads what it needs",
    "callback": "a run has on_step=", "callback_steps": "a run has on_step=",
    "callback_on_step_end": "a run has on_step=", "callback_on_step_end_tensor_inputs": "a run has on_step=",
    "prior_callback_on_step_end": "a run has on_step=",
    "prior_callback_on_step_end_tensor_inputs": "a run has on_step=",
    "num_images_per_prompt": "a run draws one", "num_videos_per_prompt": "a run draws one",
    "num_waveforms_per_prompt": "a run draws one",
}  # fmt: skip
_PICTURES = (
    "image", "images", "mask_image", "control_image", "ip_adapter_image", "last_image", "negative_ip_adapter_image",
    "mask", "control_mask", "reference_image", "depth_map", "hint", "adapter_image",
)  # fmt: skip


class Extra(NamedTuple):
    """One argument that a pipeline takes beyond our settings.

    Attributes:
        name: of the argument.
        kind: "number", "whole", "switch", "text", "picture" or "other".
        default: what the pipeline takes if it is not given; None also where that is found out during the call.
        required: whether its call fails without.
    """

    name: str
    kind: str
    default: Any
    required: bool


class _Argument(NamedTuple):
    default: Any
    required: bool
    hint: Any


def is_modular(pipeline: Any) -> bool:
    """Whether a pipeline is made of diffusers' modular blocks, whose call takes what the blocks ask for."""
    return any(cls.__name__ == "ModularPipeline" for cls in type(pipeline).__mro__)


def arguments_of(pipeline: Any) -> dict[str, _Argument]:
    """Name -> what is known of it, of each argument of a pipeline's call."""
    if is_modular(pipeline):
        asked = [one for one in pipeline.blocks.inputs if one.name]
        # One block may need what another gives, so which are required of the call only the call can say.
        return {one.name: _Argument(one.default, False, one.type_hint) for one in asked}
    call = type(pipeline).__call__
    try:
        hints = typing.get_type_hints(call)
    except Exception:  # names that are only there while types are checked
        hints = {}
    found = {}
    for name, one in list(inspect.signature(call).parameters.items())[1:]:
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            required = one.default is one.empty
            found[name] = _Argument(None if required else one.default, required, hints.get(name, one.annotation))
    return found


def _kind(name: str, argument: _Argument) -> str:
    if name in _PICTURES or "PIL." in str(argument.hint) or "PipelineImageInput" in str(argument.hint):
        return "picture"
    default = argument.default
    for kind, cls in (("switch", bool), ("whole", int), ("number", float), ("text", str)):
        if isinstance(default, cls) or (default is None and argument.hint in (cls, cls | None)):
            return kind
    return "other"


def extras_of(pipeline: Any, ours: Iterable[str] = ()) -> list[Extra]:
    """What a pipeline takes beyond our settings, in the order of its call.

    Args:
        pipeline: any.
        ours: more names that settings decide, such as the one that guidance goes by.
    """
    left = {name: one for name, one in arguments_of(pipeline).items() if name not in {*_SETTLED, *ours}}
    return [Extra(name, _kind(name, one), one.default, one.required) for name, one in left.items()]


def check_extra(pipeline: Any, extra: Mapping[str, Any], ours: Iterable[str] = ()) -> None:
    """Whether a pipeline's call takes these arguments, and has all that it needs.

    Raises:
        ValueError: one sentence, for one that it does not take, one that settings decide, or one that is missing.
    """
    title = type(pipeline).__name__
    known = [one.name for one in extras_of(pipeline, ours)]
    for name in extra:
        if name in _SETTLED and name in arguments_of(pipeline):
            raise ValueError(f"{name} cannot be handed to {title} here: {_SETTLED[name]}")
        if name in ours:
            raise ValueError(f"{name} cannot be handed to {title} here: it is guidance=")
        if name not in known:
            takes = ", ".join(known) if known else "nothing"
            raise ValueError(
                f"{title} takes no argument {shown(name)}{near(name, known)}; beyond the settings it takes {takes}"
            )
    for one in extras_of(pipeline, ours):
        if one.name not in extra or (isinstance(extra[one.name], str) and _takes_text(pipeline, one.name)):
            continue
        if reason := _unfit(one.kind, extra[one.name]):
            raise ValueError(f"{one.name} of {title} must be {reason}, got {shown(described(extra[one.name]))}")
    missing = [one.name for one in extras_of(pipeline, ours) if one.required and extra.get(one.name) is None]
    if missing:
        raise ValueError(f"{title} needs {' and '.join(f'{name}=' for name in missing)} beside the settings")


def _takes_text(pipeline: Any, name: str) -> bool:
    return re.search(r"\bstr\b", str(arguments_of(pipeline)[name].hint)) is not None


def _unfit(kind: str, value: Any) -> str:
    """What a value must be that no argument of this kind can take; "" where the pipeline's own call is to judge."""
    if kind in ("number", "whole") and (
        isinstance(value, str | bytes) or (isinstance(value, float) and math.isnan(value))
    ):
        return "a number"
    if kind == "picture" and isinstance(value, str | bytes | bool | int | float):
        return "a picture or an array of one, not a path or a number"
    if kind == "picture" and not _sound(value):
        return "a picture of finite numbers"
    return ""


def _sound(value: Any) -> bool:
    """Whether an array or tensor, or each of a list, has numbers, all of them finite; anything else is."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_sound, value))
    if isinstance(value, torch.Tensor):
        return bool(value.numel()) and bool(torch.isfinite(value).all())
    if isinstance(value, np.ndarray):
        return bool(value.size) and value.dtype.kind in "fiub" and bool(np.isfinite(value).all())
    return True


def described(value: Any) -> Any:
    """An argument in plain JSON, for people and for files: pictures and tensors by their kind and size."""
    if isinstance(value, bool | int | float | str | type(None)):
        return value if not isinstance(value, str) or len(value) <= 1000 else f"{value[:1000]}..."
    if isinstance(value, list | tuple):
        few = [described(one) for one in value[:16]]
        return [*few, f"and {len(value) - 16} more"] if len(value) > 16 else few
    if isinstance(value, dict):
        return {str(name): described(one) for name, one in list(value.items())[:64]}
    size = getattr(value, "size", None)
    if hasattr(value, "mode") and isinstance(size, tuple):
        return f"a picture of {size[0]}x{size[1]} pixels"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"numbers of shape {'x'.join(map(str, shape)) or '1'}"
    return f"a {type(value).__name__}"
