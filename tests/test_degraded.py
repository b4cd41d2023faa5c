"""How many pictures come out degraded, over steps, guidance and sampler."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.experiments.counts import wilson
from diffexplore.experiments.degraded import Degraded

CAR = "a red car in the snow at night"


@pytest.fixture(scope="module")
def found() -> Degraded:
    return dx.degraded(dx.load(), [0, 1, 2], steps=(3, 8), guidance=(5.0, 16.0), samplers=["DDIM"], prompt=CAR)


def test_too_few_steps_with_too_much_guidance_degrade_what_enough_steps_do_not(found: Degraded) -> None:
    assert found.counts.shape == (1, 2, 2)
    assert found.counts[0, 1, 0] == 3
    assert found.counts[0, 0, 1] == 0
    worst = next(row for row in found.table() if row["guidance"] == 16 and row["steps"] == 3)
    assert (worst["count"], worst["of"], worst["low"], worst["high"]) == (3, 3, *wilson(3, 3))
    assert worst["mostly"] not in ("", "clean")
    gap = found.compare(("DDIM", 5.0, 8), ("DDIM", 16.0, 3))
    assert (gap.difference, gap.first, gap.second) == (1.0, 0, 3)
    assert "fewest degraded at DDIM, guidance 5, 8 steps, 0 of 3" in str(found)


def test_a_picture_is_degraded_where_the_judge_reads_a_flaw_or_misses_what_was_asked(found: Degraded) -> None:
    for seed in (0, 2):
        image = dx.load(reuse=0).trace(prompt=CAR, steps=3, guidance=16.0, seed=seed, sampler="DDIM").image
        read = {name: max(one, key=one.get) for name, one in dx.judge(image).items()}
        right = (read["subject"], read["colour"], read["setting"], read["light"]) == ("car", "red", "snow", "night")
        told = found.read[0, 1, 0, seed]
        assert told == (read["quality"] if read["quality"] != "clean" else "clean" if right else "not as asked")


def test_the_table_is_a_csv_and_the_figure_shows_each_sampler(found: Degraded, tmp_path: Path) -> None:
    found.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sampler"], row["guidance"], row["steps"]) for row in rows] == [
        ("DDIM", "5.0", "3"), ("DDIM", "5.0", "8"), ("DDIM", "16.0", "3"), ("DDIM", "16.0", "8")
    ]  # fmt: skip
    figure = found.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["DDIM"]
    drawn = figure.axes[0].lines[1].get_ydata()
    assert np.allclose(drawn, 100 * found.counts[0, 1] / 3)


def test_a_function_of_ones_own_says_what_is_degraded() -> None:
    seen = []

    def dark(image: object) -> bool:
        seen.append(np.asarray(image).mean())
        return bool(seen[-1] < 90)

    own = dx.degraded(dx.load(), 3, steps=2, guidance=5.0, samplers=["DDIM"], read=dark, prompt="a fox")
    assert own.counts.item() == sum(one < 90 for one in seen)
    with pytest.raises(ValueError, match="read must say True or False of a picture, got"):
        dx.degraded(dx.load(), 1, steps=2, guidance=5.0, samplers=["DDIM"], read=lambda image: "dark", prompt="a fox")


def test_bad_input_gets_one_sentence_before_any_work(found: Degraded) -> None:
    model = dx.load()
    for values, told in (
        ({"prompt": "a blurry fox"}, r"asks for a degraded picture \(blurry\)"),
        ({"steps": []}, "steps must be a number or several"), ({"steps": [4, 0]}, "steps"),
        ({"guidance": np.array([1.0, np.nan])}, "guidance must be a number .* got nan"),
        ({"steps": {4}}, r"steps must be a whole number .* got \{4\}"),
        ({"samplers": ["nope"]}, "nope"), ({"seed": 1}, "seed differs from run to run"), ({"read": 3}, "read must be"),
        ({"n": 2000}, "at most 4000 pictures are drawn"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            dx.degraded(model, **values)
    with pytest.raises(ValueError, match=r"a cell is a \(sampler, guidance, steps\) of DDIM; 5, 16"):
        found.compare(("DDIM", 5.0, 8), ("DDIM", 5.0, 11))
