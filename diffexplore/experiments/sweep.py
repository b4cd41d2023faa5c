"""``sweep``: one model, a grid of settings, all cells from one seed; :class:`Grid` holds what came of it.

Cells run in batches on this thread, or one by one on any ``concurrent.futures.Executor``. Threads share the model,
which takes one run at a time; another process opens the model anew, from the folder or hub id it came from, checks
that its weights are the same, and sends each run back as the bytes that :meth:`~diffexplore.trace.Trace.save` writes.
For many machines, hand over the executor of a Dask client (``client.get_executor()``).
"""

import hashlib
import math
import os
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.looks.curves import adherence_of
from diffexplore.looks.figures import Cell, Figure, plot_rows, plot_table
from diffexplore.model import BATCH, POCKET, Model, load
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import near, sentence, shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Grid", "sweep"]

Axis = tuple[str, Sequence[Any]]
Report = Callable[[Settings, "Trace | str"], None]

_SUFFIX = ".safetensors"


def sweep(
    model: Model,
    x: Axis,
    y: Axis | None = None,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> "Grid":
    """Draw every combination of two settings; blocking.

    Args:
        model: what draws; with an executor of processes, one that came from a folder, a file or the hub.
        x: a field of ``Settings`` and its values, one per column: ``("steps", [5, 10, 20])``.
        y: the same for the rows; None: a single row.
        executor: runs the cells; None: batches on this thread.
        out: a folder, made if it is not there, where each finished cell is saved as a trace. A cell found there with
            equal settings, drawn by a model of the same name, revision and weights, is loaded instead of drawn, so a
            sweep that was stopped goes on where it was.
        **settings: the other fields, shared by all cells; the seed among them, so only the axes tell cells apart.

    Returns:
        The grid. A cell that fails while it is drawn holds its error sentence; the others finish.

    Raises:
        ValueError: one sentence, before any work, for an axis or a value that is refused, by any cell.
        OSError: if `out` cannot be written.
    """
    if not isinstance(model, Model):
        raise ValueError(f"sweep takes a model, such as diffexplore.load(), got {shown(model)}")
    columns = _axis("x", x, settings)
    rows = None if y is None else _axis("y", y, settings)
    if rows is not None and rows[0] == columns[0]:
        raise ValueError(f"x and y must vary different settings, both name {columns[0]!r}")
    if executor is not None and not isinstance(executor, Executor):
        raise ValueError(
            "executor must be a concurrent.futures.Executor (of a Dask client: client.get_executor()), "
            f"got {shown(executor)}"
        )
    folder = None if out is None else _folder(out)
    base = Settings(**settings)
    asked = [
        [
            model.resolve(base.replace(**{columns[0]: value}, **({} if rows is None else {rows[0]: other})))
            for value in columns[1]
        ]
        for other in ([None] if rows is None else rows[1])
    ]

    weights = _weights(model)
    found: dict[Settings, Trace | str] = {}

    def place(one: Settings) -> Path:
        assert folder is not None
        mark = "\n".join([model.name, str(model.revision), weights, one.to_json()])
        return folder / f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}{_SUFFIX}"

    def report(one: Settings, outcome: Trace | str) -> None:
        found[one] = outcome
        if folder is not None and isinstance(outcome, Trace):
            folder.mkdir(parents=True, exist_ok=True)
            _save(outcome, place(one))

    cells = list(dict.fromkeys(one for line in asked for one in line))  # equal ones are drawn once
    if folder is not None:
        for one in cells:
            kept = _kept(place(one), one, model)
            if kept is not None:
                found[one] = kept
    left = [one for one in cells if one not in found]
    if executor is None:
        _in_batches(model, left, report)
    else:
        _on_executor(model, weights, executor, left, report)
    return Grid(columns, rows, asked, [[found[one] for one in line] for line in asked])


