"""What a room answers: each question by name, with what it takes from a message and what it says back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from diffexplore.looks.pictures import MAX_PIXELS
from diffexplore.record.kept import image_of
from diffexplore.rooms.parcels import (
    pixels_packed,
    plan_packed,
    record_of,
    settings_of,
    tensor_of,
    tensor_packed,
    value_of,
)
from diffexplore.rooms.submission import MOST_RUNS, Submission
from diffexplore.runs.edits import Touch
from diffexplore.runs.plan import Plan, inversion
from diffexplore.runs.start import refined
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.record.step import Step
    from diffexplore.runs.probes import Probe

__all__ = ["ASKED", "SLOW", "facts_of", "submission_of"]

Told = dict[str, Any]

MOST_REFINED: Final = 8
"""How often a learner can have latents corrected before they are inverted."""


def facts_of(model: Model) -> Told:
    """What a learner knows of a model from the start: plain values. Of files on this machine only names."""
    origin = model.origin
    if origin.kind in ("folder", "file"):
        origin = replace(origin, kind="pipeline", where="")
    options = {name: one for name, one in origin.options.items() if name == "threads"}  # decides bits, wherever it is
    origin = replace(origin, options=options, loras=tuple(("", name, mark) for _, name, mark in origin.loras))
    return {
        "name": model.name,
        "family": model.family,
        "factor": model.factor,
        "size": list(model.size),
        "origin": origin.to_json(),
        "samplers": {name: model.label(name) for name in model.samplers},
        "sampler": model.sampler,
        "usual_steps": model.usual_steps,
        "extras": [_plain(one._asdict()) for one in model.extras],
        "guiders": model.guiders,
        "stages": [list(one) for one in model.stages],
        "abilities": model.abilities,
        "adapters": model.adapters,
        "info": {
            "model": model.name,
            "revision": model.revision,
            "family": model.family,
            "pipeline": type(model.pipeline).__name__,
            **({"world": "pocket"} if origin.kind == "pocket" else {}),
        },
        "matrix": _matrix(model),
        "still": {what: model.planner.still(what) for what in ("changes", "changes on the way", "branches")},
    }


def _matrix(model: Model) -> list[list[float]] | None:
    try:
        found: list[list[float]] = model.matrix().tolist()
    except Exception:  # of a pipeline that was found by looking, nobody may know yet how it decodes
        return None
    return found


def _plain(facts: Mapping[str, Any]) -> Told:
    """Without what JSON has no word for: a default is then None, as of what is found out during the call."""
    return {name: one if isinstance(one, (str, int, float, bool)) else None for name, one in facts.items()}


def _text(message: Told, name: str) -> str:
    value = message.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    return value


def _whole(message: Told, name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    return value


def _extra(message: Told) -> dict[str, Any]:
    given = message.get("extra") or {}
    if not isinstance(given, dict):
        raise ValueError(f"extra must be values by name, got {shown(given)}")
    return {str(name): value_of(value) for name, value in given.items()}


def _planned(model: Model, message: Told) -> Plan:
    """The plan of settings, and what is handed over beside them."""
    extra = _extra(message)
    return model.plan(settings_of(message.get("settings")), **extra)


class _Made(Touch):
    """An edit that was made where the learner is, told as it was there."""

    def __init__(self, latents: Any, told: str) -> None:
        """The edited latents, and what is told of them, as JSON."""
        self._latents, self._as_told = latents, json.loads(told)

    def __call__(self, latents: Any, step: Step | None = None) -> Any:
        return self._latents

    @property
    def told(self) -> Told:
        return dict(self._as_told)


def _plan_of(model: Model, message: Told) -> tuple[Plan, list[Probe]]:
    """What one run is to be, of any kind, and what leads it."""
    told = message.get("branch")
    if isinstance(told, dict):
        parent = record_of(told.get("parent"))
        parent.extra = _extra(message)
        latents = told.get("latents")
        changes = json.loads(_text(told, "changes"))
        if not isinstance(changes, dict):
            raise ValueError(f"changes must be settings by name, got {shown(changes)}")
        edit: Any = None if latents is None else tensor_of(latents)
        if edit is not None and told.get("edit"):
            edit = _Made(edit, _text(told, "edit"))
        return model.planner.branch(parent, _whole(told, "at"), edit, **changes), []
    told = message.get("invert")
    if isinstance(told, dict):
        clean = refined(
            model.encode(_picture(told)), model.encode, model.decode, min(_whole(told, "refine"), MOST_REFINED)
        )
        return inversion(model.planner, model.samplers, clean, _text(told, "prompt"), _whole(told, "steps"))
    return _planned(model, message), []


def submission_of(model: Model, message: Told) -> Submission:
    """What a learner submits, planned.

    Raises:
        ValueError: one sentence, for settings which are refused, and for what is no submission.
    """
    runs = message.get("runs")
    if not isinstance(runs, list) or not 1 <= len(runs) <= MOST_RUNS or not all(isinstance(one, dict) for one in runs):
        raise ValueError(f"runs must be 1 to {MOST_RUNS} maps, got {shown(runs)}")
    asked = message.get("asked") or {}
    fits = isinstance(asked, dict) and asked.keys() <= {"attention", "weights"}
    if not fits or not all(isinstance(one, bool) or one == "layers" for one in asked.values()):
        raise ValueError(f"what is asked beside settings is attention and weights, got {shown(asked)}")
    planned = [_plan_of(model, one) for one in runs]
    plans, probes = [plan for plan, _ in planned], [probe for _, some in planned for probe in some]
    waited = message.get("waited", 0)
    if isinstance(waited, bool) or not isinstance(waited, (int, float)) or not 0 <= waited < math.inf:
        raise ValueError(f"waited must be seconds, got {shown(waited)}")
    return Submission(_whole(message, "id"), _whole(message, "lane"), plans, probes, asked, waited)


def _picture(message: Told) -> Any:
    data = message.get("picture")
    if not isinstance(data, bytes):
        raise ValueError(f"a picture must be bytes of an image file, got {shown(data)}")
    return image_of(data, MAX_PIXELS)


def _decode(model: Model, message: Told) -> Told:
    pixels = model.decode(tensor_of(message.get("latents")).float())
    return {"picture": pixels_packed(pixels, exact=bool(message.get("exact")))}


def _estimate(model: Model, message: Told) -> Told:
    runs = message.get("runs")
    if not isinstance(runs, list) or not all(isinstance(one, dict) for one in runs):
        raise ValueError(f"runs must be a list of maps, got {shown(runs)}")
    return {"estimate": asdict(model.estimate([_plan_of(model, one)[0] for one in runs]))}


def _levels(model: Model, message: Told) -> Told:
    given = message.get("parameters") or {}
    if not isinstance(given, dict):
        raise ValueError(f"parameters must be numbers by name, got {shown(given)}")
    name, sampler = _text(message, "name") or None, _text(message, "sampler") or None
    return {"levels": list(model.levels(name, _whole(message, "steps"), sampler=sampler, **given))}


def _schedule(model: Model, message: Told) -> Told:
    """What is known of the schedule of a sampler."""
    schedules, what, sampler = model.planner.schedules, _text(message, "of"), _text(message, "sampler")
    if what == "no_fresh":
        return {"no_fresh": schedules.no_fresh(sampler, float(message.get("share", 1.0)))}
    if what == "adds":
        return {"adds": schedules.adds(sampler)}
    if what == "levels":
        return {"levels": list(schedules.levels(sampler, _whole(message, "steps")))}
    if what == "range":
        return {"range": asdict(schedules.range(sampler))}
    raise ValueError(f"what is known of a schedule is no_fresh, adds, levels and range, got {shown(what)}")


def _batches(model: Model, message: Told) -> Told:
    given = message.get("settings")
    if not isinstance(given, list):
        raise ValueError(f"settings must be a list, got {shown(given)}")
    together = model.batches([settings_of(one) for one in given])
    return {"batches": [[one.to_json() for one in batch] for batch in together]}


ASKED: Final[Mapping[str, Callable[[Model, Told], Told]]] = {
    "facts": lambda model, _: {"facts": json.dumps(facts_of(model))},
    "plan": lambda model, told: plan_packed(_planned(model, told)),
    "resolve": lambda model, told: {"settings": model.resolve(settings_of(told.get("settings"))).to_json()},
    "notes": lambda model, told: {"notes": model.notes(settings_of(told.get("settings")))},
    "batches": _batches,
    "estimate": _estimate,
    "levels": _levels,
    "schedule": _schedule,
    "fixed": lambda model, told: {"fixed": model.fixed(_text(told, "sampler") or None)},
    "evaluations": lambda model, told: {
        "evaluations": model.evaluations(_text(told, "sampler"), _whole(told, "steps"))
    },
    "tokens": lambda model, told: model.tokens(_text(told, "prompt")),
    "unknown_words": lambda model, told: {"words": model.unknown_words(_text(told, "prompt"))},
    "near_words": lambda model, told: {"words": model.near_words(_text(told, "word"))},
    "decode": _decode,
    "encode": lambda model, told: {"latents": tensor_packed(model.encode(_picture(told)))},
}
"""Name of a question -> what answers it."""

SLOW: Final = frozenset({"decode", "encode"})
"""Those that take a network: one of a learner at a time."""
