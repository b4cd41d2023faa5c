"""What a pipeline's call gives back, of whatever kind: a picture, frames, a sound, or numbers for another pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Made", "made_of"]

_PICTURES = ("images", "image", "prediction", "output")
_VIDEOS = ("frames", "videos", "video")
_SOUNDS = ("audios", "audio", "audio_values", "waveform")


class Made(NamedTuple):
    """The result of a call.

    Attributes:
        kind: "picture", "video", "sound" or "numbers".
        image: the picture; of a video the frame in the middle; None where there is nothing to see.
        output: a PIL picture, a list of them, (channels, samples) float32, or whatever the pipeline gave.
        rate: samples per second of a sound, as far as the pipeline tells.
    """

    kind: str
    image: Image.Image | None
    output: Any
    rate: int | None = None


def made_of(given: Any, pipeline: Any) -> Made:
    """Read what a pipeline's call gave, first things first: its pictures, its frames, its sound."""
    fields = dict(_fields(given))
    for names, read in ((_VIDEOS, _video), (_PICTURES, _picture), (_SOUNDS, _sound)):
        for name in names:
            if fields.get(name) is not None:
                found = read(fields[name], pipeline)
                if found is not None:
                    return found
    for value in fields.values():
        if isinstance(value, list | tuple) and value and isinstance(_first(value), Image.Image):
            found = _picture(value, pipeline)
            if found is not None:
                return found
    return Made("numbers", None, given)


def _fields(given: Any) -> Iterator[tuple[str, Any]]:
    values = getattr(given, "values", None)
    if isinstance(given, Mapping):
        yield from given.items()
    elif isinstance(values, Mapping):  # the state of a modular pipeline
        yield from values.items()
    elif isinstance(given, tuple):
        yield "images", given[0] if given else None
    else:
        yield "images", given


def _first(value: Any) -> Any:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return value


def _picture(value: Any, pipeline: Any) -> Made | None:
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        value = value[0]
    if isinstance(value, list | tuple) and value and isinstance(value[0], Image.Image):
        # Several pictures of one call: turns of one object (Shap-E), or a picture in layers.
        return Made("video", value[len(value) // 2], list(value)) if len(value) > 1 else _picture(value[0], pipeline)
    if isinstance(value, Image.Image):
        return Made("picture", value, value)
    pixels = _array(value)
    if pixels is None or pixels.ndim not in (2, 3, 4) or not pixels.size:
        return None
    while pixels.ndim > 3:
        pixels = pixels[0]
    made = _image(pixels)
    return None if made is None else Made("picture", made, made)


def _video(value: Any, pipeline: Any) -> Made | None:
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        value = value[0]
    if isinstance(value, list | tuple) and value and isinstance(value[0], Image.Image):
        frames: Sequence[Image.Image] = list(value)
    else:
        pixels = _array(value[0] if isinstance(value, list | tuple) and value else value)
        if pixels is None:
            return None
        if pixels.ndim == 5:
            pixels = pixels[0]
        if pixels.ndim != 4:
            return None
        if pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3):
            pixels = pixels.swapaxes(0, 1)  # colours before frames
        made = [_image(one) for one in pixels]
        frames = [one for one in made if one is not None]
    if not frames:
        return None
    return Made("video", frames[len(frames) // 2], list(frames)) if len(frames) > 1 else _picture(frames[0], None)


def _sound(value: Any, pipeline: Any) -> Made | None:
    samples = _array(value[0] if isinstance(value, list | tuple) and value else value)
    if samples is None or not samples.size:
        return None
    samples = samples.reshape(-1, samples.shape[-1]) if samples.ndim != 2 else samples
    if samples.shape[0] > samples.shape[1] and samples.shape[1] <= 2:
        samples = samples.T
    return Made("sound", None, samples.astype(np.float32), _rate(pipeline))


def _rate(pipeline: Any) -> int | None:
    for name in ("vocoder", "vae", "audio_vae", "sound_vae"):
        config = getattr(getattr(pipeline, name, None), "config", None)
        for key in ("sampling_rate", "output_sampling_rate", "sample_rate"):
            rate = getattr(config, key, None)
            if isinstance(rate, int) and rate > 0:
                return rate
    return None


def _array(value: Any) -> NDArray[Any] | None:
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().float().cpu().numpy())
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value
    return None


def _image(pixels: NDArray[Any]) -> Image.Image | None:
    """(H, W), (H, W, C) or (C, H, W), bytes or numbers from 0 to 1 (or from -1), as a picture."""
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        return None
    if pixels.dtype != np.uint8:
        pixels = np.nan_to_num(pixels.astype(np.float32), posinf=1.0, neginf=0.0)
        if pixels.size and pixels.min() < -1e-3:
            pixels = pixels / 2 + 0.5  # directions and the like, from -1 to 1
        pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")
