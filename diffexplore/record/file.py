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
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from diffexplore.mixing import CFG
from diffexplore.record.claims import DECLARED, MAX_SIDE, check
from diffexplore.record.numbers import Number
from diffexplore.record.step import Step, own
from diffexplore.settings import Settings
from diffexplore.values import a_file, a_path
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    from PIL import Image

    from diffexplore.record.record import Record

__all__ = ["FORMAT", "as_bytes", "checksum", "load", "of_bytes", "save", "written"]

FORMAT = 2
MAX_METADATA = 16 * 2**20  # bytes of JSON read from a file; a 1,000-step run needs about 0.2 MB


@contextmanager
def written(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once the block has ended well; until then, and whatever
    fails (a full disk, an interrupt, a kill), what was there stays as it was.

    Args:
        path: where to write; ``~`` is the home folder. A link is followed. What is no plain file (``/dev/stdout``)
            is written to as it is.
        sync: wait until the disk has it. False: after a loss of power it may be torn, for who would notice that.

    Raises:
        OSError: it cannot be written there.
        ValueError: one sentence, for what is no path.
    """
    target = Path(os.path.realpath(os.path.expanduser(a_path(path))))
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
            if sync:
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
    data = as_bytes(record, pictures)
    with written(path) as file:
        file.write(data)


def as_bytes(record: "Record", pictures: Sequence[bytes] | None = None) -> bytes:
    """What :func:`save` writes.

    Raises:
        ValueError: as there.
    """
    from safetensors.torch import save as packed

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
            {name: getattr(one, name) for name in DECLARED} for one in record.measures.values() if one.of is None
        ],
    }
    check(facts, tensors)
    try:
        text = json.dumps(facts)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the info of a run in a file is plain JSON ({sentence(error)})") from None
    return packed(tensors, metadata={"diffexplore": text, "checksum": checksum(text, tensors)})


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

    path = a_file(path)
    name = shown(str(path), 200)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = _facts_in(metadata, name)
            tensors = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name} is not a readable safetensors file ({sentence(error)})") from None
    return _checked(text, metadata, tensors, name)


def of_bytes(data: bytes, name: str = "what was sent") -> dict[str, Any]:
    """Read what :func:`as_bytes` made, of somebody who may be a stranger.

    Args:
        data: the bytes.
        name: what to call them in a refusal.

    Returns:
        The arguments of a ``Record`` of that run.

    Raises:
        ValueError: one sentence, for bytes that are no such run, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as unpacked

    try:
        tensors = unpacked(data)
        length = int.from_bytes(data[:8], "little")  # the header that safetensors has just read
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} is not readable as safetensors ({sentence(error)})") from None
    return _checked(_facts_in(metadata, name), metadata, tensors, name)


def _facts_in(metadata: Mapping[str, str], name: str) -> str:
    """The JSON in a file, looked at before its tensors are."""
    text = metadata.get("diffexplore", "")
    if not text:
        raise ValueError(f"{name} is a safetensors file, but not a run saved by Trace.save")
    if len(text) > MAX_METADATA:
        size = f"{len(text):,} characters of metadata, at most {MAX_METADATA:,} are read"
        raise ValueError(f"{name} holds {size}")
    try:
        version = json.loads(text)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{name} is not a run saved by Trace.save") from None
    if version != FORMAT or isinstance(version, bool):
        raise ValueError(f"{name} is a run in format {shown(version)}, this version reads format {FORMAT}")
    return text


def _checked(text: str, metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, Any]:
    """The arguments of a record, of what a file says."""
    try:
        if metadata.get("checksum") != checksum(text, tensors):
            raise ValueError("its checksum says that bytes have changed since it was saved")
        facts = json.loads(text)
        check(facts, tensors)
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
    } | ({} if step.guider == CFG else {"guider": step.guider})


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


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
