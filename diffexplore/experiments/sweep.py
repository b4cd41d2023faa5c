"""``sweep``: one model, a grid of settings, all cells from one seed; :class:`Grid` holds what came of it.

Cells run in batches on the model's worker, or one by one on any ``concurrent.futures.Executor`` (see
`experiments.crew`). Threads share the model, which takes one run at a time; another process opens the model anew, from
where it came from, and checks that it is the same (see `experiments.elsewhere`). For many machines, hand over the
executor of a Dask client::

    client.get_executor()                        # any worker
    client.get_executor(resources={"GPU": 1})    # those that were started with --resources "GPU=1", a run a card
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Literal, overload

from diffexplore.experiments.axes import axis_of
from diffexplore.experiments.cells import Cells, a_folder, keep_at, kept_at
from diffexplore.experiments.crew import Crew
from diffexplore.experiments.elsewhere import Home, Place, Task, an_executor, check_executor, draw, likely
from diffexplore.experiments.forecast import Forecast, forecast
from diffexplore.experiments.grid import Grid
from diffexplore.experiments.leases import Leases
from diffexplore.experiments.shared import a_model
from diffexplore.model import Model
from diffexplore.pipelines.origin import Origin
from diffexplore.progress import progress
from diffexplore.record import file
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.values import members
from diffexplore.words import sentence, shown

__all__ = ["Grid", "sweep"]

Axis = tuple[str, Sequence[Any]]

STOPPED = "stopped before it was drawn"
PATIENCE = 10.0  # seconds in which a file that a worker wrote has to be seen here


@overload
def sweep(
    model: Model,
    x: Axis,
    y: Axis | None = None,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    dry: Literal[False] = False,
    quiet: bool = False,
    **settings: Any,
) -> Grid: ...
@overload
def sweep(
    model: Model,
    x: Axis,
    y: Axis | None = None,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    dry: Literal[True],
    quiet: bool = False,
    **settings: Any,
) -> Forecast: ...
def sweep(
    model: Model,
    x: Axis,
    y: Axis | None = None,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    dry: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Grid | Forecast:
    """Draw every combination of two settings; blocking.

    Args:
        model: what draws; with an executor of processes, one that came from a folder, a file or the hub.
        x: a field of ``Settings`` and its values, one per column: ``("steps", [5, 10, 20])``; or what is within one
            (`experiments.axes`): ``("changes.0.4.prompt", ["a car", "a cat"])``, ``("adapters.style", [0, 0.5, 1])``.
        y: the same for the rows; None: a single row.
        executor: runs the cells one by one; None: batches on this machine. Processes have to be spawned:
            ``ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))``; each draws on one thread, or on
            as many as the model was opened with (``load(threads=2)``). A cell whose worker dies is drawn again. Of
            Dask: ``client.get_executor()``, with ``resources={"GPU": 1}`` where a run needs a card for itself.
        out: a folder, made if it is not there, where each cell is saved as a trace as soon as it is drawn: by the
            worker where that sees the folder (it finds there that this sweep has claimed the cell), else from here. A
            cell found there whole is loaded instead of drawn if all is equal that decides its bits: its settings, the
            model's name, commit, weights, LoRAs, scheduler and features (FreeU), the versions of the libraries, the
            kind of device, and on a CPU the number of threads; cells are drawn one by one for that. So a sweep that
            was stopped goes on where it was, and several on one folder share the work.
        dry: draw nothing, and say what it would cost.
        quiet: show no bar; there is one, with the time left, for what takes more than a few seconds.
        **settings: the other fields, shared by all cells; the seed among them, so only the axes tell cells apart.

    Returns:
        The grid; with `dry`, the forecast. A cell that fails while it is drawn holds its error sentence; the others
        finish. Interrupted (Ctrl-C, the stop button of a notebook), it returns what there is, and the other cells say
        that they were not drawn.

    Raises:
        ValueError: one sentence, before any work, for an axis or a value that is refused, by any cell; for an executor
            whose processes are forked, could not open the model or have other versions of the libraries.
        OSError: if `out` cannot be written: before anything is drawn, if that can be known.
        RuntimeError: the executor takes no more work.
    """
    model = a_model(model)
    columns = _axis("x", x, settings)
    rows = None if y is None else _axis("y", y, settings)
    if rows is not None and axis_of(rows[0]).overlaps(axis_of(columns[0])):
        raise ValueError(f"x and y must vary different settings, both name {columns[0]!r}")
    executor = None if executor is None else an_executor(executor)
    folder = None if out is None else a_folder(out)
    if folder is not None and getattr(model, "pipeline", None) is None:
        raise ValueError("out keeps cells by all that decides their bits, which of a shared model is not known here")
    base = Settings(**settings)
    lines = [base] if rows is None else [axis_of(rows[0]).put(base, value) for value in rows[1]]
    asked = [[model.resolve(axis_of(columns[0]).put(line, value)) for value in columns[1]] for line in lines]
    origin, home = model.origin, Home(model)
    if executor is None or dry:
        place = likely(executor, model, origin)
    else:
        place = check_executor(executor, model, origin, home)
    cells = list(dict.fromkeys(one for line in asked for one in line))  # equal ones are drawn once
    kept = None if folder is None else Kept(model, Cells.of(model, origin, folder, str(place)), cells)
    found: dict[Settings, Trace | str] = {}
    left = cells if kept is None else [one for one in cells if not kept.look(one, found)]
    if dry:
        return forecast(model, left, len(cells) - len(left), alone=executor is not None or kept is not None)
    if left and kept is not None:
        kept.cells.check()
    weights = {one: model.evaluations(str(one.sampler), one.steps) for one in left}
    bar = progress(sum(weights.values()), "sweep", quiet=quiet or not left, delay=3)

    failed: list[Settings] = []

    def report(one: Settings, outcome: Trace | Exception) -> None:
        found[one] = _told(outcome) if isinstance(outcome, Exception) else outcome
        if isinstance(outcome, Exception):
            failed.append(one)
        said = f", {len(failed)} failed" if failed else ""
        bar.set_postfix_str(f"{len(found)} of {len(cells)} cells{said}", False)
        bar.update(weights[one])

    try:
        if executor is None and kept is None:
            _in_batches(model, left, report)
        else:
            _one_by_one(model, origin, home, place, executor, kept, left, found, report)
    except KeyboardInterrupt:
        if not found:
            raise
    finally:
        bar.close()
    return Grid(columns, rows, asked, [[found.get(one, STOPPED) for one in line] for line in asked])


class Kept:
    """The cells of a sweep that is kept in a folder."""

    def __init__(self, model: Model, cells: Cells, asked: Sequence[Settings]) -> None:
        self.model = model
        self.cells = cells
        self.marks = {one: cells.mark(one) for one in asked}
        self.paths = {one: cells.path(one) for one in asked}

    def look(self, one: Settings, found: dict[Settings, Any]) -> bool:
        """Whether a cell is there by now; `found` has it then."""
        trace = kept_at(self.paths[one], self.marks[one], one)
        if trace is not None:
            trace.decode = self.model.decode
            found[one] = trace
        return trace is not None

    def keep(self, one: Settings, trace: Trace) -> None:
        """Write a cell, unless it is from there."""
        if trace.info.get("cell") != self.marks[one] or not self.paths[one].is_file():
            trace.info["cell"] = self.marks[one]
            keep_at(self.paths[one], trace)


def _one_by_one(
    model: Model,
    origin: Origin,
    home: Home,
    place: Place,
    executor: Executor | None,
    kept: Kept | None,
    left: Sequence[Settings],
    found: dict[Settings, Any],
    report: Callable[[Settings, Trace | Exception], None],
) -> None:
    """Draw `left` on an executor, or on the model's own thread; `found` gets what others have drawn meanwhile."""
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(1))
        leases = None if kept is None else stack.enter_context(Leases(kept.cells.folder))
        stack.enter_context(home.open())
        crew: Crew[Task] = Crew(executor, 1 if place.home else 2)
        asked: dict[Task, Settings] = {}
        data = origin.to_json()

        def task(one: Settings) -> Task:
            made = Task(home.address, model.name, data, one.to_json(), str(place), pooled=crew.pooled)
            if kept is not None and leases is not None:
                made = replace(made, path=str(kept.paths[one]), cell=kept.marks[one], claim=leases.token)
            asked[made] = one
            return made

        def tasks() -> Iterator[Task | None]:
            waiting, passed = deque(left), 0
            while waiting:
                one = waiting.popleft()
                if kept is None or leases is None:
                    yield task(one)
                    continue
                mine = leases.take(kept.paths[one])
                if kept.look(one, found):  # by now; after it is ours, nobody else makes it
                    leases.release(kept.paths[one])
                    report(one, found[one])
                    passed = 0
                elif mine:
                    passed = 0
                    yield task(one)
                else:
                    waiting.append(one)
                    passed += 1
                    if passed >= len(waiting):  # all that is left is with others
                        passed = 0
                        yield None

        with closing(crew.work(draw, tasks())) as results:
            for made, outcome, error in results:
                one = asked.pop(made)
                if error is None:
                    try:
                        outcome = _arrived(one, outcome, kept)
                    except ValueError as wrong:
                        error = wrong
                    else:
                        outcome.decode = model.decode
                report(one, outcome if error is None else error)
                if kept is not None and leases is not None:
                    leases.release(kept.paths[one])


