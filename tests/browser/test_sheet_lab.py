"""A grid in JupyterLab: names that stay, cells that open their run with mouse and keys, pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hands import until, write
from playwright.sync_api import expect

SHOTS = Path(__file__).with_name("shots")
CELLS = [
    "import diffexplore as dx\nmodel = dx.load()",
    """grid = dx.sweep(model, x=("guidance", [1, 3, 5, 8, 12]), y=("sampler", ["Euler a", "DDIM", "Heun"]),
    prompt="a red fox in the snow", steps=4, seed=3)
grid.traces[1][2], grid.errors[1][2] = None, "ValueError: <b>no</b>"
grid""",
    """from diffexplore.experiments.grid import Grid
one, s = grid.traces[0][0], grid.settings[0][0]
asked = [[s.replace(steps=i + 1, seed=j) for j in range(40)] for i in range(30)]
Grid(("seed", list(range(40))), ("steps", list(range(1, 31))), asked, [[one] * 40] * 30)""",
]


def test_cells_open_their_runs_and_names_stay_in_sight(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "sheet.ipynb", CELLS)
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "sheet.ipynb")
    lab.run_all(page)
    sheet = page.locator(".dx-sheet").first
    cells = sheet.locator(".dx-sheet-cell")
    expect(cells).to_have_count(15)
    expect(cells.nth(7)).to_have_text("ValueError: <b>no</b>")
    sheet.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('.dx-sheet img')].every((one) => one.naturalWidth)")
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "sheet.png")
    assert axe(page) == []

    cells.nth(6).click()
    viewer = page.locator(".dx-viewer").first
    expect(viewer.get_by_text(re.compile("guidance 3 · seed 3 · DDIM"))).to_be_visible()
    expect(cells.nth(6)).to_have_attribute("aria-current", "true")
    sheet.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "sheet-open.png")

    def on_one_screen() -> None:
        top, bottom = sheet.bounding_box()["y"], viewer.bounding_box()["y"] + viewer.bounding_box()["height"]
        assert bottom - top <= 599, "cells, picture, strip and scrubber on one screen"

    until(page, on_one_screen)
    cells.nth(6).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(viewer.get_by_text(re.compile("guidance 3 · seed 3 · Heun"))).to_be_visible()
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()

    many = page.locator(".dx-sheet").nth(1)
    many.scroll_into_view_if_needed()
    expect(many.get_by_text("rows 1–16 of 30")).to_be_visible()
    first = many.locator("thead th").first.bounding_box()
    many.locator(".dx-sheet-scroll").evaluate("one => (one.scrollTop = one.scrollLeft = 400)")
    assert many.locator("thead th").first.bounding_box()["y"] == first["y"], "names of columns stay"
    many.locator(".dx-sheet-cell").first.focus()
    for key in ("PageDown", "End"):
        page.keyboard.press(key)
    expect(many.get_by_text("columns 33–40 of 40")).to_be_visible()
    focused = page.locator(".dx-sheet-cell:focus")
    expect(focused).to_have_attribute("aria-label", re.compile("^steps 17, seed 39: "))
    page.keyboard.press("+")
    expect(many.get_by_text("columns 37–40 of 40")).to_be_visible()
    page.screenshot(path=SHOTS / "sheet-many.png")


def test_the_page_of_a_grid_needs_nothing(tab: Any, tmp_path: Path) -> None:
    import diffexplore as dx

    grid = dx.sweep(dx.load(), x=("guidance", [1, 5]), y=("sampler", ["Euler a", "DDIM"]), prompt="a fox", steps=2)
    grid.to_html(tmp_path / "grid.html")
    page = tab.page
    page.goto((tmp_path / "grid.html").as_uri())
    cells = page.locator(".dx-sheet-cell")
    expect(cells).to_have_count(4)
    viewer = page.locator(".dx-viewer")
    expect(viewer).to_be_hidden()
    for k, said in ((1, "guidance 5 · seed 0 · Euler a"), (2, "guidance 1 · seed 0 · DDIM")):
        cells.nth(k).press("Enter")
        expect(viewer.get_by_text(re.compile(said))).to_be_visible()
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    page.emulate_media(color_scheme="dark")
    assert page.locator(".dx-sheet-title").evaluate("one => getComputedStyle(one).color") != "rgb(0, 0, 0)"
