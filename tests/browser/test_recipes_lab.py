"""A picture that is dropped on the Explorer fills its controls; a line that is copied fills another's."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from hands import at_home, resting, write
from PIL import Image
from playwright.sync_api import expect

from diffexplore.looks.pictures import encode
from diffexplore.looks.recipe import texts_of
from diffexplore.settings import Settings

SHOTS = Path(__file__).with_name("shots")
CELLS = ["import diffexplore as dx\ndx.Explorer(prompt='a cat')"]
DROP = """([app, data, name]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
    for (const kind of ["dragover", "drop"])
        app.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
}"""


def test_a_picture_is_dropped_and_its_line_is_pasted(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "recipes.ipynb", CELLS)
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "recipes.ipynb")
    lab.run_all(page)
    app = page.locator(".dx-app").first
    prompt = app.locator(".dx-prompt input")
    expect(prompt).to_have_value("a cat")
    at_home(app)
    height = resting(page, app.bounding_box)["height"]

    def drop(settings: Settings | None, name: str) -> None:
        texts = texts_of(settings) if settings else None
        data = encode(Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 60).convert("RGB"), texts=texts)
        view = app.locator(".dx-viewer").element_handle()
        page.evaluate(DROP, [view, base64.b64encode(data).decode(), name])

    drop(Settings(prompt="a <b>fox</b>", steps=6, seed=8, sampler="Euler a"), "fox.png")
    expect(prompt).to_have_value("a <b>fox</b>")
    expect(app.get_by_label("sampler")).to_have_value("Euler a")
    app.get_by_role("button", name="settings from a picture or a message").click()
    pop = app.locator(".dx-recipe > .dx-pop")
    expect(pop.get_by_text("from fox.png")).to_be_visible()
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "recipes.png")
    assert axe(page) == []
    box, around = resting(page, pop.bounding_box), app.bounding_box()
    assert box["x"] >= around["x"] - 1
    assert box["x"] + box["width"] <= around["x"] + around["width"] + 1
    pop.get_by_role("button", name="Copy settings").click()
    expect(pop.get_by_role("button", name="Copied")).to_be_visible()
    pop.get_by_label("settings as text").fill('dx1{"prompt":"a car","steps":3}')
    pop.get_by_label("settings as text").press("Enter")
    expect(prompt).to_have_value("a car")
    drop(None, "plain.png")
    expect(app.get_by_role("alert").filter(has_text="'plain.png' carries no recipe")).to_be_visible()
    expect(prompt).to_have_value("a car")
    assert resting(page, app.bounding_box)["height"] == height
