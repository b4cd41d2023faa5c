"""A picture is dropped on the forward process: noise is added, and the model asked about it, in sight at once."""

from __future__ import annotations

import re
from typing import Any

from hands import resting, write
from PIL import Image
from playwright.sync_api import expect

from diffexplore import load

SIDE = load().size[0]

CELLS = [
    "import diffexplore as dx\nmodel = dx.load()",
    "process = dx.ForwardProcess(model, prompt='a fox', steps=8)\nprocess",
]


def test_a_picture_is_handed_over_and_asked_about(lab: Any, tab: Any, tmp_path: Any) -> None:
    write(lab.folder / "process.ipynb", CELLS)
    page = tab.page
    lab.open(page, "process.ipynb")
    lab.run_all(page)
    app = page.locator(".dx-app").first
    expect(app.get_by_text("drop or paste a picture here")).to_be_visible()
    height = resting(page, app.bounding_box)["height"]
    app.get_by_role("button", name="Ask").click()
    expect(app.get_by_role("alert").filter(has_text="Hand over a picture first")).to_be_visible()
    (tmp_path / "letter.png").write_text("no picture")
    app.get_by_label("choose a picture").set_input_files(tmp_path / "letter.png")
    expect(app.get_by_text("'letter.png' is not taken")).to_be_visible()
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 60).save(tmp_path / "set.png")
    app.get_by_label("choose a picture").set_input_files(tmp_path / "set.png")
    expect(
        app.get_by_text(re.compile(rf"^set\.png, 300 × 200, cropped around its centre to {SIDE} × {SIDE}"))
    ).to_be_visible()
    expect(app.get_by_text("match the controls")).to_be_visible()
    expect(app.locator(".dx-film canvas")).to_have_count(2)
    expect(app.get_by_text(re.compile(r"^2 runs · 8 calls · "))).to_be_visible()  # nobody was asked what was added
    guess = app.locator(".dx-film canvas").nth(1)
    last = resting(page, lambda: guess.evaluate("canvas => canvas.toDataURL()"))
    app.get_by_label("step", exact=True).press("Home")
    page.wait_for_function("([canvas, last]) => canvas.toDataURL() !== last", arg=[guess.element_handle(), last])
    assert resting(page, app.bounding_box)["height"] == height
    app.get_by_role("button", name="Draw from there").click()
    expect(app.locator(".dx-film canvas")).to_have_count(1)
    expect(app.get_by_text("matches the controls")).to_be_visible()
    app.get_by_role("button", name="Draw one").click()
    expect(app.get_by_text(f"drawn by the model, {SIDE} × {SIDE}")).to_be_visible()
    expect(app.locator(".dx-film canvas")).to_have_count(2)
