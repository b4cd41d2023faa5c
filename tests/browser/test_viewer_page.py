"""The viewer in a real browser, without Jupyter: a page of a few lines hosts the shipped module, unchanged, with the
real Python viewer on the other end of the wire and the test in the middle of it."""

from __future__ import annotations

import base64
import io
import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import PATIENCE, wait
from PIL import Image

import diffexplore as dx
from diffexplore import read_recipe
from diffexplore.looks.curves import spectrum
from diffexplore.record.numbers import NUMBERS, Number, declare
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace
from diffexplore.widgets import browser
from diffexplore.widgets.feed import Feed
from diffexplore.widgets.film import Film, pack
from diffexplore.widgets.page import to_html
from diffexplore.widgets.viewer import Replay, Viewer

Open = Callable[[Viewer], Any]
# At a frame's own size nothing is resampled.
SMALL = ".dx-viewer.dx-viewer .dx-stage :is(.dx-screen, canvas) { width: 48px; max-width: none; }"


def growing(trace: Trace) -> Trace:
    """The beginning of a run that takes all cores: what is shown meanwhile is quick, whatever machine this is."""
    return Trace(trace.settings, decode=trace.decode, matrix=trace.matrix, info=trace.info | {"threads": 2})


def grow(trace: Trace, whole: Trace, upto: int | None = None) -> None:
    for i in range(len(trace), len(whole) if upto is None else upto):
        trace.append(whole[i])
    if len(trace) == len(whole):
        trace.image = whole.image


def turn(host: Any, condition: Callable[[], bool]) -> None:
    """Let the kernel's side do its work until `condition`; Playwright hears the page in between."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the wire never got there"
        host.viewer._turn()
        host.page.wait_for_timeout(10)


def status(host: Any, text: str) -> Any:
    """The line that says how things stand, while it says this."""
    return host.root.locator(".dx-status").filter(has_text=text)


def behind(host: Any, name: str) -> Any:
    """A button that is behind "more", which is opened."""
    button = host.root.get_by_role("button", name=name)
    if not button.is_visible():
        host.root.get_by_role("button", name="more", exact=True).click()
    return button


def look_at(host: Any, name: str) -> None:
    """Choose a view, by its picture or its symbol."""
    host.root.get_by_role("radio", name=name, exact=True).check()


@contextmanager
def played(page: Any) -> Iterator[None]:
    """That what is done here starts the playback, also where that is over before it is looked at."""
    page.evaluate(
        """() => {
            const button = document.querySelector('.dx-play');
            window.labels = [];
            const note = () => labels.push(button.ariaLabel);
            new MutationObserver(note).observe(button, { attributeFilter: ['aria-label'] });
        }"""
    )
    yield
    page.wait_for_function("() => labels.includes('pause')")


def finish(host: Any, feed: Feed) -> None:
    host.viewer.end(feed, "done")
    turn(host, feed.complete.is_set)


def large_trace(seed: int, steps: int = 12) -> Trace:
    """A run whose pictures are 256 x 256."""
    generator = torch.Generator().manual_seed(seed)
    picture = Image.effect_noise((256, 256), 60).convert("RGB")

    def step(i: int) -> Step:
        x, output = torch.randn(2, 4, 32, 32, generator=generator)
        b = (steps - i) / (steps + 1)
        return Step(
            index=i,
            timestep=990.0 - i,
            seconds=0.1,
            a=1 - b,
            b=b,
            kind="epsilon",
            latents=x,
            output=output,
            cond=output + 0.1 * x,
            uncond=output - 0.1 * x,
            guidance=0.5,
        )

    settings = Settings(prompt="noise", steps=steps, seed=seed, sampler="DDIM", width=256, height=256)
    return Trace(settings, [step(i) for i in range(steps)], image=picture, decode=lambda _: np.asarray(picture))


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test drives the viewer itself; no thread may call Playwright."""
    monkeypatch.setattr(Viewer, "wake", lambda self: None)


# --- a finished run ---


def test_the_shown_step_is_the_frame_of_that_step(host: Open, tiny_trace: Trace) -> None:
    """Pixel for pixel: at the frame's own size nothing is resampled."""
    page = host(Replay(tiny_trace))
    page.page.add_style_tag(content=SMALL)
    for step in (1, 3, 4):
        page.step.fill(str(step))
        shown = np.asarray(Image.open(io.BytesIO(page.pixels())).convert("RGB"))
        np.testing.assert_array_equal(shown, np.asarray(tiny_trace.view("x0", step - 1)))
    look_at(page, "Latents")
    shown = np.asarray(Image.open(io.BytesIO(page.pixels())).convert("RGB"))
    np.testing.assert_array_equal(shown, np.asarray(tiny_trace.view("latents", 3)))  # plain squares, not blurred


