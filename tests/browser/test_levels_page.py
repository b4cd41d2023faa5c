"""Noise levels, in a page: points dragged by a hand and moved by keys, ways to space them, and fresh noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import PATIENCE
from playwright.sync_api import expect

from diffexplore.widgets.explorer import Explorer


def test_levels_are_dragged_spaced_and_reset(
    host: Callable[..., Any], axe: Callable[[Any], list[str]], tiny_model: Any
) -> None:
    explorer = Explorer(tiny_model, prompt="a fox", steps=5, seed=3, sampler="Euler")
    explorer.run()
    page = host(explorer.viewer)
    explorer.viewer.send_state = lambda key=None: None  # the page is this thread's: `until` hands traits over

    def until(done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, explorer.viewer.error
            page.page.wait_for_timeout(20)
        page.push()

    root = page.root
    root.get_by_role("tab", name="Levels").click()
    points = root.get_by_role("slider", name="noise level")
    expect(points).to_have_count(5)
    assert axe(page.page) == []
    plain = tiny_model.levels(steps=5, sampler="Euler")

    # A point follows the hand, between its neighbours, and the next run has it.
    box = points.nth(2).bounding_box()
    page.page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 5, box["y"] + 12, steps=3)
    page.page.mouse.up()
    until(lambda: explorer.sigmas is not None)
    assert plain[3] < explorer.sigmas[2] < plain[2]
    assert explorer.sigmas[:2] == pytest.approx(plain[:2])
    assert explorer.settings.sigmas == explorer.sigmas
    expect(root.get_by_label("how noise levels are spaced")).to_have_value("")
    expect(root.locator(".dx-plain")).not_to_have_attribute("points", "")

    # Keys move it too, and go from one to the next.
    before = explorer.sigmas
    points.nth(2).focus()
    page.page.keyboard.press("ArrowUp")
    until(lambda: explorer.sigmas != before)
    assert before[2] < explorer.sigmas[2] < plain[1]
    page.page.keyboard.press("ArrowRight")
    expect(points.nth(3)).to_be_focused()

    # A way to space them, and the sampler's own again.
    root.get_by_label("how noise levels are spaced").select_option("karras")
    until(lambda: explorer.sigmas == tiny_model.levels("karras", 5, sampler="Euler"))
    root.get_by_role("button", name="reset").click()
    until(lambda: explorer.sigmas is None)

    # Fresh noise, and as the sampler is.
    fresh = root.locator(".dx-levels input[type=range]")
    fresh.fill("0.5")
    until(lambda: explorer.fresh_noise == 0.5)
    root.get_by_role("button", name="as it is").click()
    until(lambda: explorer.fresh_noise is None)

    # A sampler that takes neither says why; the panel has nothing to drag then.
    explorer.sampler = "PLMS"
    page.push()
    expect(root.locator(".dx-levels-chart")).to_be_hidden()
    expect(root.get_by_label("how noise levels are spaced")).to_be_hidden()
    expect(root.locator(".dx-levels")).to_contain_text(
        "PLMS takes no noise levels of one's own: it counts its timesteps"
    )
    explorer.close()
