"""What a person does with a notebook, and sees: write one, look at the large picture, take hold of a slider, wait until
the page shows what it must."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from patience import PATIENCE
from playwright.sync_api import expect

T = TypeVar("T")

# Resolves when the page has shown two more frames.
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def write(path: Path, cells: list[str]) -> None:
    code = [
        {"cell_type": "code", "id": f"cell{k}", "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
        for k, cell in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(json.dumps({"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}))


def until(page: Any, check: Callable[[], T]) -> T:
    """Ask `check` again until none of its asserts fails, and return what it gives; what it says last fails the test."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        page.wait_for_timeout(20)


def resting(page: Any, ask: Callable[[], T]) -> T:
    """What `ask` gives, once it gives the same again after two frames and a tenth of a second."""
    before = ask()

    def same() -> T:
        nonlocal before
        page.wait_for_timeout(100)
        page.evaluate(FRAMES)
        last, before = before, ask()
        assert before == last, "it does not come to rest"
        return before

    return until(page, same)


def shown(viewer: Any) -> bytes:
    """What the large picture shows."""
    url = viewer.locator(".dx-film canvas").first.evaluate("canvas => canvas.toDataURL()")
    return base64.b64decode(url.partition(",")[2])


def other(viewer: Any, than: bytes) -> bytes:
    """What the large picture shows once that is something else: a picture is decoded before it is drawn."""

    def changed() -> bytes:
        now = shown(viewer)
        assert now != than, "the picture has not changed"
        return now

    return until(viewer.page, changed)


def slider(explorer: Any, name: str) -> Any:
    """The handle of one of the sliders."""
    row = explorer.locator(".widget-slider").filter(has=explorer.page.get_by_text(name, exact=True))
    return row.locator(".noUi-handle")


def at_home(app: Any) -> None:
    """Wait until a box of controls hears what is done to it: that is a moment after it is drawn."""
    expect(app).to_have_attribute("data-dx-controls", "on")
