"""What is handed to a pipeline beyond settings: pictures made what its call takes them for, and its refusals said.

diffusers tells pictures from latents by the number of their channels, so one with transparent parts is taken for
latents, with no word; and it takes bytes of an array for numbers from 0 to 1. Neither is what anybody means. What needs
nothing is handed on as it is, so that the picture stays the plain call's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffexplore.looks.pictures import read_picture
from diffexplore.pipelines.signature import Extra
from diffexplore.trace import Trace
from diffexplore.words import sentence

__all__ = ["REFUSALS", "made_right", "refused"]

REFUSALS = (TypeError, AttributeError, ValueError, LookupError, AssertionError, RuntimeError)
"""What pipelines raise for arguments that they cannot take."""

_CODERS = ("vae", "vqvae", "movq", "vqgan", "image_vae")


def made_right(pipeline: Any, extras: list[Extra], extra: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments with their pictures as the call needs them, and what is to be said of that.

    Args:
        pipeline: whose call it is.
        extras: what it takes.
        extra: what is handed over.

    Raises:
        ValueError: one sentence, for a picture that nothing can be made of.
    """
    made, said = dict(extra), list[str]()
    pictures = [one.name for one in extras if one.kind == "picture" and one.name in extra]
    if not pictures or _layered(pipeline):
        return made, said
    for name in pictures:
        several = isinstance(extra[name], list | tuple)
        found = [_right(pipeline, name, one) for one in (extra[name] if several else [extra[name]])]
        if any(note for _, note in found):
            made[name] = [one for one, _ in found] if several else found[0][0]
            said += dict.fromkeys(f"{name}: {note}." for _, note in found if note)
    return made, said


def refused(pipeline: Any, trace: Trace, error: Exception) -> ValueError | None:
    """What to raise where a call failed before its first step with something handed over: one sentence that names it;
    None where that has nothing to do with it.
    """
    begun = len(trace) or "schedule" in trace.info
    if begun or not trace.extra or isinstance(error, torch.OutOfMemoryError | NotImplementedError):
        return None
    return ValueError(
        f"{type(pipeline).__name__} refused {', '.join(f'{name}=' for name in trace.extra)}: {sentence(error)}"
    )


def _layered(pipeline: Any) -> bool:
    """Whether it is made for pictures with transparent parts."""
    configs = [getattr(getattr(pipeline, name, None), "config", None) for name in _CODERS]
    return any(getattr(one, key, None) == 4 for one in configs for key in ("in_channels", "input_channels"))


def _right(pipeline: Any, name: str, value: Any) -> tuple[Any, str]:
    """One picture, and what was done to it; "" where nothing was."""
    mask = "mask" in name
    try:
        if isinstance(value, Image.Image):
            return _right_picture(value, mask or getattr(pipeline, "adapter", None) is not None)
        if isinstance(value, np.ndarray):
            return _right_array(value, mask)
        if isinstance(value, torch.Tensor) and value.ndim == 2 and not mask:
            return value.expand(3, *value.shape), "one plane of numbers stands for all three colours"
    except ValueError as error:
        raise ValueError(f"{name} cannot be handed over: {error}") from None
    return value, ""


def _right_picture(picture: Image.Image, grey: bool) -> tuple[Image.Image, str]:
    if picture.mode == "RGB" or (grey and picture.mode in ("L", "1")):
        return picture, ""
    clear = picture.has_transparency_data
    return read_picture(picture), "transparent parts are white" if clear else f"made RGB of {picture.mode}"


def _right_array(array: np.ndarray, mask: bool) -> tuple[Any, str]:
    one = array.ndim in (2, 3) and (array.ndim == 2 or array.shape[-1] in (3, 4))
    if array.dtype in (np.uint8, np.uint16):
        if array.ndim == 4 and array.shape[-1] in (3, 4):
            return [read_picture(each) for each in array], "bytes are taken for pictures"
        if one:
            return read_picture(array), "bytes are taken for a picture"
    if array.ndim in (3, 4) and array.shape[-1] == 4 and array.dtype.kind == "f":
        colours, share = array[..., :3], array[..., 3:]
        return colours * share + (1 - share), "transparent parts are white"
    if array.ndim == 2 and not mask and array.dtype.kind == "f":
        return np.repeat(array[..., None], 3, axis=-1), "one plane of numbers stands for all three colours"
    return array, ""
