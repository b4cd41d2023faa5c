"""How what is asked for and what was made travels: settings as JSON, pictures as image files, tensors and runs as
safetensors. What comes in is looked at as a stranger's; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffexplore.looks.pictures import MAX_PIXELS, encode, read_picture
from diffexplore.pipelines.signature import LackingError
from diffexplore.record import file, kept
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.runs.plan import Plan
from diffexplore.settings import Settings
from diffexplore.words import sentence, shown

__all__ = [
    "AwayError",
    "end_packed",
    "pixels_of",
    "pixels_packed",
    "plan_packed",
    "raise_refusal",
    "record_of",
    "record_packed",
    "refusal",
    "settings_of",
    "tensor_of",
    "tensor_packed",
    "value_of",
    "value_packed",
]  # fmt: skip

MOST_ITEMS = 64  # of a list that is handed over
_SMALL = 128 * 128  # pixels up to which estimates are sent without loss, as saved runs keep them


class AwayError(ConnectionError, ValueError):
    """Where the model is shared, nobody answers; a refusal as any other, so that a widget says it in its place."""


# Settings and what is handed over beside them


def settings_of(text: object) -> Settings:
    """Settings that came as JSON.

    Raises:
        ValueError: one sentence, for anything else.
    """
    if not isinstance(text, str):
        raise ValueError(f"settings must be a JSON object, got {shown(text)}")
    return Settings.from_json(text)


def value_packed(name: str, value: Any) -> Any:
    """An argument of a pipeline as it travels: a plain value, or [what it is, bytes].

    Raises:
        ValueError: one sentence, for what cannot travel.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, torch.Tensor):
        return {"tensor": tensor_packed(value)}
    if isinstance(value, (Image.Image, np.ndarray)):
        return {"picture": encode(read_picture(value))}
    if isinstance(value, (list, tuple)) and len(value) <= MOST_ITEMS:
        return {"list": [value_packed(name, one) for one in value]}
    raise ValueError(
        f"{name} of a shared model is a number, text, a picture, a tensor, or a list of those, got {shown(value)}"
    )


def value_of(value: Any) -> Any:
    """What :func:`value_packed` made.

    Raises:
        ValueError: one sentence, for anything else.
    """
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, data),) = value.items()
        if kind == "tensor" and isinstance(data, bytes):
            return tensor_of(data)
        if kind == "picture" and isinstance(data, bytes):
            return kept.image_of(data, MAX_PIXELS)
        if kind == "list" and isinstance(data, list) and len(data) <= MOST_ITEMS:
            return [value_of(one) for one in data]
    raise ValueError(f"what was handed over is none of what travels, got {shown(value)}")


def tensor_packed(tensor: torch.Tensor) -> bytes:
    """A tensor as safetensors."""
    from safetensors.torch import save

    return save({"tensor": tensor.detach().to("cpu").contiguous()})


def tensor_of(data: object) -> torch.Tensor:
    """What :func:`tensor_packed` made.

    Raises:
        ValueError: one sentence, for anything else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if not isinstance(data, bytes):
            raise ValueError("no bytes")
        return load(data)["tensor"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"what was sent is no tensor ({sentence(error)})") from None


# Pictures


def pixels_packed(pixels: np.ndarray, exact: bool) -> bytes:
    """A picture (H, W, 3) uint8 as an image file: without loss where it is `exact` or small, else as a JPEG."""
    height, width = pixels.shape[:2]
    lossless = exact or height * width <= _SMALL
    return encode(pixels, "webp" if lossless else "jpeg", quick=True)


def pixels_of(data: object) -> np.ndarray:
    """What :func:`pixels_packed` made.

    Raises:
        ValueError: one sentence, for anything else.
    """
    if not isinstance(data, bytes):
        raise ValueError(f"what was sent is no picture, got {shown(data)}")
    return np.array(kept.image_of(data, MAX_PIXELS))


# Plans, runs and refusals


def plan_packed(plan: Plan) -> dict[str, Any]:
    """What is known of a run before it starts, but for what was handed over, which the other end has."""
    return {
        "settings": plan.settings.to_json(),
        "facts": json.dumps(
            {
                "tokens": {name: list(tokens) for name, tokens in plan.tokens.items()},
                "notes": list(plan.notes),
                "unknown": list(plan.unknown),
                "ignored": dict(plan.ignored),
            }
        ),
    }


def record_packed(record: Record, steps: Sequence[Step], *, told: bool = False) -> bytes:
    """Some steps of a run, and with `told` what is said of it beside them."""
    info = record.info if told else {name: record.info[name] for name in ("words",) if name in record.info}
    return file.as_bytes(Record(record.settings, steps, info=info, expected=record.expected))


def estimates_packed(record: Record) -> list[bytes]:
    """The decoded estimate of every step as a file, as saved runs keep them (``record.kept``), for who cannot ask for
    them later: of a pipeline found by looking only the run itself tells how. Empty where it has no decoder.
    """
    if record.decode is None:
        return []
    made = [record.decode(step.x0) for step in record]
    if record.kind == "sound":
        return [kept.wav(one, int(record.info["rate"])) for one in made]
    return [pixels_packed(kept.sheet(one) if one.ndim == 4 else one, exact=False) for one in made]


def end_packed(record: Record) -> bytes:
    """How a run ended: all of it but its steps."""
    end = Record(
        record.settings, (), final=record.final, image=record.image, cancelled=record.cancelled,
        seconds=record.seconds, info=record.info, expected=record.expected, output=record.output,
    )  # fmt: skip
    return file.as_bytes(end)


def record_of(data: object) -> Record:
    """What :func:`record_packed` made.

    Raises:
        ValueError: one sentence, for anything else.
    """
    if not isinstance(data, bytes):
        raise ValueError(f"what was sent is no run, got {shown(data)}")
    return Record(**file.of_bytes(data))


def refusal(error: BaseException) -> dict[str, Any]:
    """An error as it travels: its sentence, and how it is to be taken."""
    if isinstance(error, LackingError):
        return {"error": "lacking", "says": sentence(error), "names": list(error.names)}
    kind = "value" if isinstance(error, ValueError) else "runtime"
    name = "" if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: "
    return {"error": kind, "says": name + sentence(error)}


def raise_refusal(told: Mapping[str, Any]) -> None:
    """Raise what :func:`refusal` told of.

    Raises:
        LackingError, ValueError, RuntimeError: that.
    """
    says = str(told.get("says", ""))
    if told.get("error") == "lacking":
        raise LackingError(says, [str(name) for name in told.get("names", ())])
    if told.get("error") == "value":
        raise ValueError(says)
    raise RuntimeError(says)
