"""What if the guidance had been another: the recombined step, and the sliders over it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffexplore.model import Model
from diffexplore.trace import Trace
from diffexplore.widgets.what_if import WhatIf, guided_anew


@pytest.mark.parametrize("i", [0, 3])
def test_a_step_guided_anew_is_what_that_guidance_gives(tiny_trace: Trace, i: int) -> None:
    step = tiny_trace[i]
    other = guided_anew(step, 9.0)
    assert torch.allclose(other.noise, step.noise_uncond + 9.0 * (step.noise_cond - step.noise_uncond), atol=1e-4)
    assert torch.allclose(other.x0, step.what_if(9.0).x0, rtol=1e-4, atol=1e-4)
    assert torch.equal(other.latents, step.latents)


def test_its_own_guidance_gives_the_step_itself(tiny_trace: Trace) -> None:
    step = tiny_trace[2]
    assert torch.allclose(guided_anew(step, tiny_trace.settings.guidance).x0, step.x0, rtol=1e-4, atol=1e-4)


def test_the_first_step_of_a_run_with_that_guidance_is_what_was_foretold(tiny_model: Model, tiny_trace: Trace) -> None:
    real = tiny_model.trace(tiny_trace.settings.replace(guidance=9.0))
    assert torch.allclose(guided_anew(tiny_trace[0], 9.0).x0, real[0].x0, rtol=1e-3, atol=1e-3)


def test_the_sliders_show_it_without_a_model_call(tiny_model: Model, tiny_trace: Trace) -> None:
    calls: list[int] = []
    hook = tiny_model.pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    widget = WhatIf({"run": tiny_trace})
    seen = set()
    for guidance in (1.0, 5.0, 15.0):
        widget._guidance.value = guidance
        seen.add(bytes(widget._pictures["x0"].value))
    hook.remove()
    assert len(seen) == 3
    assert calls == []
    assert "with another guidance" in widget._says.value


def test_where_there_is_no_split_it_says_so_as_text(tiny_model: Model) -> None:
    trace = tiny_model.trace(prompt="a red fox", steps=2, guidance=1.0, sampler="DDIM")
    widget = WhatIf({"<b>off</b>": trace})
    assert "cannot be guided anew" in widget._says.value


def test_with_nothing_recorded_it_waits(tiny_trace: Trace) -> None:
    widget = WhatIf()
    assert widget._guidance.disabled
    assert "Run first" in widget._says.value
    widget.show({"run": tiny_trace})
    assert not widget._guidance.disabled
    assert np.frombuffer(widget._pictures["was"].value[:4], np.uint8)[0] == 0x89
