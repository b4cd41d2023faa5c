"""Planning a run of a model that is elsewhere: settings are checked here, the rest is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from diffexplore.record.record import Record
from diffexplore.rooms.line import Line
from diffexplore.rooms.parcels import record_packed, tensor_packed, value_packed
from diffexplore.runs.branch import Edit, edited
from diffexplore.runs.edits import Touch
from diffexplore.runs.estimate import Estimate, Ledger
from diffexplore.runs.plan import Plan, Planner
from diffexplore.runs.probes import Probe
from diffexplore.runs.schedules import Schedules
from diffexplore.samplers.spacings import Levels, Range
from diffexplore.settings import Settings
from diffexplore.words import shown

__all__ = ["Branched", "FarLedger", "FarPlanner", "FarSchedules", "Inverted", "asked_for"]

Message = dict[str, Any]


class Branched(Probe):
    """Stands in a plan for the replay of another run, which is made where the model is."""

    changes = True

    def __init__(
        self, parent: Record, at: int, latents: torch.Tensor | None, changes: Mapping[str, Any], edit: Mapping[str, Any]
    ) -> None:
        """The run, the evaluation from which on another is made, what it is made of, what then holds, and what is told
        of how the latents were edited.
        """
        self._parent, self._at, self._latents = parent, at, latents
        self._changes, self._edit = dict(changes), dict(edit)

    def packed(self) -> Message:
        """It as it travels: what is replayed, and no more."""
        parent = self._parent
        return {
            "parent": record_packed(parent, parent[: self._at + 1], told=True),
            "at": self._at,
            "latents": None if self._latents is None else tensor_packed(self._latents),
            "changes": json.dumps(self._changes),
            "edit": json.dumps(self._edit) if self._edit else "",
        }


class Inverted(Probe):
    """Stands in a plan for the way from a picture to its noise."""

    changes = True

    def __init__(self, picture: bytes, prompt: str, steps: int, refine: int = 0) -> None:
        """The picture as an image file, and what is asked for."""
        self._told = {"picture": picture, "prompt": prompt, "steps": steps, "refine": refine}

    def packed(self) -> Message:
        """It as it travels."""
        return dict(self._told)


def asked_for(plan: Plan) -> Message:
    """A plan as it travels."""
    branch = next((probe for probe in plan.probes if isinstance(probe, Branched)), None)
    invert = next((probe for probe in plan.probes if isinstance(probe, Inverted)), None)
    told: Message = {"extra": {name: value_packed(name, value) for name, value in plan.extra.items()}}
    if branch is not None:
        return told | {"branch": branch.packed()}
    return {"invert": invert.packed()} if invert is not None else told | {"settings": plan.settings.to_json()}


class FarSchedules(Schedules):
    """What widgets ask of the schedules of a model elsewhere."""

    def __init__(self, line: Line) -> None:
        """Schedules at the other end of a line."""
        self._line = line

    def no_fresh(self, name: str, share: float = 1.0) -> str:
        return str(self._told("no_fresh", name, share=share))

    def adds(self, name: str) -> float | None:
        found: float | None = self._told("adds", name)
        return found

    def levels(self, name: str, steps: int) -> Levels:
        return tuple(self._told("levels", name, steps=steps))

    def range(self, name: str) -> Range:
        told = self._told("range", name)
        return Range(**{**told, "table": tuple(told["table"])})

    def _told(self, what: str, sampler: str, **more: Any) -> Any:
        return self._line.ask("schedule", of=what, sampler=sampler, **more)[what]


class FarPlanner(Planner):
    """Checks what a model elsewhere is asked for."""

    def __init__(self, line: Line) -> None:
        """A planner that asks over a line."""
        self._line = line
        self.schedules = FarSchedules(line)
        width, height = line.facts["size"]
        self.size = int(width), int(height)

    def resolve(self, settings: Settings) -> Settings:
        return Settings.from_json(self._line.ask("resolve", settings=_said(settings))["settings"])

    def notes(self, settings: Settings) -> list[str]:
        return list(self._line.ask("notes", settings=_said(settings))["notes"])

    def told_apart(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        ours = {name: value for name, value in values.items() if name in Settings.model_fields}
        return ours, {name: value for name, value in values.items() if name not in ours}

    def plan(self, settings: Settings, extra: Mapping[str, Any] | None = None) -> Plan:
        given = dict(extra or {})
        packed = {name: value_packed(name, value) for name, value in given.items()}
        told = self._line.ask("plan", settings=_said(settings), extra=packed)
        return Plan(Settings.from_json(told["settings"]), **json.loads(told["facts"]), extra=given)

    def still(self, what: str) -> str:
        said: Mapping[str, str] = self._line.facts["still"]
        return said.get(what, said["changes"])

    def branch(self, parent: Record, at: int, latents: Edit = None, **changes: Any) -> Plan:
        settings = self._leaving(parent, at, changes)
        edit = None if latents is None else edited(parent, at, latents)
        plan = self.plan(settings, parent.extra)
        told = latents.told if isinstance(latents, Touch) else {}
        return replace(plan, probes=(Branched(parent, int(at), edit, changes, told),))


class FarLedger(Ledger):
    """Says what runs of a model elsewhere will cost: there, by what they took there."""

    def __init__(self, line: Line) -> None:
        """A ledger that asks over a line."""
        self._line = line

    def estimate(self, plans: Sequence[Plan]) -> Estimate:
        return Estimate(**self._line.ask("estimate", runs=[asked_for(plan) for plan in plans])["estimate"])


def _said(settings: Settings) -> str:
    if not isinstance(settings, Settings):
        raise ValueError(f"settings must be a Settings object, got {shown(settings)}")
    return settings.to_json()
