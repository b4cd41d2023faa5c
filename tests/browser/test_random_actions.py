"""Hundreds of random things that a hand does to an Explorer and to a Compare: nothing breaks, nothing grows, and
whenever the page says that pictures are what the controls say, they are."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hands import FRAMES, at_home, resting, until, write
from patience import PATIENCE
from playwright.sync_api import TimeoutError as PatienceError
from playwright.sync_api import expect

ACTIONS = 300
CHECKED = 15  # actions between two looks at all of it, when it has come to rest
GLANCED = 3  # and between two at the tick in the middle of it

CELLS = {
    "explorer": [
        "import diffexplore as dx\nfrom random_actions_kernel import told\nmodel = dx.load()",
        "widget = dx.Explorer(model, prompt='a fox in the snow', steps=6, seed=7)\nwidget",
    ],
    "compare": [
        "import diffexplore as dx\nfrom random_actions_kernel import told\nmodel = dx.load()",
        "columns = {'guidance 1': {'guidance': 1.0}, 'guidance 5': {'guidance': 5.0}, 'strong': {'guidance': 10.0}}\n"
        "widget = dx.Compare(columns, model=model, prompt='a fox in the snow', steps=4, seed=7)\nwidget",
    ],
}
KERNEL = '''
"""What the kernel knows, for the test: what the controls say, and what made the pictures on show."""
import json


def told(widget):
    settings, traces = widget.settings, getattr(widget, "traces", None)
    if traces is None:
        settings, traces = {"": settings}, {"": widget.trace} if widget.trace is not None else {}
    wanted = [one.to_json() for one in settings.values()]
    shown = [trace.settings.to_json() for trace in traces.values()]
    whole = all(not trace.cancelled and len(trace) == trace.expected for trace in traces.values())
    wrong = bool(getattr(widget, "_wrong", {}))
    print(json.dumps({"status": widget.status, "same": bool(shown) and wanted == shown and whole and not wrong}))
'''

Action = Callable[[Any, Any, random.Random], None]


class GoneError(Exception):
    """There is nothing of the kind in sight."""


def one_of(dice: random.Random, found: Any) -> Any:
    """One of what is in sight."""
    count = found.count()
    if not count:
        raise GoneError
    return found.nth(dice.randrange(count))


def at_hand(app: Any, dice: random.Random, selector: str) -> Any:
    """One of what is in sight, or of what one of the chips has behind it."""
    if not app.locator(selector).count():
        one_of(dice, app.locator(".dx-face:visible")).click()
    return one_of(dice, app.locator(selector))


def sliders(page: Any, app: Any, dice: random.Random) -> None:
    handle = at_hand(app, dice, ".noUi-handle:visible")
    handle.focus()
    for _ in range(dice.randint(1, 4)):
        handle.press(dice.choice(["ArrowLeft", "ArrowRight"]))


def drag(page: Any, app: Any, dice: random.Random) -> None:
    place = at_hand(app, dice, ".noUi-handle:visible").bounding_box()
    if place is None:  # it is hidden again
        return
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    for _ in range(dice.randint(1, 6)):
        page.mouse.move(place["x"] + dice.randint(-25, 25), place["y"] + dice.randint(-5, 5))
    page.mouse.up()


def number(page: Any, app: Any, dice: random.Random) -> None:
    field = at_hand(app, dice, ".dx-number input[type=text]:visible")
    field.fill(dice.choice(["3", "7", "5.5", "10", "7,5", "0", "", "many", "2"]))
    field.press(dice.choice(["Enter", "Tab", "ArrowUp", "ArrowDown"]))


def seed(page: Any, app: Any, dice: random.Random) -> None:
    fields = app.get_by_label("seed", exact=True).locator("visible=true")
    if fields.count():
        fields.first.fill(dice.choice(["3", "7", "abc", "-1", "9007199254740993"]))
        fields.first.press("Tab")


def button(page: Any, app: Any, dice: random.Random) -> None:
    one_of(dice, app.locator(".dx-row button:visible:enabled")).click()  # columns, dice, chips, steppers, Run, Stop


def prompt(page: Any, app: Any, dice: random.Random) -> None:
    fields = app.locator(".dx-text input:visible")
    if fields.count():
        field = fields.nth(dice.randrange(fields.count()))
        field.fill("")
        field.press_sequentially(dice.choice(["a cat", "a dog at night", "a zyx", "a castle <b>"]), delay=5)
        field.press(dice.choice(["Enter", "Tab", "Control+Enter"]))


def menu(page: Any, app: Any, dice: random.Random) -> None:
    one = one_of(dice, app.locator(".dx-row select:visible"))
    options = one.locator("option").count()
    if not options:  # it went while it was looked at
        raise GoneError
    one.select_option(index=dice.randrange(options))


def live(page: Any, app: Any, dice: random.Random) -> None:
    app.get_by_label("live").click()


def viewer(page: Any, app: Any, dice: random.Random) -> None:
    one = one_of(dice, app.locator(".dx-viewer button:visible:enabled:not([aria-label='whole screen'])"))
    if "Export" not in one.inner_text():
        one.click()


def keys(page: Any, app: Any, dice: random.Random) -> None:
    scrubber = app.get_by_label("step", exact=True)
    if scrubber.is_visible():
        scrubber.focus()
        for _ in range(3):
            page.keyboard.press(
                dice.choice(
                    ["ArrowLeft", "ArrowRight", "Home", "End", "1", "2", "3", "4", "5", "e", "l", "Escape", ","]
                )
            )


def paste(page: Any, app: Any, dice: random.Random) -> None:
    chips = app.locator(".dx-json .dx-face")
    if chips.count():
        chips.click()
        app.get_by_label("settings as JSON").fill(
            dice.choice(["nonsense", '{"shared": {"steps": 4}, "columns": {"a": {}, "b": {"seed": 2}}}'])
        )
        app.get_by_role("button", name="Use this").click()
        page.keyboard.press("Escape")


def run(page: Any, app: Any) -> None:
    """What one does to see what the controls say. Hands at random leave fields that hold nothing that can be drawn, and
    then no run is asked for however long they go on.
    """
    page.keyboard.press("Escape")
    for label, value in (("seed", "7"), ("steps", "6"), ("guidance", "5")):
        fields = app.get_by_label(label, exact=True).locator("visible=true")
        texts = [field for field in fields.all() if field.evaluate("one => one.type === 'text'")]
        if texts:
            texts[0].fill(value)
            texts[0].press("Tab")
    app.locator("button.dx-run").click()


STANDING_OUT = """app => app.scrollWidth <= app.clientWidth ? [] : [...app.querySelectorAll('*')]
    .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > app.getBoundingClientRect().right + 1)
    .map(one => `${one.tagName} ${one.className} ${one.getBoundingClientRect().right}`).slice(0, 8)"""

WEIGHTS: list[tuple[Action, int]] = [
    (sliders, 6), (drag, 4), (number, 4), (seed, 2), (button, 5), (prompt, 3), (menu, 2), (live, 1), (viewer, 3),
    (keys, 3), (paste, 1),
]  # fmt: skip


@contextmanager
def hasty(page: Any) -> Iterator[None]:
    """What is gone is not waited for: a column, a popover that was there a moment ago."""
    page.set_default_timeout(2000)
    try:
        with suppress(PatienceError, GoneError):
            yield
    finally:
        page.set_default_timeout(1000 * PATIENCE)


def glance(lab: Any, page: Any, app: Any) -> None:
    """A tick in the middle of it all is as true as one at rest."""
    tick = app.locator(".dx-truth")
    for _ in range(10):
        if tick.get_attribute("data-state") != "match" or json.loads(lab.run(page, "told(widget)"))["same"]:
            return
        # What the kernel has heard already is on its way to the page: after a few answers of its it is there.
        page.wait_for_timeout(50)
        page.evaluate(FRAMES)
    raise AssertionError("the tick is shown over pictures of other settings")


def settled(lab: Any, page: Any, app: Any) -> dict[str, Any]:
    """What is true when nothing is going on any more."""
    page.keyboard.press("Escape")

    def over() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(lab.run(page, "told(widget)"))
        assert found["status"] != "running", "the runs do not come to an end"
        return found

    return until(page, over)


TALL = """app => Object.fromEntries([app, ...app.querySelectorAll(':scope > *, .dx-viewer > *, .dx-viewer > * > *')]
    .map((one, k) => [`${k} ${one.className}`, one.getBoundingClientRect().height]))"""


def as_it_was(app: Any, tall: dict[str, float], done: list[str]) -> None:
    now = app.evaluate(TALL)
    whole = next(iter(tall))
    # Where it is not as tall as it was, what is in it says where.
    assert next(iter(now.values())) == tall[whole], (done, set(tall.items()) ^ set(now.items()))
    assert app.evaluate(STANDING_OUT) == [], done


@pytest.mark.parametrize("which", CELLS)
def test_whatever_hands_do_the_tick_is_true_and_nothing_breaks(lab: Any, tab: Any, which: str) -> None:
    write(lab.folder / f"random-{which}.ipynb", CELLS[which])
    (lab.folder / "random_actions_kernel.py").write_text(KERNEL, "utf-8")
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, f"random-{which}.ipynb")
    lab.run_all(page)
    app = page.locator(".dx-app").first
    expect(app.locator(".dx-truth")).to_have_text("press Run")
    app.evaluate("app => app.scrollIntoView()")
    at_home(app)
    tall = resting(page, lambda: app.evaluate(TALL))
    dice = random.Random(int(os.environ.get("DIFFEXPLORE_DICE", "15")))
    actions, weights = zip(*WEIGHTS, strict=True)
    matched = 0
    done = []
    for k in range(ACTIONS):
        action = dice.choices(actions, weights)[0]
        done.append(action.__name__)
        with hasty(page):
            action(page, app, dice)
        if k % GLANCED == GLANCED - 1:
            glance(lab, page, app)
        if k % (2 * CHECKED) == 2 * CHECKED - 1:
            with hasty(page):
                run(page, app)
        if k % CHECKED == CHECKED - 1:
            tick = app.locator(".dx-truth")
            for _ in range(20):  # what hands did last may still be on its way to the kernel
                found = settled(lab, page, app)
                page.wait_for_timeout(500)
                if tick.get_attribute("data-state") != "busy" and found == settled(lab, page, app):
                    break
            if found["same"]:
                expect(tick).to_have_attribute("data-state", "match")
                matched += 1
            else:
                expect(tick).not_to_have_attribute("data-state", "match")
                expect(tick).to_have_attribute("data-state", re.compile("stale|none"))
            until(page, lambda: as_it_was(app, tall, done[-CHECKED:]))
    assert matched > 2, "a test that never saw the tick has not looked at it"
    page.wait_for_timeout(200)
