"""What a sweep or a comparison varies: a field, or one thing within one, by a path."""

import re

import pytest
from paper import own_words

import diffexplore as dx
from diffexplore.experiments.axes import axis_of
from diffexplore.widgets.columns import plain, settings_of

DOG = {"prompt": "a dog"}
BASE = dx.Settings(prompt="a fox", adapters={"ink": 0.5}, changes={0.4: {"guidance": 1.0}, 0.2: DOG})


def test_a_path_puts_one_thing_and_leaves_the_rest():
    for path, value, expected in [
        ("steps", 7, {"steps": 7}),
        (
            "changes.0.4.prompt",
            "a car",
            {"changes": {0.4: {"guidance": 1, "prompt": "a car"}, 0.2: {"prompt": "a dog"}}},
        ),
        ("changes.1.guidance", 3, {"changes": {1.0: {"guidance": 3}, **BASE.model_copy().told()["changes"]}}),
        ("adapters.my.style", 1, {"adapters": {"ink": 0.5, "my.style": 1}}),
        (
            "changes.0.2.adapters.style",
            0.8,
            {"changes": {0.4: {"guidance": 1}, 0.2: {**DOG, "adapters": {"ink": 0.5, "style": 0.8}}}},
        ),
    ]:
        made = axis_of(path).put(BASE, value)
        assert made == BASE.replace(**expected), path
        assert axis_of(path).of(made) == value
    assert axis_of("changes.0.3.prompt").of(BASE) is None
    assert axis_of("changes.0.4.negative_prompt").words == "negative prompt from 0.4 on"


def test_columns_of_a_comparison_take_the_same_paths():
    own = {"changes.0.40.prompt": "a car", "steps": 9}
    read = settings_of({"prompt": "a fox", "changes": {0.1: {"guidance": 1.0}}, **own})
    assert read == dx.Settings(prompt="a fox", steps=9, changes={0.4: {"prompt": "a car"}, 0.1: {"guidance": 1.0}})
    assert dx.Settings(**plain(own, read)).changes == read.changes
    assert settings_of({"adapters.ink": 1}).adapters == (("ink", 1.0),)


def test_a_sweep_over_a_change_is_the_runs_it_says(tiny_model):
    grid = dx.sweep(
        tiny_model, x=("changes.0.9.prompt", ["a car", "a fox"]), y=("changes.0.5.guidance", [1, 5]),
        prompt="a fox", steps=3, sampler="DDIM",
    )  # fmt: skip
    assert grid.settings[0][0].changes == ((0.9, (("prompt", "a car"),)), (0.5, (("guidance", 1.0),)))
    assert [row["changes.0.9.prompt"] for row in grid.rows()] == ["a car", "a fox"] * 2
    plain_run = tiny_model.trace(prompt="a fox", steps=3, sampler="DDIM")
    assert float((grid.traces[1][1].final - plain_run.final).abs().max()) < 1e-4
    assert float((grid.traces[1][0].final - plain_run.final).abs().max()) > 1e-2
    assert any("prompt from 0.9 on" in text for text in own_words(grid.plot()))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("changes", None),
        ("changes.", "a change on the way is changes.SHARE.FIELD, such as changes.0.4.prompt, with a share of noise"),
        ("changes.1.5.prompt", "from 0 to 1; got 'changes.1.5.prompt'"),
        ("changes.half.prompt", "got 'changes.half.prompt'"),
        ("changes.0.4.promt", "got 'promt', did you mean 'prompt'?"),
        ("changes.0.4.steps", "changes may be of prompt, negative_prompt, guidance"),
        ("changes.0.4.prompt.first", "only adapters have parts"),
        ("steps.3", "settings are prompt"),
        ("adapters.", "settings are prompt"),
        (3, "got 3"),
    ],
)
def test_a_path_to_nothing_is_refused_in_a_sentence(path, says):
    if says is None:
        assert axis_of(path).field == path
        return
    with pytest.raises(ValueError, match=re.escape(says)):
        axis_of(path)


def test_axes_that_overlap_are_refused_before_any_work(tiny_model):
    for x, y, more, says in [
        ("changes.0.4.prompt", "changes.0.40.prompt", {}, "x and y must vary different settings"),
        ("changes.0.4.prompt", "changes", {}, "x and y must vary different settings"),
        ("changes.0.4.prompt", "seed", {"changes": {0.4: {"prompt": "a"}}}, "cannot be set for all cells too, got 'a'"),
        ("changes.2.prompt", "seed", {}, "with a share of noise from 0 to 1"),
    ]:
        values = {"seed": [1], "changes": [{}]}
        with pytest.raises(ValueError, match=re.escape(says)):
            dx.sweep(tiny_model, x=(x, values.get(x, ["a car"])), y=(y, values.get(y, ["a cat"])), **more)
