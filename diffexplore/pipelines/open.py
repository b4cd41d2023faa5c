"""Where pipelines come from: a hub id, a diffusers folder or a single ``.safetensors`` file, opened with care.

Weights are read from safetensors only, never from a pickle, which could run code; and no code that comes with a model
is ever run. Whatever cannot be opened is refused with one sentence that names the reason.
"""

from __future__ import annotations

import json
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffexplore.pipelines.whole import check_weights, in_dtype
from diffexplore.words import sentence, shown

__all__ = [
    "POCKETS",
    "SOURCES",
    "Found",
    "check_file",
    "folder_words",
    "header",
    "local_path",
    "near_words",
    "quiet",
    "read_pipeline",
]

_HOME = Path(__file__).parents[1] / "pocket"
POCKETS: dict[str, Path] = {f"pocket{kind}": _HOME / f"weights{kind}" for kind in ("", "-turbo", "-flow")}
"""The models that come with the package: name -> a standard diffusers folder. A `Path` of such a name is a folder of
one's own.
"""

SOURCES = (
    "None (the pocket model), 'pocket-turbo', 'pocket-flow', a diffusers folder, a single .safetensors file, a hub id "
    "such as 'org/name' or a ready pipeline"
)
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
MAX_HEADER = 100 * 2**20  # bytes; the limit of the safetensors format itself

_OFFLINE = (
    "not all of it is on this machine, and offline mode forbids to fetch the rest; "
    "unset HF_HUB_OFFLINE and restart the kernel"
)
_NO_HUB = "not all of it is on this machine, and the hub cannot be reached; is there a network?"

# Tensors that only one kind of checkpoint has -> the pipeline that reads it; the first that fits.
_MARKS = (
    ("conditioner.embedders.", "StableDiffusionXLPipeline"),
    ("joint_blocks.0.", "StableDiffusion3Pipeline"),
    ("double_blocks.0.", "FluxPipeline"),
    ("cond_stage_model.", "StableDiffusionPipeline"),
)


class Found(NamedTuple):
    """A pipeline as it was read.

    Attributes:
        pipeline: of a known class, on the CPU.
        kind: "hub", "folder" or "file".
        where: the hub id without its revision, or the absolute path.
        name: what to call it.
        revision: the commit of the hub it is; None for files and folders.
        folder: where its parts lie on this machine; None for a single file.
    """

    pipeline: Any
    kind: str
    where: str
    name: str
    revision: str | None = None
    folder: Path | None = None


def read_pipeline(where: str, dtype: torch.dtype) -> Found:
    """Read a pipeline from a path or a hub id, with nothing written to the terminal.

    Args:
        where: a diffusers folder, a single ``.safetensors`` file, or a hub id, "org/name" or "org/name@revision"
            (a branch, tag or commit).
        dtype: what the weights are loaded as.

    Raises:
        ValueError: one sentence, for a source that is none of these or that cannot be opened.
    """
    path = local_path(where)
    if where and (path.is_file() or path.suffix in (".safetensors", *_PICKLES)):
        check_file(path)
        with _refusal(where):
            pipeline = _from_file(path, dtype)
            _finish(pipeline, dtype, None)
            return Found(pipeline, "file", str(path.absolute()), path.stem)
    if where and path.is_dir() and not (path / "model_index.json").is_file():
        raise ValueError(f"a model folder needs a model_index.json, {shown(where, 200)} has none")
    if not where or (not path.is_dir() and not _HUB.fullmatch(where)):
        raise ValueError(f"a model is {SOURCES}, got {shown(where, 200)}")
    with _refusal(where):
        return _from_folder(path, dtype) if path.is_dir() else _from_hub(where, dtype)


def local_path(where: str) -> Path:
    """A path as people type it: ``~`` is their home.

    Raises:
        ValueError: one sentence, for what no system takes as a path.
    """
    path = Path(where)
    try:
        path = path.expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, RuntimeError, ValueError) as error:  # too long, a home of nobody, a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{shown(where, 200)} cannot be a path: {reason}") from None
    return path


@contextmanager
def _refusal(where: str) -> Iterator[None]:
    """Turn whatever goes wrong while a model is opened into one sentence."""
    try:
        with quiet():
            yield
    except Exception as error:
        reason = _unreachable(error) or sentence(error)
        raise ValueError(f"{shown(where, 200)} cannot be opened as a model: {reason}") from error


def _unreachable(error: BaseException | None) -> str:
    """What to say of an error that began with a hub out of reach, which diffusers calls a missing file; else ""."""
    from huggingface_hub import constants, errors

    while error is not None:
        if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
            return _OFFLINE if constants.HF_HUB_OFFLINE else _NO_HUB
        error = error.__cause__ or error.__context__
    return ""


def _no_answer(name: str) -> str:
    """What to say if the hub cannot be asked for a model; "" if it answers, whatever it says."""
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        return _OFFLINE
    try:
        HfApi().model_info(name, timeout=10)
    except errors.HfHubHTTPError:
        return ""
    except Exception:  # each version of the hub's client has errors of its own for this
        return _NO_HUB
    return ""