def _arrived(one: Settings, outcome: Trace | bytes | None, kept: Kept | None) -> Trace:
    """What came back of a cell, as a trace; in its file, where there is a folder.

    Raises:
        OSError: it cannot be written.
        ValueError: one sentence, for what is no run.
    """
    if outcome is None and kept is not None:
        there: dict[Settings, Trace] = {}
        end = time.monotonic() + PATIENCE  # folders of a network show what others write a little later
        while not kept.look(one, there) and time.monotonic() < end:
            time.sleep(0.1)
        if one not in there:
            raise ValueError(f"a worker wrote {shown(kept.paths[one].name)}, which cannot be read here")
        return there[one]
    trace = outcome if isinstance(outcome, Trace) else Trace(**file.of_bytes(outcome or b""))
    if kept is not None:
        kept.keep(one, trace)
    return trace


def _in_batches(model: Model, cells: Sequence[Settings], report: Callable[[Settings, Trace | Exception], None]) -> None:
    lane = object()  # whoever else uses the model gets a turn between two batches
    for batch in model.batches(cells):
        jobs = model.submit_many(batch, lane=lane)
        try:
            for one, job in zip(batch, jobs, strict=True):
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
    values = members(f"the values of {which}", values)
    if not values:
        raise ValueError(f"the values of {which} must be a list of at least one, got []")
    return field, values