def test_scrubbing_switching_and_playing_send_nothing_and_are_quick(host: Open) -> None:
    """The bound of 16 ms, one frame of a screen, is for four films of 256 x 256; it is held against arithmetic that is
    done beside each move and takes 2 ms on a laptop, so that a slow machine has as many times longer."""
    page = host(Replay({f"seed {seed}": large_trace(seed) for seed in range(4)}))
    assert page.root.locator(".dx-film").count() == 4
    page.settle()
    before = len(page.heard)
    took, yard = page.page.evaluate(
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
            const times = [], yards = [];
            const yard = () => {
                let x = 0;
                const start = performance.now();
                for (let k = 0; k < 1e5; k++) x = Math.sin(x + k);
                return performance.now() - start + (x > 2); // it never is: but it has to be computed
            };
            const act = async (f) => {
                spent = 0;
                timed(f)();
                await new Promise(frame); // asked for after the viewer asked, so it comes after its drawing
                times.push(spent);
                yards.push(yard());
            };
            for (const radio of radios) { radio.click(); await settle(); } // decoded once
            for (let k = 0; k < 300; k++)
                await act(() => {
                    range.value = 1 + (k * 7) % 12;
                    range.dispatchEvent(new Event('input', { bubbles: true }));
                });
            for (let k = 0; k < 20; k++) await act(() => radios[k % radios.length].click());
            return [times, yards].map((all) => all.sort((a, b) => a - b)[all.length >> 1]);
        }"""
    )
    with played(page.page):
        page.root.get_by_role("button", name="play").click()
    page.root.get_by_role("button", name="play").wait_for()  # it stops by itself at the end
    assert page.step.input_value() == "12"
    assert page.heard[before:] == []
    assert page.page.evaluate("window.written") == []
    print(f"median {took:.2f} ms a move, {yard:.2f} ms the arithmetic beside it")
    assert took < 8 * yard


def test_the_status_says_where_you_are(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.step.fill("2")
    page.settle()
    step = tiny_trace[1]
    text = page.root.inner_text()
    assert "step 2 of 4" in " ".join(text.split())
    fact = page.root.locator(".dx-facts dl div", has_text="SNR").locator("dd")
    assert fact.inner_text() == f"{1 / step.sigma**2:.2g}"
    assert str(round(step.timestep)) in text
    assert page.step.get_attribute("aria-valuetext").startswith(f"step 2 of 4, timestep {step.timestep:.0f}, sigma ")
    assert re.search(r"4 steps = 8 calls · [\d.]+ m?s · [\d.]+ m?s a step", text)
    assert "without \u201cblurry\u201d \u00b7 4 steps \u00b7 guidance 5 \u00b7 seed 3 \u00b7 DDIM" in text
    assert page.root.locator(".dx-words li").all_inner_texts() == ["a", "red", "fox"]


def test_where_there_is_nothing_to_see_it_says_why(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    look_at(page, "Change")
    page.step.fill("1")
    page.root.get_by_text("This is the first evaluation").wait_for()
    page.step.fill("2")
    page.root.get_by_text("This is the first evaluation").wait_for(state="hidden")


def test_runs_of_different_lengths_stand_at_the_same_noise_level(
    host: Open, tiny_model: Any, tiny_trace: Trace
) -> None:
    longer = tiny_model.trace(tiny_trace.settings.replace(steps=7))
    page = host(Replay({"short": tiny_trace, "long": longer}))
    captions = page.root.locator(".dx-film figcaption")
    level = np.log(tiny_trace.curve("sigma"))
    for place in range(7):
        page.step.fill(str(place + 1))
        page.settle()
        nearest = int(np.argmin(np.abs(level - np.log(longer.curve("sigma")[place]))))
        short, long = (one.get_attribute("title") for one in captions.all())
        assert short.startswith(f"short: step {nearest + 1} of 4, after ")
        assert long.startswith(f"long: step {place + 1} of 7, after ")
        for caption, at in zip(captions.all(), (f"{nearest + 1}/4 · ", f"{place + 1}/7 · "), strict=True):
            assert caption.locator(".dx-told").inner_text().startswith(at)
    assert page.step.get_attribute("max") == "7"


def film_shown(page: Any, k: int) -> np.ndarray:
    """The pixels of the large picture of film k."""
    pixels = page.pixels(f".dx-film:nth-of-type({k + 1}) canvas")
    return np.asarray(Image.open(io.BytesIO(pixels)).convert("RGB"))


def test_the_difference_from_a_film_is_drawn_four_times_as_strong(
    host: Open, tiny_model: Any, tiny_trace: Trace
) -> None:
    other = tiny_model.trace(tiny_trace.settings.replace(seed=4))
    page = host(Replay({"one": tiny_trace, "two": other, "same": tiny_trace}))
    page.page.add_style_tag(content=SMALL)
    page.step.fill("3")
    page.settle()
    before = len(page.heard)

    first, second = (np.asarray(trace.view("x0", 2)).astype(int) for trace in (tiny_trace, other))
    np.testing.assert_array_equal(film_shown(page, 1), second)
    assert page.root.get_by_role("button", name="pin").first.get_attribute("aria-pressed") == "true"
    look_at(page, "Difference")
    np.testing.assert_array_equal(film_shown(page, 0), first)
    np.testing.assert_allclose(film_shown(page, 1), np.minimum(4 * abs(first - second), 255), atol=4)
    assert not film_shown(page, 2).any(), "black is equal"
    assert "Difference from one, four times as strong: black is equal." in page.root.locator(".dx-caption").inner_text()
    label = page.root.locator(".dx-film canvas").nth(1).get_attribute("aria-label")
    assert label == "difference from one: Estimate at step 3 of 4, two"
    page.root.get_by_role("button", name="pin").nth(1).click()
    np.testing.assert_array_equal(film_shown(page, 1), second)
    np.testing.assert_allclose(film_shown(page, 0), np.minimum(4 * abs(first - second), 255), atol=4)
    look_at(page, "Side")
    np.testing.assert_array_equal(film_shown(page, 0), first)
    assert page.heard[before:] == []


def test_a_swipe_lays_one_column_over_the_others(host: Open, tiny_model: Any, tiny_trace: Trace) -> None:
    other = tiny_model.trace(tiny_trace.settings.replace(seed=4))
    page = host(Replay({"one": tiny_trace, "two": other}))
    page.step.fill("3")
    page.settle()
    before = len(page.heard)

    swipe = page.root.get_by_label("swipe, two")
    assert swipe.count() == 0
    one, two = film_shown(page, 0), film_shown(page, 1)
    look_at(page, "Swipe")
    page.settle()
    assert "On the left: one." in page.root.locator(".dx-caption").inner_text()
    for where in (25, 75, 100, 0):
        swipe.fill(str(where))
        at = two.shape[1] * where // 100
        np.testing.assert_array_equal(film_shown(page, 1)[:, : max(at - 1, 0)], one[:, : max(at - 1, 0)])
        np.testing.assert_array_equal(film_shown(page, 1)[:, at + 1 :], two[:, at + 1 :])
        np.testing.assert_array_equal(film_shown(page, 0), one)
    swipe.press("ArrowRight")
    page.settle()
    assert swipe.input_value() == "1"
    box = swipe.bounding_box()
    page.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"], steps=5)
    page.page.mouse.up()
    page.settle()
    assert float(swipe.input_value()) == pytest.approx(60, abs=1), "it is dragged on the picture"
    assert page.root.locator(".dx-large").count() == 0
    look_at(page, "Difference")
    page.settle()
    assert swipe.count() == 0
    assert page.heard[before:] == []


def test_settings_that_differ_and_twins_are_said_as_text(host: Open, tiny_model: Any, tiny_trace: Trace) -> None:
    other = tiny_model.trace(tiny_trace.settings.replace(prompt="<b>fox</b>", seed=4))
    page = host(Replay({"one": tiny_trace, "two": other, "same": tiny_trace}))
    page.settle()
    page.root.get_by_role("tab", name="What differs").click()
    rows = page.root.locator(".dx-differ tr")
    assert [row.locator("th, td").all_inner_texts() for row in rows.all()] == [
        ["setting", "one", "two", "same"],
        ["prompt", tiny_trace.settings.prompt, "<b>fox</b>", tiny_trace.settings.prompt],
        ["seed", "3", "4", "3"],
    ]
    assert page.root.locator(".dx-about").inner_text() == "one and same are identical to the bit."
    page.viewer.show(tiny_trace)
    page.settle()
    assert rows.count() == 0
    assert page.root.get_by_role("radio", name="Swipe").is_hidden()
    assert "identical" not in page.root.inner_text()


def test_two_views_of_one_widget_stay_in_step(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    second = page.add_view()
    page.step.fill("2")
    look_at(page, "Noise")
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


# --- the timeline: its track, its pace, what stands under the pointer ---


def track(page: Any) -> list[float]:
    """How high the area is over each step, from 0 to 1."""
    page.settle()
    path = page.root.locator(".dx-chart i").first.evaluate("area => area.style.clipPath")
    points = [point.split() for point in path.removeprefix("polygon(").removesuffix(")").split(", ")]
    return [1 - float(y.rstrip("%")) / 96 for _, y in points[:-2]]


def test_the_track_is_a_chart_of_the_noise_level_or_of_the_change(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.settle()
    sigma = np.log10(tiny_trace.curve("sigma"))
    expected = (sigma - sigma.min()) / (sigma.max() - sigma.min())
    np.testing.assert_allclose(track(page), expected, atol=0.01)
    menu = page.root.get_by_label("the track shows")
    menu.select_option("change of x\u2080")
    change = tiny_trace.curve("change")[1:]  # the first step has none
    np.testing.assert_allclose(track(page), change / change.max(), atol=0.01)
    assert menu.locator("option", has_text="adherence").is_hidden(), "nobody can judge this model's pictures"
    assert page.root.get_by_text("adherence", exact=True).first.is_hidden()


def test_a_model_that_only_has_the_name_of_the_pocket_model_is_not_judged(host: Open, tiny_trace: Trace) -> None:
    trace = Trace(tiny_trace.settings, list(tiny_trace), image=tiny_trace.image, decode=tiny_trace.decode)
    trace.info["model"] = "pocket"
    page = host(Replay(trace))
    page.settle()
    assert page.root.get_by_label("the track shows").locator("option", has_text="adherence").is_hidden()
    assert page.root.get_by_text("adherence", exact=True).first.is_hidden()


def test_a_number_declared_in_python_is_a_fact_a_track_and_a_column_of_the_table(host: Open, tiny_trace: Trace) -> None:
    declare(Number("warmth", "warmth of it", "degrees", "How warm.", log=True, of=lambda trace, i: 10.0 ** (2 * i)))
    try:
        page = host(Replay(tiny_trace))
    finally:
        del NUMBERS["warmth"]
    page.settle()
    fact = page.root.locator(".dx-facts dl > div", has_text="warmth of it")
    assert fact.get_attribute("title") == "degrees"
    page.step.fill("2")
    page.settle()
    assert fact.locator("dd").inner_text() == "100"
    page.root.get_by_label("the track shows").select_option("warmth of it (degrees), log")
    np.testing.assert_allclose(track(page), [0, 1 / 3, 2 / 3, 1], atol=0.01)
    page.root.get_by_role("tab", name="Numbers").click()
    page.settle()
    table = page.root.locator(".dx-tables table")
    assert table.locator("thead th").last.inner_text() == "warmth of it"
    assert table.locator("tbody tr").nth(2).locator("td").last.inner_text() == "10000"


def test_guidance_is_drawn_as_arrows_from_what_was_recorded(
    host: Open, tiny_model: Any, axe: Callable[[Any], list[str]]
) -> None:
    runs = {f"g {g:g}": tiny_model.trace(prompt="a red fox", steps=4, guidance=g, sampler="DDIM") for g in (1.0, 5.0)}
    page = host(Replay(runs["g 5"]))
    assert page.root.locator(".dx-facts dt", has_text="pull").count() == 0, "they have a panel of their own"
    page.root.get_by_role("tab", name="Arrows").press("Enter")
    page.step.fill("2")
    page.settle()
    for row, end in ((1, "_x0"), (2, "")):
        cells = page.root.locator(".dx-pull-table tr").nth(row).locator("td").all_inner_texts()
        names = ("cond_norm", None, "guidance_norm", "guidance_along", "guidance_across", "guidance_angle")
        for cell, name in zip(cells[1:], names, strict=True):
            if name:
                assert float(cell.rstrip("°")) == pytest.approx(runs["g 5"].curve(name + end)[1], abs=0.0501)
    arrows = page.root.locator(".dx-pulled svg path")
    before = arrows.nth(4).get_attribute("d")
    page.step.fill("4")
    page.settle()
    assert arrows.nth(4).get_attribute("d") != before
    assert "Guidance 5 adds 4 times the pull" in page.root.locator("[id$=pull] .dx-says").inner_text()
    pane = page.root.locator("[id$=pull]")
    assert pane.evaluate("pane => pane.scrollHeight <= pane.clientHeight"), "all of it is in sight"
    assert axe(page.page) == []

    page.viewer.show(runs)
    page.push()
    page.settle()
    assert page.root.locator(".dx-pull-table tr").nth(1).locator("td").all_inner_texts() == ["–"] * 7, "no halves"
    assert page.root.locator(".dx-panes").bounding_box()["height"] > 120
    page.viewer.show(runs["g 1"])
    page.push()
    page.settle()
    assert not page.root.get_by_role("tab", name="Arrows").is_visible(), "nothing to show"


def test_spectra_of_several_runs_say_what_one_has_lost(
    host: Open, tiny_model: Any, axe: Callable[[Any], list[str]]
) -> None:
    asked = {"prompt": "a red fox", "steps": 3, "sampler": "DDIM"}
    runs = {"as trained": tiny_model.trace(**asked), "without": tiny_model.trace(**asked, skips={0: {"skip": 0.0}})}
    page = host(Replay(runs))
    page.root.get_by_role("tab", name="Spectra").press("Enter")
    page.settle()
    powers = [spectrum(trace, 2) for trace in runs.values()]
    times = [powers[1][k] / powers[0][k] for k in (1, -1)]
    said = page.root.locator("[id$=spectra] p.dx-lost").inner_text()
    assert [float(one) for one in re.findall(r"× (\d+(?:\.\d+)?)", said)] == pytest.approx(times, rel=0.05)
    lines = page.root.locator("[id$=spectra] polyline")
    before = lines.nth(1).get_attribute("points")
    page.step.fill("1")
    page.settle()
    assert lines.nth(1).get_attribute("points") != before, "they follow the step"
    assert axe(page.page) == []


def test_a_track_that_the_next_run_has_not_gives_way_to_the_noise_level(host: Open, tiny_trace: Trace) -> None:
    declare(Number("warmth", "warmth", "", "How warm.", of=lambda trace, i: float(i)))
    try:
        page = host(Replay(tiny_trace))
    finally:
        del NUMBERS["warmth"]
    menu = page.root.get_by_label("the track shows")
    menu.select_option("warmth")
    np.testing.assert_allclose(track(page), [0, 1 / 3, 2 / 3, 1], atol=0.01)
    page.viewer.show(tiny_trace)
    page.push()
    page.settle()
    assert menu.input_value() == "sigma"
    assert track(page)[0] == 1


def test_a_panel_is_a_new_file_and_a_line_of_the_declared_order(host: Open, tiny_trace: Trace, tmp_path: Path) -> None:
    shutil.copytree(browser.__path__[0], tmp_path / "browser")
    (tmp_path / "browser" / "panels" / "counter.js").write_text("""