def _from_folder(path: Path, dtype: torch.dtype) -> Found:
    pipeline = _class_of(str(path), local_files_only=True).from_pretrained(
        path, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    _finish(pipeline, dtype, path)
    return Found(pipeline, "folder", str(path.absolute()), path.absolute().name, folder=path)


def _from_hub(where: str, dtype: torch.dtype) -> Found:
    name, _, revision = where.partition("@")
    chosen = {"revision": revision} if revision else {}
    if Path(name).exists():
        from huggingface_hub import hf_hub_download

        # With a revision the hub is meant, but diffusers would take the folder of that name.
        cls = _class_of(str(Path(hf_hub_download(name, "model_index.json", **chosen)).parent), local_files_only=True)
    else:
        cls = _class_of(name, **chosen)
    # First to the cache, then from there: the name of the cache's folder is the commit, whatever branch was asked for.
    folder = Path(cls.download(name, use_safetensors=True, **chosen))
    commit = folder.name if _COMMIT.fullmatch(folder.name) else None
    try:
        pipeline = cls.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    except OSError as error:  # a file is missing: without a hub diffusers has taken what the cache has for all
        raise OSError(_no_answer(name) or str(error)) from error
    _finish(pipeline, dtype, folder)
    return Found(pipeline, "hub", name, name.split("/")[1], commit, folder)


def _finish(pipeline: Any, dtype: torch.dtype, folder: Path | None) -> None:
    """Refuse a pipeline with weights that no file gave, and see to its dtype."""
    if folder is not None:
        check_weights(pipeline, folder)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            for key, weight in part.named_parameters():
                if weight.device.type == "meta":
                    raise ValueError(f"of its {name} tensors are missing, such as {shown(key, 150)}")
    in_dtype(pipeline, dtype)


def _class_of(where: str, **options: Any) -> Any:
    import diffusers

    name = diffusers.DiffusionPipeline.load_config(where, **options)["_class_name"]
    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(cls, type) or not issubclass(cls, diffusers.DiffusionPipeline):
        raise ValueError(f"its pipeline must be one of diffusers' own, it is {shown(name)}")
    return cls


def check_file(path: Path) -> None:
    """Refuse what is no ``.safetensors`` file.

    Raises:
        ValueError: one sentence; for a pickle, there or not, that it may run code.
    """
    if path.suffix in _PICKLES:
        raise ValueError(
            f"{shown(str(path), 200)} may be a pickle, which can run code when it is read; "
            "only .safetensors files are opened"
        )
    if not path.is_file():
        raise ValueError(f"there is no file {shown(str(path), 200)}")
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are read from .safetensors files only, got {shown(str(path), 200)}")


def _from_file(path: Path, dtype: torch.dtype) -> Any:
    import diffusers

    names, _ = header(path)
    for mark, pipeline in _MARKS:
        if any(mark in name for name in names):
            # The shapes of the parts are in no such file: diffusers looks them up on the hub (or in its cache).
            return getattr(diffusers, pipeline).from_single_file(str(path), torch_dtype=dtype)
    raise ValueError("it holds no checkpoint of Stable Diffusion, SDXL, Stable Diffusion 3 or Flux")


def header(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the tensors in a safetensors file, and its texts, read from its header alone.

    Raises:
        ValueError: one sentence, for a file that is none.
    """
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= MAX_HEADER:
            raise ValueError("it is no safetensors file: its header has an impossible size")
        try:
            read = json.loads(file.read(size))
        except (ValueError, RecursionError):
            raise ValueError("it is no safetensors file: its header is no JSON") from None
    if not isinstance(read, dict):
        raise ValueError("it is no safetensors file: its header is no JSON object")
    about = read.pop("__metadata__", None) or {}
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise ValueError("it is no safetensors file: its metadata is no JSON object of texts")
    return tuple(read), about


def folder_words(folder: Path) -> frozenset[str]:
    """The training vocabulary beside a model (``words.json``), lower case; empty where there is none.

    Raises:
        ValueError: one sentence, for a file that is no list of words.
    """
    words = _beside(folder / "words.json", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{shown(str(folder / 'words.json'), 200)} must be a JSON list of words")
    return frozenset(word.lower() for word in words)


def near_words(folder: Path) -> dict[str, tuple[str, ...]]:
    """Unknown words and the known ones nearest in meaning, as listed beside a model (``near.json``); empty where not.

    Raises:
        ValueError: one sentence, for a file that does not map words to lists of words.
    """
    table = _beside(folder / "near.json", {})
    if not isinstance(table, dict) or not all(
        isinstance(near, list) and all(isinstance(word, str) for word in near) for near in table.values()
    ):
        raise ValueError(f"{shown(str(folder / 'near.json'), 200)} must be a JSON object of words and lists of words")
    return {word.lower(): tuple(near) for word, near in table.items()}


def _beside(file: Path, otherwise: Any) -> Any:
    if not file.is_file():
        return otherwise
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{shown(str(file), 200)} is no JSON") from None


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no advice on torchvision (which nothing here needs), while a pipeline loads."""
    import diffusers.utils.logging as diffusers_logging
    import huggingface_hub.utils.logging as hub_logging
    import transformers.utils.logging as transformers_logging

    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        # diffusers still passes an option that the hub's client no longer knows.
        warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument")
        undo.callback(hub_logging.set_verbosity, hub_logging.get_verbosity())
        hub_logging.set_verbosity_error()  # each of its retries without a network is a warning
        for log in (diffusers_logging, transformers_logging):
            undo.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
            if log.is_progress_bar_enabled():
                undo.callback(log.enable_progress_bar)
                log.disable_progress_bar()
        yield
