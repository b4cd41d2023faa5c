"""Runs on an executor: a job is plain data, whoever works it off; another process opens the model once and keeps it.

A worker process opens the model from its :class:`~diffexplore.pipelines.origin.Origin`, with its LoRAs and all that is
switched on in it, and sends each run back as the bytes of its file; where it sees the sweep's folder, it writes the
file itself, and sends no more than a word. It computes on one thread: there are as many workers as cores, as a rule,
and threads beyond those are in each other's way; or on the number that the model was opened with, ``load(threads=2)``.
"""

import multiprocessing
import os
import signal
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait as gone
from pathlib import Path
from typing import Any

import torch

from diffexplore.experiments.cells import keep_at, kept_at
from diffexplore.experiments.leases import seen
from diffexplore.model import Model
from diffexplore.pipelines.origin import Origin
from diffexplore.record import file
from diffexplore.runs.decides import arithmetic, device_of, versions
from diffexplore.runs.jobs import Job
from diffexplore.runs.prompt import Vocabulary
from diffexplore.runs.threads import elsewhere
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

__all__ = ["KEPT", "Home", "Place", "Task", "an_executor", "at_home", "check_executor", "draw", "likely"]

KEPT = 2
"""Models that a worker process has open at once, on a CPU; one on a card."""


@dataclass(frozen=True)
class Task:
    """A run as it travels.

    Attributes:
        home: (process, mark) by which the model is found where it lives.
        name: of the model.
        origin: of the model, as JSON.
        settings: what to draw, as JSON.
        place: where it is to be drawn, as its :class:`Place` says.
        path: the cell's file, "" where none is kept.
        cell: the mark of all that decides its bits, which its file has to say.
        claim: by which a worker knows that it sees the sweep's folder; "" where it is not to write there.
        pooled: whether a worker that is no home belongs to a pool of its sweep, and ends with that.
    """

    home: tuple[int, str]
    name: str
    origin: str
    settings: str
    place: str = ""
    path: str = ""
    cell: str = ""
    claim: str = ""
    pooled: bool = False


@dataclass(frozen=True)
class Place:
    """What runs are computed on, where an executor works.

    Attributes:
        home: whether that is this very process, with the model in it.
        versions: of the libraries, see :func:`~diffexplore.runs.decides.versions`.
        arithmetic: see :func:`~diffexplore.runs.decides.arithmetic`.
    """

    home: bool
    versions: str
    arithmetic: str

    def __str__(self) -> str:
        return f"{self.versions}; {self.arithmetic}"


_HOME: dict[str, Model] = {}  # while a sweep goes on
_GOING: dict[str, set[Job]] = {}  # mark of a home -> the runs that are drawn there for it
_OPENED: "OrderedDict[tuple[str, str], Model]" = OrderedDict()
_REFUSED: dict[tuple[int, str], str] = {}  # a model that cannot be opened is not tried again for each cell
_OPENING = threading.Lock()
_SETTLED = threading.Event()


class Home:
    """Where a model lives, by which jobs in this process find it; for one sweep.

    Attributes:
        address: (process, mark), as it travels.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.address = os.getpid(), uuid.uuid4().hex

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within the block jobs find it; at the end those that still run are cancelled, and no other begins."""
        mark = self.address[1]
        _HOME[mark], _GOING[mark] = self.model, set()
        try:
            yield
        finally:
            del _HOME[mark]
            for job in list(_GOING.pop(mark)):
                job.cancel()


def _at_home(home: tuple[int, str]) -> bool:
    # A forked process has a copy of the table, but a copied model's threads and locks are dead.
    return home[0] == os.getpid() and home[1] in _HOME


def an_executor(value: Any) -> Executor:
    """`value`, which has to be an executor; of a Dask client, the one that it gives.

    Raises:
        ValueError: one sentence, for anything else, and for an executor whose processes are forked.
    """
    if not isinstance(value, Executor) and hasattr(value, "get_executor") and hasattr(value, "scheduler_info"):
        value = value.get_executor()
    if not isinstance(value, Executor):
        raise ValueError(
            "executor must be a concurrent.futures.Executor (of a Dask client: client.get_executor()), "
            f"got {shown(value)}"
        )
    method = getattr(getattr(value, "_mp_context", None), "get_start_method", None)
    if method is not None and method() == "fork":
        raise ValueError(
            "a forked process hangs in torch, whose threads are not copied: make the executor with "
            'mp_context=multiprocessing.get_context("spawn")'
        )
    return value


