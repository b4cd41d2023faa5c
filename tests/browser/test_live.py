"""What is on show while one run replaces another: the place is kept, and what is there stays until something newer can
be drawn in its place."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from patience import PATIENCE
from PIL import Image

from diffexplore.looks.views import frame
from diffexplore.trace import Trace
from diffexplore.widgets.feed import Feed
from diffexplore.widgets.viewer import Replay, Viewer

Open = Callable[[Viewer], Any]

OWN_SIZE = ".dx-viewer .dx-screen canvas { width: 48px !important; }"  # at which nothing is resampled

# The page's clock stands still: how fast the machine is does not say whether a run takes long. `later` moves it on.
STOPPED = """() => {
    let now = performance.now();
    performance.now = () => now;
    window.later = (milliseconds) => { now += milliseconds; };
}"""

# In every frame of the page: how the timeline stands, and whether anything in it is blank or pale.
WATCH = """() => {
    window.seen = new Set();
    window.faults = new Set();
    const root = document.querySelector('.dx-viewer');
    const clear = (canvas, x, y) => canvas.getContext('2d').getImageData(x, y, 1, 1).data[3] < 255;
    const look = () => {
        const range = root.querySelector('input[type=range]');
        const screen = root.querySelector('.dx-film canvas');
        const strip = root.querySelector('.dx-strip');
        seen.add(`${range.value} of ${range.max}`);
        if (/stopped/.test(root.querySelector('.dx-status').textContent)) faults.add('said to be stopped');
        if (clear(screen, screen.width >> 1, screen.height >> 1)) faults.add('no picture');
        for (let k = 0; k < range.max; k++)
            if (clear(strip, Math.round((k + 0.5) * strip.width / range.max), strip.height >> 1))
                faults.add('no thumb');
        for (const node of [screen, strip])
            for (let one = node; one; one = one.parentElement)
                if (getComputedStyle(one).opacity !== '1') faults.add('dimmed');
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test drives the viewer itself; no thread may call Playwright."""
    monkeypatch.setattr(Viewer, "wake", lambda self: None)


class Runs:
    """A viewer with a finished run in it, in which others take its place step by step."""

    def __init__(self, host: Open, first: Trace) -> None:
        self.feeds: list[Feed] = []
        self.known = [first]
        viewer = Viewer()
        viewer.show(first)
        self.page = host(viewer)
        self.page.page.add_style_tag(content=OWN_SIZE)
        self.page.settle()
        self.page.page.evaluate(STOPPED)
        self.page.page.evaluate(WATCH)

    def begin(self, whole: Trace) -> tuple[Trace, Feed]:
        self.known.append(whole)
        # One that takes all cores: what is shown meanwhile is quick, whatever machine this is.
        info = whole.info | {"threads": 2}
        trace = Trace(whole.settings, decode=whole.decode, matrix=whole.matrix, info=info)
        self.feeds.append(self.page.viewer.feed([trace]))
        return trace, self.feeds[-1]

    def grow(self, trace: Trace, whole: Trace, upto: int) -> None:
        for i in range(len(trace), upto):
            trace.append(whole[i])
        self.turn()

    def turn(self) -> None:
        """Let the kernel's side do what there is to do, until the page has it all."""
        quiet, deadline = 0, time.monotonic() + PATIENCE
        while quiet < 3:
            assert time.monotonic() < deadline, "the wire never got there"
            idle = self.page.viewer._turn() is None and not any(feed.flying for feed in self.feeds)
            quiet = quiet + 1 if idle else 0
            self.page.page.wait_for_timeout(10)
        self.page.settle()

    def finish(self, trace: Trace, whole: Trace, feed: Feed) -> None:
        self.grow(trace, whole, len(whole))
        trace.image = whole.image
        self.page.viewer.end(feed, "done")
        self.turn()
        assert feed.complete.is_set()
        self.page.push()
        self.page.settle()

    def shows(self, whole: Trace, step: int, exact: bool = True) -> bool:
        """Whether the large picture is the estimate of a step, counted from 1; the quick one is smaller, and drawn
        smoothly."""
        shown = Image.open(io.BytesIO(self.page.pixels())).convert("RGB")
        wanted = frame(whole, "x0", step - 1, exact=exact)
        if exact:
            return np.array_equal(np.asarray(shown), wanted)
        small = np.asarray(shown.resize(wanted.shape[1::-1], Image.Resampling.BOX)).astype(float)
        off = {id(one): np.abs(small - frame(one, "x0", step - 1, exact=False)).mean() for one in (whole, *self.known)}
        return min(off, key=lambda one: off[one]) == id(whole) and off[id(whole)] < 25

    @property
    def status(self) -> str:
        return str(self.page.root.locator(".dx-status").inner_text())

    @property
    def place(self) -> tuple[int, int]:
        return int(self.page.step.input_value()), int(self.page.step.get_attribute("max"))

    def watched(self) -> tuple[set[str], set[str]]:
        """The places that the scrubber has stood at, and what was wrong in any frame."""
        return set(self.page.page.evaluate("[...seen]")), set(self.page.page.evaluate("[...faults]"))


@pytest.fixture
def others(tiny_model: Any, tiny_trace: Trace) -> dict[str, Trace]:
    settings = tiny_trace.settings
    return {
        "same": tiny_model.trace(settings.replace(seed=4)),
        "third": tiny_model.trace(settings.replace(seed=5)),
        "longer": tiny_model.trace(settings.replace(steps=7)),
    }


def test_a_step_that_is_held_stays_until_the_next_runs_is_there(
    host: Open, driven: None, tiny_trace: Trace, others: dict[str, Trace]
) -> None:
    runs = Runs(host, tiny_trace)
    runs.page.step.fill("2")
    assert runs.shows(tiny_trace, 2)
    runs.page.page.evaluate("seen.clear()")
    trace, feed = runs.begin(others["same"])
    runs.grow(trace, others["same"], 1)
    assert runs.status == "running: 1 of 4 steps"
    assert runs.shows(tiny_trace, 2), "step 2 of the new run is not there yet"
    sigma = f"{tiny_trace[1].sigma:.3g}"
    assert runs.page.root.locator("dl div", has_text="sigma").locator("dd").inner_text() == sigma
    runs.grow(trace, others["same"], 2)
    assert runs.shows(others["same"], 2, exact=False)
    runs.finish(trace, others["same"], feed)
    assert runs.shows(others["same"], 2)
    assert runs.watched() == ({"2 of 4"}, set())


def test_at_the_end_it_stays_at_the_end(host: Open, driven: None, tiny_trace: Trace, others: dict[str, Trace]) -> None:
    runs = Runs(host, tiny_trace)
    trace, feed = runs.begin(others["same"])
    for upto in (1, 2, 3):
        runs.grow(trace, others["same"], upto)
        assert runs.shows(tiny_trace, 4)
    runs.finish(trace, others["same"], feed)
    assert runs.shows(others["same"], 4)
    trace, feed = runs.begin(others["longer"])
    runs.grow(trace, others["longer"], 5)
    assert runs.place == (7, 7)
    assert runs.shows(others["same"], 4)
    runs.finish(trace, others["longer"], feed)
    assert runs.shows(others["longer"], 7)
    assert runs.watched() == ({"4 of 4", "7 of 7"}, set())


def test_in_a_run_of_another_length_the_nearest_noise_level_is_kept(
    host: Open, driven: None, tiny_trace: Trace, others: dict[str, Trace]
) -> None:
    longer = others["longer"]
    runs = Runs(host, tiny_trace)
    runs.page.step.fill("2")
    level = np.log(longer.curve("sigma")) - np.log(tiny_trace[1].sigma)
    nearest = int(np.argmin(np.abs(level))) + 1
    trace, feed = runs.begin(longer)
    runs.grow(trace, longer, 1)
    assert runs.shows(tiny_trace, 2)
    runs.finish(trace, longer, feed)
    assert runs.place == (nearest, 7)
    assert runs.shows(longer, nearest)
    trace, feed = runs.begin(others["same"])
    runs.finish(trace, others["same"], feed)
    assert runs.place == (2, 4), "and back again, however it was rounded on the way"
    assert runs.watched()[1] == set()


def test_a_run_that_is_replaced_never_cuts_the_timeline_and_leaves_its_pictures(
    host: Open, driven: None, tiny_trace: Trace, others: dict[str, Trace]
) -> None:
    """Newest wins: at each place what came last, whichever run made it."""
    runs = Runs(host, tiny_trace)
    runs.page.step.fill("3")
    runs.page.page.evaluate("seen.clear()")
    second, old = runs.begin(others["same"])
    runs.grow(second, others["same"], 2)
    third, new = runs.begin(others["third"])
    runs.page.viewer.end(old, "cancelled")  # as a model that was told to stop says it
    runs.turn()
    runs.grow(third, others["third"], 1)
    assert runs.status == "running: 1 of 4 steps"
    assert runs.shows(tiny_trace, 3), "the second run never came so far"
    runs.page.step.fill("2")
    assert runs.shows(others["same"], 2, exact=False), "but as far as this"
    runs.page.step.fill("1")
    assert runs.shows(others["third"], 1, exact=False)
    runs.finish(third, others["third"], new)
    assert runs.watched() == ({"3 of 4", "2 of 4", "1 of 4"}, set())


def test_a_run_that_is_stopped_says_so_and_is_as_long_as_it_came(
    host: Open, driven: None, tiny_trace: Trace, others: dict[str, Trace]
) -> None:
    runs = Runs(host, tiny_trace)
    trace, feed = runs.begin(others["same"])
    runs.grow(trace, others["same"], 2)
    runs.page.viewer.end(feed, "cancelled")
    runs.turn()
    assert runs.status == "stopped after 2 steps"
    assert runs.place == (2, 2)
    assert runs.shows(others["same"], 2)


def test_of_a_long_run_the_picture_goes_along(
    host: Open, driven: None, tiny_trace: Trace, others: dict[str, Trace]
) -> None:
    """Whoever waits for more than some seconds wants to see it made."""
    runs = Runs(host, tiny_trace)
    trace, _ = runs.begin(others["same"])
    runs.grow(trace, others["same"], 1)
    assert runs.place == (4, 4)
    runs.page.page.evaluate("later(5001)")
    runs.grow(trace, others["same"], 2)
    assert runs.place == (2, 4)
    assert runs.shows(others["same"], 2, exact=False)


def test_thumbs_of_another_view_come_in_place_of_those_before(host: Open, tiny_trace: Trace) -> None:
    page = host(Replay(tiny_trace))
    page.settle()
    page.page.evaluate(WATCH)
    for name in ("Latents", "Noise", "Estimate"):
        page.root.get_by_role("radio", name=name).check()
        page.settle()
    assert page.page.evaluate("[...faults]") == []
