"""What a call leaves in its pipeline while it goes on, shown in the pipeline of the user's too.

Runs work on a clone, but callbacks that a user gave to a network (``enable_cache`` of a cache that asks for the
timestep) read the pipeline they know.
"""

from contextlib import ExitStack
from typing import Any

import torch

from diffexplore.runs.probes import Probe, hooked

__all__ = ["Mirror"]

_MISSING = object()
_TOLD = ("_current_timestep",)  # what pipelines keep for nobody but those who watch them


class Mirror(Probe):
    """Before each evaluation, puts the state of the clone's call where the user's pipeline has its own, and puts back
    what was there at the end.

    Of a pipeline whose networks have no hooks of diffusers that is the timestep alone, which no pipeline reads itself:
    so a call that the user makes of it meanwhile is left alone.
    """

    def __init__(self, pipeline: Any, networks: list[torch.nn.Module]) -> None:
        """The user's `pipeline`, and the `networks` that denoise."""
        self._pipeline = pipeline
        self._networks = networks
        self._before: dict[str, Any] = {}
        self._undo = ExitStack()

    def attach(self, pipeline: Any) -> None:
        clone, user = vars(pipeline), vars(self._pipeline)
        first = {name: value for name, value in clone.items() if name.startswith("_")}
        watched = any(
            getattr(getattr(module, "_diffusers_hook", None), "hooks", None)
            for network in self._networks
            for module in network.modules()
        )
        self._before = {}

        def show(module: torch.nn.Module, args: Any) -> None:
            for name in [name for name in clone if name.startswith("_")] if watched else _TOLD:
                value = clone.get(name, _MISSING)
                if value is first.get(name, _MISSING) and name not in self._before:
                    continue
                self._before.setdefault(name, user.get(name, _MISSING))
                user[name] = value

        self._undo.enter_context(hooked(self._networks, before=show))

    def detach(self) -> None:
        self._undo.close()
        user = vars(self._pipeline)
        for name, value in self._before.items():
            if value is _MISSING:
                user.pop(name, None)
            else:
                user[name] = value
        self._before = {}
