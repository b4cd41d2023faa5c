"""LoRAs: loaded into a pipeline, switched on for a run, taken out again."""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

from diffexplore.pipelines.open import lora_file, quiet

__all__ = ["Adapters"]


class Adapters:
    """The LoRAs that were loaded into one pipeline here."""

    def __init__(self, pipeline: Any) -> None:
        """None are loaded yet."""
        self._pipeline = pipeline
        self._files: dict[str, tuple[Path, str]] = {}
        self._taught: dict[str, frozenset[str]] = {}

    @property
    def names(self) -> list[str]:
        """What they are called, in the order in which they came."""
        return list(self._files)

    @property
    def files(self) -> Mapping[str, Path]:
        """Name -> the file it was loaded from."""
        return {name: file for name, (file, _) in self._files.items()}

    @property
    def files_with_hashes(self) -> Mapping[str, tuple[Path, str]]:
        """Name -> the file it was loaded from, and its SHA-256."""
        return dict(self._files)

    @property
    def taught(self) -> frozenset[str]:
        """The words that they say they teach."""
        return frozenset().union(*self._taught.values())

    def load(self, path: "str | os.PathLike[str]", name: str | None = None) -> str:
        """Load one, switched off; its name."""
        file = lora_file(os.fspath(path))
        chosen = re.sub(r"[^\w-]+", "_", name or file.stem)  # peft builds module names from it
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if chosen in self._files:
            if self._files[chosen][1] == digest:
                return chosen  # a cell that is run again
            raise ValueError(
                f"another adapter {chosen!r} is loaded already; give this one another name, or unload_loras() first"
            )
        if importlib.util.find_spec("peft") is None:
            raise ImportError("LoRA needs peft: pip install peft")
        with quiet():
            try:
                self._pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=chosen)
            except Exception as error:
                self._drop_half_loaded(chosen)
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"{file.name!r} cannot be loaded into this model: {reason[:300]}") from error
            self._files[chosen] = file.resolve(), digest
            self._taught[chosen] = _taught(file)
            self._pipeline.disable_lora()
        return chosen

    def _drop_half_loaded(self, name: str) -> None:
        """Take out what of a refused LoRA is in already: the part for one network may fit and that for another not."""
        listed = getattr(self._pipeline, "get_list_adapters", dict)  # some pipelines take no LoRA at all
        if any(name in names for names in listed().values()):
            self._pipeline.delete_adapters(name)
            if any(listed().values()):
                self._pipeline.disable_lora()

    def unload(self) -> None:
        """Take all LoRAs out of the pipeline again."""
        if self._files:
            self._pipeline.unload_lora_weights()
            self._files.clear()
            self._taught.clear()

    @contextmanager
    def on(self, adapters: Sequence[tuple[str, float]]) -> Iterator[None]:
        """Within the block, these LoRAs are on, at their scales, and no other."""
        chosen = {name: scale for name, scale in adapters if scale}
        if not chosen:
            yield
            return
        try:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(list(chosen), list(chosen.values()))
            yield
        finally:
            self._pipeline.disable_lora()


def _taught(file: Path) -> frozenset[str]:
    """The words that an adapter of ``diffexplore.pocket.lora`` says it teaches; none for other files."""
    with safe_open(file, "np") as opened:
        about = (opened.metadata() or {}).get("diffexplore", "{}")
    try:
        token = json.loads(about).get("token", "")
    except (ValueError, AttributeError):
        return frozenset()
    return frozenset(token.lower().split()) if isinstance(token, str) else frozenset()