class Grid:
    """The runs of a sweep; row i and column j everywhere.

    Attributes:
        x: field and values of the columns.
        y: field and values of the rows; None for a single row.
        settings: ``settings[i][j]``, with everything filled in.
        traces: ``traces[i][j]``; None where the cell failed.
        errors: ``errors[i][j]``: one sentence, "" where nothing failed.
    """

    def __init__(
        self,
        x: tuple[str, list[Any]],
        y: tuple[str, list[Any]] | None,
        settings: list[list[Settings]],
        outcomes: list[list[Trace | str]],
    ) -> None:
        """As `sweep` makes them: `outcomes` has a trace, or one sentence on what failed, in row i and column j."""
        self.x, self.y, self.settings = x, y, settings
        self.traces = [[None if isinstance(one, str) else one for one in line] for line in outcomes]
        self.errors = [[one if isinstance(one, str) else "" for one in line] for line in outcomes]

    def __repr__(self) -> str:
        rows = f"{self.y[0]} ({len(self.y[1])}) by " if self.y else ""
        failed = sum(bool(error) for line in self.errors for error in line)
        return f"Grid({rows}{self.x[0]} ({len(self.x[1])}){f', {failed} failed' if failed else ''})"

    @property
    def images(self) -> "list[list[Image.Image | None]]":
        """The final pictures; None where a cell failed."""
        return [[None if trace is None else trace.image for trace in line] for line in self.traces]

    def table(self) -> list[dict[str, Any]]:
        """One dict per cell, row by row.

        Keys: the names of the axes; ``evaluations`` of the model; ``seconds``, wall time, a cell's share where several
        were drawn in one batch; ``batch``, how many those were; ``reused``, True where the model remembered the run and
        the time says nothing; ``error``. The middle four are None where a cell failed.
        """
        rows = []
        for settings, traces, errors in zip(self.settings, self.traces, self.errors, strict=True):
            for one, trace, error in zip(settings, traces, errors, strict=True):
                row: dict[str, Any] = {field: getattr(one, field) for field in reversed(self._axes())}
                rows.append(row | _cost(trace) | {"error": error})
        return rows

    def adherence(self) -> np.ndarray:
        """How far each picture shows what its prompt names, by the judge of the pocket model.

        Returns:
            (rows, columns) float64, 0 to 1 (:func:`diffexplore.looks.curves.adherence_of`); NaN where a cell failed or
            there is nothing to judge.
        """
        rows = [[math.nan if trace is None else adherence_of(trace) for trace in line] for line in self.traces]
        return np.array(rows, dtype=np.float64)

    def plot_adherence(self) -> Figure:
        """:meth:`adherence` over the columns: a thin line for each row, and their mean with its standard error.

        Raises:
            ValueError: if nothing in the grid can be judged.
        """
        values = self.adherence()
        if np.isnan(values).all():
            raise ValueError("none of these pictures can be judged: the judge knows the pocket model's world alone")
        rows = [""] if self.y is None else [_named(getattr(line[0], self.y[0])) for line in self.settings]
        columns = [getattr(one, self.x[0]) for one in self.settings[0]]
        # A seed is a name for its noise: between two of them lies nothing.
        if self.x[0] == "seed" or not all(isinstance(one, (int, float)) for one in columns):
            columns = [_named(one) for one in columns]
        prompt = [] if "prompt" in self._axes() else [self.settings[0][0].prompt]
        title = f"adherence over {self.x[0].replace('_', ' ')}"
        return plot_rows(
            columns,
            values,
            rows,
            title,
            "mean probability of what the prompt names",
            " · ".join(prompt + self._fixed()),
        )

    def _axes(self) -> list[str]:
        return [self.x[0], *([self.y[0]] if self.y else [])]

    def _fixed(self) -> list[str]:
        """What all cells share, the prompt aside, in words."""
        first, axes = self.settings[0][0], self._axes()
        return [
            f"{name.replace('_', ' ')} {_named(getattr(first, name))}"
            for name in ("sampler", "steps", "guidance", "seed", "negative_prompt", "adapters")
            if name not in axes and getattr(first, name) not in ("", ())
        ]

    def plot(self) -> Figure:
        """The pictures as a table, each with its time and its model evaluations; in place of a failed one stands why.

        Names of columns are repeated below a grid of more than four rows.
        """
        return _plot(self)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.plot()._repr_png_()


# Checks


