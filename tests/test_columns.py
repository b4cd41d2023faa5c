"""What is compared, as data: labels, presets, JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.widgets import columns as rules
from diffexplore.widgets.columns import PRESETS

SHARED: dict[str, Any] = {"prompt": "a red fox", "steps": 4, "seed": 3, "sampler": "DDIM"}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_differs_in_what_it_says_and_can_run(preset: str, tiny_model: Model) -> None:
    columns = PRESETS[preset](tiny_model, Settings(**SHARED))
    plan = [tiny_model.resolve(Settings(**SHARED).replace(**own)) for own in columns.values()]
    assert len({one.to_json() for one in plan}) == len(columns) >= 2
    names = {name for one in plan[1:] for name in one.diff(plan[0])}
    # An interval of guidance is no guider: there it is a change on the way.
    assert names == {"guider", "changes"} if preset == "guiders" else len(names) == 1


@pytest.mark.parametrize(
    ("own", "label"),
    [
        ({}, "plain"),
        ({"guidance": 7.5, "steps": 4}, "guidance 7.5, steps 4"),
        ({"prompt": "a  fox\nat night"}, "a fox at night"),
        ({"prompt": "fox " * 100_000}, ("fox " * 12).strip()),
        ({"adapters": {"style": 0.5, "ink": 1.0}}, "style 0.5, ink 1"),
        ({"sampler": None}, "None"),
        ({"sigmas": [14.6, 3.0, 0.1], "fresh_noise": 0.5}, "3 levels from 14.6, fresh noise 0.5"),
        ({"negative_prompt": " "}, "plain"),
    ],
)
def test_a_label_says_what_a_column_has_of_its_own(own: dict[str, Any], label: str) -> None:
    assert rules.label_of(own) == label


def test_a_label_that_is_taken_is_numbered() -> None:
    assert rules.free("a", ["b"]) == "a"
    assert rules.free("a", ["a", "a (2)"]) == "a (3)"
    assert list(rules.with_one("steps", [4, 4, 5])) == ["steps 4", "steps 4 (2)", "steps 5"]


@pytest.mark.parametrize(
    ("label", "then"),
    [("steps 4", "steps 6"), ("steps 4 (2)", "steps 6"), ("mine", "mine"), ("mine (2)", "mine (2)"), ("4", "4")],
)
def test_a_label_that_only_says_the_values_follows_them(label: str, then: str) -> None:
    assert rules.relabelled(label, {"steps": 4}, {"steps": 6}) == then


def test_values_come_out_as_plain_ones() -> None:
    given = {"steps": np.int64(4), "guidance": 7, "sampler": None, "adapters": (("style", np.float32(0.5)),)}
    found = rules.plain(given, rules.settings_of(given))
    assert found == {"steps": 4, "guidance": 7.0, "sampler": None, "adapters": {"style": 0.5}}
    assert {type(one) for one in found.values()} == {int, float, type(None), dict}
    assert rules.from_json(rules.to_json(found, {"a": {}, "b": {}})) == (found, {"a": {}, "b": {}})


def test_a_near_name_of_a_preset_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'seeds'"):
        rules.preset("seed")


def test_a_column_may_change_on_its_way() -> None:
    shared, columns = {"prompt": "a fox"}, {"plain": {}, "late": {"changes": {0.5: {"prompt": "a car", "guidance": 1}}}}
    read = rules.checked(shared, columns)["late"]
    kept = rules.plain(columns["late"], read)
    assert kept == {"changes": {"0.5": {"prompt": "a car", "guidance": 1.0}}}
    assert rules.label_of(kept) == "from 0.5: a car, guidance 1"
    again = rules.from_json(rules.to_json(shared, {"plain": {}, "late": kept}))[1]
    assert rules.checked(shared, again)["late"] == read


def test_a_column_with_levels_of_its_own_has_as_many_steps() -> None:
    made = rules.checked({"steps": 20, "sampler": "Euler"}, {"own": {}, "four": {"sigmas": [14.0, 5.0, 1.0, 0.1]}})
    assert [one.steps for one in made.values()] == [20, 4]
    shared, columns = rules.from_json(rules.to_json({"sampler": "Euler"}, {"a": {}, "b": {"sigmas": [14.0, 5.0]}}))
    assert rules.checked(shared, columns)["b"].sigmas == (14.0, 5.0)
