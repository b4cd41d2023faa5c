"""Words that look: chips that are clicked, heat over the picture, scrubbed, and beside another run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hands import until

from diffexplore.widgets.viewer import Replay


@pytest.fixture(scope="module")
def looked(tiny_model: Any) -> list[Any]:
    return [
        tiny_model.trace(prompt=prompt, negative_prompt="blurry", steps=3, seed=3, attention=True)
        for prompt in ("a red Zyx fox", "a blue cat")
    ]


def test_a_click_on_a_word_lays_where_it_looks_over_the_picture(
    host: Callable[..., Any], axe: Callable[[Any], list[str]], looked: list[Any]
) -> None:
    page = host(Replay(looked[0]))
    chips = page.root.locator(".dx-words li")
    assert chips.all_inner_texts() == ["begin", "a", "red", "Zyx", "fox", "end"]
    assert "sink" in chips.first.get_attribute("title")
    assert chips.nth(3).get_attribute("title").startswith("tokens ")
    plain = page.pixels()
    fox = chips.nth(4).locator("button")
    fox.focus()
    page.page.keyboard.press("Enter")
    lit = page.pixels()
    assert lit != plain
    assert fox.get_attribute("aria-pressed") == "true"
    assert page.root.locator(".dx-legend").inner_text() == "fox"
    assert "with where fox look" in page.root.locator(".dx-film canvas").get_attribute("aria-label")
    page.step.fill("1")
    assert page.pixels() != lit
    # Its share over time, a point for each step.
    assert len(fox.locator("polyline").get_attribute("points").split()) == 3
    chips.nth(2).locator("button").click()
    page.root.locator(".dx-legend li").nth(1).wait_for()
    colours = page.root.locator(".dx-legend li").evaluate_all(
        "all => all.map((li) => getComputedStyle(li).backgroundColor)"
    )
    assert len(set(colours)) == 2
    assert axe(page.page) == []
    for one in (2, 4):
        chips.nth(one).locator("button").click()
    page.step.fill("3")
    assert page.pixels() == plain


def test_a_line_of_words_fades_where_it_goes_on(host: Callable[..., Any], looked: list[Any]) -> None:
    page = host(Replay(looked[0]))
    line = page.root.locator(".dx-words")

    def fades(before: str, after: str) -> None:
        read = "(line, names) => names.map((name) => getComputedStyle(line).getPropertyValue(name))"
        assert line.evaluate(read, ["--dx-before", "--dx-after"]) == [before, after]

    fades("0px", "0px")  # all of it is in sight
    line.evaluate("line => { line.style.width = '150px' }")
    until(page.page, lambda: fades("0px", "28px"))
    line.evaluate("line => { line.scrollLeft = line.scrollWidth }")
    until(page.page, lambda: fades("28px", "0px"))


def test_several_runs_show_the_words_that_they_have_on_a_tab(host: Callable[..., Any], looked: list[Any]) -> None:
    page = host(Replay({"fox": looked[0], "cat": looked[1]}))
    before = [page.pixels(f".dx-stage figure:nth-child({k}) canvas") for k in (1, 2)]
    page.root.get_by_role("tab", name="Words").click()
    page.root.locator(".dx-looker button", has_text="cat").click()
    after = [page.pixels(f".dx-stage figure:nth-child({k}) canvas") for k in (1, 2)]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert page.root.locator(".dx-legend:visible").all_inner_texts() == ["cat"]
