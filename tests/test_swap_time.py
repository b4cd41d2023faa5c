"""When is it too late: a prompt swapped at every share of noise, and where the picture goes over."""

import math

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.experiments.swap_time import half_way, plot_order, swap_time
from diffexplore.pocket.judge import judge

WHAT = {"steps": 4, "guidance": 4.0, "sampler": "DDIM"}


def test_half_way_is_found_between_two_marks_by_noise_level():
    # Half way between 0.9 and 0.1 in log(s / (1 - s)) is 0.5.
    assert half_way([0.99, 0.9, 0.1, 0.0], [1.0, 0.75, 0.25, 0.0]) == pytest.approx(0.5)
    assert half_way([0.99, 0.9, 0.1, 0.0], [1.0, 0.5, 0.0, 0.0]) == pytest.approx(0.9)
    assert math.isnan(half_way([0.99, 0.5, 0.0], [0.2, 0.1, 0.0]))  # it never was the second
    assert math.isnan(half_way([0.99, 0.5, 0.0], [1.0, 0.9, 0.8]))
    assert math.isnan(half_way([0.99, 0.5, 0.0], [1.0, math.nan, 0.0]))


def test_the_ends_are_the_plain_runs(tiny_model):
    found = swap_time(tiny_model, "a red fox", "a blue car", seeds=[3, 5], marks=4, **WHAT)
    assert found.moved.shape == (2, 4)
    assert found.moved[:, 0].tolist() == [1.0, 1.0]
    assert found.moved[:, -1].tolist() == [0.0, 0.0]
    assert found.judged is None  # not the pocket world
    assert (np.diff(found.marks) < 0).all()
    first = tiny_model.trace(prompt="a red fox", seed=3, **WHAT)
    assert np.abs(np.asarray(found.pictures[-1], int) - np.asarray(first.image, int)).max() <= 1
    middle = found.marks[1]
    alone = tiny_model.trace(prompt="a red fox", seed=3, changes={middle: {"prompt": "a blue car"}}, **WHAT)
    assert np.abs(np.asarray(found.pictures[1], int) - np.asarray(alone.image, int)).max() <= 1
    assert [row["mark"] for row in found.table()] == found.marks.tolist()
    assert found.half == pytest.approx(float(np.nanmedian(found.halves)), nan_ok=True)


def test_the_judge_tells_when_the_pocket_model_goes_over():
    model = dx.load()
    found = dx.swap_time(model, "a fox in the snow", "a car in the snow", seeds=2, marks=4, steps=8)
    assert found.judged is not None
    assert found.judged[:, 0].tolist() == [1.0, 1.0]
    assert judge(found.pictures[0])["subject"]["car"] > 0.5
    assert judge(found.pictures[-1])["subject"]["fox"] > 0.5
    assert 0 < found.half < found.marks[0]
    low, high = found.interval
    assert low <= found.half <= high
    texts = [text.get_text() for text in found.plot().texts]
    assert any("a fox in the snow" in text and "a car in the snow" in text for text in texts)
    order = plot_order({"subject": found, "the $same": found})
    assert [label.get_text() for label in order.axes[0].get_yticklabels()] == ["subject", "the $same"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"b": "a red fox"}, "swapping takes two different texts, got 'a red fox' twice"),
        ({"field": "promt"}, "field must be one of prompt, negative_prompt; got 'promt', did you mean 'prompt'"),
        ({"seeds": 0}, "seeds must be a whole number from 1 to 200, got 0"),
        ({"marks": 2}, "marks must be a whole number from 3 to 5, got 2"),
        ({"seed": 1}, "seed differs from run to run here and cannot be set, got 1"),
        ({"field": "negative_prompt", "guidance": 1.0}, "the negative prompt is ignored"),
    ],
)
def test_refusals(tiny_model, values, says):
    asked = {"a": "a red fox", "b": "a car", "seeds": 1, **WHAT} | values
    with pytest.raises(ValueError, match=says):
        swap_time(tiny_model, asked.pop("a"), asked.pop("b"), **asked)


def test_changes_are_an_axis_of_a_sweep(tiny_model):
    axis = [{}, {0.9: {"prompt": "a car"}}, {0.9: {"guidance": 1.0}}]
    grid = dx.sweep(tiny_model, ("changes", axis), prompt="a red fox", **WHAT)
    assert [row["changes"] for row in grid.rows()][2] == ((0.9, (("guidance", 1.0),)),)
    assert "from 0.9 a car" in " ".join(text.get_text() for text in grid.plot().texts)
