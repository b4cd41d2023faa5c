"""The viewer in a real browser, without Jupyter: a page of a few lines hosts the shipped module, unchanged, with the
real Python viewer on the other end of the wire and the test in the middle of it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffexplore.trace import Trace
from diffexplore.widgets.film import Film, pack, to_html
from diffexplore.widgets.viewer import Feed, Replay, Viewer

Open = Callable[[Viewer], Any]


def growing(trace: Trace) -> Trace:
    return Trace(trace.settings, decode=trace.decode, matrix=trace.matrix, info=trace.info)


def grow(trace: Trace, whole: Trace, upto: int | None = None) -> None:
    for i in range(len(trace), len(whole) if upto is None else upto):
        trace.append(whole[i])
    if len(trace) == len(whole):
        trace.image = whole.image


def turn(host: Any, condition: Callable[[], bool], seconds: float = 10) -> None:
    """Let the kernel's side do its work until `condition`; Playwright hears the page in between."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the wire never got there"
        host.viewer._turn()
        host.page.wait_for_timeout(10)


def finish(host: Any, feed: Feed) -> None:
    host.viewer.end(feed, "done")
    turn(host, feed.complete.is_set)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test drives the viewer itself; no thread may call Playwright."""
    monkeypatch.setattr(Viewer, "wake", lambda self: None)


# --- a finished run ---


def test_the_shown_step_is_the_frame_of_that_step(host: Open, tiny_trace: Trace) -> None:
    """Pixel for pixel: at the frame's own size nothing is resampled."""
    page = host(Replay(tiny_trace))
    page.page.add_style_tag(content=".dx-viewer .dx-screen canvas { width: 48px !important; }")
    for step in (1, 3, 4):
        page.step.fill(str(step))
        shown = np.asarray(Image.open(io.BytesIO(page.pixels())).convert("RGB"))
        np.testing.assert_array_equal(shown, np.asarray(tiny_trace.view("x0", step - 1)))
    page.root.get_by_role("radio", name="Latents").check()
    shown = np.asarray(Image.open(io.BytesIO(page.pixels())).convert("RGB"))
    np.testing.assert_array_equal(shown, np.asarray(tiny_trace.view("latents", 3)))  # plain squares, not blurred


def test_scrubbing_switching_and_playing_send_nothing_and_are_quick(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(dict.fromkeys(("one", "two", "three", "four"), tiny_trace)))
    page.settle()
    before = len(page.heard)
    took = page.page.evaluate(
        """async () => {
            const root = document.querySelector('.dx-viewer');
            const range = root.querySelector('input[type=range]');
            const radios = [...root.querySelectorAll('input[type=radio]')];
            // What the page's own thread spends on a move: in the event handler, and in the frame it asked for.
            // How long the machine then takes to put the frame on a screen is not the viewer's.
            let spent = 0;
            const timed = (f) => (...args) => {
                const start = performance.now();
                f(...args);
                spent += performance.now() - start;
            };
            const frame = window.requestAnimationFrame;
            window.requestAnimationFrame = (f) => frame(timed(f));
            const times = [];
            const act = async (f) => {
                spent = 0;
                timed(f)();
                await new Promise(frame); // asked for after the viewer asked, so it comes after its drawing
                times.push(spent);
            };
            for (const radio of radios) { radio.click(); await settle(); } // decoded once
            for (let k = 0; k < 300; k++)
                await act(() => {
                    range.value = 1 + (k * 7) % 4;
                    range.dispatchEvent(new Event('input', { bubbles: true }));
                });
            for (let k = 0; k < 20; k++) await act(() => radios[k % radios.length].click());
            return times.sort((a, b) => a - b)[times.length >> 1];
        }"""
    )
    page.root.get_by_role("button", name="play").click()
    page.root.get_by_role("button", name="pause").wait_for()
    page.root.get_by_role("button", name="play").wait_for()  # it stops by itself at the end
    assert page.step.input_value() == "4"
    assert page.heard[before:] == []
    assert page.page.evaluate("window.written") == []
    print(f"median {took:.2f} ms a move")
    assert took < 16


