"""What if the guidance had been another: the recombined step, and the sliders over it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ipywidgets import HTML, Image, Text
from knobs import choose, find, move, on, parts, type_in
from PIL import Image as Picture

from diffexplore.model import Model
from diffexplore.trace import Trace
from diffexplore.widgets.what_if import WhatIfPanel


def pictures(panel: WhatIfPanel) -> list[bytes]:
    """The run's own x0, then x0 and noise as they would have been."""
    return [bytes(one.value) for one in parts(panel) if isinstance(one, Image)]


def says(panel: WhatIfPanel) -> str:
    (text,) = [one.value for one in parts(panel) if isinstance(one, HTML)]
    return str(text)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("step", [1, 4])
def test_with_its_own_guidance_it_shows_the_step_itself(tiny_trace: Trace, step: int) -> None:
    panel = WhatIfPanel({"run": tiny_trace})
    move(panel, "step", step)
    assert on(panel, "guidance") == tiny_trace.settings.guidance, "where it starts"
    was, x0, noise = map(pixels, pictures(panel))
    assert abs(was - x0).max() <= 1
    assert abs(noise - np.asarray(tiny_trace.view("noise", step - 1, size=160)).astype(int)).max() <= 1


def test_what_it_shows_at_the_first_step_is_what_a_run_with_that_guidance_shows_there(
    tiny_model: Model, tiny_trace: Trace
) -> None:
    panel = WhatIfPanel({"run": tiny_trace})
    move(panel, "guidance", 9.0)
    real = tiny_model.trace(tiny_trace.settings.replace(guidance=9.0))
    _, x0, noise = map(pixels, pictures(panel))
    assert abs(x0 - np.asarray(real.view("x0", 0, size=160)).astype(int)).max() <= 1
    assert abs(noise - np.asarray(real.view("noise", 0, size=160)).astype(int)).max() <= 1


def test_the_sliders_show_it_without_a_model_call(tiny_model: Model, tiny_trace: Trace) -> None:
    calls: list[int] = []
    panel = WhatIfPanel({"run": tiny_trace})
    seen = set()
    with tiny_model.pipeline.unet.register_forward_hook(lambda *_: calls.append(1)):
        for guidance in (1.0, 5.0, 15.0):
            move(panel, "guidance", guidance)
            seen.add(pictures(panel)[1])
    assert len(seen) == 3
    assert calls == []
    assert "with another guidance" in says(panel)


def test_where_there_is_no_split_it_says_so_as_text_and_shows_no_other_picture(
    tiny_model: Model, tiny_trace: Trace
) -> None:
    trace = tiny_model.trace(prompt="a red fox", steps=2, guidance=1.0, sampler="DDIM")
    panel = WhatIfPanel({"<b>on</b>": tiny_trace, "off": trace})
    assert all(pictures(panel))
    choose(panel, "run", "off")
    assert says(panel).startswith("Step 1 cannot be guided anew: ")
    assert not any(pictures(panel))
    choose(panel, "run", "<b>on</b>")
    assert all(pictures(panel))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("step", "0", "Step must be a whole number from 1 to 4, got 0."),
        ("step", "5", "Step must be a whole number from 1 to 4, got 5."),
        ("step", "2,5", "Step must be a whole number from 1 to 4, got &#x27;2,5&#x27;."),
        ("guidance", "<b>", "guidance must be a finite number, got &#x27;&lt;b&gt;&#x27;"),
        ("guidance", "inf", "guidance must be a finite number, got inf"),
    ],
)
def test_what_is_typed_wrongly_is_said_and_stays(tiny_trace: Trace, name: str, text: str, said: str) -> None:
    panel = WhatIfPanel({"run": tiny_trace})
    type_in(panel, name, text)
    assert says(panel) == said
    assert on(panel, name, Text) == text
    assert not any(pictures(panel))
    type_in(panel, name, "2")
    assert all(pictures(panel))


def test_with_nothing_recorded_it_waits(tiny_trace: Trace) -> None:
    panel = WhatIfPanel()
    assert find(panel, "guidance").disabled
    assert "Run first" in says(panel)
    panel.show({"run": tiny_trace})
    assert not find(panel, "guidance").disabled
    assert pictures(panel)[0][:4] == b"\x89PNG"


def test_a_shorter_run_is_looked_at_where_it_ends(tiny_model: Model, tiny_trace: Trace) -> None:
    panel = WhatIfPanel({"run": tiny_trace})
    move(panel, "step", 4)
    panel.show({"run": tiny_model.trace(prompt="a red fox", steps=2, guidance=5.0, sampler="DDIM")})
    assert (on(panel, "step"), find(panel, "step").max) == (2, 2)
    assert all(pictures(panel))
