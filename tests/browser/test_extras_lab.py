"""What a pipeline takes beyond settings, in a real JupyterLab: folded away, filled in, a picture uploaded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import at_home, resting, write
from PIL import Image
from playwright.sync_api import expect

from diffexplore.model import Model
from diffexplore.widgets.explorer import Explorer

SHOTS = Path(__file__).with_name("shots")
CELL = """import diffexplore as dx
from handmade import DemandingPipeline, handmade
explorer = dx.Explorer(dx.load(handmade(DemandingPipeline)), prompt="a red fox", steps=4)
explorer"""


def test_a_picture_is_uploaded_and_drawn_with(lab: Any, tab: Any, axe: Any, tmp_path: Path) -> None:
    write(lab.folder / "extras.ipynb", [CELL])
    Image.new("RGB", (48, 32), (250, 20, 20)).save(tmp_path / "red.png")
    (tmp_path / "none.png").write_text("no picture")
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "extras.ipynb")
    lab.run_all(page)
    app = page.locator(".dx-app").first
    expect(app.get_by_role("alert")).to_contain_text("DemandingPipeline needs image=")
    at_home(app)
    height = resting(page, app.bounding_box)["height"]
    face = app.locator(".dx-extras > button.dx-face")
    expect(face).to_have_text("needs image")
    face.click()
    pop = app.locator(".dx-extras > .dx-pop")
    expect(pop).to_be_visible()
    assert axe(page) == []

    def choose(name: str) -> None:
        with page.expect_file_chooser() as chooser:
            pop.locator(".jupyter-button", has_text="choose").first.click()
        chooser.value.set_files(tmp_path / name)

    choose("red.png")
    expect(pop.get_by_text("48 × 32")).to_be_visible()
    choose("none.png")
    expect(app.get_by_role("alert")).to_contain_text("no picture in a format that is read")
    pop.locator(".dx-number input[type=text]").first.fill("0.5")
    pop.locator(".dx-number input[type=text]").first.press("Enter")
    expect(face).to_contain_text("strength 0.5")
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "extras.png")
    box = resting(page, pop.bounding_box)
    assert box["x"] + box["width"] <= app.bounding_box()["x"] + app.bounding_box()["width"] + 1
    page.keyboard.press("Escape")
    expect(pop).to_be_hidden()
    assert resting(page, app.bounding_box)["height"] == pytest.approx(height, abs=0.5)
    app.locator("button.dx-run").click()
    expect(app.locator(".dx-film")).to_have_count(1)
    expect(app.locator(".dx-truth")).to_have_attribute("data-state", "match")
    said = lab.run(page, "print(sorted(explorer.trace.info['extra'].items()), explorer.viewer.truth['state'])")
    assert said == "[('image', 'a picture of 48x32 pixels'), ('strength', 0.5)] match"


def test_a_run_without_steps_is_its_picture(host: Any, tiny_model: Model) -> None:
    red = Image.new("RGB", (48, 32), (250, 20, 20))
    explorer = Explorer(tiny_model, image=red, strength=0.0, prompt="a red fox", steps=3)
    trace = explorer.run()
    page = host(explorer.viewer)
    with Image.open(io.BytesIO(page.pixels())) as shown:
        small = np.asarray(shown.convert("RGB").resize(trace.image.size, Image.Resampling.BOX), float)
    assert abs(small - np.asarray(trace.image, float)).mean() < 6, "it is scaled up, smoothly"
    expect(page.root).to_contain_text("draws nothing")
    page.page.screenshot(path=SHOTS / "stepless.png")
    explorer.close()
