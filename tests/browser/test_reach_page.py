"""Reaching in, in a page: a branch beside its run, and a mark on the timeline that is moved and taken away by keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from diffexplore.widgets.explorer import Explorer


def test_a_branch_and_a_mark_by_hand_and_by_keys(
    host: Callable[..., Any], axe: Callable[[Any], list[str]], tiny_model: Any
) -> None:
    explorer = Explorer(tiny_model, prompt="a fox", steps=4, seed=3, sampler="DDIM")
    explorer.run()
    page = host(explorer.viewer)
    explorer.viewer.send_state = lambda key=None: None  # the page is this thread's: `until` hands traits over

    def until(done: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while explorer.status == "running" or not done():
            assert time.monotonic() < end
            page.page.wait_for_timeout(20)
        feed = explorer.viewer.on_show
        assert feed is not None
        assert feed.complete.wait(30)
        page.push()

    page.root.get_by_role("tab", name="Reach in").click()
    page.step.fill("2")
    expect(page.root.locator(".dx-reach p")).to_contain_text("from step 2 on")
    assert axe(page.page) == []
    guidance = page.root.get_by_label("guidance from this step on")
    assert guidance.input_value() == "5"
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
    assert guidance.input_value() == "1"
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
