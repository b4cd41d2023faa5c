"""The folder of a sweep: one file for each cell, found again by all that decides its picture."""

import errno
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from diffexplore.model import Model
from diffexplore.pipelines.open import local_path
from diffexplore.pipelines.origin import Origin
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

__all__ = ["Cells", "keep_at", "kept_at"]


@dataclass(frozen=True)
class Cells:
    """Where the runs of one model lie.

    Attributes:
        folder: where.
        name: of the model.
        key: a mark of all that decides its bits, the settings aside.
    """

    folder: Path
    name: str
    key: str

    @classmethod
    def of(cls, model: Model, origin: Origin, out: Any) -> "Cells":
        """The cells of `model`, whose `origin` is this, in the folder `out`, which need not be there.

        Raises:
            ValueError: one sentence, for what can be no folder.
        """
        if not isinstance(out, (str, os.PathLike)):
            raise ValueError(f"out must be the path of a folder, got {shown(out)}")
        folder = local_path(os.fspath(out))
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"out must be a folder, {shown(str(folder), 200)} is a file")
        # Weights, dtype, scheduler, features and LoRAs by the origin; then the arithmetic itself.
        versions = [f"{one.__name__} {one.__version__}" for one in (torch, diffusers, transformers)]
        return cls(folder, model.name, "\n".join([str(model.revision), origin.key(), *versions]))

    def path(self, settings: Settings) -> Path:
        """The file of a cell.

        Raises:
            OSError: a folder has its name.
        """
        mark = "\n".join([self.name, self.key, settings.to_json()])
        path = self.folder / f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}.safetensors"
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return path

    def check(self) -> None:
        """Make the folder, and see that a file can be written there.

        Raises:
            OSError: it cannot be made, or not be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(4096))
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.folder)) from None


def kept_at(path: Path, name: str, settings: Settings) -> Trace | None:
    """The run in the file of a cell, without a decoder; None where there is none, or none that is this one and whole.

    Args:
        path: of the file.
        name: of the model.
        settings: of the cell.
    """
    try:
        trace = Trace.load(path)
    except (OSError, ValueError):  # not there, or damaged: drawn again
        return None
    same = trace.settings == settings and trace.info.get("model") == name
    return trace if same and not trace.cancelled and trace.image is not None else None


def keep_at(path: Path, trace: Trace) -> None:
    """Write the file of a cell, in one go.

    Raises:
        OSError: it cannot be written.
    """
    trace.save(path, pictures=False)  # a decoder is lent again
