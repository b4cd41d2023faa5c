"""What all studies ask first, and how they say what a run cost."""

import csv
import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from diffexplore.model import Model
from diffexplore.record.file import written
from diffexplore.samplers import AS_IT_CAME, SAMPLERS, facts_of, unknown
from diffexplore.samplers.came import noise_of
from diffexplore.trace import Trace
from diffexplore.values import members
from diffexplore.words import shown

__all__ = [
    "Tabled",
    "a_model",
    "cost_line",
    "cost_of",
    "named_samplers",
    "noise_added",
    "own_fields",
    "pipeline_of",
    "several",
    "whole",
    "write_csv",
]


def a_model(value: Any) -> Model:
    """`value`, which has to be a model.

    Raises:
        ValueError: one sentence, for anything else; for a pipeline, what makes a model of it.
    """
    if isinstance(value, Model):
        return value
    if hasattr(value, "scheduler") and hasattr(value, "components"):
        kind = type(value).__name__
        raise ValueError(f"a model is needed, got a pipeline, {kind}: diffexplore.load(pipeline) makes a model of it")
    raise ValueError(f"a model is needed, such as diffexplore.load(), got {shown(value)}")


def pipeline_of(model: Model) -> Any:
    """The pipeline of a model, for what reaches into it.

    Raises:
        ValueError: one sentence, for a model that is shared from elsewhere.
    """
    found = getattr(model, "pipeline", None)
    if found is None:
        raise ValueError(
            f"this needs the model itself, as diffexplore.load gives it; got one that is shared, {model!r}"
        )
    return found


def own_fields(settings: Mapping[str, Any], own: Collection[str]) -> None:
    """Refuse `settings` that a study decides itself.

    Raises:
        ValueError: one sentence, for one of its `own`.
    """
    for name in own:
        if name in settings:
            raise ValueError(f"{name} differs from run to run here and cannot be set, got {shown(settings[name])}")


def named_samplers(model: Model, samplers: Any, usual: Sequence[str]) -> list[str]:
    """The samplers that were asked for, each once; of None those of the `usual` that are right for the model.

    Raises:
        ValueError: one sentence, for what is no list of names of the menu.
    """
    if samplers is None:
        return [name for name in usual if name in model.samplers] or model.samplers[:4]
    if isinstance(samplers, (str, bytes)) or not isinstance(samplers, Sequence) or not len(samplers):
        raise ValueError(f"samplers must be a list of at least one name, got {shown(samplers)}")
    for name in samplers:
        noise_added(name)  # refuses an unknown one
    return list(dict.fromkeys(samplers))


def whole(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int.

    Raises:
        ValueError: one sentence, for what is no whole number from `low` to `high`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}")
    return int(value)


def several(name: str, value: Any) -> list[Any]:
    """One number, or those of a list, a range or an array.

    Raises:
        ValueError: one sentence, for none.
    """
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    found = members(name, value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    if not found:
        raise ValueError(f"{name} must be a number or several, got none")
    return found


def noise_added(sampler: str, trace: Trace | None = None) -> str:
    """What a sampler of the menu adds on the way: "" for nothing, "fresh" or "path".

    "fresh": independent noise at every step (ancestral samplers, SDE solvers, DDPM, LCM, TCD, SA-Solver). The number of
    steps decides how much is drawn from the seed, so two numbers of steps are two random pictures, and there is nothing
    to converge to. "path": increments of one Brownian path, fixed by the seed whatever the steps (DPM++ SDE); more
    steps refine one picture in principle; with coarse steps it can still end in another one, so whether the distance
    falls is measured (:attr:`diffexplore.experiments.returns.Returns.falls`).

    Args:
        sampler: its name.
        trace: a run of it, which tells of a scheduler that was taken as it came; without one nothing is known of that.

    Raises:
        ValueError: for an unknown name.
    """
    if sampler == AS_IT_CAME:
        used = trace.info.get("sampler", {}) if trace is not None else {}
        return noise_of(str(used.get("class")), used.get("config", {}))
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(unknown(sampler))
    entry = SAMPLERS[sampler]
    facts = facts_of(entry.cls)
    return facts.noise(entry.config) if facts is not None else ""


# What a run cost


def cost_of(trace: Trace | None) -> dict[str, Any]:
    """``evaluations``, ``seconds`` (its share where several were drawn in one batch), ``batch`` and ``reused``; all
    None where there is no run.
    """
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
    cost = cost_of(trace)
    spent = (
        "remembered"
        if cost["reused"]
        else f"{cost['seconds']:.2g} s"
        if cost["seconds"] < 10
        else (f"{cost['seconds']:.0f} s")
    )
    return f"{spent} · {cost['evaluations']} evaluation{'s' if cost['evaluations'] != 1 else ''}"


class Tabled:
    """What has a table, and writes it."""

    def table(self) -> list[dict[str, Any]]:
        """The rows, all with the same names."""
        raise NotImplementedError

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`table` as CSV, see :func:`write_csv`.

        Args:
            path: the file; one that exists is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        rows = self.table()
        write_csv(path, list(rows[0]), rows)


def write_csv(path: str | os.PathLike[str], names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, in UTF-8, with a first line of names; an existing file is replaced.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_tame, names))
    writer.writerows([_tame(row.get(name, "")) for name in names] for row in rows)
    with written(path) as file:
        file.write(text.getvalue().encode(errors="backslashreplace"))


def _tame(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
