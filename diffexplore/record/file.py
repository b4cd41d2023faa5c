"""Runs in files, and :func:`written`, by which every file of this package is written: whole, or not at all.

A run is one safetensors file. Tensors: ``latents``, ``output`` (steps, C, *axes, h, w); ``cond``, ``uncond`` (the split
ones, in order); ``final`` (C, *axes, h, w); ``matrix`` (C + 1, 3); ``image`` (PNG bytes as uint8); of a video
``frames`` (frames, H, W, 3) uint8, of a sound ``sound`` (channels, samples) float32; ``pictures`` (the estimates as
``record.kept`` has them, one after the other, as uint8); ``step/<name>``, what probes left in ``step.tensors`` (those
steps that have one, stacked; where they differ in shape or type, ``step/<name>/<step>`` each). The metadata key
``diffexplore`` holds JSON: ``version``, ``settings``, ``steps`` (the scalars of each, and ``numbers``, what probes left
there), ``cancelled``, ``seconds``, ``expected``, ``info``, ``pictures``, the bytes of each, ``tensors``, name -> the
steps that have one, and ``numbers``, what the names of those numbers mean. ``checksum`` is of all the others together.
Latents are stored in float32, other tensors in their own type, so they come back bit by bit. Nothing is ever unpickled.

A file comes from a stranger: whatever a run of ours could not hold is refused in one sentence before it is used.
"""

import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from diffexplore.record import predictions
from diffexplore.record.heat import NEGATIVE, PROMPT
from diffexplore.record.numbers import NUMBERS, Number, check_name
from diffexplore.record.step import Step, own
from diffexplore.settings import Settings
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    from PIL import Image

    from diffexplore.record.record import Record

__all__ = ["FORMAT", "checksum", "load", "save", "written"]