def test_the_status_says_where_you_are(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.step.fill("2")
    page.settle()
    step = tiny_trace[1]
    text = page.root.inner_text()
    assert "step 2 of 4" in " ".join(text.split())
    assert str(round(step.timestep)) in text
    assert page.step.get_attribute("aria-valuetext").startswith(f"step 2 of 4, timestep {step.timestep:.0f}, sigma ")
    assert "4 steps in" in text
    assert (
        "\u201ca red fox\u201d \u00b7 without \u201cblurry\u201d \u00b7 4 steps \u00b7 guidance 5 "
        "\u00b7 seed 3 \u00b7 DDIM" in text
    )


def test_where_there_is_nothing_to_see_it_says_why(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.root.get_by_role("radio", name="Change").check()
    page.step.fill("1")
    page.root.get_by_text("This is the first evaluation").wait_for()
    page.step.fill("2")
    page.root.get_by_text("This is the first evaluation").wait_for(state="hidden")


def test_runs_of_different_lengths_keep_step_on_one_timeline(host: Open, tiny_model: Any, tiny_trace: Trace) -> None:
    longer = tiny_model.trace(tiny_trace.settings.replace(steps=7))
    page = host(Replay({"short": tiny_trace, "long": longer}))
    captions = page.root.locator(".dx-film figcaption")
    for place, expected in (
        ("1", ["short: step 1 of 4", "long: step 1 of 7"]),
        ("4", ["short: step 3 of 4", "long: step 4 of 7"]),
    ):
        page.step.fill(place)
        page.settle()
        assert captions.all_inner_texts() == expected
    assert page.step.get_attribute("max") == "7"


def test_two_views_of_one_widget_stay_in_step(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    second = page.add_view()
    page.step.fill("2")
    page.root.get_by_role("radio", name="Noise").check()
    page.settle()
    assert second.get_by_label("step", exact=True).input_value() == "2"
    assert second.get_by_role("radio", name="Noise").is_checked()
    page.page.evaluate("closers[0]()")
    assert page.page.locator(".dx-viewer").count() == 1
    page.page.locator(".dx-viewer").get_by_label("step", exact=True).fill("3")


def test_python_may_say_what_to_look_at(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace, view="guidance"))
    assert page.root.get_by_role("radio", name="Guidance").is_checked()
    page.viewer.view, page.viewer.step = "latents", 1
    page.settle()
    assert page.root.get_by_role("radio", name="Latents").is_checked()
    assert page.step.input_value() == "2"


# --- keys ---


def test_the_scrubber_hears_its_keys_and_the_notebook_hears_none_of_them(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.step.focus()
    keys = page.page.keyboard
    for key, place in (
        ("Home", "1"),
        ("ArrowRight", "2"),
        (".", "3"),
        (",", "2"),
        ("ArrowLeft", "1"),
        ("End", "4"),
        ("PageDown", "3"),
        ("PageUp", "4"),
    ):
        keys.press(key)
        page.settle()
        assert page.step.input_value() == place, key
    keys.press("Space")
    page.root.get_by_role("button", name="pause").wait_for()
    keys.press("Space")
    page.root.get_by_role("button", name="play").wait_for()
    for key in ("x", "b", "d", "Shift+Enter", "Escape"):
        keys.press(key)
    assert page.page.evaluate("window.keys") == []
    keys.press("Control+s")
    assert page.page.evaluate("window.keys") == ["Control", "s"][1:] or page.page.evaluate("window.keys") == [
        "Control",
        "s",
    ]


# --- a run that is going
# ------------------------------------------------------------------------------------------------------------------


def test_it_fills_while_the_run_goes(host: Open, driven: None, tiny_trace: Trace) -> None:
    page = host(Viewer())
    assert page.root.get_by_text("No run yet.").is_visible()
    trace = growing(tiny_trace)
    feed = page.viewer.feed([trace])
    seen = set()
    for upto in (1, 2, 3, 4):
        grow(trace, tiny_trace, upto)
        turn(page, lambda upto=upto: page.root.get_by_text(f"running: {upto} of 4 steps").is_visible())
        assert page.step.input_value() == str(upto), "the playhead follows the run"
        assert page.step.get_attribute("max") == "4"
        seen.add(page.pixels())
    assert len(seen) == 4
    finish(page, feed)
    page.root.get_by_text("4 steps").first.wait_for()
    assert page.pixels() not in seen, "the last estimate is now decoded"
    assert len([content for content in page.heard if content["kind"] == "ack"]) == len(
        [c for c in page.sent if c["kind"] == "piece"]
    )


def test_the_playhead_stays_where_it_was_put_while_the_run_goes_on(host: Open, driven: None, tiny_trace: Trace) -> None:
    page = host(Viewer())
    trace = growing(tiny_trace)
    feed = page.viewer.feed([trace])
    grow(trace, tiny_trace, 3)
    turn(page, lambda: page.step.input_value() == "3")
    page.step.fill("2")
    grow(trace, tiny_trace)
    finish(page, feed)
    page.settle()
    assert page.step.input_value() == "2"


def test_lost_messages_are_asked_for_again(host: Open, driven: None, tiny_trace: Trace) -> None:
    page = host(Viewer())
    lost: list[int] = []

    def lose(content: dict[str, Any]) -> bool:
        """Every second piece, the first time."""
        first_time = content["kind"] == "piece" and content["piece"] % 2 == 0 and content["piece"] not in lost
        lost.extend([content["piece"]] if first_time else [])
        return first_time

    page.lose = lose
    trace = growing(tiny_trace)
    feed = page.viewer.feed([trace])
    for upto in (1, 2, 3):
        grow(trace, tiny_trace, upto)
        before = len(feed.pieces)
        turn(page, lambda before=before: len(feed.pieces) > before)
    turn(page, lambda: page.step.input_value() == "3" and not feed.again and not feed.flying)
    assert lost
    asked = {piece for content in page.heard if content["kind"] == "again" for piece in content["pieces"]}
    assert asked >= set(lost[:-1])
    page.step.fill("1")
    assert page.page.evaluate("document.querySelector('.dx-screen canvas').width") > 1
    filled = page.pixels(".dx-strip")
    page.lose = lambda content: False
    finish(page, feed)
    assert page.pixels(".dx-strip") != filled


def test_a_page_opened_in_the_middle_of_a_run_catches_up(host: Open, driven: None, tiny_trace: Trace) -> None:
    viewer = Viewer()
    viewer.send = lambda content, buffers=None: None  # nobody there yet
    trace = growing(tiny_trace)
    feed = viewer.feed([trace])
    grow(trace, tiny_trace, 2)
    for _ in range(30):
        viewer._turn()
        time.sleep(0.01)
    assert feed.pieces
    page = host(viewer)
    turn(page, lambda: page.step.input_value() == "2")
    grow(trace, tiny_trace)
    finish(page, feed)
    assert page.step.input_value() == "4"


def test_the_newest_run_wins_and_what_was_shown_stays_until_it_has_something(
    host: Open, driven: None, tiny_trace: Trace
) -> None:
    page = host(Viewer())
    page.viewer.show(tiny_trace)
    shown = page.pixels()
    first, second = growing(tiny_trace), growing(tiny_trace)
    old = page.viewer.feed([first])
    page.viewer._turn()
    assert page.pixels() == shown
    grow(first, tiny_trace, 2)
    turn(page, lambda: page.root.get_by_text("running: 2 of 4 steps").is_visible())
    late = next(content for content in page.sent if content["kind"] == "piece")
    new = page.viewer.feed([second])
    grow(second, tiny_trace, 1)
    turn(page, lambda: page.root.get_by_text("running: 1 of 4 steps").is_visible())
    assert page.root.get_by_text("result before").is_visible()
    page.page.evaluate("content => deliver(content, content.shots.map(() => ''))", late)
    page.settle()
    assert page.root.get_by_text("running: 1 of 4 steps").is_visible()
    page.viewer.end(old, "cancelled")
    grow(second, tiny_trace)
    finish(page, new)
    assert page.pixels() == shown


def test_a_kernel_that_falls_silent_is_noticed(host: Open, driven: None, tiny_trace: Trace) -> None:
    page = host(Viewer())
    trace = growing(tiny_trace)
    page.viewer.feed([trace])
    grow(trace, tiny_trace, 2)
    turn(page, lambda: page.root.get_by_text("running: 2 of 4 steps").is_visible())
    page.root.get_by_text("The kernel does not answer").wait_for(timeout=15_000)
    assert page.heard[-1]["kind"] == "hello"
    page.viewer._on_message(page.viewer, page.heard[-1], [])
    page.viewer._turn()
    page.root.get_by_text("The kernel does not answer").wait_for(state="hidden")


# --- what must not happen
# -----------------------------------------------------------------------------------------------------------------

EVIL = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>\u202e$x$ javascript:window.pwned=1"


def test_text_is_text_wherever_it_comes_from(host: Open, tiny_trace: Trace) -> None:
    settings = tiny_trace.settings.replace(prompt=EVIL, negative_prompt=EVIL)
    trace = Trace(settings, list(tiny_trace), image=tiny_trace.image, matrix=tiny_trace.matrix, info={"model": EVIL})
    page = host(Replay({EVIL: trace, "b": trace}))
    page.viewer.tell(notes=[EVIL, "x" * 200_000], error=EVIL)
    page.settle()
    assert page.root.locator("img, script").count() == 0
    assert page.page.evaluate("window.pwned") is None
    assert page.root.get_by_role("alert").inner_text() == EVIL
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_fault_shows_itself_in_place_of_an_empty_cell(host: Open, tab: Any, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.page.evaluate("window.ResizeObserver = undefined")
    broken = page.add_view()
    broken.get_by_text("The viewer could not start").wait_for()
    assert "ResizeObserver" in tab.errors.pop()


def test_torn_state_is_not_shown(host: Open, tiny_trace: Trace) -> None:
    page = host(Viewer())
    document, _ = pack([Film.of(tiny_trace)])
    page.page.evaluate("([film]) => set_traits({ _film: film }, 'AAAA')", [document])
    page.settle()
    assert page.root.get_by_text("No run yet.").is_visible()
    page.viewer.show(tiny_trace)
    page.settle()
    assert page.step.input_value() == "4"


# --- looks ---


@pytest.mark.parametrize("width", [320, 480, 700, 1400])
def test_it_fits_any_width(host: Open, tab: Any, tiny_trace: Trace, width: int) -> None:
    tab.page.set_viewport_size({"width": width, "height": 900})
    page = host(Replay(tiny_trace))
    page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.page.evaluate(
        """() => {
            const root = document.querySelector('.dx-viewer').getBoundingClientRect();
            const parts = 'label:not(.dx-hidden), button, canvas, input[type=range], p, dd';
            return [...document.querySelectorAll(`.dx-viewer :is(${parts})`)]
                .filter(node => node.checkVisibility() && node.getBoundingClientRect().right > root.right + 0.5)
                .map(node => node.outerHTML.slice(0, 80));
        }"""
    )
    assert cut == []


def test_the_thumb_stands_under_the_marked_picture(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    for place in range(1, 5):
        page.step.fill(str(place))
        page.settle()
        mark, track = page.root.locator(".dx-mark").bounding_box(), page.step.bounding_box()
        thumb = track["x"] + 8 + (track["width"] - 16) * (place - 1) / 3
        assert abs(mark["x"] + mark["width"] / 2 - thumb) < 1.5


@pytest.mark.parametrize(
    ("attributes", "scheme"),
    [
        ({"data-jp-theme-light": "false"}, "dark"),
        ({"data-jp-theme-light": "true"}, "light"),
        ({"class": "vscode-dark"}, "dark"),
    ],
)
def test_it_follows_the_hosts_theme(host: Open, tiny_trace: Trace, attributes: dict[str, str], scheme: str) -> None:
    page = host(Replay(tiny_trace))
    page.page.evaluate(
        "attributes => Object.entries(attributes).forEach(([k, v]) => document.body.setAttribute(k, v))", attributes
    )
    colours = page.root.evaluate(
        "root => ['colorScheme', 'backgroundColor', 'color'].map(name => getComputedStyle(root)[name])"
    )
    assert colours[0] == scheme
    bright = [sum(int(n) for n in colour[colour.index("(") + 1 : -1].split(",")[:3]) for colour in colours[1:]]
    assert (bright[0] < bright[1]) == (scheme == "dark")


# --- a page of its own
# --------------------------------------------------------------------------------------------------------------------


def test_an_exported_page_scrubs_alone(tab: Any, tiny_trace: Trace, tmp_path: Path) -> None:
    to_html({"first": tiny_trace, "second": tiny_trace}, tmp_path / "run.html", view="latents")
    tab.page.goto((tmp_path / "run.html").as_uri())
    step = tab.page.get_by_label("step", exact=True)
    step.fill("2")
    tab.page.locator(".dx-viewer").get_by_role("radio", name="Estimate").check()
    tab.page.get_by_role("button", name="play").click()
    tab.page.get_by_role("button", name="pause").wait_for()
    tab.page.get_by_role("button", name="play").wait_for()
    assert step.input_value() == "4"
    assert (
        tab.page.evaluate("document.querySelector('.dx-film canvas').getContext('2d').getImageData(9, 9, 1, 1).data[3]")
        == 255
    )
