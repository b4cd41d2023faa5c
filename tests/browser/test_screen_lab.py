"""One screen in a real JupyterLab with its side bar open: what one moves and what it changes are in sight together."""

from __future__ import annotations

from typing import Any

import pytest
from hands import resting, until, write
from playwright.sync_api import expect

WIDGETS = """import diffexplore as dx
from tiny import make_pipeline
model = dx.load(make_pipeline())
explorer = dx.Explorer(model, prompt="a red fox", steps=6)"""
COMPARE = """columns = lambda count: {f"g {g}": {"guidance": float(g)} for g in range(1, count + 1)}
compare = dx.Compare(columns(2), model=model, prompt="a red fox", steps=6)
compare"""
SIZES = [(1280, 720), (1024, 768), (1440, 900)]
MOVED = ".noUi-handle:visible, .dx-number input[type=text]:visible"  # narrow columns have fields in place of sliders

# Controls, pictures, strips and scrubber that cover each other, and what stands out of the app.
FAULTS = """app => {
    const seen = [...app.querySelectorAll(
        '.dx-row :is(input, select, button), .widget-slider, .dx-film canvas, .dx-strips, .dx-scrub, .dx-tabs, .dx-foot'
    )].filter(node => node.checkVisibility() && !node.closest('.dx-pop'));
    const edges = node => node.getBoundingClientRect();
    const meet = (from, to, other, end) => from < end - 1 && other < to - 1;
    const covers = (a, b) => meet(a.left, a.right, b.left, b.right) && meet(a.top, a.bottom, b.top, b.bottom);
    const name = node => node.ariaLabel || node.className || node.textContent;
    const faults = seen.flatMap((one, k) => seen.slice(k + 1)
        .filter(other => !one.contains(other) && covers(edges(one), edges(other)))
        .map(other => `${name(one)} covers ${name(other)}`));
    if (app.scrollWidth > app.clientWidth) faults.push('it stands out');
    return faults;
}"""


def in_sight(page: Any, app: Any, top: str = ".dx-app") -> float:
    """That slider, pictures, strips and scrubber are in sight together, in one row; returns the height of it all.

    `top`: what a person scrolls to.
    """
    app.locator(MOVED).first.evaluate("(node, top) => node.closest(top).scrollIntoView({ block: 'start' })", top)
    height: float = resting(page, app.bounding_box)["height"]

    def seen() -> None:
        window = page.locator(".jp-WindowedPanel-outer").first.bounding_box()
        films = app.locator(".dx-film")
        parts = [app.locator(MOVED).first, *films.locator("canvas").all(), app.locator(".dx-strips")]
        for part in [*parts, app.get_by_label("step", exact=True)]:
            box = part.bounding_box()
            assert box["y"] >= window["y"] - 1
            assert box["y"] + box["height"] <= window["y"] + window["height"] + 1
            assert box["x"] >= window["x"]
            assert box["x"] + box["width"] <= window["x"] + window["width"]
        assert len({round(film.bounding_box()["y"]) for film in films.all()}) == 1

    until(page, seen)
    return height


def live_pictures(explorer: Any) -> None:
    assert all(one.bounding_box()["width"] > 90 for one in explorer.locator(".dx-views canvas").all()), "live pictures"


def stand_in_line(compare: Any) -> None:
    """That each column stands under its own controls."""
    own, films = compare.locator(".dx-column"), compare.locator(".dx-film")
    assert own.count() == films.count()
    for column, film in zip(own.all(), films.all(), strict=True):
        assert column.bounding_box()["x"] == pytest.approx(film.bounding_box()["x"], abs=2)


def faultless(app: Any, beside: str = "its side bar", wider: int = 0) -> None:
    assert app.bounding_box()["width"] > wider
    assert app.evaluate(FAULTS) == [], f"beside {beside}"


def test_explorer_and_compare_are_one_screen(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "screen.ipynb", [WIDGETS, "explorer", COMPARE])
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "screen.ipynb")
    lab.run_all(page)
    explorer, compare = page.locator(".dx-app").nth(0), page.locator(".dx-app").nth(1)

    def heights_of() -> list[float]:
        return [one.bounding_box()["height"] for one in (explorer, compare)]

    empty = resting(page, heights_of)
    lab.run(page, "explorer.run(); compare.run(); None")
    expect(compare.locator(".dx-film")).to_have_count(2)
    assert resting(page, heights_of) == pytest.approx(empty, abs=0.5)
    until(page, lambda: live_pictures(explorer))
    heights: dict[tuple[int, int], set[float]] = {size: set() for size in SIZES}
    for count in range(2, 7):
        if count > 2:
            lab.run(page, f"compare.columns = columns({count}); compare.run(); None")
            expect(compare.locator(".dx-film")).to_have_count(count)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            if count == 2:
                in_sight(page, explorer)
            heights[width, height].add(round(in_sight(page, compare), 1))
            until(page, lambda: stand_in_line(compare))
    assert all(len(found) == 1 for found in heights.values()), f"columns change the height: {heights}"
    page.set_viewport_size({"width": 1280, "height": 720})
    for app in (explorer, compare):
        until(page, lambda app=app: faultless(app))
    compare.locator(".dx-face").first.click()  # its popover too
    for theme, light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
        expect(page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        assert axe(page) == []


def test_enlarged_by_half_it_is_used_as_ever_and_keys_run_and_save(lab: Any, tab: Any) -> None:
    write(lab.folder / "enlarged.ipynb", [WIDGETS, "explorer", COMPARE])
    page = tab.page
    page.set_viewport_size({"width": 1280 * 2 // 3, "height": 720 * 2 // 3})
    lab.open(page, "enlarged.ipynb")
    lab.run_all(page)
    explorer, compare = page.locator(".dx-app").nth(0), page.locator(".dx-app").nth(1)
    lab.run(page, "compare.columns = columns(6); explorer.run(); compare.run(); None")
    expect(compare.locator(".dx-film")).to_have_count(6)
    for beside, width in (("its side bar", 0), ("nothing", 600)):
        page.evaluate("shut => window.jupyterapp.shell[shut ? 'collapseLeft' : 'expandLeft']()", bool(width))
        for app in (explorer, compare):
            until(page, lambda app=app, beside=beside, width=width: faultless(app, beside, width))
            if width:
                in_sight(page, app, ".dx-row")

    # A narrow column's number is stepped, by a button and by the arrows.
    more = compare.get_by_role("button", name="more guidance of g 2")
    more.click()
    field = compare.get_by_label("guidance of g 2", exact=True).locator("visible=true")
    field.press("ArrowUp")
    expect(field).to_have_value("3")
    told = "import json; print(json.dumps([own['guidance'] for own in compare.columns.values()]))"
    assert lab.run(page, told) == "[1.0, 3.0, 3.0, 4.0, 5.0, 6.0]"

    # With the prompt in hand.
    prompt = explorer.get_by_label("prompt", exact=True).first
    prompt.fill("a red dog")
    prompt.press("Control+Enter")
    expect(explorer.locator(".dx-truth")).to_have_text("picture matches the controls")
    assert lab.run(page, "print(explorer.trace.settings.prompt)") == "a red dog"
    page.evaluate("window.jupyterapp.shell.currentWidget.context.model.dirty = true")
    prompt.press("Control+s")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