FORMAT = 2
MAX_METADATA = 16 * 2**20  # bytes of JSON read from a file; a 1,000-step run needs about 0.2 MB
MAX_SIDE = 8192  # of the picture in a file, as of one that settings can ask for
MAX_FRAMES = 10_000
_DECLARED = ("name", "label", "unit", "sentence", "log")  # of a number
_LARGEST = 1e9  # of a number that says when, how long or how noisy


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once the block has ended well; until then, and whatever
    fails (a full disk, an interrupt, a kill), what was there stays as it was.

    Args:
        path: where to write; ``~`` is the home folder. A link is followed. What is no plain file (``/dev/stdout``)
            is written to as it is.

    Raises:
        OSError: it cannot be written there.
    """
    target = Path(os.path.realpath(os.path.expanduser(path)))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not target.is_file():
        with open(target, "wb") as device:
            yield device
        return
    # Next to it, since only within one file system a file can be put in the place of another in one go.
    partial = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            file = open(partial, "x+b")  # noqa: SIM115 - closed below, before it is moved
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def save(record: "Record", path: str | os.PathLike[str], pictures: Sequence[bytes] | None = None) -> None:
    """Write a run to one file (the format is in this module's docstring). The decoder stays behind.

    Args:
        record: the run.
        path: where to write; an existing file is replaced.
        pictures: the decoded x0 of every step as files; None: those that the record has.

    Raises:
        ValueError: the run holds what cannot be read back, such as steps of several shapes.
        OSError: the file cannot be written.
    """
    from safetensors.torch import save as as_bytes

    steps, kept = list(record), list(record.pictures if pictures is None else pictures)
    tensors: dict[str, torch.Tensor] = {}
    if steps:
        if len({step.shape for step in steps}) > 1:
            raise ValueError(f"the steps of a run in a file have one shape, got {_listed(s.shape for s in steps)}")
        tensors["latents"] = torch.stack([step.latents for step in steps])
        tensors["output"] = torch.stack([step.output for step in steps])
    for name in ("cond", "uncond"):
        halves = [half for step in steps if (half := getattr(step, f"output_{name}")) is not None]
        if halves:
            tensors[name] = torch.stack(halves)
    if record.final is not None:
        tensors["final"] = own(record.final)
    if record.matrix is not None:
        tensors["matrix"] = torch.from_numpy(np.ascontiguousarray(record.matrix, dtype=np.float32))
    if record.image is not None:
        png = io.BytesIO()
        record.image.save(png, "PNG")
        tensors["image"] = _as_tensor(png.getvalue())
    if record.kind == "video" and isinstance(record.output, list):
        tensors["frames"] = torch.from_numpy(np.stack([np.asarray(one.convert("RGB")) for one in record.output]))
    if record.kind == "sound" and isinstance(record.output, np.ndarray):
        tensors["sound"] = torch.from_numpy(np.ascontiguousarray(record.output, dtype=np.float32))
    if kept:
        tensors["pictures"] = _as_tensor(b"".join(kept))
    where: dict[str, list[int]] = {}
    for name in dict.fromkeys(name for step in steps for name in step.tensors):
        where[name] = [i for i, step in enumerate(steps) if name in step.tensors]
        found = [steps[i].tensors[name] for i in where[name]]
        if len({(one.shape, one.dtype) for one in found}) == 1:
            tensors[f"step/{name}"] = torch.stack(found)
        else:
            tensors |= {f"step/{name}/{i}": one for i, one in zip(where[name], found, strict=True)}
    facts = {
        "version": FORMAT,
        "settings": record.settings.told(),
        "steps": [_said(step) for step in steps],
        "cancelled": record.cancelled,
        "seconds": record.seconds,
        "expected": record.expected,
        "info": record.info,
        "pictures": [len(one) for one in kept],
        "tensors": where,
        "numbers": [
            {name: getattr(one, name) for name in _DECLARED} for one in record.measures.values() if one.of is None
        ],
    }
    _check(facts, tensors)
    try:
        text = json.dumps(facts)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the info of a run in a file is plain JSON ({sentence(error)})") from None
    data = as_bytes(tensors, metadata={"diffexplore": text, "checksum": checksum(text, tensors)})
    with written(path) as file:
        file.write(data)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`save` wrote.

    Args:
        path: a file of it; ``~`` is the home folder.

    Returns:
        The arguments of a ``Record`` of that run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, for a file that is no such run, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(os.path.expanduser(path))
    name = shown(str(path), 200)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get("diffexplore", "")
            if not text:
                raise ValueError(f"{name} is a safetensors file, but not a run saved by Trace.save")
            if len(text) > MAX_METADATA:
                size = f"{len(text):,} characters of metadata, at most {MAX_METADATA:,} are read"
                raise ValueError(f"{name} holds {size}")
            try:
                facts = json.loads(text)
                version = facts["version"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(f"{name} is not a run saved by Trace.save") from None
            if version != FORMAT or isinstance(version, bool):
                raise ValueError(f"{name} is a run in format {shown(version)}, this version reads format {FORMAT}")
            tensors = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name} is not a readable safetensors file ({sentence(error)})") from None
    try:
        if metadata.get("checksum") != checksum(text, tensors):
            raise ValueError("its checksum says that bytes have changed since it was saved")
        _check(facts, tensors)
        return _parts(facts, tensors)
    # The second line is for what nobody thought of.
    except ValueError as error:
        raise ValueError(f"{name} is a damaged run: {sentence(error)}") from None
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} is a damaged run ({type(error).__name__}: {sentence(error)})") from None


def checksum(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Of everything in a file: its facts and, in order of their names, each tensor's name, type, shape and bytes."""
    hasher = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.contiguous().flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return hasher.hexdigest()


def _said(step: Step) -> dict[str, Any]:
    """The scalars of a step, as plain as JSON has them."""
    guidance = step.guidance
    return {
        "index": int(step.index),
        **{name: float(getattr(step, name)) for name in ("timestep", "seconds", "a", "b")},
        "kind": step.kind,
        "guidance": None if guidance is None else float(guidance),
        "split": step.split,
        "half": bool(step.half),
        "numbers": dict(step.numbers),
    }


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


# What a file may say. One list for what is written and what is read, so that no file of ours is refused.


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


def _check(facts: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
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
        if len(step) > len(_STEP):
            raise ValueError(f"{of}it says more than {', '.join(_STEP)}")
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
        if not isinstance(number, dict) or set(number) != set(_DECLARED):
            raise ValueError(f"numbers must each have {', '.join(_DECLARED)}, got {shown(number)}")
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


def _output(tensors: Mapping[str, torch.Tensor]) -> Any:
    """What a run made that is more than its picture."""
    from PIL import Image

    if "frames" in tensors:
        return [Image.fromarray(one) for one in tensors["frames"].numpy()]
    return tensors["sound"].numpy() if "sound" in tensors else None


def _parts(facts: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The arguments of a record, of checked facts and tensors."""
    ends = list(accumulate(facts["pictures"]))
    data = tensors["pictures"].numpy().tobytes() if ends else b""
    return {
        "settings": Settings(**facts["settings"]),
        "steps": _steps(facts, tensors),
        "final": tensors.get("final"),
        "image": _image(tensors["image"].numpy().tobytes()) if "image" in tensors else None,
        "output": _output(tensors),
        "matrix": tensors["matrix"].numpy() if "matrix" in tensors else None,
        "cancelled": facts["cancelled"],
        "seconds": float(facts["seconds"]),
        "info": facts["info"],
        "expected": facts["expected"],
        "pictures": [data[end - length : end] for end, length in zip(ends, facts["pictures"], strict=True)],
        "declared": [Number(**one) for one in facts["numbers"]],
    }


def _image(data: bytes) -> "Image.Image":
    """The final picture.

    Raises:
        ValueError: it is no PNG, or larger than any run's.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if max(image.size) > MAX_SIDE:
            raise ValueError(f"{image.width} x {image.height} pixels, at most {MAX_SIDE} x {MAX_SIDE} are read")
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"its picture cannot be read ({sentence(error)})") from None
    return image


def _steps(facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> list[Step]:
    more: list[dict[str, torch.Tensor]] = [{} for _ in facts["steps"]]
    for name, where in facts["tensors"].items():
        stacked = tensors.get(f"step/{name}")
        for k, i in enumerate(where):
            more[i][name] = tensors[f"step/{name}/{i}"] if stacked is None else stacked[k]
    made: list[Step] = []
    split = 0
    for i, step in enumerate(facts["steps"]):
        cond = uncond = None
        if not step["split"]:
            cond, uncond = tensors["cond"][split], tensors["uncond"][split]
            split += 1
        latents, output = tensors["latents"][i], tensors["output"][i]
        made.append(Step(**step, latents=latents, output=output, cond=cond, uncond=uncond, tensors=more[i]))
    return made


def _listed(values: Any) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))
