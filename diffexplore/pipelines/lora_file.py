"""LoRA files: what one holds, read before anything is loaded, and where in a pipeline each of its tensors belongs.

Files differ in how they name a tensor: diffusers puts the network in front (``unet.``), peft puts
``base_model.model.``, other tools ``transformer.``, ``diffusion_model.`` or nothing. diffusers takes what it knows by
its own prefix and passes over the rest without a word; :func:`arranged` gives a file whose names it knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffexplore.pipelines.open import check_file, header, local_path
from diffexplore.words import shown

__all__ = ["LoraFile", "arranged", "lora_networks", "read_lora"]

_TENSOR = re.compile(
    r"(?P<path>.+?)(?P<kind>\.(?:lora_(?:A|B|down|up|magnitude_vector)|lora\.(?:down|up)|lora_linear_layer\.(?:down|up)))"
    r"(?P<adapter>\.[\w-]+?)?(?P<rest>\.(?:weight|bias))"
)
# What other tools put before the path of a module, whichever network it is in.
_FOREIGN = frozenset({"base_model", "diffusion_model", "lora", "model", "module", "transformer", "unet"})
_OTHER_KINDS = {
    "LoHa": re.compile(r"\.hada_[wt]"),
    "LoKr": re.compile(r"\.lokr_[wt]"),
    "OFT": re.compile(r"\.oft_|\.boft_"),
    "IA3": re.compile(r"\.ia3_|\.on_input$"),
    "full difference of weights": re.compile(r"\.diff(_b)?$"),
}
_CONFIG = "lora_adapter_metadata"  # where diffusers writes peft's config
_CONFIG_KEYS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")


@dataclass(frozen=True)
class LoraFile:
    """A file of LoRA weights, checked.

    Attributes:
        path: where it lies, absolute.
        sha256: of the whole file.
        tensors: their names, as in the file.
        metadata: its texts, as in the file.
        words: that it says it teaches, lower case; none for files not of ``diffexplore.pocket.lora``.
    """

    path: Path
    sha256: str
    tensors: tuple[str, ...]
    metadata: Mapping[str, str]
    words: frozenset[str]


def read_lora(path: str | os.PathLike[str]) -> LoraFile:
    """What a LoRA file says of itself; nothing of it is loaded.

    Raises:
        ValueError: one sentence, for anything but a safetensors file with LoRA weights.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise ValueError(f"a LoRA is the path of a .safetensors file, got {shown(path)}")
    where = os.fspath(path)
    file = local_path(where)
    check_file(file)
    try:
        tensors, metadata = header(file)
        for kind, mark in _OTHER_KINDS.items():
            for name in filter(mark.search, tensors):
                raise ValueError(f"it is a {kind} (it has {shown(name, 100)}), and only plain LoRA is read")
        for name in tensors:
            if name.endswith("dora_scale"):
                raise ValueError(f"it is a DoRA (it has {shown(name, 100)}), and only plain LoRA is read")
        if not any("lora" in name.lower() for name in tensors):
            raise ValueError("none of its tensors is one")
    except ValueError as error:
        raise ValueError(f"{shown(where, 200)} cannot be opened as a LoRA: {error}") from None
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return LoraFile(file.resolve(), digest, tensors, metadata, _taught(metadata))


def _taught(metadata: Mapping[str, str]) -> frozenset[str]:
    """The words of its token; and of a style the word "style", which belongs to how it is said ("a fox, zib style")."""
    try:
        about = json.loads(metadata.get("diffexplore", "{}"))
        token, kind = about.get("token", ""), about.get("kind")
    except (ValueError, AttributeError, RecursionError):
        return frozenset()
    words = frozenset(token.lower().split()) if isinstance(token, str) else frozenset()
    return words | {"style"} if words and kind == "style" else words


def lora_networks(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Name -> network of each part of a pipeline that diffusers puts LoRAs into."""
    names = getattr(pipeline, "_lora_loadable_modules", ())
    found = {name: getattr(pipeline, name, None) for name in names}
    return {name: part for name, part in found.items() if isinstance(part, torch.nn.Module)}


@contextmanager
def arranged(file: LoraFile, pipeline: Any) -> Iterator[Path]:
    """A file with the same tensors, named as diffusers reads them for this pipeline: `file` itself where nothing has to
    be renamed or where the layout is one that diffusers converts by itself, else one that is gone after the block.
    """
    names = _placed(file.tensors, pipeline)
    config = _peft_config(file, names)
    if not config and (names is None or all(old == new for old, new in names.items())):
        yield file.path
        return
    from safetensors.torch import load_file, save_file

    assert names is not None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "lora.safetensors"
        tensors = {names[name]: tensor for name, tensor in load_file(file.path).items()}
        save_file(tensors, made, {**file.metadata, **config})
        yield made


def _placed(tensors: tuple[str, ...], pipeline: Any) -> dict[str, str] | None:
    """Name in the file -> "<network>.<module>.lora_A.weight" or the like; None unless that is known for all of them."""
    networks = lora_networks(pipeline)
    modules = {name: {path for path, _ in part.named_modules()} for name, part in networks.items()}
    names: dict[str, str] = {}
    for tensor in tensors:
        match = _TENSOR.fullmatch(tensor)
        place = match and _place(match["path"], modules)
        if not match or not place:
            return None
        names[tensor] = f"{place}{match['kind']}{match['rest']}"
    return names if len(set(names.values())) == len(names) else None


def _place(path: str, modules: Mapping[str, set[str]]) -> str:
    """The network and the module that a path means, joined by a dot; "" where that is not one and only one."""
    first, _, rest = path.partition(".")
    if first in modules and _inside(rest, modules[first]):
        return path
    while True:
        found = [name for name, inside in modules.items() if _inside(path, inside)]
        if found:
            return f"{found[0]}.{path}" if len(found) == 1 else ""
        first, _, path = path.partition(".")
        if first not in _FOREIGN or not path:
            return ""


def _inside(path: str, modules: set[str]) -> bool:
    # Text encoders of before transformers 5 had their layers one level deeper.
    return path in modules or path.removeprefix("text_model.") in modules


def _peft_config(file: LoraFile, names: Mapping[str, str] | None) -> dict[str, str]:
    """The strength of an adapter as peft saves it, in a file of its own beside the tensors, as diffusers reads it."""
    beside = file.path.with_name("adapter_config.json")
    if names is None or _CONFIG in file.metadata or not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_bytes())
        chosen = {key: config[key] for key in _CONFIG_KEYS if key in config}
    except (ValueError, TypeError, RecursionError):
        return {}
    parts: dict[str, set[str]] = {}
    for name in names.values():
        part, _, path = name.partition(".")
        match = _TENSOR.fullmatch(path)
        assert match is not None
        parts.setdefault(part, set()).add(match["path"])
    made = {
        f"{part}.{key}": value
        for part, paths in parts.items()
        for key, value in {**chosen, "target_modules": sorted(paths)}.items()
    }
    return {_CONFIG: json.dumps(made)} if chosen else {}
