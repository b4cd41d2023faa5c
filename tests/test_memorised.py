"""How hard each prompt pulls at the first step, and what a LoRA that copies does to it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.experiments.memorised import Pulls
from diffexplore.record.predictions import rms

SAID = ["a red car in the snow at night", "a fox"]


@pytest.fixture(scope="module")
def found() -> Pulls:
    return dx.memorised(dx.load(), SAID, n=3, steps=5)


def test_the_size_is_that_of_the_two_predictions_at_the_first_step_of_the_very_run(found: Pulls) -> None:
    for k, prompt in enumerate(SAID):
        step = dx.load(reuse=0).trace(prompt=prompt, steps=5, seed=2)[0]
        assert found.sizes[k, 2] == pytest.approx(rms(step.noise_cond - step.noise_uncond), rel=1e-3)
    assert found.means == pytest.approx(found.sizes.mean(axis=1))
    assert found.share > 0.99


def test_nothing_but_the_first_step_is_drawn(found: Pulls) -> None:
    drawn = []

    class Counting(type(dx.load().pipeline.unet)):
        def forward(self, *args, **kwargs):
            drawn.append(len(args[0]))
            return super().forward(*args, **kwargs)

    model = dx.load(reuse=0)
    model.pipeline.unet.__class__ = Counting
    again = dx.memorised(model, SAID, n=3, steps=20, sampler="Euler")
    assert sum(drawn) <= 3 * 2 * 6, "both halves of six runs, and what was begun before they were stopped"
    assert again.sizes.shape == (2, 3)


def test_a_prompt_that_says_more_pulls_harder_whatever_was_learned(found: Pulls) -> None:
    vague = dx.memorised(dx.load(), ["a fox", "a car"], n=3, steps=5, name="vague")
    told = dx.memorised(dx.load(), [f"{one} in the snow at night" for one in ("a fox", "a car")], n=3, steps=5)
    assert told.against(vague).auc == 1.0
    assert not told.against(vague).told, "two prompts against two say nothing"
    figure = told.plot(vague)
    assert "against vague: AUC 1.000" in "".join(text.get_text() for text in figure.axes[0].texts)


def test_the_table_is_a_csv(found: Pulls, tmp_path: Path) -> None:
    found.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["prompt"], row["seed"]) for row in rows[:4]] == [
        ("plain", SAID[0], "0"), ("plain", SAID[0], "1"), ("plain", SAID[0], "2"), ("plain", SAID[1], "0")
    ]  # fmt: skip
    assert np.allclose([float(row["size"]) for row in rows], found.sizes.ravel())


def test_what_the_sign_says_nothing_of_is_refused_in_one_sentence(found: Pulls) -> None:
    model = dx.load()
    for prompts, values, told in (
        (SAID, {"negative_prompt": "blurry"}, "leave negative_prompt empty, got 'blurry'"),
        (SAID, {"guidance": 1.0}, "guidance must be above 1"), (SAID, {"seed": 1}, "seed differs from run to run"),
        ("a fox", {}, "prompts must be a list"), ([], {}, "prompts must be a list"), ([""], {}, "at least one word"),
        (SAID, {"name": 5}, "name must be a text or None, got 5"), (SAID, {"n": 1500}, "at most 2000 runs"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            dx.memorised(model, prompts, **values)
    other = dx.memorised(model, ["a fox"], n=1, steps=5, sampler="DDIM")
    with pytest.raises(ValueError, match="the first steps must be at one level of noise"):
        found.against(other)
    with pytest.raises(ValueError, match="must be pulls of prompts too, got None"):
        found.plot(None)  # type: ignore[arg-type]
