"""runs/sampling.py: what a model says of its samplers' levels and noise, and settings that carry them everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import make_pipeline
from tiny_families import model

import diffexplore as dx
from diffexplore.model import Model

LEVELS = (14.0, 5.0, 1.0, 0.2)


def test_a_model_offers_levels_over_its_own_range() -> None:
    one = model("sd")
    karras = one.levels("karras", 8, sampler="Euler", rho=5)
    assert len(karras) == 8
    assert one.levels(steps=8, sampler="Euler") == pytest.approx(one.levels("as trained", 8, sampler="Euler"), rel=1e-4)
    assert one.trace(prompt="a fox", sampler="Euler", sigmas=karras)[3].sigma == pytest.approx(karras[3])
    with pytest.raises(ValueError, match=r"takes no noise levels of one's own: it counts its timesteps off"):
        one.levels("karras")  # this pipeline came with DDIM
    with pytest.raises(ValueError, match="sampler 'Flow Euler' cannot be used here"):
        one.levels("karras", sampler="Flow Euler")
    assert "counts its timesteps off" in str(one.abilities["sigmas"])
    assert one.abilities["fresh_noise"] is True
    assert model("sd3").abilities["sigmas"] is True
    assert one.fixed("Euler") == {}


def test_settings_carry_them_and_steps_follow() -> None:
    asked = dx.Settings(prompt="a fox", sigmas=[*LEVELS, 0], fresh_noise=0.5)
    assert (asked.steps, asked.sigmas, asked.fresh_noise) == (4, LEVELS, 0.5)
    assert dx.Settings.from_json(asked.to_json()) == asked
    assert hash(asked) == hash(dx.Settings(prompt="a fox", sigmas=LEVELS, steps=4, fresh_noise=0.5))
    assert json.loads(asked.to_json())["sigmas"] == list(LEVELS)
    # Another number of levels is another number of steps; a number of steps that they do not have is a contradiction.
    assert asked.replace(sigmas=(3.0, 1.0)).steps == 2
    assert asked.replace(sigmas=None).steps == 4
    with pytest.raises(
        ValueError, match="steps follow from sigmas, which have 4 levels above 0: leave steps out, got 9"
    ):
        asked.replace(steps=9)
    assert asked.replace(sigmas=None, steps=9).sigmas is None
    plain = dx.Settings(prompt="a fox").to_json()
    assert "sigmas" not in plain
    assert "fresh" not in plain
    for wrong in (-0.1, 2.5, float("nan"), "1", True):
        with pytest.raises(ValueError, match="fresh_noise must be a number from 0 to 2, or None, got"):
            dx.Settings(fresh_noise=wrong)


def test_they_are_kept_in_files_pictures_and_memory(tmp_path: Path) -> None:
    one = Model(make_pipeline())
    trace = one.trace(prompt="a red fox", sampler="Euler", sigmas=LEVELS, fresh_noise=0.5, seed=1)
    trace.save(tmp_path / "run.safetensors")
    assert dx.Trace.load(tmp_path / "run.safetensors").settings == trace.settings
    trace.save_image(tmp_path / "fox.png")
    assert dx.read_recipe(tmp_path / "fox.png") == trace.settings
    assert one.trace(trace.settings).info["reused"]
    for other in ({"sigmas": (14.0, 5.0, 1.0, 0.3)}, {"fresh_noise": 0.6}, {"fresh_noise": None}):
        assert "reused" not in one.trace(trace.settings.replace(**other)).info
