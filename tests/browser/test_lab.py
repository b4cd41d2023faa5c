"""The whole way, in a real JupyterLab: notebook, kernel, widget, browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

FIRST_STEPS = Path(__file__).parents[2] / "notebooks" / "01_first_steps.ipynb"
SHOTS = Path(__file__).with_name("shots")

# A model that needs no weights: what is under test is the way from a hand on a slider to pixels on a screen.
SMALL = [
    "from tiny import make_pipeline\nimport diffexplore as dx\nmodel = dx.load(make_pipeline())",
    'explorer = dx.Explorer(model, prompt="a red fox", steps=12)\nexplorer',
    "trace = explorer.run()\nlen(trace)",
]


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


def explore(lab: Any, tab: Any) -> None:
    """In an open notebook: run it, move, scrub, stop."""
    page = tab.page
    lab.run_all(page)
    explorer = page.locator(".dx-explorer").first
    viewer = explorer.locator(".dx-viewer")
    kernel = "explorer = next(one for one in list(globals().values()) if type(one).__name__ == 'Explorer'); "
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^\d+ steps in "), timeout=60_000)

    # A setting moves, the kernel hears of it, Run makes other pictures.
    before = shown(viewer)
    steps = int(lab.run(page, kernel + "print(explorer.steps)"))
    handle = slider(explorer, "steps")
    handle.focus()
    for _ in range(3):
        handle.press("ArrowLeft")
    expect(explorer.locator(".widget-slider .widget-readout").first).to_have_text(str(steps - 3))
    explorer.get_by_role("button", name="Run").click()
    expect(viewer.locator(".dx-about")).to_contain_text(f" {steps - 3} steps ", timeout=60_000)
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^\d+ steps in "), timeout=60_000)
    assert lab.run(page, kernel + "print(explorer.status, explorer.trace.settings.steps)") == f"done {steps - 3}"
    last = other(viewer, than=before)

    # The pictures of its steps are there to be scrubbed, with keys too, and the notebook hears none of these.
    cells = page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length")
    step = viewer.get_by_label("step", exact=True)
    step.fill("2")
    expect(viewer.locator(".dx-count")).to_contain_text("step 2 of ")
    second = other(viewer, than=last)
    step.press("ArrowRight")
    expect(viewer.locator(".dx-count")).to_contain_text("step 3 of ")
    other(viewer, than=second)
    for where in (step, handle, viewer.get_by_role("radio", name="Latents")):
        where.focus()
        for key in ("x", "b", "d", "d"):
            page.keyboard.press(key)
    assert page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") == cells
    viewer.get_by_role("radio", name="Latents").check()
    expect(viewer.locator(".dx-caption")).to_contain_text("latents")

    # A long run is stopped, and what it made is kept.
    lab.run(page, kernel + "explorer.steps = 900")
    explorer.get_by_role("button", name="Run").click()
    expect(viewer.locator(".dx-status")).to_have_text(re.compile("^running: "), timeout=60_000)
    explorer.get_by_role("button", name="Stop").click()
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^stopped after \d+ step"), timeout=60_000)
    made = lab.run(page, kernel + "print(explorer.status, explorer.trace.cancelled, len(explorer.trace))").split()
    assert made[:2] == ["cancelled", "True"]
    expect(step).to_have_attribute("max", made[2])
    assert int(made[2]) < 900


def test_a_notebook_is_run_moved_scrubbed_and_stopped(lab: Any, tab: Any) -> None:
    write(lab.folder / "small.ipynb", SMALL)
    lab.open(tab.page, "small.ipynb")
    explore(lab, tab)

    # Bad input is explained in place, and costs nothing that is shown.
    page = tab.page
    explorer = page.locator(".dx-explorer").first
    before = shown(explorer)
    field = explorer.get_by_label("seed", exact=True)
    field.fill("a <b>seed</b>")
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_have_text(
        "Seed must be a whole number from 0 to 2**63 - 1, got 'a <b>seed</b>'."
    )
    assert shown(explorer) == before
    field.fill("9223372036854775807")
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_be_hidden()
    assert lab.run(page, "print(explorer.seed)") == "9223372036854775807"

    # Live: a slider alone starts a run.
    lab.run(page, "explorer.steps = 6")
    explorer.get_by_label("live").check()
    slider(explorer, "guidance").press("ArrowRight")
    expect(explorer.locator(".dx-about")).to_contain_text(" 6 steps \u00b7 guidance 5.5", timeout=60_000)


def test_the_first_notebook_is_run_moved_scrubbed_and_stopped(lab: Any, tab: Any) -> None:
    shutil.copy(FIRST_STEPS, lab.folder)
    lab.open(tab.page, FIRST_STEPS.name)
    explore(lab, tab)

    # A picture of the widget as people meet it, to look at and for the README.
    page = tab.page
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    lab.run(page, "explorer.steps = 20; trace = explorer.run()")
    explorer = page.locator(".dx-explorer").first
    viewer = explorer.locator(".dx-viewer")
    viewer.get_by_role("radio", name="Estimate").check()
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^20 steps in "), timeout=60_000)
    viewer.get_by_label("step", exact=True).fill("9")
    expect(viewer.locator(".dx-count")).to_contain_text("step 9 of 20")
    SHOTS.mkdir(exist_ok=True)
    explorer.screenshot(path=SHOTS / "explorer.png")
    assert (SHOTS / "explorer.png").stat().st_size > 10_000
