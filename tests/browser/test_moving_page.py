"""Videos and sounds in a real browser: two scrubbers, frames that play, something to hear, and all of it in a page of
its own."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flashes import Recording, most_flashes
from hands import until
from moving import sound, video
from PIL import Image
from test_screen import ABOVE, height, several, within

from diffexplore.trace import Trace
from diffexplore.widgets.page import to_html
from diffexplore.widgets.viewer import Replay, Viewer

Open = Callable[[Viewer], Any]
# At a frame's own size nothing is resampled.
SMALL = ".dx-viewer.dx-viewer .dx-stage :is(.dx-screen, canvas) { width: 64px; max-width: none; }"

SOUND = 20.0  # seconds


def pixels(page: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.pixels())).convert("RGB"))


def test_every_frame_of_every_view_is_on_the_second_scrubber(host: Open) -> None:
    trace = video()
    page = host(Replay(trace))
    page.page.add_style_tag(content=SMALL)
    frame = page.root.get_by_label("frame", exact=True)
    assert frame.get_attribute("aria-valuetext") == "frame 5 of 9", "it begins in the middle, as a run that goes"
    for step, k in ((3, 4), (1, 0), (2, 8), (3, 3)):
        page.step.fill(str(step))
        frame.fill(str(k + 1))
        np.testing.assert_array_equal(pixels(page), np.asarray(trace.view("x0", step - 1, frame=k)))
        assert f"step {step} of 3, frame {k + 1} of 9" in page.root.locator(".dx-screen canvas").get_attribute(
            "aria-label"
        )
    for name, kind in (("Latents", "latents"), ("Guidance", "guidance"), ("Change", "change")):
        page.root.get_by_role("radio", name=name, exact=True).check()
        for k in (0, 2, 4, 7):
            frame.fill(str(k + 1))
            np.testing.assert_array_equal(pixels(page), np.asarray(trace.view(kind, 2, frame=k)), f"{kind} {k}")
    assert not [one for one in page.heard if one["kind"] != "hello"], "the kernel is not asked"


def test_frames_play_and_stop_and_a_strip_shows_what_is_pointed_at(host: Open) -> None:
    page = host(Replay(video()))
    frame = page.root.get_by_label("frame", exact=True)
    page.root.get_by_role("button", name="play frames").click()
    seen = set()

    def round_and_round() -> None:
        seen.add(frame.input_value())
        assert len(seen) == 9

    until(page.page, round_and_round)
    page.root.get_by_role("button", name="pause frames").click()
    at = frame.input_value()
    page.page.wait_for_timeout(400)
    assert frame.input_value() == at
    peek = page.root.locator(".dx-peek")
    assert not peek.is_visible()
    page.root.locator(".dx-strips").hover(position={"x": 40, "y": 15})
    peek.wait_for()
    shown = set()

    def moves() -> None:
        shown.add(page.pixels(".dx-peek canvas"))
        assert len(shown) > 2, "it moves"

    until(page.page, moves)
    page.step.hover()
    page.page.emulate_media(reduced_motion="reduce")
    page.root.locator(".dx-strips").hover(position={"x": 40, "y": 15})
    page.page.wait_for_timeout(200)
    assert len({page.pixels(".dx-peek canvas") for _ in range(8) if page.page.wait_for_timeout(60) is None}) == 1


def test_frames_that_flicker_do_not_flash_when_they_play(host: Open) -> None:
    trace = video(17)
    flicker = np.stack([np.full((32, 64, 3), 255 * (k % 2), np.uint8) for k in range(17)])
    trace.decode, trace.output = lambda latents: flicker.copy(), [Image.fromarray(one) for one in flicker]
    page = host(Replay(trace))
    page.root.get_by_label("speed").select_option("2")
    page.settle()
    recording = Recording(page.page)
    page.root.get_by_role("button", name="play frames").click()
    page.page.wait_for_timeout(3000)
    page.root.locator(".dx-strips").hover(position={"x": 40, "y": 15})
    page.page.wait_for_timeout(3000)
    page.page.wait_for_function("() => taken.times.length > 8")  # they did play
    times, frames = recording.stop()
    assert most_flashes(times, frames) <= 3
    page.page.emulate_media(reduced_motion="reduce")
    page.page.wait_for_timeout(1500)  # what was shown before has passed
    shown, began = [], time.monotonic()
    for _ in range(40):
        shown.append(page.pixels())
        page.page.wait_for_timeout(25)
    seconds = time.monotonic() - began
    changes = sum(a != b for a, b in itertools.pairwise(shown))
    assert 1 <= changes <= 2 * seconds + 1, "two pictures a second, for those who ask for less motion"


def test_two_videos_share_both_scrubbers(host: Open) -> None:
    traces = {"long": video(17), "short": video(9, seed=1)}
    page = host(Replay(traces))
    labels = page.root.locator(".dx-screen canvas")
    page.root.get_by_label("frame", exact=True).fill("17")
    page.settle()
    assert "frame 17 of 17" in labels.nth(0).get_attribute("aria-label")
    assert "frame 9 of 9" in labels.nth(1).get_attribute("aria-label")
    page.root.get_by_role("radio", name="Difference").check()
    page.settle()
    assert "difference from long" in labels.nth(1).get_attribute("aria-label")


def test_a_sound_is_heard_at_a_step_and_at_the_end(host: Open) -> None:
    # Long enough for a slow machine to look at it thrice before its end.
    page = host(Replay({"low": sound(seconds=SOUND), "high": sound(seed=1, hertz=4000, seconds=SOUND)}))
    page.step.fill("2")
    assert page.root.get_by_role("button", name="stop").count() == 0, "nothing plays by itself"
    page.root.get_by_role("button", name="listen to step 2, high").click()
    cursor = page.root.locator(".dx-cursor")
    cursor.wait_for()
    lefts = []
    for _ in range(3):
        lefts.append(cursor.evaluate("node => parseFloat(node.style.left)"))
        page.page.wait_for_timeout(120)
    assert 8 < lefts[0] < lefts[1] < lefts[2] < 92
    page.root.get_by_role("button", name="stop step 2, high").wait_for()
    page.step.fill("1")
    page.root.get_by_role("button", name="listen to step 1, high").wait_for()
    assert cursor.count() == 0, "the picture has moved on"
    page.root.get_by_role("button", name="listen to the end, low").click()
    page.root.get_by_role("button", name="stop the end, low").click()
    assert cursor.count() == 0


def test_a_page_of_its_own_needs_no_kernel(tab: Any, tmp_path: Path) -> None:
    page = tab.page
    page.goto(to_html(video(), tmp_path / "video.html").as_uri())
    canvas = page.locator(".dx-screen canvas")
    page.get_by_label("frame", exact=True).fill("2")
    page.get_by_label("step", exact=True).fill("1")
    page.get_by_role("button", name="play frames").click()
    page.get_by_role("button", name="pause frames").click()
    assert "step 1 of 3, frame" in canvas.get_attribute("aria-label")
    page.goto(to_html(sound(seconds=SOUND), tmp_path / "sound.html").as_uri())
    page.get_by_role("button", name="listen to the end").click()
    page.locator(".dx-cursor").wait_for()
    assert page.get_by_label("frame", exact=True).is_hidden()


@pytest.mark.parametrize("room", [(848, 599), (592, 647)])
def test_it_all_fits_one_screen_and_nothing_jumps(
    host: Open, tab: Any, tiny_trace: Trace, axe: Callable[[Any], list[str]], room: tuple[int, int]
) -> None:
    tab.page.set_viewport_size({"width": room[0], "height": room[1]})
    page = host(Replay(tiny_trace))
    within(page, room[0])
    plain = {1: height(page)}
    page.viewer.show(several(tiny_trace, 2))
    page.push()
    plain[2] = height(page)
    made = {"video": video(17), "sound": sound()}
    for kind, trace in made.items():
        for count in (1, 2, 4):
            page.viewer.show(several(trace, count) if count > 1 else trace)
            page.push()
            if room[0] >= 720:  # else a picture is as high as its shape makes it
                assert height(page) == plain[min(count, 2)], f"{count} of a {kind} are as high as pictures"
            page.settle()
            under = page.root.locator(".dx-under:visible")
            parts = [*page.root.locator(".dx-film canvas").all(), under, page.root.locator(".dx-strips"), page.step]
            for part in parts:
                box = part.bounding_box()
                assert ABOVE[min(count, 2)] + box["y"] + box["height"] <= room[1], f"{count} of a {kind}"
                assert box["x"] + box["width"] <= room[0] + 0.5
            assert page.root.locator(".dx-strips").bounding_box()["height"] >= 20 * count
            pictures = page.root.locator(".dx-screen canvas").all()
            lowest = max(one.bounding_box()["y"] + one.bounding_box()["height"] for one in pictures)
            assert lowest <= under.bounding_box()["y"], "it stands under the pictures"
        assert axe(page.page) == []
