"""``sweep``: one model, a grid of settings, all cells from one seed; :class:`Grid` holds what came of it.

Cells run in batches on the model's worker, or one by one on any ``concurrent.futures.Executor``. Threads share the
model, which takes one run at a time; another process opens the model anew, from where it came from, and checks that it
is the same (see `experiments.elsewhere`). For many machines, hand over the executor of a Dask client
(``client.get_executor()``).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

from diffexplore.experiments.axes import axis_of
from diffexplore.experiments.cells import Cells, keep_at, kept_at
from diffexplore.experiments.elsewhere import check_executor, draw_on
from diffexplore.experiments.grid import Grid
from diffexplore.experiments.shared import a_model
from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import sentence, shown

__all__ = ["Grid", "sweep"]

Axis = tuple[str, Sequence[Any]]


def sweep(
    model: Model,
    x: Axis,
    y: Axis | None = None,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Grid:
    """Draw every combination of two settings; blocking.

    Args:
        model: what draws; with an executor of processes, one that came from a folder, a file or the hub.
        x: a field of ``Settings`` and its values, one per column: ``("steps", [5, 10, 20])``; or what is within one
            (`experiments.axes`): ``("changes.0.4.prompt", ["a car", "a cat"])``, ``("adapters.style", [0, 0.5, 1])``.
        y: the same for the rows; None: a single row.
        executor: runs the cells; None: batches on this machine. Processes have to be spawned:
            ``ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))``.
        out: a folder, made if it is not there, where each finished cell is saved as a trace. A cell found there is
            loaded instead of drawn if all is equal that decides it: its settings, the model's name, revision, weights,
            LoRAs, scheduler and features (FreeU), and the versions of the libraries. So a sweep that was stopped goes
            on where it was, and several on one folder share the work.
        **settings: the other fields, shared by all cells; the seed among them, so only the axes tell cells apart.

    Returns:
        The grid. A cell that fails while it is drawn holds its error sentence; the others finish.

    Raises:
        ValueError: one sentence, before any work, for an axis or a value that is refused, by any cell; for an executor
            whose processes are forked, or could not open the model.
        OSError: if `out` cannot be written: before anything is drawn, if that can be known.
    """
    model = a_model(model)
    columns = _axis("x", x, settings)
    rows = None if y is None else _axis("y", y, settings)
    if rows is not None and axis_of(rows[0]).overlaps(axis_of(columns[0])):
        raise ValueError(f"x and y must vary different settings, both name {columns[0]!r}")
    if executor is not None and not isinstance(executor, Executor):
        raise ValueError(
            "executor must be a concurrent.futures.Executor (of a Dask client: client.get_executor()), "
            f"got {shown(executor)}"
        )
    origin = model.origin
    folder = None if out is None else Cells.of(model, origin, out)
    base = Settings(**settings)
    lines = [base] if rows is None else [axis_of(rows[0]).put(base, value) for value in rows[1]]
    asked = [[model.resolve(axis_of(columns[0]).put(line, value)) for value in columns[1]] for line in lines]
    if executor is not None:
        check_executor(executor, model, origin)

    cells = list(dict.fromkeys(one for line in asked for one in line))  # equal ones are drawn once
    files = {} if folder is None else {one: folder.path(one) for one in cells}
    found: dict[Settings, Trace | str] = {}

    def look(one: Settings) -> bool:
        """Whether it is there, by now."""
        if one in files:
            kept = kept_at(files[one], model.name, one)
            if kept is not None:
                kept.decode = model.decode
                found[one] = kept
        return one in found

    def report(one: Settings, outcome: Trace | Exception) -> None:
        found[one] = _told(outcome) if isinstance(outcome, Exception) else outcome
        if one in files and isinstance(outcome, Trace):
            keep_at(files[one], outcome)

    left = [one for one in cells if not look(one)]
    if left and folder is not None:
        folder.check()
    if executor is None:
        _in_batches(model, left, look, report)
    else:
        draw_on(executor, model, origin, left, files.get, report)
    return Grid(columns, rows, asked, [[found[one] for one in line] for line in asked])


def _in_batches(
    model: Model,
    cells: Sequence[Settings],
    there: Callable[[Settings], bool],
    report: Callable[[Settings, Trace | Exception], None],
) -> None:
    lane = object()  # whoever else uses the model gets a turn between two batches
    for batch in model.batches(cells):
        left = [one for one in batch if not there(one)]
        jobs = model.submit_many(left, lane=lane) if left else []
        try:
            for one, job in zip(left, jobs, strict=True):
                try:
                    trace = job.result()
                    if trace.cancelled:
                        raise RuntimeError(f"the run was cancelled ({job.reason})")
                except Exception as error:
                    report(one, error)
                else:
                    report(one, trace)
        finally:
            for job in jobs:
                job.cancel()


def _told(error: Exception) -> str:
    text, name = sentence(error), type(error).__name__
    return text if isinstance(error, ValueError) or text.startswith(name) else f"{name}: {text}"


def _axis(which: str, axis: Any, shared: dict[str, Any]) -> tuple[str, list[Any]]:
    if not isinstance(axis, (tuple, list)) or len(axis) != 2 or not isinstance(axis[0], str):
        raise ValueError(f"{which} must be a setting and its values, such as ('steps', [5, 10]), got {shown(axis)}")
    field, values = axis
    one = axis_of(field, f"{which} must name one of")
    fixed = None if one.field == field else one.of(Settings(**shared))
    if field in shared or fixed is not None:
        got = shown(shared.get(field, fixed))
        raise ValueError(f"{field} is the {which} axis and cannot be set for all cells too, got {got}")
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ValueError(f"the values of {which} must be a list, got {shown(values)}")
    values = list(values)
    if not values:
        raise ValueError(f"the values of {which} must be a list of at least one, got []")
    return field, values
