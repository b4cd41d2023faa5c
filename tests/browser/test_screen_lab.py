"""One screen in a real JupyterLab with its side bar open: what one moves and what it changes are in sight together."""

from __future__ import annotations

from typing import Any

import pytest
from hands import write
from playwright.sync_api import expect

WIDGETS = """import diffexplore as dx
from tiny import make_pipeline
model = dx.load(make_pipeline())
explorer = dx.Explorer(model, prompt="a red fox", steps=6)"""
COMPARE = """columns = lambda count: {f"g {g}": {"guidance": float(g)} for g in range(1, count + 1)}
compare = dx.Compare(columns(2), model=model, prompt="a red fox", steps=6)
compare"""
SIZES = [(1280, 720), (1024, 768), (1440, 900)]


def in_sight(page: Any, app: Any) -> float:
    """That slider, pictures, strips and scrubber are in sight together, in one row; returns the height of it all."""
    app.evaluate("node => node.closest('.jp-OutputArea-output').scrollIntoView({ block: 'start' })")
    page.wait_for_timeout(300)
    window = page.locator(".jp-WindowedPanel-outer").first.bounding_box()
    films = app.locator(".dx-film")
    parts = [app.locator(".noUi-handle:visible").first, *films.locator("canvas").all(), app.locator(".dx-strips")]
    for part in [*parts, app.get_by_label("step", exact=True)]:
        box = part.bounding_box()
        assert box["y"] >= window["y"] - 1
        assert box["y"] + box["height"] <= window["y"] + window["height"] + 1
        assert box["x"] >= window["x"]
        assert box["x"] + box["width"] <= window["x"] + window["width"]
    assert len({round(film.bounding_box()["y"]) for film in films.all()}) == 1
    height: float = app.bounding_box()["height"]
    return height


def test_explorer_and_compare_are_one_screen(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "screen.ipynb", [WIDGETS, "explorer", COMPARE])
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "screen.ipynb")
    lab.run_all(page)
    explorer, compare = page.locator(".dx-app").nth(0), page.locator(".dx-app").nth(1)
    empty = [one.bounding_box()["height"] for one in (explorer, compare)]
    lab.run(page, "explorer.run(); compare.run(); None")
    expect(compare.locator(".dx-film")).to_have_count(2, timeout=60_000)
    assert [one.bounding_box()["height"] for one in (explorer, compare)] == pytest.approx(empty, abs=0.5)
    heights: dict[tuple[int, int], set[float]] = {size: set() for size in SIZES}
    for count in range(2, 7):
        if count > 2:
            lab.run(page, f"compare.columns = columns({count}); compare.run(); None")
            expect(compare.locator(".dx-film")).to_have_count(count, timeout=60_000)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(200)
            if count == 2:
                in_sight(page, explorer)
            heights[width, height].add(round(in_sight(page, compare), 1))
            # Each column stands under its own controls.
            own = compare.locator(".dx-column")
            for column, film in zip(own.all(), compare.locator(".dx-film").all(), strict=True):
                assert column.bounding_box()["x"] == pytest.approx(film.bounding_box()["x"], abs=2)
    assert all(len(found) == 1 for found in heights.values()), f"columns change the height: {heights}"
    page.set_viewport_size({"width": 1280, "height": 720})
    assert axe(page) == []