import { h, say } from "../dom.js";
import { panel } from "../panel.js";

panel("counter", ({ session }) => {
	const node = h("p.dx-counter");
	return { nodes: { words: [node] }, draw: () => say(node, `${session.shown + 1} of ${session.places}`) };
});
""")
    with (tmp_path / "browser" / "panels" / "index.js").open("a") as order:
        order.write('import "./counter.js";\n')
    viewer = Replay(tiny_trace)
    viewer._esm = browser.joined(tmp_path / "browser" / "viewer.js")
    page = host(viewer)
    page.settle()
    assert page.root.locator(".dx-counter").inner_text() == "4 of 4"
    page.step.fill("2")
    page.settle()
    assert page.root.locator(".dx-counter").inner_text() == "2 of 4"


def test_adherence_is_a_track_and_a_number_of_the_pocket_models_steps(host: Open) -> None:
    trace = dx.load().trace(prompt="a blue dog in a forest", steps=5)
    page = host(Replay(trace))
    page.settle()
    page.root.get_by_label("the track shows").select_option("adherence")
    values = trace.curve("adherence")
    np.testing.assert_allclose(track(page), values / values.max(), atol=0.01)
    page.step.fill("2")
    page.settle()
    fact = page.root.locator(".dx-facts dl > div", has_text="adherence").locator("dd")
    assert float(fact.inner_text()) == pytest.approx(values[1], abs=0.006)


def test_side_by_side_each_column_says_its_adherence(host: Open) -> None:
    model = dx.load()
    traces = {f"g {g}": model.trace(prompt="a blue dog in a forest", steps=4, guidance=g) for g in (1, 5)}
    page = host(Replay(traces))
    page.settle()
    for k, trace in enumerate(traces.values()):
        said = page.root.locator(".dx-film figcaption").nth(k).get_attribute("title")
        assert float(said.rpartition("adherence ")[2]) == pytest.approx(trace.curve("adherence")[-1], abs=0.006)


def test_playback_has_a_speed_and_may_begin_again(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.root.get_by_label("speed").select_option("4\u00d7")
    behind(page, "Loop").click()
    page.page.evaluate(
        """() => {
            window.places = [];
            const range = document.querySelector('input[type=range]');
            const options = { attributeFilter: ['aria-valuetext'] };
            new MutationObserver(() => places.push(range.value)).observe(range, options);
        }"""
    )
    page.root.get_by_role("button", name="play").click()
    page.page.wait_for_function("() => /[1-3]4+[1-3]/.test(places.join(''))")
    behind(page, "Loop").click()
    page.root.get_by_role("button", name="play").wait_for()
    assert page.step.input_value() == "4"
    assert behind(page, "Loop").get_attribute("aria-pressed") == "false"


def test_the_pointer_reads_the_numbers_under_it(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.step.fill("4")
    page.settle()
    box = page.root.locator(".dx-strips").bounding_box()
    page.page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 5)
    step = tiny_trace[1]
    tip = page.root.locator(".dx-tip")
    assert tip.inner_text().startswith(f"step 2 \u00b7 timestep {step.timestep:.0f} \u00b7 \u03c3 ")
    assert f"SNR {1 / step.sigma**2:.2g} \u00b7 " in tip.inner_text()
    assert page.step.input_value() == "4", "looking moves nothing"
    page.page.mouse.move(1, 1)
    assert tip.is_hidden()


# --- looking closer ---


def test_zoom_shows_a_part_pixel_for_pixel(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.page.add_style_tag(content=SMALL)
    pixels = behind(page, "Pixels")
    assert pixels.get_attribute("aria-pressed") == "false"
    pixels.click()
    behind(page, "zoom in").click()
    whole = np.asarray(tiny_trace.view("x0", 3))

    def shown() -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(page.pixels())).convert("RGB"))

    def part(top: int, left: int) -> np.ndarray:
        return whole[top : top + 16, left : left + 24].repeat(2, 0).repeat(2, 1)

    np.testing.assert_array_equal(shown(), part(8, 12))  # the middle
    page.step.focus()
    for _ in range(9):
        page.page.keyboard.press("Shift+ArrowRight")
    np.testing.assert_array_equal(shown(), part(8, 24))  # no further than the edge
    assert page.step.input_value() == "4", "the scrubber does not move with the picture"
    page.page.keyboard.press("0")
    np.testing.assert_array_equal(shown(), whole)
    canvas = page.root.locator(".dx-film canvas")
    corner = canvas.bounding_box()
    canvas.dispatch_event("dblclick", {"clientX": corner["x"], "clientY": corner["y"], "bubbles": True})
    np.testing.assert_array_equal(shown(), part(0, 0))  # what is under the pointer stays there


def test_the_spectrum_shows_the_estimate_from_coarse_to_fine(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    film = Film.of(tiny_trace)
    heights = []
    for place in (1, 4):
        page.step.fill(str(place))
        page.settle()
        bars = page.root.locator(".dx-bars i").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.height))")
        power = film.steps[place - 1][4]
        np.testing.assert_allclose(bars, [np.clip(25 * (one + 1.5), 0, 100) for one in power], atol=0.01)
        heights.append(bars)
    assert heights[0] != heights[1]
    marks = page.root.locator(".dx-bars b").evaluate_all("marks => marks.map(mark => parseFloat(mark.style.bottom))")
    assert marks == heights[1]


# --- words and numbers ---


def test_tokens_say_what_was_cut_and_what_is_not_known(host: Open, tiny_model: Any) -> None:
    prompt = "a red Zyx in the snow at night a blue cat in the desert at night"
    trace = tiny_model.trace(prompt=prompt, steps=2)
    trace.info["unknown"] = ["zyx"]
    page = host(Replay(trace))
    tokens, cut = trace.info["tokens"]["prompt"], trace.info["tokens"]["cut"]
    assert cut
    words = page.root.locator(".dx-words li")
    assert [word.partition(" (")[0] for word in words.all_text_contents()] == prompt.split()
    assert "".join(tokens + cut) == prompt.replace(" ", ""), "a word may be several tokens"
    (strange,) = page.root.locator(".dx-unknown").all()
    assert strange.text_content().startswith("Zyx (part of a word that this model")
    assert re.search(r"; tokens \d+ \d+ \d+$", strange.get_attribute("title"))
    assert [word.partition(" (")[0] for word in page.root.locator(".dx-cut").all_text_contents()] == cut


def test_a_table_holds_every_number_for_those_who_see_no_picture(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.step.fill("2")
    assert page.root.get_by_role("table").count() == 0
    page.root.get_by_role("tab", name="Numbers").click()
    rows = page.root.get_by_role("table").locator("tbody tr")
    rows.first.wait_for()  # the table is made when it is opened
    assert rows.count() == 4
    page.settle()
    assert page.root.locator("[aria-current]").all()
    assert rows.nth(1).get_attribute("aria-current") == "step"
    cells = rows.nth(1).locator("th, td").all_inner_texts()
    step = tiny_trace[1]
    assert cells[:2] == ["2", f"{step.timestep:.0f}"]
    assert float(cells[2]) == pytest.approx(step.sigma, rel=0.01)
    assert float(cells[3]) == pytest.approx(1 / step.sigma**2, rel=0.06)
    assert float(cells[5]) == pytest.approx(tiny_trace.curve("change")[1], rel=0.06)
    page.step.press("ArrowRight")
    page.settle()
    assert rows.nth(2).get_attribute("aria-current") == "step"
    assert page.root.locator("[aria-current]").count() == 1


def test_a_screen_reader_hears_of_a_run_at_most_once_a_second_and_the_end_of_it(
    host: Open, driven: None, tiny_trace: Trace
) -> None:
    page = host(Viewer())
    page.page.evaluate(
        """() => {
            window.said = [];
            const live = document.querySelector('[role=status]');
            const text = Object.getOwnPropertyDescriptor(Node.prototype, 'textContent');
            Object.defineProperty(live, 'textContent', {
                get: () => text.get.call(live),
                set: (words) => { said.push([performance.now(), words]); text.set.call(live, words); },
            });
        }"""
    )
    trace = growing(tiny_trace)
    feed = page.viewer.feed([trace])
    for upto in (1, 2, 3, 4):
        grow(trace, tiny_trace, upto)
        turn(page, lambda upto=upto: status(page, f"running: {upto} of 4 steps").is_visible())
        if upto == 2:
            page.page.wait_for_function("() => said.length")  # a run of over a second is told of before its end
    finish(page, feed)
    page.page.wait_for_function("() => said.length && said[said.length - 1][1].startsWith('4 steps')")
    said = page.page.evaluate("said")
    assert len(said) >= 2
    assert all(after - before > 990 for (before, _), (after, _) in itertools.pairwise(said))


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
    with played(page.page):
        keys.press("Space")
    keys.press("Space")
    page.root.get_by_role("button", name="play").wait_for()
    speed, scale = page.root.get_by_label("speed"), page.root.locator(".dx-scale")
    for key, rate, size in (("]", "2", "1\u00d7"), ("[", "1", "1\u00d7"), ("+", "1", "2\u00d7"), ("-", "1", "1\u00d7")):
        keys.press(key)
        page.settle()
        assert (speed.input_value(), scale.inner_text()) == (rate, size), key
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
        turn(page, lambda upto=upto: status(page, f"running: {upto} of 4 steps").is_visible())
        assert page.step.input_value() == str(upto), "the playhead follows the run"
        assert page.step.get_attribute("max") == "4"
        seen.add(page.pixels())
    assert len(seen) == 4
    finish(page, feed)
    status(page, "4 steps").wait_for()
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
    assert wait(lambda: (viewer._turn(), feed.pieces)[1])
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
    turn(page, lambda: status(page, "running: 2 of 4 steps").is_visible())
    late = next(content for content in page.sent if content["kind"] == "piece")
    new = page.viewer.feed([second])
    grow(second, tiny_trace, 1)
    turn(page, lambda: status(page, "running: 1 of 4 steps").is_visible())
    page.page.evaluate("content => deliver(content, content.shots.map(() => ''))", late)
    page.settle()
    assert status(page, "running: 1 of 4 steps").is_visible()
    page.viewer.end(old, "cancelled")
    grow(second, tiny_trace)
    finish(page, new)
    assert page.pixels() == shown


def test_a_kernel_that_falls_silent_is_noticed(host: Open, driven: None, tiny_trace: Trace) -> None:
    page = host(Viewer())
    trace = growing(tiny_trace)
    page.viewer.feed([trace])
    grow(trace, tiny_trace, 2)
    turn(page, lambda: status(page, "running: 2 of 4 steps").is_visible())
    status(page, "The kernel does not answer").wait_for()
    assert page.heard[-1]["kind"] == "hello"
    page.viewer._on_message(page.viewer, page.heard[-1], [])
    page.viewer._turn()
    status(page, "The kernel does not answer").wait_for(state="hidden")


def test_a_kernel_that_is_restarted_is_noticed_whether_or_not_a_run_goes(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    gone = page.root.get_by_text("The kernel was restarted or has ended")
    page.page.evaluate("emit('comm_live_update')")  # as ipywidgets announces a line that is there, too
    page.settle()
    assert gone.is_hidden()
    disconnect = "on => document.querySelector('#views > div').classList.toggle('jupyter-widgets-disconnected', on)"
    page.page.evaluate(disconnect, True)
    page.page.evaluate("emit('comm_live_update')")
    gone.wait_for()
    page.page.evaluate("void (window.toKernel = () => { throw new Error('Cannot send'); })")  # as JupyterLab then does
    page.page.evaluate("deliver({ kind: 'state', run: 9, pieces: 1 }, [])")  # asks for what is missing, of nobody
    page.step.fill("2")
    page.settle()
    assert "step 2 of 4" in " ".join(page.root.inner_text().split()), "what is here can still be looked at"
    page.page.evaluate(disconnect, False)
    page.page.evaluate("emit('comm_live_update')")
    gone.wait_for(state="hidden")


# --- what must not happen
# -----------------------------------------------------------------------------------------------------------------

EVIL = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>\u202e$x$ javascript:window.pwned=1"


def test_text_is_text_wherever_it_comes_from(host: Open, tiny_trace: Trace) -> None:
    settings = tiny_trace.settings.replace(prompt=EVIL, negative_prompt=EVIL)
    info = {"model": EVIL, "tokens": {"prompt": [EVIL], "cut": [EVIL]}, "unknown": ["img"]}
    trace = Trace(settings, list(tiny_trace), image=tiny_trace.image, matrix=tiny_trace.matrix, info=info)
    film = Film.of(trace, EVIL)
    film.about["sampler"] = EVIL  # Settings would refuse it
    page = host(Replay([film, Film.of(trace, "b")]))
    page.viewer.tell(notes=[EVIL, "x" * 200_000], error=EVIL)
    page.root.get_by_role("tab", name="Numbers").click()
    page.settle()
    said = page.root.locator("caption").first.inner_text()
    assert said.count(EVIL) == 5, "label, both prompts, sampler and model are there to be read"
    assert page.root.locator("img, script").count() == 0
    assert page.page.evaluate("window.pwned") is None
    assert page.root.get_by_role("alert").inner_text() == EVIL
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_text_is_text_also_out_of_a_picture_and_a_files_name(host: Open, tiny_model: Any, tmp_path: Path) -> None:
    """Script in the recipe of a PNG, and in the name of a saved run: neither is ours."""
    trace = tiny_model.trace(prompt=EVIL, steps=2)
    trace.save_image(tmp_path / "evil.png")
    again = tiny_model.trace(read_recipe(tmp_path / "evil.png"))
    assert again.settings.prompt == EVIL
    file = tmp_path / "<img src=x onerror=window.pwned=1>.safetensors"
    again.save(file)
    page = host(Replay({file.name: file, "b": again}))
    page.settle()
    assert page.root.locator(".dx-name").first.inner_text() == file.name
    told = page.root.locator("figcaption").first.get_attribute("title")
    assert told.startswith(f"{file.name}: step 2 of 2, after ")
    assert page.root.locator("img").count() == 0
    with pytest.raises(FileNotFoundError) as error:
        Replay(tmp_path / "<img src=x onerror=window.pwned=1>.missing")
    page.viewer.tell(error=str(error.value))
    page.push()
    page.settle()
    assert "<img src=x" in page.root.get_by_role("alert").inner_text()
    assert page.page.evaluate("window.pwned") is None


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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(
    host: Open, axe: Callable[[Any], list[str]], tiny_trace: Trace, driven: None, theme: str
) -> None:
    trace = Trace(tiny_trace.settings, list(tiny_trace), image=tiny_trace.image, matrix=tiny_trace.matrix)
    trace.info = {"tokens": {"prompt": ["a", "red", "fox"], "cut": ["late"]}, "unknown": ["red"]}
    page = host(Viewer())
    page.page.evaluate("theme => document.body.setAttribute('data-jp-theme-light', theme === 'light')", theme)
    assert axe(page.page) == []  # with nothing to show
    page.viewer.feed([live := growing(tiny_trace)])
    grow(live, tiny_trace, 2)
    turn(page, lambda: status(page, "running: 2 of 4 steps").is_visible())
    assert axe(page.page) == []
    page.viewer.show({"one": trace})
    page.viewer.tell(notes=["A note."], error="A fault.")
    page.push()
    for tab in page.root.get_by_role("tab").all():
        if tab.is_visible():
            tab.click()
            assert axe(page.page) == []
    behind(page, "Pixels")
    page.root.get_by_role("button", name="put this away").click()
    page.root.get_by_role("alert").wait_for(state="hidden")
    page.root.locator(".dx-note").click()
    look_at(page, "Change")
    page.step.fill("1")
    page.settle()
    assert axe(page.page) == []
    page.viewer.show({"one": trace, "two": trace, "three": tiny_trace})
    page.viewer.truth = {"state": "match", "text": "as the controls say"}
    page.push()
    page.settle()
    for tab in page.root.get_by_role("tab").all():
        if tab.is_visible():
            tab.click()
            assert axe(page.page) == []
    look_at(page, "Swipe")
    page.settle()
    assert axe(page.page) == []


def test_nothing_moves_by_itself_for_those_who_ask_for_that(host: Open, tab: Any, tiny_trace: Trace) -> None:
    durations = (
        "() => [...document.querySelectorAll('.dx-viewer *')].map(node => getComputedStyle(node).transitionDuration)"
    )
    page = host(Replay(tiny_trace))
    page.page.add_style_tag(content=".dx-viewer p { transition: opacity 1s; }")  # as any panel may
    assert set(page.page.evaluate(durations)) != {"0s"}
    tab.page.emulate_media(reduced_motion="reduce")
    assert set(page.page.evaluate(durations)) == {"0s"}


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
    with played(tab.page):
        tab.page.get_by_role("button", name="play").click()
    tab.page.get_by_role("button", name="play").wait_for()
    assert step.input_value() == "4"
    assert (
        tab.page.evaluate("document.querySelector('.dx-film canvas').getContext('2d').getImageData(9, 9, 1, 1).data[3]")
        == 255
    )


def test_the_export_button_saves_a_page_that_scrubs_alone(
    host: Open, tab: Any, tiny_trace: Trace, tmp_path: Path
) -> None:
    """Made in the browser, so that it works when the kernel is gone; its strict policy must know script and style."""
    prompt = "a fox </script><script>window.pwned=1</script> @script@ $& \u2028 & <b>"
    trace = Trace(tiny_trace.settings.replace(prompt=prompt), list(tiny_trace), image=tiny_trace.image)
    page = host(Replay(trace))
    look_at(page, "Noise")
    page.step.fill("3")
    shown, before = page.pixels(), len(page.heard)
    with tab.page.expect_download() as download:
        behind(page, "Export").click()
    assert download.value.suggested_filename == "a-fox-script-script-window-pwned-1-script-script-b-diffexplore.html"
    download.value.save_as(tmp_path / "page.html")
    assert page.heard[before:] == []
    tab.page.goto((tmp_path / "page.html").as_uri())
    step = tab.page.get_by_label("step", exact=True)
    assert step.input_value() == "3"
    assert tab.page.get_by_role("radio", name="Noise").is_checked()
    assert tab.page.title() == f"{prompt} - diffexplore"
    drawn = "() => document.querySelector('.dx-film canvas').toDataURL().split(',')[1]"
    tab.page.wait_for_function(f"expected => ({drawn})() === expected", arg=base64.b64encode(shown).decode())
    step.fill("2")
    tab.page.wait_for_function(f"old => ({drawn})() !== old", arg=base64.b64encode(shown).decode())
    assert tab.page.evaluate("window.pwned") is None
    assert tab.page.get_by_role("button", name="Export").count() == 0, "the page is already one"


def test_a_run_that_is_not_complete_cannot_be_exported_yet(host: Open, driven: None, tiny_trace: Trace) -> None:
    page = host(Viewer())
    trace = growing(tiny_trace)
    feed = page.viewer.feed([trace])
    grow(trace, tiny_trace, 2)
    turn(page, lambda: status(page, "running: 2 of 4 steps").is_visible())
    export = behind(page, "Export")
    assert export.is_disabled()
    grow(trace, tiny_trace)
    finish(page, feed)
    page.push()
    page.settle()
    assert export.is_enabled()
