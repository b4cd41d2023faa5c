"""How long tests wait for what must happen: much longer than a slow machine takes, whose speed decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds. What must not happen is not waited for this long."""


def wait(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.005)
    return bool(condition())
