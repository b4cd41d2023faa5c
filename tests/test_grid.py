"""grid.py: a sweep on paper, and its pictures judged."""

import csv
import sys

import numpy as np
import pytest
from paper import own_words

import diffexplore as dx
from diffexplore.experiments.sweep import sweep
from diffexplore.model import Model

STEPS = ("steps", [2, 3])
SAMPLER = ("sampler", ["DDIM", "Euler a", "Heun"])
SHARED = {"prompt": "a red fox", "seed": 3}


def test_the_figure_names_everything(tiny_model: Model) -> None:
    shown = own_words(sweep(tiny_model, x=STEPS, y=SAMPLER, **SHARED).plot())
    for text in ("steps →", "sampler ↓", "2", "3", "DDIM", "Euler a", "Heun", "a red fox"):
        assert shown.count(text) == 1, text
    assert sum(text.endswith("5 evaluations") for text in shown) == 1
    tall = sweep(tiny_model, x=("steps", [2, 3]), y=("guidance", [1, 2, 3, 4, 5.5]), sampler="DDIM")
    assert own_words(tall.plot()).count("3") == 3  # above, below, and a guidance
    stages = sweep(tiny_model, x=("skips", [{}, {0: {"skip": 0.0, "backbone": 1.5}}]), sampler="DDIM", steps=2)
    assert {"(none)", "stage 1 backbone 1.5 skip 0"} <= set(own_words(stages.plot()))
    data, size = tall._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] >= 500


@pytest.mark.parametrize("text", ["", "$5 and $6, a_b^c", r"$\frac{", "狐 🦊", "wide words " * 300, "x" * 5000])
def test_words_that_people_type_are_drawn_as_they_are(tiny_model: Model, text: str) -> None:
    own_words(sweep(tiny_model, x=("prompt", ["a cat", text]), y=("negative_prompt", [text]), steps=2).plot())
    own_words(sweep(tiny_model, x=("steps", [2]), prompt=text, negative_prompt=text).plot())


# The judge


def test_adherence_over_a_setting_is_the_judges_word_on_each_picture():
    model = dx.load()
    prompts = ["a blue fox in the snow", "something nice", "a castle in the desert at night"]
    grid = sweep(model, x=("steps", [1, 8]), y=("prompt", prompts), seed=3)
    values = grid.adherence()
    assert values.shape == (3, 2)
    assert np.isnan(values[1]).all(), "nothing the judge could look for"
    for i in (0, 2):
        assert values[i].tolist() == [dx.adherence(image, prompts[i]) for image in grid.images[i]]
    figure = grid.plot_adherence()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "8"]
    *rows, mean = axes.lines
    assert [line.get_ydata().tolist() for line in (rows[0], rows[2])] == [values[0].tolist(), values[2].tolist()]
    np.testing.assert_allclose(mean.get_ydata(), values[[0, 2]].mean(0))
    assert "sampler" in axes.get_xlabel()


def test_adherence_over_samplers_has_their_names_and_a_lone_row_no_mean():
    grid = sweep(dx.load(), x=("sampler", ["DDIM", "Euler a"]), prompt="a $fox$ in the snow", steps=2)
    (axes,) = grid.plot_adherence().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["DDIM", "Euler a"]
    assert len(axes.lines) == 1
    assert axes.get_xlabel().startswith("a $fox$ in the snow")


def test_seeds_are_names_and_numbers_are_in_order():
    model = dx.load()
    (axes,) = sweep(model, x=("seed", [1234569, 1234567]), prompt="a fox", steps=1).plot_adherence().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1234569", "1234567"]
    grid = sweep(model, x=("guidance", [5.0, 1.0]), prompt="a fox", steps=1)
    (axes,) = grid.plot_adherence().axes
    (line,) = axes.lines
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "5"]
    assert line.get_ydata().tolist() == grid.adherence()[0, ::-1].tolist()


def test_pictures_of_another_model_have_no_adherence(tiny_model):
    grid = sweep(tiny_model, x=("steps", [2, 3]), prompt="a fox")
    assert np.isnan(grid.adherence()).all()
    with pytest.raises(ValueError, match="none of these pictures can be judged"):
        grid.plot_adherence()


def test_a_value_of_several_numbers_is_named_by_them(tiny_model: Model) -> None:
    grid = sweep(tiny_model, ("variation", [None, (7, 0.25)]), steps=2)
    assert {"none", "7, 0.25"} <= set(own_words(grid.plot()))


# As a table


def test_the_table_has_a_row_for_each_cell_with_its_axes_first(tiny_model, tmp_path, monkeypatch):
    grid = sweep(tiny_model, x=STEPS, y=("changes.0.5.prompt", ['a, "car"', "=狐"]), sampler="DDIM", **SHARED)
    grid.traces[0][1], grid.errors[0][1] = None, "it failed"
    frame = grid.table()
    assert list(frame.columns) == [
        "changes.0.5.prompt", "steps", "seed", "evaluations", "seconds", "batch", "reused", "adherence", "error",
    ]  # fmt: skip
    assert frame["steps"].tolist() == [2, 3, 2, 3]
    assert frame["error"].tolist() == ["", "it failed", "", ""]
    assert frame["seconds"].isna().tolist() == [False, True, False, False]
    grid.to_csv(tmp_path / "grid.csv")
    with open(tmp_path / "grid.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["changes.0.5.prompt"] for row in read] == ['a, "car"'] * 2 + ["'=狐"] * 2, "no formula"
    assert (read[0]["seed"], read[1]["evaluations"], read[1]["error"]) == ("3", "", "it failed")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert grid.table() == grid.rows(), "without pandas, dicts"


def test_what_the_judge_says_is_in_the_table():
    grid = sweep(dx.load(), x=("steps", [1]), prompt="a blue fox in the snow", seed=3)
    assert [row["adherence"] for row in grid.rows()] == grid.adherence()[0].tolist()
