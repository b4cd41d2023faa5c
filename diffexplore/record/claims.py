"""What a file of a run may say. One list for what is written and what is read, so that no file of ours is refused, and
nothing that a stranger wrote is used before it has been looked at.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from diffexplore.mixing import named_guider
from diffexplore.record import predictions
from diffexplore.record.heat import NEGATIVE, PROMPT
from diffexplore.record.numbers import NUMBERS, check_name
from diffexplore.words import shown

__all__ = ["DECLARED", "MAX_SIDE", "check"]

MAX_SIDE = 8192  # of the picture in a file, as of one that settings can ask for
MAX_FRAMES = 10_000
DECLARED = ("name", "label", "unit", "sentence", "log")
"""What a file says of a number."""
_LARGEST = 1e9  # of a number that says when, how long or how noisy


def _is_number(value: object, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_whole(value: object, low: int = 0, high: int = 10**6) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


_FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cancelled": (lambda value: isinstance(value, bool), "true or false"),
    "seconds": (lambda value: _is_number(value, 0), "a number of seconds"),
    "expected": (_is_whole, "a number of evaluations"),
    "steps": (lambda value: isinstance(value, list), "a list"),
    "info": (lambda value: isinstance(value, dict), "facts by name"),
    "settings": (lambda value: isinstance(value, dict), "settings by name"),
    "pictures": (lambda value: isinstance(value, list) and all(map(_is_whole_file, value)), "a list of lengths"),
    "tensors": (lambda value: isinstance(value, dict), "lists of steps by name"),
    "numbers": (lambda value: isinstance(value, list), "a list of numbers"),
}
_STEP: dict[str, tuple[Callable[[Any], bool], str]] = {
    "index": (_is_whole, "a whole number"),
    "timestep": (_is_number, "a finite number"),
    "seconds": (lambda value: _is_number(value, 0), "a number of seconds"),
    "a": (_is_number, "a finite number"),
    "b": (_is_number, "a finite number"),
    "kind": (lambda value: value in predictions.KINDS, f"one of {', '.join(predictions.KINDS)}"),
    "guidance": (lambda value: value is None or _is_number(value), "a finite number or null"),
    "split": (_is_text, "text"),
    "half": (lambda value: isinstance(value, bool), "true or false"),
    "numbers": (lambda value: isinstance(value, dict), "numbers by name"),
}
# Of the facts of a run, those that something here reads.
_INFO: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tokens": (lambda value: isinstance(value, dict) and all(map(_is_texts, value.values())), "lists of tokens"),
    "unknown": (_is_texts, "a list of words"),
    "words": (lambda value: isinstance(value, dict) and all(map(_is_texts, value.values())), "lists of words"),
    "notes": (_is_texts, "a list of sentences"),
    "axes": (_is_texts, "a list of names"),
    "schedule": (lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of numbers"),
    "model": (lambda value: value is None or _is_text(value), "text"),
    "reused": (lambda value: isinstance(value, bool), "true or false"),
    "kind": (_is_text, "text"),
    "frames": (lambda value: _is_whole(value, 1, MAX_FRAMES), f"a number of frames up to {MAX_FRAMES}"),
    "rate": (lambda value: _is_whole(value, 1), "a number of samples a second"),
    "fps": (lambda value: _is_number(value, 0), "a number of frames a second"),
}


def _is_whole_file(value: object) -> bool:
    return _is_whole(value, 0, 2**40)


def _hold(facts: Mapping[str, Any], rules: Mapping[str, tuple[Callable[[Any], bool], str]], of: str = "") -> None:
    for name, (holds, wanted) in rules.items():
        if name not in facts:
            raise ValueError(f"{of}it does not say its {name}")
        if not holds(facts[name]):
            raise ValueError(f"{of}{name} must be {wanted}, got {shown(facts[name])}")


def check(facts: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Whether facts and tensors can be those of a run, and fit each other.

    Raises:
        ValueError: one sentence.
    """
    _hold(facts, _FACTS)
    _hold(facts["info"], {name: rule for name, rule in _INFO.items() if name in facts["info"]}, "info: ")
    steps, halves = facts["steps"], 0
    for i, step in enumerate(steps):
        of = f"step {i}: "
        if not isinstance(step, dict):
            raise ValueError(f"{of}it must be facts by name, got {shown(step)}")
        _hold(step, _STEP, of)
        if not step.keys() <= {*_STEP, "guider"}:
            raise ValueError(f"{of}it says more than {', '.join(_STEP)}")
        if "guider" in step and step["guider"] != named_guider(step["guider"]):
            raise ValueError(f"{of}guider must be as settings say it, got {shown(step['guider'])}")
        a, b = step["a"], step["b"]
        total = a + b if step["kind"].endswith("flow_prediction") else math.hypot(a, b)
        if abs(total) < 1e-9:
            raise ValueError(f"{of}x_t cannot have {shown(a)} of the picture and {shown(b)} of noise")
        for name, value in step["numbers"].items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{of}{check_name(name)} must be a number, got {shown(value)}")
            if name in NUMBERS and NUMBERS[name].of is not None:
                raise ValueError(f"{of}{name} is computed, a file does not say it")
        halves += not step["split"]
    for number in facts["numbers"]:
        if not isinstance(number, dict) or set(number) != set(DECLARED):
            raise ValueError(f"numbers must each have {', '.join(DECLARED)}, got {shown(number)}")
    _check_tensors(facts, tensors, halves)


