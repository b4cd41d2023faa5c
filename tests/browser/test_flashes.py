"""Nothing on the page flashes more than three times a second: counted from what the canvases show, in playback at every
speed and while a control is dragged live."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flashes import FIELD, Recording, most_flashes
from hands import at_home, slider, until, write
from playwright.sync_api import expect

import diffexplore as dx
from diffexplore.widgets.viewer import Replay, Viewer

Open = Callable[[Viewer], Any]

MOST = 3  # flashes a second
SEVERAL_FOR = float(os.environ.get("DIFFEXPLORE_DRAG", "5"))  # seconds that a hand drags a control of several columns


# --- the counter itself ---


def strobe(rate: float, low: float, high: float, part: float = 1.0, seconds: float = 3) -> float:
    """What is counted where a part of a page goes up and down `rate` times a second."""
    times = np.arange(0, seconds, 1 / (2 * rate))
    frames = np.full((len(times), 2 * FIELD[0], 2 * FIELD[1]), low)
    frames[1::2, : round(part * FIELD[0]), : FIELD[1]] = high
    return most_flashes(times, frames)


def test_the_counter_counts_what_wcag_means() -> None:
    assert strobe(4, 0.2, 0.5) == pytest.approx(4, abs=0.5)
    assert strobe(2, 0.2, 0.5) == pytest.approx(2, abs=0.5)
    assert strobe(4, 0.2, 0.29) == 0, "too faint"
    assert strobe(4, 0.82, 1.0) == 0, "both sides are bright"
    assert strobe(4, 0.2, 0.5, part=0.2) == 0, "too small"
    times = np.arange(0, 2, 0.05)
    ramp = np.ones((40, *FIELD)) * np.linspace(0, 1, 40)[:, None, None]
    assert most_flashes(times, ramp) <= 0.5, "one change, however long it takes"


# --- playback ---


@pytest.fixture(scope="module")
def strong() -> Any:
    """A run that begins with saturated pictures."""
    return dx.load().trace(prompt="a fox in the snow", steps=20, guidance=9.0, seed=3)


@pytest.mark.parametrize("speed", ["0.25", "0.5", "1", "2"])
def test_playback_does_not_flash(host: Open, strong: Any, speed: str) -> None:
    page = host(Replay(strong))
    root = page.root
    root.get_by_label("speed").select_option(speed)
    root.get_by_role("button", name="more", exact=True).click()
    root.get_by_role("button", name="Loop").click()
    page.settle()
    places = len(strong)
    page.step.evaluate(
        """range => {
            window.places = new Set();
            new MutationObserver(() => places.add(range.value)).observe(range, { attributeFilter: ['aria-valuetext'] });
        }"""
    )
    recording = Recording(page.page)
    root.get_by_role("button", name="play").click()
    page.page.wait_for_timeout(10_000 if float(speed) >= 0.5 else 16_500)
    page.page.wait_for_function("places => window.places.size === places", arg=places)  # no step is left out
    times, frames = recording.stop()
    found = most_flashes(times, frames)
    print(f"playback at {speed}: {found} flashes a second at most")
    assert found <= MOST


def test_with_less_motion_a_picture_stays_for_half_a_second(host: Open, tab: Any, strong: Any) -> None:
    tab.page.emulate_media(reduced_motion="reduce")
    page = host(Replay(strong))
    page.root.get_by_label("speed").select_option("4")
    page.settle()
    page.step.fill("1")
    page.settle()
    recording = Recording(page.page, ".dx-film .dx-screen")
    page.root.get_by_role("button", name="play").click()
    page.root.get_by_role("button", name="pause").wait_for()
    page.root.get_by_role("button", name="play").wait_for()  # at the end
    page.page.wait_for_timeout(600)  # what was held back has come
    times, _ = recording.stop()
    assert page.step.input_value() == str(len(strong))
    assert len(times) >= 3
    assert min(np.diff(times)[1:]) > 0.4


# --- live ---


def drag_guidance(explorer: Any, dice: random.Random) -> None:
    handle = slider(explorer, "guidance")
    handle.focus()
    handle.press(dice.choice(("ArrowLeft", "ArrowRight")))


def drag_steps(explorer: Any, dice: random.Random) -> None:
    handle = slider(explorer, "steps")
    handle.focus()
    handle.press(dice.choice(("ArrowLeft", "ArrowRight")))


def throw_seed(explorer: Any, dice: random.Random) -> None:
    field = explorer.get_by_label("seed", exact=True)
    field.fill(str(dice.randrange(1000)))
    field.press("Enter")


def type_prompt(explorer: Any, dice: random.Random) -> None:
    field = explorer.get_by_label("prompt", exact=True).first
    field.focus()
    field.press(dice.choice(list("abcdefgh") + ["Backspace"] * 4 + ["Space"]))


def choose_sampler(explorer: Any, dice: random.Random) -> None:
    menu = explorer.get_by_label("sampler", exact=True)
    names = [name for name in menu.locator("option").all_inner_texts() if name]
    menu.select_option(label=dice.choice(names[:6]))


def drag(recording: Recording, move: Callable[[], None], each: float, seconds: float, least: int) -> None:
    """Move a control every `each` ms for some seconds, and on until the pictures have followed the hand so often: on a
    slow machine they take longer."""
    page, begun, count = recording.page, time.monotonic(), 0

    def follow() -> None:
        nonlocal count
        move()
        count += 1
        page.wait_for_timeout(max(0.0, 1000 * (begun + count * each / 1000 - time.monotonic())))
        assert time.monotonic() >= begun + seconds
        assert recording.changes > least, "the pictures follow the hand"

    until(page, follow)


LIVE = [
    "import diffexplore as dx\nmodel = dx.load()",
    'explorer = dx.Explorer(model, prompt="a fox in the snow", guidance=9.0, seed=3, live=True)\nexplorer',
    "trace = explorer.run()",
]


def drag_own_guidance(compare: Any, dice: random.Random) -> None:
    handle = compare.locator(".dx-column .noUi-handle:visible").nth(1)
    handle.focus()
    handle.press(dice.choice(("ArrowLeft", "ArrowRight")))


def opened(act: Callable[[Any, random.Random], None], face: str) -> Callable[[Any, random.Random], None]:
    """The act, on what is behind a chip."""

    def acted(compare: Any, dice: random.Random) -> None:
        chip = compare.locator(".dx-chip").filter(has=compare.page.get_by_title(face))
        if chip.locator("button").first.get_attribute("aria-expanded") != "true":
            chip.locator("button").first.click()
        act(compare, dice)

    acted.__name__ = f"shared_{act.__name__}"
    return acted


def choose_own_sampler(compare: Any, dice: random.Random) -> None:
    menu = compare.locator(".dx-column .dx-menu-select").nth(1)
    menu.select_option(index=dice.randrange(6))


SEVERAL = [
    LIVE[0],
    "columns = {f'guidance {g}': {'guidance': float(g)} for g in (1, 9, 12)}\n"
    'compare = dx.Compare(columns, model=model, prompt="a fox in the snow", steps=4, seed=3, live=True)\ncompare',
    "traces = compare.run()",
]


def test_several_do_not_flash_when_what_they_share_or_one_of_them_is_dragged_live(lab: Any, tab: Any) -> None:
    write(lab.folder / "flashes-of-several.ipynb", SEVERAL)
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "flashes-of-several.ipynb")
    lab.run_all(page)
    compare = page.locator(".dx-explorer").first
    tick = compare.locator(".dx-truth")
    expect(tick).to_have_attribute("data-state", "match")
    at_home(compare)
    compare.get_by_label("step", exact=True).fill("2")
    own_samplers = "{k: {'sampler': k} for k in ('Euler', 'DDIM', 'Heun')}"
    found = {}
    for act, each in (
        (drag_own_guidance, 60),
        (opened(drag_steps, "steps, shared by all"), 60),
        (opened(throw_seed, "seed, shared by all"), 150),
        (type_prompt, 120),
        (opened(choose_sampler, "sampler, shared by all"), 300),
        (choose_own_sampler, 300),
    ):
        if act is choose_own_sampler:
            lab.run(page, f"compare.columns = {own_samplers}")
            expect(tick).to_have_attribute("data-state", "match")
        dice = random.Random(0)
        recording = Recording(page)
        least = 0 if act is type_prompt else 1  # a text waits for a pause, and this one has none
        drag(recording, lambda act=act, dice=dice: act(compare, dice), each, SEVERAL_FOR, least)
        expect(tick).to_have_attribute("data-state", "match")
        times, frames = recording.stop()
        found[act.__name__] = most_flashes(times, frames)
        print(act.__name__, found[act.__name__], len(times))
        assert len(times) > 1, "the pictures follow the hand"
        lab.run(page, 'compare.shared = {"prompt": "a fox in the snow", "steps": 4, "seed": 3}')
        expect(tick).to_have_attribute("data-state", "match")
    assert max(found.values()) <= MOST, found


def test_no_control_flashes_when_it_is_dragged_live(lab: Any, tab: Any) -> None:
    write(lab.folder / "flashes.ipynb", LIVE)
    page = tab.page
    lab.open(page, "flashes.ipynb")
    lab.run_all(page)
    explorer = page.locator(".dx-explorer").first
    step = explorer.get_by_label("step", exact=True)
    expect(explorer.locator(".dx-status")).to_have_text(re.compile(r"^20 steps"))
    found = {}
    for where in ("20", "5"):
        step.fill(where)
        for act, each in (
            (drag_guidance, 60),
            (drag_steps, 60),
            (throw_seed, 150),
            (type_prompt, 120),
            (choose_sampler, 300),
        ):
            dice = random.Random(0)
            recording = Recording(page)
            least = 0 if act is type_prompt else 10
            drag(recording, lambda act=act, dice=dice: act(explorer, dice), each, 10, least)
            times, frames = recording.stop()
            found[act.__name__, where] = most_flashes(times, frames)
            print(act.__name__, where, found[act.__name__, where], len(times))
            if act not in (drag_steps, choose_sampler):
                expect(step).to_have_value(where)  # at once, but where a run takes so long that a playhead goes along
            lab.run(
                page, 'explorer.set_trait("prompt", "a fox in the snow"); explorer.steps = 20; explorer.guidance = 9.0'
            )
            expect(explorer.locator(".dx-status")).to_have_text(re.compile(r"^20 steps"))
    assert max(found.values()) <= MOST, found
