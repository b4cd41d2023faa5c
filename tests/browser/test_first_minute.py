"""The first minute: from the command to a picture that a slider moved, with no question and no scrolling."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hands import other, resting, shown, slider, until
from labs import Lab, free_port, lab_environment, serving
from playwright.sync_api import expect

SHOTS = Path(__file__).with_name("shots")
NEWS = "notified about official Jupyter news"


@pytest.fixture
def opened(tab: Any, tmp_path: Path) -> Iterator[tuple[Lab, Any]]:
    """The page that the command's link leads to, on a machine where nobody ever set anything."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    environment = lab_environment(home, os.environ)
    settings = home / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    (settings / "notification.jupyterlab-settings").unlink()
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    port = free_port()
    command = [sys.executable, "-m", "diffexplore.cli", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=", "--expose-app-in-browser", "--LabApp.extension_manager=readonly"]
    lab = Lab(f"http://localhost:{port}/", work / "diffexplore-notebooks")
    with serving(command, environment, work, lab.url + "api", tmp_path / "log.txt"):
        page = tab.page
        page.set_viewport_size({"width": 1280, "height": 720})
        page.goto(f"{lab.url}lab/tree/01_first_steps.ipynb")
        yield lab, page
        page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.close()


def test_the_widget_draws_in_sight_with_nothing_pressed_and_one_move_draws_another_picture(opened: Any) -> None:
    lab, page = opened
    explorer = page.locator(".dx-explorer").first
    viewer = explorer.locator(".dx-viewer")
    expect(viewer).to_have_attribute("data-status", "done")
    page.wait_for_timeout(1000)  # in which nobody asks anything
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "first-minute.png")
    assert page.get_by_text(NEWS).count() == 0
    handle = slider(explorer, "guidance")

    def in_sight() -> None:
        for part in (handle, viewer.locator("canvas").first, viewer.get_by_label("step", exact=True)):
            box = part.bounding_box()
            assert box is not None
            assert box["y"] >= 60
            assert box["y"] + box["height"] <= 720, "in sight without scrolling"

    until(page, in_sight)
    before = resting(page, lambda: shown(viewer))
    handle.press("ArrowRight")
    other(viewer, than=before)
    # A page that is loaded again finds the widget; its cells are not run once more.
    lab.ready(page)
    count = "print(get_ipython().execution_count)"
    times = lab.run(page, count)
    page.evaluate("jupyterapp.shell.currentWidget.context.save()")
    page.reload()
    lab.ready(page)
    expect(page.locator(".dx-viewer").first).to_be_visible()
    page.wait_for_timeout(1500)  # in which nothing is run
    assert lab.run(page, count) == times
    assert json.loads((lab.folder / "01_first_steps.ipynb").read_text())["cells"][1]["outputs"]