def _axis(which: str, axis: Any, shared: dict[str, Any]) -> tuple[str, list[Any]]:
    if not isinstance(axis, (tuple, list)) or len(axis) != 2 or not isinstance(axis[0], str):
        raise ValueError(f"{which} must be a setting and its values, such as ('steps', [5, 10]), got {shown(axis)}")
    field, values = axis
    known = Settings.model_fields
    if field not in known:
        raise ValueError(f"{which} must name one of {', '.join(known)}; got {shown(field)}{near(field, known)}")
    if field in shared:
        raise ValueError(f"{field} is the {which} axis and cannot be set for all cells too, got {shown(shared[field])}")
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ValueError(f"the values of {which} must be a list, got {shown(values)}")
    values = list(values)
    if not values:
        raise ValueError(f"the values of {which} must be a list of at least one, got []")
    return field, values


def _folder(out: Any) -> Path:
    if not isinstance(out, (str, os.PathLike)):
        raise ValueError(f"out must be the path of a folder, got {shown(out)}")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, {shown(str(folder), 200)} is a file")
    return folder


# What is kept


def _weights(model: Model) -> str:
    """A mark of all that decides a model's bits, the same in every process: weights, scheduler, features, LoRAs."""
    return model.origin.key()


def _save(trace: Trace, path: Path) -> None:
    # Under another name first: a sweep that is killed leaves no half-written cell.
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}.part")
    try:
        trace.save(partial, pictures=False)  # a decoder is lent again
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _kept(path: Path, settings: Settings, model: Model) -> Trace | None:
    """The cell saved at `path`, if it is this very one and whole."""
    if not path.is_file():
        return None
    try:
        trace = Trace.load(path)
    except ValueError:  # damaged: drawn again
        return None
    same = trace.settings == settings and trace.info.get("model") == model.name
    return _lent(trace, model) if same and not trace.cancelled and trace.image is not None else None


def _lent(trace: Trace, model: Model) -> Trace:
    """A loaded trace, with the model's decoder."""
    trace.decode = model.decode
    return trace


# Drawing


def _in_batches(model: Model, cells: Sequence[Settings], report: Report) -> None:
    alike: dict[object, list[Settings]] = {}
    for one in cells:
        alike.setdefault((one.sampler, one.steps, one.width, one.height, one.adapters), []).append(one)
    for group in alike.values():
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            try:
                traces = model.trace_many(batch)
            except Exception as error:
                if len(batch) == 1:
                    report(batch[0], _sentence(error))
                    continue
                # One by one, so that only those fail which fail by themselves.
                for one in batch:
                    try:
                        trace = model.trace(one)
                    except Exception as own:
                        report(one, _sentence(own))
                    else:
                        report(one, trace)
            else:
                for one, trace in zip(batch, traces, strict=True):
                    report(one, trace)


def _on_executor(model: Model, weights: str, executor: Executor, cells: Sequence[Settings], report: Report) -> None:
    ticket = _Ticket(
        uuid.uuid4().hex, os.getpid(), _source(model), model.name, model.revision, weights,
        {"dtype": model.pipeline.dtype, **model.options}, model.adapter_files,
    )  # fmt: skip
    _AT_HOME[ticket.token] = model
    futures: dict[Future[Trace | bytes], Settings] = {}
    try:
        for one in cells:
            futures[executor.submit(_draw, ticket, one)] = one
        for future in as_completed(futures):
            try:
                made = future.result()
                trace = made if isinstance(made, Trace) else _lent(_from_bytes(made), model)
            except Exception as error:
                report(futures[future], _sentence(error))
            else:
                report(futures[future], trace)
    finally:
        for future in futures:
            future.cancel()


@dataclass(frozen=True)
class _Ticket:
    """A model as it travels: where it lives, and how another process gets the same."""

    token: str
    pid: int
    source: str | None
    name: str
    revision: str | None
    weights: str
    options: Mapping[str, Any]
    loras: Mapping[str, Path]


_AT_HOME: "weakref.WeakValueDictionary[str, Model]" = weakref.WeakValueDictionary()
_ABROAD: dict[str, Model] = {}  # of the last sweep that this process worked for
_OPENING = threading.Lock()


