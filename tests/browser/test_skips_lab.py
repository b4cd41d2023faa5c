"""The sliders of a U-Net's stages in a real JupyterLab."""

from __future__ import annotations

from typing import Any

from hands import at_home, resting, write
from playwright.sync_api import expect

CELL = """import diffexplore as dx
from tiny import make_pipeline
explorer = dx.Explorer(dx.load(make_pipeline()), prompt="a red fox", steps=4)
explorer"""


def test_a_skip_is_turned_down_with_the_keyboard(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "skips.ipynb", [CELL])
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "skips.ipynb")
    lab.run_all(page)
    app = page.locator(".dx-app").first
    at_home(app)
    face = app.get_by_role("button", name="skips")
    face.focus()
    face.press("Enter")
    pop = app.locator(".dx-stages .dx-pop")
    handles = pop.locator(".noUi-handle")
    expect(handles).to_have_count(4)
    expect(handles.first).to_be_focused()
    handles.first.press("Home")
    expect(face).to_have_text("skips (1)")
    room, box = page.locator(".jp-WindowedPanel-outer").first.bounding_box(), resting(page, pop.bounding_box)
    assert box["x"] >= room["x"]
    assert box["x"] + box["width"] <= room["x"] + room["width"]
    assert axe(page) == []
    page.keyboard.press("Escape")
    expect(pop).to_be_hidden()
    assert lab.run(page, "print(explorer.run().settings.skipped)") == "['stage 1 skip 0']"
