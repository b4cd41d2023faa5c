"""widgets/sheet.py: a grid in a notebook and as a page: bounded pages of small pictures, and runs that open."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import wait
from PIL import Image

from diffexplore.experiments.grid import Grid
from diffexplore.experiments.sweep import sweep
from diffexplore.model import Model
from diffexplore.widgets.sheet import SIDES, Sheet, to_html

EVIL = "</script><img src=x onerror=alert(1)> a fox"


@pytest.fixture(scope="module")
def grid(tiny_model: Model) -> Grid:
    made = sweep(tiny_model, x=("steps", [2, 3]), y=("prompt", [EVIL, ""]), sampler="DDIM", seed=3)
    cells: list[list[Any]] = [[made.traces[0][0], made.traces[0][1]], ["ValueError: <b>no</b>", made.traces[1][1]]]
    return Grid(made.x, made.y, made.settings, cells)


@pytest.fixture
def sheet(grid: Grid) -> Iterator[Sheet]:
    made = Sheet(grid)
    yield made
    made.close()


def large(grid: Grid, down: int, across: int) -> Grid:
    """A grid of one run many times."""
    settings, trace = grid.settings[0][0], grid.traces[0][0]
    x = ("seed", list(range(across)))
    return Grid(x, ("guidance", list(range(down))), [[settings] * across] * down, [[trace] * across] * down)


def say(sheet: Sheet, content: Any) -> None:
    """As a page does."""
    sheet.table._handle_custom_msg(content, [])


def picture(sheet: Sheet, i: int, j: int) -> Image.Image:
    offset, length, format, _ = sheet.table.page["cells"][i][j]
    image = Image.open(io.BytesIO(sheet.table.pictures[offset : offset + length]))
    assert image.format.lower() == format
    return image.convert("RGB")


def test_each_cell_is_its_own_picture_and_one_that_failed_says_why(sheet: Sheet, grid: Grid) -> None:
    about, page = sheet.table.about, sheet.table.page
    assert (about["x"], about["columns"], about["y"], about["rows"]) == (
        "steps",
        ["2", "3"],
        "prompt",
        [EVIL, "(empty)"],
    )
    for i, j in ((0, 0), (0, 1), (1, 1)):
        assert picture(sheet, i, j).tobytes() == grid.images[i][j].convert("RGB").tobytes()
    assert page["cells"][1][0] == "ValueError: <b>no</b>"
    assert re.fullmatch(r"(remembered|[\d.e-]+ s) · 3 evaluations", page["cells"][0][1][3])


def test_a_cell_opens_its_run_and_the_run_can_be_put_away(sheet: Sheet, grid: Grid) -> None:
    assert sheet.viewer.layout.display == "none"
    say(sheet, {"kind": "open", "row": 1, "column": 1})
    assert (sheet.table.opened, sheet.viewer.layout.display) == ([1, 1], "")
    assert wait(lambda: len(sheet.viewer.shown()) == 1 and sheet.viewer.shown()[0].complete)
    assert len(sheet.viewer.shown()[0].steps) == 3
    say(sheet, {"kind": "open", "row": 1, "column": 0})
    assert sheet.table.opened == [1, 1], "nothing of a run that failed"
    say(sheet, {"kind": "close"})
    assert (sheet.table.opened, sheet.viewer.layout.display) == ([], "none")


@pytest.mark.parametrize(
    "content",
    [
        None, {}, {"kind": "open"}, {"kind": "open", "row": -1, "column": 0},
        {"kind": "open", "row": 10**30, "column": 0},
        {"kind": "open", "row": True, "column": 0}, {"kind": "open", "row": "0", "column": "0"},
        {"kind": "page", "row": 0, "column": 0}, {"kind": "page", "row": None, "column": 0, "side": 96},
    ],
)  # fmt: skip
def test_what_no_page_of_ours_says_is_passed_over(sheet: Sheet, content: Any) -> None:
    before = sheet.table.page
    say(sheet, content)
    assert (sheet.table.page, sheet.table.opened) == (before, [])


def test_a_large_grid_is_shown_in_pages_that_are_bounded(grid: Grid) -> None:
    made = Sheet(large(grid, 30, 200))
    page = made.table.page
    assert len(page["cells"]) * len(page["cells"][0]) <= 256
    assert len(made.table.pictures) < 2**21
    for side, most in SIDES.items():
        say(made, {"kind": "page", "row": 29, "column": 199, "side": side})
        page = made.table.page
        assert (page["row"] // most, page["column"] // most) == (29 // most, 199 // most), (
            "the page that the cell is on"
        )
        assert len(page["cells"]) == 30 - page["row"]
        assert len(page["cells"][0]) == 200 - page["column"]
    say(made, {"kind": "page", "row": -5, "column": 10**9, "side": 97})
    assert (made.table.page["row"], made.table.page["column"], made.table.page["side"]) == (0, 192, 96)
    made.close()


def test_where_nothing_runs_a_picture_of_it_stands(sheet: Sheet, grid: Grid) -> None:
    bundle = sheet.hand_ins.bundle("Sheet")
    assert "varied" in bundle["text/plain"]
    assert {"text/html", "image/png", "text/plain"} == bundle.keys()
    assert "<img src=x" not in bundle["text/html"]
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as image:
        assert max(image.size) <= 2048
    made = Sheet(large(grid, 9, 30))
    assert "The first 8 of 9 rows and 8 of 30 columns." in made.hand_ins.bundle("Sheet")["text/plain"]
    made.close()


def test_the_page_holds_all_pictures_and_runs_as_data_and_nothing_from_elsewhere(grid: Grid, tmp_path: Path) -> None:
    place = tmp_path / "grid.html"
    grid.to_html(place)
    page = place.read_text("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    data = re.search(r'id="dx-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org)", page.replace(data[1], ""))
    held = json.loads(data[1])
    assert held["about"]["rows"] == [EVIL, "(empty)"]
    assert held["cells"][1][0] == "ValueError: <b>no</b>"
    assert held["films"].keys() == {"0,0", "0,1", "1,1"}
    to_html(grid, place, runs=False)
    assert '"films":{}' in place.read_text("utf-8")


def test_a_grid_shows_itself_as_this_in_a_notebook(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("diffexplore.widgets.handin.display", lambda data, **_: told.append(data))
    grid._ipython_display_()
    widget, still = told
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert "dx-handin" in still["text/html"]
