"""widgets/leveled.py: levels and steps of an Explorer follow each other, and what a page asks for becomes a setting."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import make_pipeline

from diffexplore.model import Model
from diffexplore.widgets.explorer import Explorer


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_pipeline())


def ask(explorer: Explorer, act: str, value: Any) -> None:
    explorer.viewer._handle_custom_msg({"kind": "levels", "act": act, "value": value}, [])


def test_levels_and_steps_are_as_many_whichever_is_set(model: Model) -> None:
    explorer = Explorer(model, prompt="a fox", steps=5, sampler="Euler")
    plain = model.levels(steps=5, sampler="Euler")
    assert explorer.viewer.levels["sigmas"] == list(plain)
    assert not explorer.viewer.levels["own"]
    ask(explorer, "set", [14.0, 6.0, 2.0, 1.0, 0.03])
    assert explorer.sigmas == (14.0, 6.0, 2.0, 1.0, 0.03)
    assert explorer.viewer.levels["plain"] == list(plain)
    # Another number of steps keeps the ends, and the curve between them.
    explorer.steps = 9
    assert explorer.sigmas[::2] == pytest.approx((14.0, 6.0, 2.0, 1.0, 0.03))
    # A way to space them is kept over a number of steps; a hand that has moved one is no such way.
    ask(explorer, "way", "karras")
    explorer.steps = 4
    assert explorer.sigmas == model.levels("karras", 4, sampler="Euler")
    assert explorer.viewer.levels["way"] == "karras"
    explorer.sigmas = (10.0, 1.0, 0.1)
    assert (explorer.steps, explorer.viewer.levels["way"]) == (3, "")
    assert "sigmas=(10.0, 1.0, 0.1)" in explorer.code()
    trace = explorer.run()
    assert [step.sigma for step in trace] == pytest.approx([10.0, 1.0, 0.1])
    ask(explorer, "way", "")
    assert (explorer.sigmas, explorer.steps) == (None, 3)
    explorer.close()


def test_a_branch_and_a_recipe_bring_levels_along(model: Model) -> None:
    explorer = Explorer(model, prompt="a fox", sampler="Euler", sigmas=(10.0, 2.0, 0.5, 0.1), fresh_noise=0.5)
    assert explorer.steps == 4
    explorer.run()
    explorer.branch(2, prompt="a cat")
    assert explorer.settings.sigmas == (10.0, 2.0, 0.5, 0.1)
    assert explorer.settings.fresh_noise == 0.5
    explorer.close()


def test_what_is_refused_is_said_and_changes_nothing(model: Model) -> None:
    explorer = Explorer(model, prompt="a fox", steps=3, sampler="Euler")
    ask(explorer, "set", [1.0, 3.0])
    assert "each below the one before" in explorer.viewer.error
    ask(explorer, "set", [300.0, 3.0])
    assert "go from 0.02917 to 14.61" in explorer.viewer.error
    assert (explorer.sigmas, explorer.steps) == (None, 3)
    ask(explorer, "fresh", 0.5)
    assert explorer.fresh_noise == 0.5
    with pytest.raises(ValueError, match="cannot be asked for a fresh noise"):
        explorer.sampler = "LMS"
    ask(explorer, "fresh", None)
    explorer.sampler = "LMS"
    assert "it remembers steps" in explorer.viewer.levels["dry"]
    explorer.sampler = "PLMS"
    assert "counts its timesteps off" in explorer.viewer.levels["why"]
    explorer.close()
