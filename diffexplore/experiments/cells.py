"""The folder of a sweep: one file for each cell, found again by all that decides its picture."""

import errno
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffexplore.model import Model
from diffexplore.pipelines.open import local_path
from diffexplore.pipelines.origin import Origin
from diffexplore.record.file import as_bytes, written
from diffexplore.runs.decides import standing
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

__all__ = ["Cells", "a_folder", "keep_at", "kept_at"]


@dataclass(frozen=True)
class Cells:
    """Where the runs of one model lie.

    Attributes:
        folder: where.
        key: all that decides their bits, the settings aside.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, model: Model, origin: Origin, out: Any, place: str) -> "Cells":
        """The cells of `model`, whose `origin` is this, in a folder that need not be there.

        Args:
            model: whose runs they are.
            origin: of the model.
            out: what :func:`a_folder` let through.
            place: what they are computed on: the versions of the libraries, the kind of device, the threads.
        """
        # Weights, dtype, scheduler, features and LoRAs; then the arithmetic itself.
        pipeline = getattr(model, "pipeline", None)
        weights = str(None if pipeline is None else standing(pipeline))
        return cls(out, "\n".join([model.name, str(model.revision), origin.key(), weights, place]))

    def mark(self, settings: Settings) -> str:
        """The mark of all that decides the bits of a cell, 64 hex digits."""
        return hashlib.sha256(f"{self.key}\n{settings.to_json()}".encode()).hexdigest()

    def path(self, settings: Settings) -> Path:
        """The file of a cell.

        Raises:
            OSError: a folder has its name.
        """
        path = self.folder / f"{self.mark(settings)[:24]}.safetensors"
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


def a_folder(out: Any) -> Path:
    """`out` as the folder of a sweep, which need not be there.

    Raises:
        ValueError: one sentence, for what can be no folder.
    """
    if not isinstance(out, (str, os.PathLike)) or not out:
        raise ValueError(f"out must be the path of a folder, got {shown(out)}")
    folder = local_path(os.fspath(out)).absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, {shown(str(folder), 200)} is a file")
    return folder


def kept_at(path: Path, mark: str, settings: Settings) -> Trace | None:
    """The run in the file of a cell, without a decoder; None where there is none, or none that is this one and whole.

    Args:
        path: of the file.
        mark: of all that decides its bits.
        settings: of the cell.
    """
    if not path.is_file():
        return None
    try:
        trace = Trace.load(path)
    except (OSError, ValueError):  # damaged: drawn again
        return None
    same = trace.settings == settings and trace.info.get("cell") == mark
    return trace if same and not trace.cancelled and (trace.image is not None or trace.final is not None) else None


def keep_at(path: Path, trace: Trace) -> None:
    """Write the file of a cell, in one go.

    Raises:
        OSError: it cannot be written.
    """
    # A decoder is lent again, so no pictures; and a file that is torn shows, and is drawn again.
    with written(path, sync=False) as target:
        target.write(as_bytes(trace, ()))