def _source(model: Model) -> str | None:
    """What `load` takes to open the model elsewhere; None where that is not known."""
    if model.name == "pocket":
        return str(POCKET)
    where = getattr(model.pipeline, "config", {}).get("_name_or_path")
    return str(where) if where else None


def _draw(ticket: _Ticket, settings: Settings) -> Trace | bytes:
    """One cell, wherever the executor runs it: the trace in the model's own process, else its bytes."""
    # A forked process has a copy of the table, but a copied model's threads and locks are dead.
    model = _AT_HOME.get(ticket.token) if ticket.pid == os.getpid() else None
    if model is not None:
        return model.trace(settings)
    return _to_bytes(_abroad(ticket).trace(settings))


def _abroad(ticket: _Ticket) -> Model:
    with _OPENING:
        if ticket.token not in _ABROAD:
            if ticket.source is None:
                raise ValueError(
                    f"the model {ticket.name!r} was made from a ready pipeline, which other processes cannot open: "
                    "save it to a folder and load that, or use an executor of threads"
                )
            pocket = ticket.source == str(POCKET)
            model = load(None if pocket else ticket.source, **ticket.options)
            model.name = ticket.name
            for name, file in ticket.loras.items():
                model.load_lora(file, name)
            if _weights(model) != ticket.weights:
                raise ValueError(
                    f"{shown(ticket.source, 200)} holds other weights than the model of this sweep, or in another dtype"
                )
            _ABROAD.clear()
            _ABROAD[ticket.token] = model
        return _ABROAD[ticket.token]


def _to_bytes(trace: Trace) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"run{_SUFFIX}"
        trace.save(path, pictures=False)
        return path.read_bytes()


def _from_bytes(data: bytes) -> Trace:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"run{_SUFFIX}"
        path.write_bytes(data)
        return Trace.load(path)


def _sentence(error: BaseException) -> str:
    text, name = sentence(error), type(error).__name__
    return text if isinstance(error, ValueError) or text.startswith(name) else f"{name}: {text}"


# The figure


def _cost(trace: Trace | None) -> dict[str, Any]:
    if trace is None:
        return dict.fromkeys(("evaluations", "seconds", "batch", "reused"))
    batch = int(trace.info.get("batch", 1))
    return {
        "evaluations": len(trace),
        "seconds": trace.seconds / batch,
        "batch": batch,
        "reused": bool(trace.info.get("reused")),
    }


def cost_line(trace: Trace) -> str:
    """Time and model evaluations of a run in a few words: "0.41 s · 20 evaluations"."""
    cost = _cost(trace)
    spent = (
        "remembered"
        if cost["reused"]
        else f"{cost['seconds']:.2g} s"
        if cost["seconds"] < 10
        else (f"{cost['seconds']:.0f} s")
    )
    return f"{spent} · {cost['evaluations']} evaluation{'s' if cost['evaluations'] != 1 else ''}"


def _named(value: Any) -> str:
    if value == "":
        return "(empty)"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(f"{name} {scale:g}" for name, scale in value) or "(none)"
    return str(value)


def _plot(grid: Grid) -> Figure:
    first, axes = grid.settings[0][0], grid._axes()
    what = " and ".join(name.replace("_", " ") for name in reversed(axes))
    head = (first.prompt or "(no prompt)") if "prompt" not in axes else f"{what}, varied"
    columns = (grid.x[0].replace("_", " "), [_named(getattr(one, grid.x[0])) for one in grid.settings[0]])
    rows = None
    if grid.y:
        rows = (grid.y[0].replace("_", " "), [_named(getattr(line[0], grid.y[0])) for line in grid.settings])
    cells = [
        [
            Cell(None, error=error)
            if trace is None
            else Cell(trace.image, cost_line(trace), "" if trace.image else "this run has no picture")
            for trace, error in zip(traces, errors, strict=True)
        ]
        for traces, errors in zip(grid.traces, grid.errors, strict=True)
    ]
    ratio = (first.width or 1) / (first.height or 1)
    return plot_table(cells, head, " · ".join(grid._fixed()), columns, rows, ratio)
