"""What a person does with a notebook, and sees: write one, look at the large picture, take hold of a slider."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any


def write(path: Path, cells: list[str]) -> None:
    code = [
        {"cell_type": "code", "id": f"cell{k}", "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
        for k, cell in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(json.dumps({"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}))


def shown(viewer: Any) -> bytes:
    """What the large picture shows."""
    url = viewer.locator(".dx-film canvas").first.evaluate("canvas => canvas.toDataURL()")
    return base64.b64decode(url.partition(",")[2])


def other(viewer: Any, than: bytes) -> bytes:
    """What the large picture shows once that is something else: a picture is decoded before it is drawn."""
    deadline = time.monotonic() + 10
    while (now := shown(viewer)) == than:
        assert time.monotonic() < deadline, "the picture has not changed"
        viewer.page.wait_for_timeout(20)
    return now


def slider(explorer: Any, name: str) -> Any:
    """The handle of one of the sliders."""
    row = explorer.locator(".widget-slider").filter(has=explorer.page.get_by_text(name, exact=True))
    return row.locator(".noUi-handle")
