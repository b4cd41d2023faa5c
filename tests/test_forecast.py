"""forecast.py: what a sweep would cost is said before anything is drawn."""

from pathlib import Path

import pytest
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.forecast import Forecast
from diffexplore.model import Model


def test_nothing_is_drawn_and_what_is_there_is_counted_once(tmp_path: Path) -> None:
    model = Model(make_pipeline(), reuse=0)
    ran: list[int] = []
    model.pipeline.unet.register_forward_pre_hook(lambda *args: ran.append(1))
    asked = {"x": ("steps", [2, 3]), "y": ("sampler", ["DDIM", "Heun", "DDIM"]), "out": tmp_path / "cells"}
    plan = dx.sweep(model, dry=True, **asked)
    assert (plan.cells, plan.there, plan.left, plan.evaluations) == (4, 0, 4, 2 + 3 + 3 + 5)
    assert "4 of 4 cells to draw, 13 evaluations" in repr(plan)
    assert not ran
    assert not (tmp_path / "cells").exists()
    dx.sweep(model, **{**asked, "y": ("sampler", ["Heun"])})
    done = len(ran)
    plan = dx.sweep(model, dry=True, **asked)
    assert (plan.there, plan.left, plan.evaluations) == (2, 2, 5)
    assert len(ran) == done
    for seed in range(4):
        model.trace(steps=3, sampler="DDIM", seed=seed)
    plan = dx.sweep(model, dry=True, **asked)
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert "MiB" in repr(plan)
    # Two runs of two and three steps, with both halves of guidance: the latents and three predictions of each.
    assert plan.bytes is not None
    assert plan.bytes >= 5 * 4 * (4 * 8 * 12) * 4


def test_what_is_refused_is_refused_dry_too(tiny_model: Model) -> None:
    with pytest.raises(ValueError, match="steps must be a whole number"):
        dx.sweep(tiny_model, ("steps", [0]), dry=True)


def test_it_says_what_it_knows() -> None:
    assert repr(Forecast(9, 0, 90)) == "Forecast(9 of 9 cells to draw, 90 evaluations)"
    assert repr(Forecast(9, 3, 1234, 75, 3 * 2**20)) == (
        "Forecast(6 of 9 cells to draw, 1,234 evaluations, about 75 s here, one after the other, about 3.0 MiB)"
    )
    assert "about 2 min" in repr(Forecast(1, 0, 1, 130))
    assert "about 2.0 h" in repr(Forecast(1, 0, 1, 7200))
