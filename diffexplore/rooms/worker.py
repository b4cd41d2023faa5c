"""The process in which ``diffexplore share`` shares a model: it imports all that takes long, and waits to be told."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any, Final

from diffexplore.model import Model, load
from diffexplore.rooms.share import share
from diffexplore.words import sentence

__all__ = ["SMALL", "work"]

SMALL: Final = 256 * 2**20
"""Bytes of weights, in main memory, up to which the process that waits has the model open as well."""


def work() -> None:
    """Share what the first argument says, from the first line of the input on, until the input ends."""
    told = json.loads(sys.argv[1])
    model = None
    if told["ahead"]:
        with suppress(Exception):  # said when it is told to share
            model = _ahead(told)
    if not sys.stdin.readline():
        return
    try:
        room = share(model or _opened(told), told["address"], security=told["security"])
    except (ValueError, OSError, ImportError) as error:
        print("refused", sentence(error), flush=True)
        return
    print("open", "small" if _small(room.model) else "large", room.address, flush=True)
    with room:
        sys.stdin.read()


def _opened(told: dict[str, Any]) -> Model:
    return load(told["source"], **{name: one for name, one in told["load"].items() if one is not None})


def _ahead(told: dict[str, Any]) -> Model:
    """The model, open, and with all that the first run of a process sets up."""
    import distributed  # noqa: F401  what a room listens with

    model = _opened(told)
    model.trace(steps=1)
    return model


def _small(model: Model) -> bool:
    """Whether there is room for two of it."""
    parts = [part for part in model.pipeline.components.values() if hasattr(part, "parameters")]
    weights = [one for part in parts for one in part.parameters()]
    here = all(one.device.type == "cpu" for one in weights)
    return here and sum(one.numel() * one.element_size() for one in weights) <= SMALL
