"""Runs on an executor: a job is plain data, whoever works it off; another process opens the model once and keeps it.

A worker process opens the model from its :class:`~diffexplore.pipelines.origin.Origin`, with its LoRAs and all that is
switched on in it, and sends each run back as bytes. It computes on one thread: there are as many workers as cores, as a
rule, and threads beyond those are in each other's way.
"""

import os
import pickle
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from diffexplore.experiments.cells import kept_at
from diffexplore.model import Model
from diffexplore.pipelines.origin import Origin
from diffexplore.runs.prompt import Vocabulary
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

__all__ = ["Task", "check_executor", "draw", "draw_on"]

Report = Callable[[Settings, "Trace | Exception"], None]


@dataclass(frozen=True)
class Task:
    """A run as it travels.

    Attributes:
        home: (process, mark) by which the model is found where it lives.
        name: of the model.
        origin: of the model, as JSON.
        settings: what to draw, as JSON.
        path: the cell's file, "" where none is kept.
    """

    home: tuple[int, str]
    name: str
    origin: str
    settings: str
    path: str


_HOME: "weakref.WeakValueDictionary[str, Model]" = weakref.WeakValueDictionary()
_OPENED: dict[tuple[str, str], Model] = {}  # of the last sweep that this process worked for
_REFUSED: dict[tuple[int, str], str] = {}  # a model that cannot be opened is not tried again for each cell
_OPENING = threading.Lock()


def check_executor(executor: Executor, model: Model, origin: Origin) -> None:
    """Refuse an executor that could not draw.

    Args:
        executor: any.
        model: whose runs are asked for.
        origin: of the model.

    Raises:
        ValueError: one sentence: its processes are forked, or they could not open the model.
    """
    method = getattr(getattr(executor, "_mp_context", None), "get_start_method", None)
    if method is not None and method() == "fork":
        raise ValueError(
            "a forked process hangs in torch, whose threads are not copied: make the executor with "
            'mp_context=multiprocessing.get_context("spawn")'
        )
    if origin.portable and not _shares_memory(executor, model):
        raise ValueError(f"the model {shown(model.name)} cannot be used by other processes: {origin.portable}")


def _shares_memory(executor: Executor, model: Model) -> bool:
    """Whether the model is there where the executor works."""
    if isinstance(executor, ProcessPoolExecutor):
        return False
    return executor.submit(_at_home, _settle(model)).result()


def _settle(model: Model) -> tuple[int, str]:
    """Where a model lives, by which jobs in this process find it."""
    mark = uuid.uuid4().hex
    _HOME[mark] = model
    return os.getpid(), mark


def _at_home(home: tuple[int, str]) -> bool:
    # A forked process has a copy of the table, but a copied model's threads and locks are dead.
    return home[0] == os.getpid() and home[1] in _HOME


def draw_on(
    executor: Executor,
    model: Model,
    origin: Origin,
    cells: Sequence[Settings],
    path: Callable[[Settings], Path | None],
    report: Report,
) -> None:
    """Draw `cells` on an executor, one a job, and report each as it comes; blocking.

    Args:
        executor: what :func:`check_executor` let through.
        model: whose runs they are.
        origin: of the model.
        cells: what to draw, with everything filled in.
        path: gives the file of a cell; where that is there by the time its turn comes, nothing is drawn.
        report: gets each cell with its run, or with what it failed of.
    """
    home, data = _settle(model), origin.to_json()
    futures: dict[Future[Trace | bytes], Settings] = {}
    try:
        for one in cells:
            task = Task(home, model.name, data, one.to_json(), str(path(one) or ""))
            futures[executor.submit(draw, task)] = one
        for future in as_completed(futures):
            try:
                made = future.result()
                trace = made if isinstance(made, Trace) else pickle.loads(made)
                trace.decode = model.decode
            except Exception as error:
                report(futures[future], error)
            else:
                report(futures[future], trace)
    finally:
        for future in futures:
            future.cancel()


def draw(task: Task) -> Trace | bytes:
    """One run, wherever the executor works: the trace in the model's own process, else a pickle of it."""
    settings = Settings.from_json(task.settings)
    # Another process may have drawn it since it was asked for.
    trace = kept_at(Path(task.path), task.name, settings) if task.path else None
    if _at_home(task.home):
        return trace or _HOME[task.home[1]].trace(settings)
    # Pickled here: a pool would pass each tensor on in a file of its own, which ends with this process.
    return pickle.dumps(trace or _opened(task).trace(settings))


def _opened(task: Task) -> Model:
    """The model of a job from another process, opened by the first of its jobs."""
    with _OPENING:
        if task.home in _REFUSED:
            raise ValueError(_REFUSED[task.home])
        if (task.name, task.origin) not in _OPENED:
            torch.set_num_threads(1)
            _OPENED.clear()
            try:
                model = _open(task.name, Origin.from_json(task.origin))
            except ValueError as error:
                _REFUSED[task.home] = str(error)
                raise
            _OPENED[task.name, task.origin] = model
        return _OPENED[task.name, task.origin]


def _open(name: str, origin: Origin) -> Model:
    opened = origin.open()
    vocabulary = Vocabulary(opened.words, opened.near)
    model = Model(opened.pipeline, name=name, origin=opened.origin, vocabulary=vocabulary)
    for path, lora, _ in origin.loras:
        model.load_lora(path, lora)
    if model.origin.key() != origin.key():
        raise ValueError(f"the model {shown(name)} comes out otherwise in another process: has a LoRA's file changed?")
    return model
