"""Results that stay between sessions: a :class:`Shelf` is a `runs.memory.Store` with a folder below it.

Runs go into the folder as the bytes of their files (`record.file`), by diskcache, which several processes may use at
once; the one that was not used for longest goes first. Their names come from all that decides their bits, in any
session: the settings, what `runs.decides` says of the pipeline, the scheduler it came with, the libraries, the kind of
device and the threads. What comes out is checked as any file is; what is damaged is thrown away and computed anew, and
where anything is not understood, nothing is kept. Nothing is ever unpickled.
"""

import hashlib
import importlib.util
import json
import os
import sqlite3
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from diffexplore.pipelines.open import local_path
from diffexplore.record import file
from diffexplore.runs.decides import arithmetic, device_of, standing, versions
from diffexplore.runs.memory import Store
from diffexplore.trace import Trace
from diffexplore.words import sentence, shown

__all__ = ["LIMIT", "Shelf", "check_cache"]

LIMIT = 2 * 2**30
"""Bytes that the folder may hold; a run of the pocket model takes about half a million."""

_NAMES = 64  # marks of a pipeline's states that are remembered; a scale of a LoRA is one


class Shelf(Store):
    """A store whose whole runs are also in a folder.

    Attributes:
        folder: which.
        limit: bytes that it may hold.
        found: how many runs came from there, since it was made.
    """

    def __init__(self, budget: int, folder: Any, pipeline: Any, came: Mapping[str, Any], limit: int = LIMIT) -> None:
        """A shelf for the runs of one pipeline; others may use the same folder.

        Args:
            budget: bytes of results that are remembered in memory too.
            folder: where; made if it is not there.
            pipeline: whose runs they are.
            came: the config of the scheduler that it came with.
            limit: bytes that the folder may hold.

        Raises:
            ValueError: one sentence, for what can be no such folder.
            ImportError: without diskcache; says how to get it.
            OSError: it cannot be made.
        """
        super().__init__(budget)
        self.folder = check_cache(folder)
        self.found = 0
        self._pipeline = pipeline
        self._came = json.dumps(dict(came), sort_keys=True, default=str)
        self._marks: OrderedDict[bytes, str | None] = OrderedDict()
        self.limit = limit
        self._cache, self._failures = _opened(self.folder, limit)
        weakref.finalize(self, self._cache.close)

    @property
    def keeps(self) -> bool:
        """Whether anything is remembered."""
        return True

    def get(self, key: Hashable | None) -> Any:
        """What is kept for `key`, in memory or, of a whole run, in the folder; None where there is nothing."""
        found = super().get(key)
        name = self._name(key) if found is None else None
        if name is None:
            return found
        trace = self._quietly(lambda: self._read(name))
        if trace is not None:
            self.found += 1
            super().put(key, trace, trace.nbytes)
        return trace

    def put(self, key: Hashable | None, value: Any, size: int) -> None:
        """Keep `value` for `key`; a whole run in the folder too."""
        super().put(key, value, size)
        name = self._name(key)
        if name is not None and isinstance(value, Trace):
            self._quietly(lambda: self._write(name, value))

    def _read(self, name: str) -> Trace | None:
        data = self._cache.get(name)
        if data is None:
            return None
        try:
            trace = Trace(**file.of_bytes(data, "what was kept"))
            if trace.info.pop("kept as", None) == name:
                return trace
        except (ValueError, TypeError):
            pass
        self._cache.delete(name)  # damaged, or another's: computed anew
        return None

    def _write(self, name: str, trace: Trace) -> None:
        kept = trace.copy(decode=None, matrix=None)
        kept.info["kept as"] = name
        self._cache.set(name, file.as_bytes(kept))

    def _quietly(self, call: Callable[[], Any]) -> Any:
        """What `call` gives; None where the folder cannot be used right now: then it is as if there were none."""
        try:
            return call()
        except self._failures:
            return None

    def _name(self, key: Any) -> str | None:
        """The name of a whole run in the folder; None for anything else, and where not all can be known."""
        match key:
            case (("run", bytes() as state, str() as settings, sampler, bytes() as beside), bool() as batched):
                pass
            case _:
                return None
        mark = self._mark(state)
        if mark is None:
            return None
        # Its own scheduler stands in the mark of the pipeline.
        named = sampler if isinstance(sampler, str) else "its own"
        place = arithmetic(device_of(self._pipeline))
        told = [mark, self._came, settings, named, beside.hex(), str(batched), versions(), place]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def _mark(self, state: bytes) -> str | None:
        """What stands for the pipeline as it is now, which `runs.memory` calls `state`."""
        if state not in self._marks:
            while len(self._marks) >= _NAMES:
                self._marks.popitem(last=False)
            self._marks[state] = standing(self._pipeline)
        self._marks.move_to_end(state)
        return self._marks[state]


def check_cache(folder: Any) -> Path:
    """`folder` as one that results can be kept in; it need not be there.

    Raises:
        ValueError: one sentence, for what can be no such folder.
        ImportError: without diskcache; says how to get it.
    """
    if not isinstance(folder, (str, os.PathLike)) or not folder:
        raise ValueError(f"cache must be the path of a folder, got {shown(folder)}")
    if importlib.util.find_spec("diskcache") is None:
        raise ImportError("results that stay need diskcache: pip install 'diffexplore[cache]'")
    path = local_path(os.fspath(folder)).absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(f"cache must be a folder, {shown(str(path), 200)} is a file")
    return path


def _opened(folder: Path, limit: int) -> tuple[Any, tuple[type[Exception], ...]]:
    """(diskcache's cache, what it may fail of), with nothing in it that is ever unpickled."""
    import diskcache

    class Plain(diskcache.Disk):
        """Keys are text and values bytes; whatever else is found there is not ours."""

        def get(self, key: Any, raw: bool) -> Any:
            if not raw:
                raise ValueError("a key that is no text")
            return super().get(key, raw)

        def fetch(self, mode: int, filename: Any, value: Any, read: bool) -> Any:
            if mode == diskcache.core.MODE_PICKLE:
                return None
            return super().fetch(mode, filename, value, read)

    failures = (OSError, sqlite3.Error, diskcache.Timeout, ValueError)
    try:
        cache = diskcache.Cache(
            str(folder), timeout=10, disk=Plain, size_limit=limit, eviction_policy="least-recently-used"
        )
    except sqlite3.Error as error:
        said = f"cache {shown(str(folder), 200)} holds something else, or is damaged ({sentence(error)})"
        raise ValueError(f"{said}: take another folder, or delete that") from None
    return cache, failures
