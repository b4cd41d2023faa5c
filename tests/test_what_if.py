"""What if the guidance had been another: the recombined step, and the answers that a page gets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffexplore.model import Model
from diffexplore.trace import Trace
from diffexplore.widgets.viewer import Viewer
from diffexplore.widgets.what_if import WhatIf, what_if


def pixels(picture: Any) -> np.ndarray:
    return np.asarray(picture).astype(int)


def read(data: bytes) -> np.ndarray:
    return pixels(Image.open(io.BytesIO(data)).convert("RGB"))


class Page:
    """A page that asks, and what it is told."""

    def __init__(self, runs: dict[int, Sequence[Trace]]) -> None:
        self.viewer = Viewer()
        self.what_if = WhatIf(self.viewer, runs.get)
        self.heard: list[tuple[dict[str, Any], list[bytes]]] = []
        self.viewer.send = lambda content, buffers=None: self.heard.append((content, buffers))

    def ask(self, run: Any, guidance: Any, steps: Any) -> tuple[dict[str, Any], list[bytes]]:
        self.heard.clear()
        self.viewer._handle_custom_msg({"kind": "what if", "run": run, "guidance": guidance, "steps": steps}, [])
        (answer,) = self.heard
        return answer


@pytest.mark.parametrize("i", [0, 3])
def test_with_its_own_guidance_it_shows_the_step_itself(tiny_trace: Trace, i: int) -> None:
    for kind in ("x0", "noise"):
        shown = pixels(what_if(tiny_trace, i, tiny_trace.settings.guidance, kind))
        assert abs(shown - pixels(tiny_trace.view(kind, i, size=160))).max() <= 1


def test_what_it_shows_at_the_first_step_is_what_a_run_with_that_guidance_shows_there(
    tiny_model: Model, tiny_trace: Trace
) -> None:
    real = tiny_model.trace(tiny_trace.settings.replace(guidance=9.0))
    for kind in ("x0", "noise"):
        shown = pixels(what_if(tiny_trace, 0, 9.0, kind))
        assert abs(shown - pixels(real.view(kind, 0, size=160))).max() <= 1


def test_a_page_is_answered_without_a_model_call_and_knows_which_question_it_was(
    tiny_model: Model, tiny_trace: Trace
) -> None:
    calls: list[int] = []
    page = Page({3: [tiny_trace]})
    seen = set()
    with tiny_model.pipeline.unet.register_forward_hook(lambda *_: calls.append(1)):
        for guidance in (1.0, 5, 15.0):
            answer, (picture,) = page.ask(3, guidance, [1])
            assert (answer["run"], answer["guidance"], answer["steps"], answer["told"]) == (3, guidance, [1], [""])
            assert abs(read(picture) - pixels(what_if(tiny_trace, 1, guidance))).max() == 0
            seen.add(picture)
    assert len(seen) == 3
    assert calls == []


def test_where_there_is_no_split_it_says_so_and_has_no_picture(tiny_model: Model, tiny_trace: Trace) -> None:
    off = tiny_model.trace(prompt="a red fox", steps=2, guidance=1.0, sampler="DDIM")
    answer, pictures = Page({1: [off, tiny_trace]}).ask(1, 5.0, [0, 0])
    assert answer["told"][0].startswith("Step 1 cannot be guided anew: ")
    assert answer["told"][1] == ""
    assert (pictures[0], bool(pictures[1])) == (b"", True)


def test_of_a_run_that_is_no_more_there_is_no_picture(tiny_trace: Trace) -> None:
    page = Page({2: [tiny_trace]})
    for run, steps in ((1, [0]), (2, [0, 0])):
        answer, pictures = page.ask(run, 5.0, steps)
        assert set(answer["told"]) == {"The kernel no longer has this run: press Run."}
        assert set(pictures) == {b""}


@pytest.mark.parametrize(
    ("guidance", "steps", "said"),
    [
        (5.0, [4], "Step must be a whole number from 1 to 4, got 5."),
        (5.0, [-1], "Step must be a whole number from 1 to 4, got 0."),
        (5.0, ["2,5"], "Step must be a whole number from 1 to 4, got '2,5'."),
        ("<b>", [0], "guidance must be a finite number, got '<b>'"),
        (float("inf"), [0], "guidance must be a finite number, got inf"),
        (True, [0], "guidance must be a finite number, got True"),
        (None, [0], "guidance must be a finite number, got None"),
    ],
)
def test_what_makes_no_sense_is_said_and_has_no_picture(
    tiny_trace: Trace, guidance: Any, steps: list[Any], said: str
) -> None:
    answer, pictures = Page({1: [tiny_trace]}).ask(1, guidance, steps)
    assert answer["told"] == [said]
    assert pictures == [b""]


@pytest.mark.parametrize("content", [None, 3, {"kind": "what if"}, {"kind": "what if", "run": 1, "steps": 3}])
def test_what_is_no_question_has_no_answer(tiny_trace: Trace, content: Any) -> None:
    page = Page({1: [tiny_trace]})
    page.viewer._handle_custom_msg(content, [])
    assert page.heard == []


def test_another_guider_is_asked_for_by_name_and_the_runs_own_by_none(tiny_model: Model, tiny_trace: Trace) -> None:
    bent = tiny_model.trace(tiny_trace.settings.replace(guider="APG"))
    page = Page({1: [tiny_trace], 2: [bent]})
    told, (picture,) = page.what_if.answer(1, 9.0, [2], guider="APG")
    assert told == [""]
    assert abs(read(picture) - pixels(what_if(tiny_trace, 2, 9.0, guider="APG"))).max() <= 1
    plain = page.what_if.answer(1, 9.0, [2])[1][0]
    assert plain != picture
    told, (own,) = page.what_if.answer(2, 5.0, [2])  # its own, which remembers
    assert abs(read(own) - pixels(bent.view("x0", 2, size=160))).max() <= 1
    told, pictures = page.what_if.answer(1, 9.0, [2], guider="APQ")
    assert told[0].startswith("guider must be one of CFG, rescale, APG")
    assert pictures == [b""]
    assert list(page.viewer.guiders)[:3] == ["CFG", "rescale", "APG"]
