"""One screen: what stands where in the viewer, at the sizes that JupyterLab leaves it; nothing makes it jump."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import until
from PIL import Image
from test_viewer_page import SMALL, behind, driven, finish, grow, growing, look_at, played, status, turn  # noqa: F401

from diffexplore.trace import Trace
from diffexplore.widgets.feed import HERE
from diffexplore.widgets.page import to_html
from diffexplore.widgets.viewer import Replay, Viewer

Open = Callable[[Viewer], Any]
SHOTS = Path(__file__).with_name("shots")
# What stands above the viewer among its controls, in pixels: two rows, and a third for each column's own.
ABOVE = {1: 32 + 28 + 2 * 6, 2: 32 + 28 + 28 + 3 * 6}
# The room for a widget in JupyterLab with its side bar open, at 1280 x 720, at 1024 x 768 and at 1440 x 900.
ROOMS = [(848, 599), (592, 647), (1008, 779)]


def several(trace: Trace, count: int) -> dict[str, Trace]:
    return {f"run {k}": trace for k in range(count)}


def within(host: Any, width: int) -> None:
    """Put the viewer among controls, in a room of this width."""
    host.page.evaluate(
        """width => {
            const room = document.getElementById('views');
            document.body.style.margin = '0';
            room.classList.add('dx-app');
            room.style.width = `${width}px`;
        }""",
        width,
    )
    host.settle()


def height(host: Any) -> float:
    host.settle()
    found: float = host.root.bounding_box()["height"]
    return found


def picture(host: Any, selector: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(host.pixels(selector))).convert("RGB")).astype(int)


# --- what is in sight ---


@pytest.mark.parametrize("room", ROOMS)
def test_picture_strip_and_scrubber_are_in_sight_together(host: Open, tab: Any, tiny_trace: Trace, room: Any) -> None:
    """With one film and with two to six, which stand in one row, each under its own controls."""
    tab.page.set_viewport_size({"width": room[0], "height": room[1]})
    page = host(Replay(tiny_trace))
    within(page, room[0])
    for count in range(1, 7):
        page.viewer.show(several(tiny_trace, count) if count > 1 else tiny_trace)
        page.push()
        page.settle()
        above = ABOVE[min(count, 2)]
        films = page.root.locator(".dx-film")
        assert films.count() == count
        parts = [*films.locator("canvas").all(), page.root.locator(".dx-strips"), page.step]
        if room[0] >= 720:
            parts += [page.root.get_by_role("tablist"), page.root.locator(".dx-status")]
        for part in parts:
            box = part.bounding_box()
            assert above + box["y"] + box["height"] <= room[1]
            assert box["x"] + box["width"] <= room[0] + 0.5
        tops = {round(one.bounding_box()["y"]) for one in films.all()}
        assert len(tops) == 1, "one row"
        lefts = [one.bounding_box()["x"] for one in films.all()]
        each = (room[0] + 8) / count
        assert lefts == pytest.approx([k * each for k in range(count)], abs=1), "as the controls over them"
        assert page.page.evaluate("document.documentElement.scrollWidth") <= room[0]
        if count > 1:
            tags = page.root.locator(".dx-tag b")
            assert tags.all_inner_texts() == list(several(tiny_trace, count))
            strips = page.root.locator(".dx-strip")
            for tag, strip, name in zip(tags.all(), strips.all(), page.root.locator(".dx-name").all(), strict=True):
                middles = [box["y"] + box["height"] / 2 for box in (tag.bounding_box(), strip.bounding_box())]
                assert middles[0] == pytest.approx(middles[1], abs=2), "a label stands beside its strip"
                colour = "node => getComputedStyle(node).color"
                assert tag.evaluate(colour) == name.evaluate(colour)


def test_nothing_changes_the_height(host: Open, driven: None, tab: Any, tiny_trace: Trace) -> None:  # noqa: F811
    tab.page.set_viewport_size({"width": 848, "height": 599})
    page = host(Viewer())
    within(page, 848)
    first = height(page)
    assert page.root.get_by_text("No run yet.").is_visible()
    assert page.step.is_disabled()
    trace = growing(tiny_trace)
    feed = page.viewer.feed([trace])
    grow(trace, tiny_trace, 2)
    turn(page, lambda: status(page, "running: 2 of 4 steps").is_visible())
    assert height(page) == first
    grow(trace, tiny_trace)
    finish(page, feed)
    page.push()
    for act in (
        lambda: page.step.fill("1"),
        lambda: look_at(page, "Change"),
        lambda: page.root.get_by_role("tab", name="Numbers").click(),
        lambda: page.viewer.tell(error="Steps must be a number. " * 20, notes=["A note. " * 40, "Another."]),
        lambda: setattr(page.viewer, "truth", {"state": "stale", "text": "settings changed: Run " * 9}),
        lambda: page.viewer.show(Trace(tiny_trace.settings.replace(prompt="a long word " * 40), list(tiny_trace))),
        lambda: behind(page, "Pixels").click(),
        lambda: page.page.keyboard.press("e"),
    ):
        act()
        page.push()
        assert height(page) == first
    page = host_of(page, several(tiny_trace, 2))
    second = height(page)
    for count in range(3, 7):
        page.viewer.show(several(tiny_trace, count))
        page.push()
        assert height(page) == second
    for tab_ in page.root.get_by_role("tab").all():
        if tab_.is_visible():
            tab_.click()
            assert height(page) == second


def host_of(page: Any, traces: dict[str, Trace]) -> Any:
    """The same page with other films."""
    page.page.keyboard.press("Escape")
    page.viewer.tell(error="", notes=[])
    page.viewer.show(traces)
    page.push()
    page.settle()
    return page


def test_places_are_kept_for_what_is_to_come(host: Open, driven: None, tab: Any, tiny_trace: Trace) -> None:  # noqa: F811
    tab.page.set_viewport_size({"width": 848, "height": 599})
    viewer = Viewer()
    viewer.expect(["one", "two", "three"], steps=4, shape=1.5)
    page = host(viewer)
    within(page, 848)
    waiting, before = page.root.locator(".dx-wait"), height(page)
    assert waiting.count() == 3
    assert page.root.locator(".dx-name").all_inner_texts() == ["one", "two", "three"]
    places = [one.bounding_box() for one in waiting.locator("canvas").all()]
    page.viewer.show({"one": tiny_trace, "three": tiny_trace})  # the second was refused
    page.push()
    page.settle()
    assert height(page) == before
    assert page.root.locator(".dx-film").count() == 2
    assert waiting.locator(".dx-name").inner_text() == "two"
    shown = [one.bounding_box() for one in page.root.locator("figure canvas").all()]
    assert shown == places
    left = [page.root.locator(".dx-film").nth(k).bounding_box()["x"] for k in range(2)]
    assert left == pytest.approx([0, 2 * 856 / 3], abs=1)


@pytest.mark.parametrize("width", [420, 640])
def test_narrow_and_enlarged_by_half_it_is_all_there_with_nothing_beside_the_page(
    host: Open, tab: Any, tiny_trace: Trace, width: int
) -> None:
    tab.page.set_viewport_size({"width": width, "height": 800})
    page = host(Replay(tiny_trace))
    within(page, width)
    order = {}
    for name, selector in (("time", ".dx-timeline"), ("tabs", ".dx-tabs"), ("picture", ".dx-film")):
        order[name] = page.root.locator(selector).bounding_box()["y"]
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 420:
        assert page.root.locator(".dx-thumb").first.is_hidden(), "views are words"
        bottom = page.root.locator(".dx-timeline").bounding_box()
        assert bottom["y"] + bottom["height"] <= 800, "the timeline sticks to the bottom"
    else:
        assert order["picture"] < order["time"] < order["tabs"], "tabs go under the timeline"
    for name in ("Latents", "Noise", "Guidance", "Change", "Estimate"):
        look_at(page, name)
    page.viewer.show(several(tiny_trace, 6))
    page.push()
    page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    page.root.get_by_role("tab", name="Numbers").click()
    page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_exported_page_is_good_on_a_phone(tab: Any, tiny_trace: Trace, tmp_path: Path) -> None:
    tab.page.set_viewport_size({"width": 420, "height": 800})
    for name, source in (("one", tiny_trace), ("six", several(tiny_trace, 6))):
        to_html(source, tmp_path / f"{name}.html")
        tab.page.goto((tmp_path / f"{name}.html").as_uri())
        tab.page.get_by_label("step", exact=True).fill("2")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 420
        assert tab.page.locator(".dx-timeline").bounding_box()["y"] < 800


def test_where_a_label_is_cut_its_number_stays_and_all_of_a_line_is_there_for_the_keyboard(
    host: Open, tab: Any, tiny_trace: Trace
) -> None:
    tab.page.set_viewport_size({"width": 592, "height": 600})
    page = host(Viewer())
    within(page, 592)
    labels = [f"the guidance of this column is {k}" for k in range(1, 7)]
    page.viewer.show({**dict.fromkeys(labels[:5], tiny_trace), labels[5]: tiny_trace})
    page.push()
    page.settle()
    for name, label in zip(page.root.locator(".dx-name").all(), labels, strict=True):
        assert name.text_content() == label
        whole, shown = name.bounding_box(), name.evaluate(NUMBER)
        assert shown["left"] >= whole["x"], "what is cut is before the number"
        assert shown["right"] <= whole["x"] + whole["width"] + 0.5, "the number is in sight"
    status_, before = page.root.locator(".dx-status"), height(page)
    page.page.evaluate("document.querySelector('.dx-status').textContent = 'a long line of how it stands '.repeat(20)")
    hidden = "node => node.scrollHeight > node.clientHeight + 1"
    assert status_.evaluate(hidden)
    page.step.focus()
    while not status_.evaluate("node => node === document.activeElement"):
        page.page.keyboard.press("Tab")
    assert not status_.evaluate(hidden), "the keyboard brings all of it"
    assert height(page) == before


NUMBER = """node => {
    const range = document.createRange();
    range.selectNodeContents(node.lastChild);
    const { left, right } = range.getBoundingClientRect();
    return { left, right };
}"""


# --- views, enlarged pictures, keys ---


def test_the_views_are_live_pictures_of_the_step(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.step.fill("2")
    before = [picture(page, f".dx-views label:nth-of-type({k}) canvas") for k in range(1, 6)]
    page.step.fill("3")
    after = [picture(page, f".dx-views label:nth-of-type({k}) canvas") for k in range(1, 6)]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
    look_at(page, "Latents")
    page.settle()
    assert "latents" in page.root.locator(".dx-caption").inner_text()


def test_keys_choose_views_step_play_enlarge_and_come_back(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.root.locator(".dx-words").focus()
    keys = page.page.keyboard
    for key, name in (("2", "Latents"), ("5", "Change"), ("1", "Estimate")):
        keys.press(key)
        page.settle()
        assert page.root.get_by_role("radio", name=name).is_checked()
    for key, place in (("Home", "1"), ("ArrowRight", "2"), ("ArrowRight", "3"), ("ArrowLeft", "2"), ("End", "4")):
        keys.press(key)
        page.settle()
        assert page.step.input_value() == place
    with played(page.page):
        keys.press("Space")
    keys.press("Space")
    small = page.root.locator(".dx-film canvas").bounding_box()
    page.root.locator(".dx-film canvas").click()
    page.settle()
    large = page.root.locator(".dx-film canvas").bounding_box()
    assert large["width"] * large["height"] > 1.3 * small["width"] * small["height"]
    keys.press("Escape")
    page.settle()
    assert page.root.locator(".dx-film canvas").bounding_box() == small
    keys.press("e")
    page.settle()
    assert page.root.locator(".dx-film canvas").bounding_box() == large


def test_keys_work_beside_the_viewer_but_not_in_what_takes_text(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.page.evaluate(CONTROLS)
    page.settle()
    page.page.evaluate(IN_SIGHT)
    page.page.locator("#go").focus()
    page.page.keyboard.press("2")
    page.settle()
    assert page.root.get_by_role("radio", name="Latents").is_checked()
    page.page.locator("#prompt").focus()
    page.page.keyboard.type("1l 4")
    page.settle()
    assert page.root.get_by_role("radio", name="Latents").is_checked()
    assert page.page.locator("#prompt").input_value() == "1l 4"
    assert not page.page.locator("#live").is_checked()
    page.page.keyboard.press("Control+Enter")
    assert page.page.evaluate("window.went") == 1
    page.page.locator("#go").focus()
    page.page.keyboard.press("l")
    assert page.page.locator("#live").is_checked()


# An Explorer's controls in short: what ipywidgets makes of them.
CONTROLS = """() => {
    const room = document.getElementById('views');
    const row = document.createElement('div');
    row.className = 'dx-row';
    for (const [tag, id, more] of [['input', 'prompt', { type: 'text' }], ['button', 'go', { className: 'dx-run' }],
                                   ['input', 'live', { type: 'checkbox' }]]) {
        const cell = document.createElement('div');
        const node = Object.assign(document.createElement(tag), { id, ariaLabel: id }, more);
        if (id === 'live') cell.className = 'dx-live';
        cell.append(node);
        row.append(cell);
    }
    document.body.append(Object.assign(document.createElement('div'), { className: 'dx-app', id: 'app' }));
    document.getElementById('app').append(row, room);
    window.went = 0;
    document.getElementById('go').addEventListener('click', () => (window.went += 1));
    window.closers[0]();
    room.replaceChildren();
    add_view();
}"""


# A viewer finds its neighbours when it comes into sight; who is told of that later is told after it.
IN_SIGHT = """() => new Promise((done) => {
    const seen = new IntersectionObserver(() => { seen.disconnect(); done(); });
    seen.observe(document.querySelector('.dx-viewer'));
})"""


# --- truth ---

# What is said of the truth from now on, one after the other.
TOLD = """() => {
    const truth = document.querySelector('.dx-truth');
    const said = () => `${truth.dataset.state}: ${truth.textContent}`;
    let last = said();
    window.told = [];
    new MutationObserver(() => {
        if (said() !== last) told.push((last = said()));
    }).observe(truth, { attributeFilter: ['data-state'], childList: true, characterData: true, subtree: true });
}"""


def test_a_hand_on_the_controls_makes_the_picture_stale_until_the_kernel_says_otherwise(
    host: Open, tiny_trace: Trace
) -> None:
    viewer = Replay(tiny_trace)
    viewer.truth = {"state": "match", "text": "picture matches the controls"}
    page = host(viewer)
    page.page.evaluate(CONTROLS)
    truth = page.root.locator(".dx-truth")
    page.settle()
    page.page.evaluate(IN_SIGHT)
    page.page.evaluate(TOLD)
    assert (truth.inner_text(), truth.get_attribute("data-state")) == ("picture matches the controls", "match")
    page.step.fill("2")
    page.settle()
    assert truth.get_attribute("data-state") == "match", "the scrubber is no setting"
    page.lose = lambda content: content["kind"] == "here"
    page.page.locator("#prompt").fill("a fox")
    page.settle()
    assert [content["kind"] for content in page.heard][-1] == "ping"
    truth.filter(has_text="the kernel is busy").wait_for()
    assert page.page.evaluate("told") == [
        "stale: settings changed: Run",
        "busy: the kernel is busy: it does not answer",
    ]
    page.lose = lambda content: False
    page.viewer._on_message(page.viewer, {"kind": "ping"}, [])
    page.viewer._turn()
    truth.filter(has_text="settings changed: Run").wait_for()
    page.viewer.truth = {"state": "match", "text": "picture matches the controls", "count": 2}
    page.push()
    page.settle()
    assert truth.get_attribute("data-state") == "match"
    page.page.locator("#live").check()
    page.settle()  # the field that is left says once more what was typed into it
    page.page.evaluate("void (told.length = 0)")
    page.page.locator("#prompt").fill("a dog")
    page.settle()
    told = page.page.evaluate("told")
    assert not [one for one in told if one.startswith("stale")], "with live on, the run that follows says it"


def test_a_hand_between_the_truth_and_the_answer_is_asked_for_anew(host: Open, tiny_trace: Trace) -> None:
    """The kernel says what is true, and some time later that it listens. What a hand did in between may have changed
    nothing in the kernel, which then has nothing more to say by itself.
    """
    viewer = Replay(tiny_trace)
    viewer.truth = matches = {"state": "match", "text": "picture matches the controls"}
    page = host(viewer)
    page.page.evaluate(CONTROLS)
    truth = page.root.locator(".dx-truth")
    page.settle()
    page.page.evaluate(IN_SIGHT)

    def pings() -> int:
        return sum(content["kind"] == "ping" for content in page.heard)

    def answered(count: int) -> None:
        viewer.truth = matches | {"answers": count}
        page.push()
        page.settle()

    page.page.locator("#prompt").fill("a fox")
    page.settle()
    assert pings() == 1
    answered(1)
    assert truth.get_attribute("data-state") == "match"
    page.page.locator("#prompt").fill("a cat")
    page.settle()
    assert (truth.get_attribute("data-state"), pings()) == ("stale", 1), "one question at a time"
    viewer.send({"kind": HERE})
    page.settle()
    assert pings() == 2, "what was answered was asked before the hand"
    answered(2)
    assert truth.get_attribute("data-state") == "match"
    viewer.send({"kind": HERE})
    page.settle()
    assert pings() == 2


def test_what_the_next_run_will_take_stands_there_until_the_picture_matches(host: Open, tiny_trace: Trace) -> None:
    viewer = Replay(tiny_trace)
    viewer.truth = {"state": "stale", "text": "settings changed: Run"}
    viewer.expect(steps=4, cost="about 1.2 s, 80 calls")
    page = host(viewer)
    page.settle()
    first, due, status = height(page), page.root.locator(".dx-due"), page.root.locator(".dx-status")
    place = status.bounding_box()
    assert due.inner_text() == "about 1.2 s, 80 calls"
    box, foot = due.bounding_box(), page.root.locator(".dx-foot").bounding_box()
    assert foot["x"] <= box["x"]
    assert box["x"] + box["width"] <= foot["x"] + foot["width"] + 1
    assert box["height"] < 20
    for change in ({"cost": "about 1.3 s, 82 calls"}, {"cost": ""}):
        page.viewer.expect(steps=4, **change)
        page.push()
        page.settle()
        assert (due.text_content() if due.is_visible() else "") == change["cost"]
        assert (height(page), status.bounding_box()) == (first, place)
    page.viewer.expect(steps=4, cost="about 1.2 s, 80 calls")
    page.viewer.truth = {"state": "match", "text": "picture matches the controls"}
    page.push()
    page.settle()
    assert not due.is_visible()
    assert (height(page), status.bounding_box()) == (first, place)


def test_what_runs_took_is_said_in_calls_of_the_network(host: Open, tiny_model: Any, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.settle()
    assert re.fullmatch(
        r"4 steps = 8 calls · [\d.]+ m?s · [\d.]+ m?s a step", page.root.locator(".dx-status").inner_text()
    )
    alone = tiny_model.trace(tiny_trace.settings.replace(guidance=1.0))
    page.viewer.show({"g 5": tiny_trace, "g 1": alone})
    page.push()
    page.settle()
    assert page.root.locator(".dx-status").inner_text().startswith("2 runs · 12 calls · ")
    assert page.root.locator(".dx-about").inner_text() == "same starting noise ✓"


def test_the_lines_behind_the_track_end_where_it_does(tab: Any, tmp_path: Path, tiny_trace: Trace) -> None:
    page = tmp_path / "run.html"
    to_html(tiny_trace, page)
    tab.page.goto(page.as_uri())
    for width in (420, 848, 1280):
        tab.page.set_viewport_size({"width": width, "height": 720})
        until(tab.page, lambda: lines_end_with_the_track(tab.page))


def lines_end_with_the_track(page: Any) -> None:
    track = page.locator(".dx-chart").bounding_box()
    lines = page.locator(".dx-axis i").all()
    assert len(lines) >= 2
    for line in lines:
        box = line.bounding_box()
        assert (box["x"], box["width"]) == pytest.approx((track["x"], track["width"]), abs=0.5)


def test_a_branch_makes_no_page_higher_and_no_flag_covers_another_or_the_track(host: Open, tiny_model: Any) -> None:
    words = {"prompt": "a very blue car in the desert"}
    marked = tiny_model.trace(prompt="a red fox", steps=8, seed=3, changes={0.9: words, 0.8: {"guidance": 1.0}})
    page = host(Replay(marked))
    within(page, 848)
    one = height(page)
    page.viewer.show({"parent": marked, "branch": marked})
    page.push()
    assert height(page) == one
    flags = [flag.bounding_box() for flag in page.root.locator(".dx-flag").all()]
    assert len(flags) >= 2
    track, strips = page.root.locator(".dx-chart").bounding_box(), page.root.locator(".dx-strips").bounding_box()
    for flag in flags:
        assert strips["y"] + strips["height"] <= flag["y"] + 1
        assert flag["y"] + flag["height"] <= track["y"] + 1
    lefts = sorted({round(flag["x"]): flag for flag in flags}.items())
    for (_, flag), (left, _) in itertools.pairwise(lefts):
        assert flag["x"] + flag["width"] <= left + 1


# --- maps, parting, the whole screen ---


def test_guidance_and_change_may_be_maps_of_how_strong(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    switch = page.root.get_by_role("button", name="strength")
    assert switch.is_hidden()
    look_at(page, "Guidance")
    page.page.add_style_tag(content=SMALL)
    page.step.fill("2")
    colours = picture(page, ".dx-film canvas")
    switch.click()
    strong = picture(page, ".dx-film canvas")
    signed = np.asarray(tiny_trace.view("guidance", 1)).astype(float) / 255 - 0.5
    np.testing.assert_allclose(colours, np.asarray(tiny_trace.view("guidance", 1)), atol=0)
    size = np.sqrt((np.sinh(2 * signed * np.arcsinh(50)) ** 2).mean(axis=-1))
    light = strong @ np.array([0.2126, 0.7152, 0.0722])
    order = np.argsort(size.ravel())
    assert (np.diff(light.ravel()[order]) >= -2).all(), "the stronger the brighter"
    assert "How strong" in page.root.locator(".dx-caption").inner_text()
    look_at(page, "Change")
    page.settle()
    assert switch.get_attribute("aria-pressed") == "false", "each view for itself"


def test_where_films_part_is_read_from_their_pictures(host: Open, tiny_model: Any, tiny_trace: Trace) -> None:
    other = tiny_model.trace(tiny_trace.settings.replace(seed=4))
    page = host(Replay({"one": tiny_trace, "two": other, "same": tiny_trace}))
    page.root.get_by_role("tab", name="Where they part").click()
    page.step.fill("2")
    parted = page.root.locator(".dx-parted").filter(has_text="At step 2: two ")
    parted.wait_for()
    said = parted.inner_text()
    a, b = (np.asarray(trace.view("x0", 1)).astype(float) / 255 for trace in (tiny_trace, other))
    found = re.search(r"At step 2: two ([\d.]+), same 0\.", said)
    assert found is not None, said
    assert float(found[1]) == pytest.approx(np.sqrt(((a - b) ** 2).mean()), rel=0.1)
    page.page.keyboard.press("Escape")
    page.settle()
    assert page.root.locator(".dx-parted").is_hidden()


def wide(part: Any, width: float) -> None:
    assert part.bounding_box()["width"] == pytest.approx(width, abs=1)


def test_the_whole_screen_is_for_a_room_and_escape_leaves_it(host: Open, tab: Any, tiny_trace: Trace) -> None:
    tab.page.set_viewport_size({"width": 1280, "height": 720})
    page = host(Replay(tiny_trace))
    within(page, 848)
    page.root.get_by_role("button", name="whole screen").click()
    page.settle()
    page.page.wait_for_function("() => document.fullscreenElement")
    until(page.page, lambda: wide(page.root.locator(".dx-film canvas"), 480))
    assert page.root.locator(".dx-thumb:visible").count() == 4
    assert page.root.locator(".dx-thumb:visible").first.bounding_box()["width"] == pytest.approx(200, abs=1)
    size = "node => parseFloat(getComputedStyle(node).fontSize)"
    assert page.root.locator(".dx-count b").evaluate(size) == 72
    assert page.root.locator(".dx-status").evaluate(size) == 20
    box = page.root.locator(".dx-status").bounding_box()
    assert box["y"] + box["height"] <= 720
    page.page.evaluate("document.exitFullscreen()")
    page.page.wait_for_function("() => !document.querySelector('.dx-projected')")
    # Where a browser refuses, it covers the page instead.
    page.page.evaluate("void (Element.prototype.requestFullscreen = () => Promise.reject(new Error('no')))")
    page.root.locator(".dx-words").focus()
    page.page.keyboard.press("f")
    page.settle()
    assert page.root.bounding_box()["width"] >= 1240
    page.page.keyboard.press("Escape")
    page.settle()
    assert page.root.bounding_box()["width"] <= 850


# --- pictures to look at ---


def test_pictures_of_it_to_look_at(host: Open, tab: Any, tiny_trace: Trace) -> None:
    SHOTS.mkdir(exist_ok=True)
    tab.page.set_viewport_size({"width": 848, "height": 599})
    page = host(Replay(tiny_trace))
    within(page, 848)
    for count in (1, 2, 4, 6):
        page.viewer.show(several(tiny_trace, count) if count > 1 else tiny_trace)
        page.push()
        page.settle()
        tab.page.screenshot(path=SHOTS / f"screen-{count}.png")
        with Image.open(SHOTS / f"screen-{count}.png") as shot:
            assert len(shot.convert("RGB").getcolors(2**24)) > 1000
