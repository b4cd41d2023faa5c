"""A picture near that of a seed, in a real JupyterLab: opened, moved and left with keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hands import at_home, resting, write
from playwright.sync_api import expect

SHOTS = Path(__file__).with_name("shots")
CELLS = [
    """import diffexplore as dx
from tiny import make_pipeline
model = dx.load(make_pipeline())
explorer = dx.Explorer(model, prompt="a red fox", steps=4, seed=3)
explorer""",
    "compare = dx.Compare('near a seed', model, prompt='a red fox', steps=4)\ncompare",
]


def test_the_noise_is_turned_towards_another_seed_with_keys(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "near.ipynb", CELLS)
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "near.ipynb")
    lab.run_all(page)
    app, compare = page.locator(".dx-app").first, page.locator(".dx-app").nth(1)
    button = app.get_by_role("button", name="near this seed")
    expect(button).to_be_visible()
    at_home(app)
    at_home(compare)
    height = resting(page, app.bounding_box)["height"]
    button.press("Enter")
    far = app.get_by_role("slider", name="how far")
    expect(far).to_be_focused()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(app.get_by_role("button", name="0.2 of the way to seed 1000; or a hidden mark")).to_be_visible()
    field = app.get_by_label("towards seed", exact=True)
    field.fill("9")
    field.press("Enter")
    expect(app.get_by_role("button", name="near this seed: 0.2 of the way to seed 9")).to_be_visible()
    key = app.get_by_label("hidden mark", exact=True)
    key.fill("my key")
    key.press("Enter")
    expect(app.get_by_role("button", name="to seed 9; with a hidden mark")).to_be_visible()
    app.scroll_into_view_if_needed()
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "near.png")
    assert axe(page) == []
    box, around = resting(page, app.locator(".dx-near > .dx-pop").bounding_box), app.bounding_box()
    assert box["x"] >= around["x"] - 1
    assert box["x"] + box["width"] <= around["x"] + around["width"] + 1
    page.keyboard.press("Escape")
    expect(far).to_be_hidden()
    expect(button).to_be_focused()
    app.locator("button.dx-run").click()
    expect(app.locator(".dx-truth")).to_have_text("picture matches the controls")
    expect(app.locator("p.dx-about")).to_contain_text("variation 0.2 of the way to seed 9 · hidden mark by a key")
    assert resting(page, app.bounding_box)["height"] == height
    # Each column has its own, behind what it is.
    expect(compare.locator(".dx-column .dx-face")).to_have_text(["as the seed", "0.1 to 1", "0.3 to 1", "0.6 to 1"])
    compare.locator(".dx-column .dx-face").nth(3).press("Enter")
    mine = compare.get_by_role("slider", name="how far of 0.6 to seed 1")
    expect(mine).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(compare.locator(".dx-column .dx-face").nth(3)).to_have_text("0.65 to 1")
    compare.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "near-compare.png")