def _check_tensors(facts: dict[str, Any], tensors: Mapping[str, torch.Tensor], halves: int) -> None:
    count = len(facts["steps"])
    named = next((tuple(tensors[name].shape[k:]) for name, k in (("latents", 1), ("final", 0)) if name in tensors), ())
    shapes: dict[str, tuple[int, ...]] = {}
    if count:
        shapes = {"latents": (count, *named), "output": (count, *named)}
    if halves:
        shapes |= {"cond": (halves, *named), "uncond": (halves, *named)}
    for name in shapes:
        if name not in tensors:
            raise ValueError(f"it has no tensor {name!r}")
    for name in ("final", "matrix"):
        if name in tensors:
            channels = named[0] if named else tensors[name].shape[0] - 1 if tensors[name].ndim else 0
            shapes[name] = (channels + 1, 3) if name == "matrix" else named
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or not tensor.numel() or not shape:
            raise ValueError(f"{name} must be of shape {shown(shape)}, got {shown(tuple(tensor.shape))}")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} must be of float32, got {tensor.dtype}")
    if "matrix" in tensors and not tensors["matrix"].isfinite().all():
        raise ValueError("matrix must be of finite numbers")
    for name in ("image", "pictures"):
        if name in tensors and (tensors[name].ndim != 1 or tensors[name].dtype != torch.uint8):
            raise ValueError(f"{name} must be bytes, got {tensors[name].dtype} of shape {tuple(tensors[name].shape)}")
    moves = _check_moving(tensors)
    lengths, found = facts["pictures"], tensors["pictures"].numel() if "pictures" in tensors else 0
    if lengths and (len(lengths) != count or sum(lengths) != found):
        raise ValueError(f"{len(lengths)} pictures of {sum(lengths)} bytes for {count} steps, found {found} bytes")
    known = {*shapes, *moves, *(("image",) if "image" in tensors else ()), *(("pictures",) if lengths else ())}
    for name, where in facts["tensors"].items():
        check_name(name)
        if not isinstance(where, list) or not where or not all(_is_whole(i, 0, count - 1) for i in where):
            raise ValueError(f"{name} must be a list of steps, got {shown(where)}")
        if sorted(set(where)) != where:
            raise ValueError(f"{name} must be a list of steps in order, got {shown(where)}")
        stacked = f"step/{name}"
        if stacked in tensors and tensors[stacked].shape[:1] != (len(where),):
            raise ValueError(f"{name} must be of {len(where)} steps, got shape {tuple(tensors[stacked].shape)}")
        own_names = {stacked} if stacked in tensors else {f"{stacked}/{i}" for i in where}
        for one in own_names:
            if one not in tensors or tensors[one].is_complex():
                raise ValueError(f"it has no tensor {one!r} of real numbers")
        known |= own_names
    for name in tensors:
        if name not in known:
            raise ValueError(f"no run has a tensor {shown(name)}")
    _check_maps(facts, tensors)


def _check_maps(facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Whether what says where words look has a map for each of them."""
    for prefix, which in ((PROMPT, "prompt"), (NEGATIVE, "negative")):
        words = (facts["info"].get("words") or {}).get(which, ())
        for name in facts["tensors"]:
            if name.partition(":")[0] != prefix:
                continue
            found = [one for key, one in tensors.items() if key == f"step/{name}" or key.startswith(f"step/{name}/")]
            for one in found:
                axes = one.shape[-3:]
                if one.ndim not in (3, 4) or axes[0] != len(words) or not one.is_floating_point():
                    raise ValueError(
                        f"{name} must have a map for each of {len(words)} words, got {axes[0] if axes else 0}"
                    )


def _check_moving(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Whether what a run made can be frames or a sound; gives the name that it has."""
    frames, sound = tensors.get("frames"), tensors.get("sound")
    if frames is not None:
        fits = frames.ndim == 4 and frames.shape[3] == 3 and frames.numel() and max(frames.shape[1:3]) <= MAX_SIDE
        if not fits or len(frames) > MAX_FRAMES or frames.dtype != torch.uint8:
            raise ValueError(f"frames must be bytes (frames, H, W, 3), got {frames.dtype} of {tuple(frames.shape)}")
    if sound is not None and (sound.ndim != 2 or not sound.numel() or sound.dtype != torch.float32):
        raise ValueError(f"sound must be float32 (channels, samples), got {sound.dtype} of {tuple(sound.shape)}")
    return [name for name in ("frames", "sound") if name in tensors]
