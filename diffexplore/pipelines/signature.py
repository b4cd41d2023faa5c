"""What a pipeline's call takes beyond our settings, read from its signature (or, of a modular one, from its blocks)."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from diffexplore.words import near, shown

__all__ = ["Extra", "LackingError", "alike", "arguments_of", "check_extra", "described", "extras_of", "is_modular"]

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


class LackingError(ValueError):
    """A pipeline has not been given what its call cannot do without.

    Attributes:
        names: of the arguments.
    """

    def __init__(self, text: str, names: Iterable[str] = ()) -> None:
        """One sentence, and the names."""
        super().__init__(text)
        self.names = tuple(names)


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
    return dict(_arguments_of_class(typing.cast(Hashable, type(pipeline))))


@functools.lru_cache(64)
def _arguments_of_class(cls: Hashable) -> Mapping[str, _Argument]:
    call = typing.cast(Any, cls).__call__
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
    default, hint = argument.default, argument.hint
    if hint in (float, float | None) and not isinstance(default, bool | str):
        return "number"  # many a default is written 0
    for kind, cls in (("switch", bool), ("whole", int), ("number", float), ("text", str)):
        if isinstance(default, cls) or (default is None and hint in (cls, cls | None)):
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
        ValueError: one sentence, for one that it does not take, one that settings decide, or a value that no argument
            of its kind can have.
        LackingError: one sentence, where all that is given is right, and one is missing.
    """
    title, takes = type(pipeline).__name__, arguments_of(pipeline)
    beyond = extras_of(pipeline, ours)
    known = [one.name for one in beyond]
    for name in extra:
        if name in _SETTLED and name in takes:
            raise ValueError(f"{name} cannot be handed to {title} here: {_SETTLED[name]}")
        if name in ours:
            raise ValueError(f"{name} cannot be handed to {title} here: it is guidance=")
        if name not in known:
            others = ", ".join(known) if known else "nothing"
            raise ValueError(
                f"{title} takes no argument {shown(name)}{near(name, known)}; beyond the settings it takes {others}"
            )
    for one in beyond:
        if one.name not in extra:
            continue
        if reason := _unfit(pipeline, one, takes[one.name].hint, extra[one.name]):
            raise ValueError(f"{one.name} of {title} must be {reason}, got {shown(described(extra[one.name]))}")
    missing = [one.name for one in beyond if one.required and extra.get(one.name) is None]
    if missing:
        raise LackingError(f"{title} needs {' and '.join(f'{name}=' for name in missing)} beside the settings", missing)


def _unfit(pipeline: Any, one: Extra, hint: Any, value: Any) -> str:
    """What a value must be that the argument cannot take; "" where the pipeline's own call is to judge."""
    if value is None:
        # Of a picture or a list it may stand for none at all, whatever is written of it.
        wrong = one.default is not None and not _may_be(hint, type(None)) and one.kind not in ("picture", "other")
        return _ACCEPTED[one.kind] if wrong else ""
    if isinstance(value, str) and one.kind != "text":
        return "" if one.kind == "other" or _may_be(hint, str) else _ACCEPTED[one.kind]
    if one.kind in ("number", "whole") and not isinstance(value, list | tuple | np.ndarray | torch.Tensor):
        real = isinstance(value, numbers.Real) and not math.isnan(value)
        if not real or (one.kind == "whole" and not isinstance(value, numbers.Integral) and not _may_be(hint, float)):
            return _ACCEPTED[one.kind]
        return _beyond_its_range(pipeline, one.name, float(value))
    if one.kind == "switch" and not isinstance(value, bool | int | np.bool_):
        return _ACCEPTED["switch"]
    if one.kind == "text" and isinstance(value, bool | int | float) and not _may_be(hint, type(value)):
        return _ACCEPTED["text"]
    if one.kind == "picture" and isinstance(value, bytes | bool | int | float):
        return _ACCEPTED["picture"]
    return "" if one.kind != "picture" or _sound(value) else "a picture of finite numbers"


_ACCEPTED = {
    "number": "a number",
    "whole": "a whole number",
    "switch": "True or False",
    "text": "text",
    "picture": "a picture or an array of one, not a path or a number",
}


def _may_be(hint: Any, kind: type) -> bool:
    """Whether a hint, such as ``str | list[str] | None``, names a type."""
    if isinstance(hint, str):
        return re.search(rf"\b{kind.__name__.removesuffix('Type')}\b", hint) is not None
    if hint is kind or hint is Any:
        return True
    return (isinstance(hint, types.UnionType) or typing.get_origin(hint) in (typing.Union, list, tuple)) and any(
        _may_be(one, kind) for one in typing.get_args(hint)
    )


def _beyond_its_range(pipeline: Any, name: str, value: float) -> str:
    """The range of a number that is known to have one, where it lies beyond."""
    if name == "strength":
        # Where it is the share of the steps that are taken, nothing is left of them at 0.
        plan = getattr(pipeline, "get_timesteps", None)
        none = callable(plan) and "strength" in inspect.signature(plan).parameters
        low = "a number above 0 and up to 1" if none else "a number from 0 to 1"
        return low if value > 1 or value < 0 or (none and value == 0) else ""
    if name == "clip_skip":
        layers = getattr(getattr(getattr(pipeline, "text_encoder", None), "config", None), "num_hidden_layers", None)
        if isinstance(layers, int) and not 0 <= value <= layers:
            return f"a whole number from 0 to {layers}, for so many layers has its text encoder"
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


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the same is handed over: pictures and arrays count by what is in them."""
    return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
    return bool(one == other)
