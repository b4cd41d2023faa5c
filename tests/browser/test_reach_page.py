"""Reaching in, in a page: a branch beside its run, and a mark on the timeline that is moved and taken away by keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from patience import PATIENCE
from playwright.sync_api import expect

from diffexplore.widgets.explorer import Explorer


class Reaching:
    """A page with an Explorer's viewer in it, driven by the test's own thread."""

    def __init__(self, host: Callable[..., Any], model: Any) -> None:
        self.explorer = explorer = Explorer(model, prompt="a fox", steps=4, seed=3, sampler="DDIM")
        explorer.run()
        self.page = host(explorer.viewer)
        explorer.viewer.send_state = lambda key=None: None  # the page is this thread's: `until` hands traits over

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while self.explorer.status == "running" or not done():
            assert time.monotonic() < end, self.explorer.viewer.error
            self.page.page.wait_for_timeout(20)
        feed = self.explorer.viewer.on_show
        assert feed is not None
        assert feed.complete.wait(PATIENCE)
        self.page.push()


def test_a_branch_and_a_mark_by_hand_and_by_keys(
    host: Callable[..., Any], axe: Callable[[Any], list[str]], tiny_model: Any
) -> None:
    reaching = Reaching(host, tiny_model)
    explorer, page, until = reaching.explorer, reaching.page, reaching.until
    page.root.get_by_role("tab", name="Reach in").click()
    page.step.fill("2")
    expect(page.root.locator(".dx-reach p")).to_contain_text("from step 2 on")
    assert axe(page.page) == []
    guidance = page.root.get_by_label("guidance from this step on")
    expect(guidance).to_have_value("5")
    guidance.fill("1")
    page.root.get_by_role("button", name="put a mark").click()
    until(lambda: len(explorer.changes) == 1)
    flag = page.root.locator(".dx-flag")
    expect(flag).to_have_text("guidance 1")
    mark = explorer.changes[0][0]
    # Pressed, it is in the editor; with keys it moves.
    page.root.get_by_role("tab", name="Numbers").click()
    flag.click()
    expect(page.root.get_by_role("button", name="move the mark here")).to_be_visible()
    expect(guidance).to_have_value("1")
    flag.focus()
    page.page.keyboard.press("ArrowRight")
    until(lambda: explorer.changes[0][0] < mark)
    expect(page.root.locator(".dx-marks li")).to_have_count(1)
    page.root.get_by_role("button", name="take the mark guidance 1 away").click()
    until(lambda: explorer.changes == ())
    expect(flag).to_have_count(0)

    # A branch from the step in view: typed, and Enter. Keys in the field move no playhead.
    page.step.fill("3")
    prompt = page.root.get_by_label("prompt from this step on", exact=True)
    prompt.fill("a car, 3.")
    prompt.press("Enter")
    until(lambda: len(explorer.changes) == 1)
    expect(page.root.locator(".dx-main figure")).to_have_count(2)
    assert [dict(fields) for _, fields in explorer.changes] == [{"prompt": "a car, 3."}]
    expect(page.root.locator(".dx-flag")).to_have_text("a car, 3.")
    expect(page.root.locator(".dx-truth")).to_contain_text("match")
    explorer.close()


def test_a_region_is_painted_by_hand_and_by_keys_and_branches_are_shown_again(
    host: Callable[..., Any], axe: Callable[[Any], list[str]], tiny_model: Any
) -> None:
    reaching = Reaching(host, tiny_model)
    explorer, page, until = reaching.explorer, reaching.page, reaching.until
    parent = explorer.trace
    assert parent is not None
    page.root.get_by_role("tab", name="Reach in").click()
    page.step.fill("2")
    easel, says = page.root.locator(".dx-easel"), page.root.locator(".dx-brushes p")
    expect(says).to_have_text("paint on the latents")
    page.root.get_by_label("what the brush does").select_option("poke")
    page.root.get_by_label("size of the brush").select_option("fine")
    page.root.get_by_label("how much is added").fill("2")
    # One latent by hand, in the first row and the second column of 8 x 12; then one by keys, rubbed out again.
    spot = easel.bounding_box()
    page.page.mouse.click(spot["x"] + spot["width"] * 1.5 / 12, spot["y"] + spot["height"] * 0.5 / 8)
    expect(says).to_have_text("1 % painted")
    easel.focus()
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Space")
    expect(says).to_have_text("2.1 % painted")
    assert page.step.input_value() == "2", "the playhead has keys of its own"
    page.page.keyboard.press("Shift+Space")
    expect(says).to_have_text("1 % painted")
    assert axe(page.page) == []
    page.root.get_by_role("button", name="branch here").click()
    until(lambda: len(explorer.branched) == 2)
    branch = explorer.trace
    assert branch is not None
    moved = (branch[1].latents - parent[1].latents)[0]
    assert moved.nonzero().tolist() == [[0, 1]]
    assert abs(float(moved[0, 1]) - 2) < 1e-5

    # From there another, and back to the first branch, beside its parent as their difference.
    page.root.get_by_role("tab", name="Reach in").click()
    page.root.get_by_role("button", name="clear").click()
    prompt = page.root.get_by_label("prompt from this step on", exact=True)
    prompt.fill("a <b>car</b>")
    prompt.press("Enter")
    until(lambda: len(explorer.branched) == 3)
    page.root.get_by_role("tab", name="Reach in").click()
    kin = page.root.locator(".dx-kin button")
    expect(kin).to_have_text(
        ["1 a fox", "2 from step 2 of 1: poked 1 % of the picture", "3 from step 2 of 2: a <b>car</b>"]
    )
    assert page.root.locator("b", has_text="car").count() == 0
    kin.nth(1).click()
    until(lambda: explorer.viewer.branches["on"] == [1, 2])
    expect(page.root.get_by_role("radio", name="Difference")).to_be_checked()
    expect(page.step).to_have_value("4")
    assert explorer.trace is branch
    kin.nth(0).click()
    until(lambda: explorer.viewer.branches["on"] == [1])
    expect(page.root.locator(".dx-main figure")).to_have_count(1)
    explorer.close()