def check_executor(executor: Executor, model: Model, origin: Origin, home: Home) -> Place:
    """Ask a worker where it is, and refuse an executor that could not draw the same.

    Args:
        executor: what :func:`an_executor` let through.
        model: whose runs are asked for.
        origin: of the model.
        home: of the model.

    Raises:
        ValueError: one sentence: its processes could not open the model, or have other versions of the libraries.
    """
    pooled = isinstance(executor, ProcessPoolExecutor)
    if not (pooled and origin.portable):
        with home.open():
            asked = origin.options.get("device"), elsewhere(origin)
            place = executor.submit(_place, home.address, *asked, pooled).result()
        if place.home:
            return at_home(model)
    if origin.portable:
        raise ValueError(f"the model {shown(model.name)} cannot be used by other processes: {origin.portable}")
    if place.versions != versions():
        raise ValueError(f"workers need the libraries of this process: there {place.versions}; here {versions()}")
    return place


def at_home(model: Model) -> Place:
    """The place of runs that are drawn in this process, or asked for by it, of a model that is shared."""
    pipeline = getattr(model, "pipeline", None)
    if pipeline is None:
        return Place(True, versions(), "where it is shared")
    return Place(True, versions(), arithmetic(device_of(pipeline), model.threads.asked))


def likely(executor: Executor | None, model: Model, origin: Origin) -> Place:
    """The place where an executor probably works; without asking it, which would start it."""
    if executor is None or isinstance(executor, ThreadPoolExecutor):
        return at_home(model)
    return Place(False, versions(), arithmetic(origin.options.get("device"), elsewhere(origin)))


def _place(home: tuple[int, str], device: str | None, threads: int, pooled: bool) -> Place:
    if not _at_home(home):
        _settle(pooled)
    return Place(_at_home(home), versions(), arithmetic(device, threads))


def draw(task: Task) -> Trace | bytes | None:
    """One run, wherever the executor works.

    Returns:
        The trace in the model's own process; else the bytes of its file, or None where they lie in the cell's file.
    """
    settings = Settings.from_json(task.settings)
    path = Path(task.path) if task.path else None
    if _at_home(task.home):
        # Another process may have drawn it since it was asked for.
        return (path and kept_at(path, task.cell, settings)) or _drawn(task.home[1], settings)
    _settle(task.pooled)
    sees = path if path is not None and seen(path, task.claim) else None
    if sees is not None and kept_at(sees, task.cell, settings) is not None:
        return None
    trace = _opened(task).trace(settings)
    if task.cell:
        trace.info["cell"] = task.cell
    if sees is not None:
        with suppress(OSError):  # whoever asked tries it too, and can say what is wrong
            keep_at(sees, trace)
            return None
    return file.as_bytes(trace)


def _drawn(mark: str, settings: Settings) -> Trace:
    """A run on the model's own worker thread, where it can be cancelled: one thread for all that uses torch."""
    going, model = _GOING.get(mark), _HOME.get(mark)
    if going is None or model is None:
        raise RuntimeError("the sweep was stopped")
    job = model.submit(settings, lane=object())
    going.add(job)
    try:
        trace = job.result()
    finally:
        going.discard(job)
    if trace.cancelled:
        raise RuntimeError(f"the run was cancelled ({job.reason})")
    return trace


def _settle(pooled: bool) -> None:
    """Make this a worker: it computes on one thread, where a model asks for no more; one of a pool does not outlive
    whoever made it.
    """
    if torch.get_num_threads() != 1:  # each thread has its own number
        torch.set_num_threads(1)
    if not pooled or _SETTLED.is_set():
        return
    _SETTLED.set()
    parent = multiprocessing.parent_process()
    if parent is not None:
        with suppress(ValueError):  # not on the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever made the pool, which then ends this
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    gone([sentinel])
    os._exit(1)


def _opened(task: Task) -> Model:
    """The model of a job from another process, opened by the first of its jobs."""
    with _OPENING:
        if task.home in _REFUSED:
            raise ValueError(_REFUSED[task.home])
        known = task.name, task.origin
        if known not in _OPENED:
            try:
                while len(_OPENED) >= (1 if torch.cuda.is_available() else KEPT):
                    _OPENED.popitem(last=False)
                model = _open(task.name, Origin.from_json(task.origin))
                here = Place(False, versions(), arithmetic(device_of(model.pipeline), elsewhere(model.origin)))
                if str(here) != task.place:
                    raise ValueError(f"workers have to be alike: one has {here}; another {task.place}")
            except ValueError as error:
                while len(_REFUSED) >= 16:
                    _REFUSED.pop(next(iter(_REFUSED)))
                _REFUSED[task.home] = str(error)
                raise
            _OPENED[known] = model
        _OPENED.move_to_end(known)
        return _OPENED[known]


def _open(name: str, origin: Origin) -> Model:
    opened = origin.open()
    vocabulary = Vocabulary(opened.words, opened.near)
    model = Model(opened.pipeline, name=name, origin=opened.origin, vocabulary=vocabulary)
    for path, lora, _ in origin.loras:
        model.load_lora(path, lora)
    if model.origin.key() != origin.key():
        raise ValueError(f"the model {shown(name)} comes out otherwise in another process: has a LoRA's file changed?")
    return model
