"""The process in which ``diffexplore share`` shares a model: it imports all that takes long, and waits to be told."""

from __future__ import annotations

import json
import sys

from diffexplore.model import load
from diffexplore.rooms.share import share
from diffexplore.words import sentence

__all__ = ["work"]


def work() -> None:
    """Share what the first argument says, from the first line of the input on, until the input ends."""
    told = json.loads(sys.argv[1])
    if not sys.stdin.readline():
        return
    try:
        model = load(told["source"], **{name: one for name, one in told["load"].items() if one is not None})
        room = share(model, told["address"], security=told["security"])
    except (ValueError, OSError, ImportError) as error:
        print("refused", sentence(error), flush=True)
        return
    print("open", room.address, flush=True)
    with room:
        sys.stdin.read()
