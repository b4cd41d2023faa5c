"""The controls: a value in, the same value out, whatever a hand or a browser does in between."""

from __future__ import annotations

import re
from typing import Any

import ipywidgets
import pytest
import torch
from ipywidgets import Text
from knobs import find, move, on, parts, press, registered, title, type_in
from tiny import make_pipeline
from tiny_families import model as family

from diffexplore.model import Model, load
from diffexplore.samplers import AS_IT_CAME, SAMPLERS
from diffexplore.widgets.controls import (
    NAMES,
    Number,
    Scales,
    Seed,
    close_all,
    control,
    model_of,
    names_for,
    pocket,
    sentence,
)

VALUES: dict[str, list[Any]] = {
    "prompt": ["", "a fox\nat night", "<b>"],
    "negative_prompt": ["", "blurry"],
    "steps": [1, 20, 50, 51, 1000, 7],
    "guidance": [5.0, 0.0, 1 / 3, 100.0, 7.25, 1e-5],
    "seed": [0, 2**63 - 1],
    "sampler": ["Euler", "DDIM", "one that this model does not offer"],
    "guider": ["CFG", "APG", "APG(eta=0.5)", "CFG"],
    "adapters": [{"style": 0.5}, {"style": -2.0, "not here": 1.0}, {}],
}


def heard(one: Any) -> list[Any]:
    """What a control says from now on."""
    said: list[Any] = []
    one.observe(lambda change: said.append(change["new"]), names="value")
    return said


@pytest.mark.parametrize("name", VALUES)
def test_every_setting_has_a_control_that_says_what_it_is_shown(name: str, tiny_model: Model) -> None:
    one = Scales(["style"]) if name == "adapters" else control(name, tiny_model)
    for value in VALUES[name]:
        one.show(value)
        assert one.value == value
        assert type(one.value) is type(value)
        said = heard(one)
        one.show(value)
        assert said == [], "what it says already is no news"
    close_all(one)


def test_only_what_a_model_has_has_a_control(tiny_model: Model, lora: Any) -> None:
    assert names_for(family("flux")) == NAMES  # one prediction at each step: nothing to mix
    assert names_for(tiny_model) == (*NAMES, "guider")
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    assert names_for(model) == (*NAMES, "guider", "adapters")


@pytest.mark.parametrize("name", VALUES)
def test_a_closed_control_leaves_nothing_registered(name: str, tiny_model: Model) -> None:
    before = registered()
    one = Scales(["style", "ink"]) if name == "adapters" else control(name, tiny_model)
    assert registered() != before
    close_all(one)
    assert registered() == before


# --- numbers ---


def test_a_slider_and_its_field_show_the_same() -> None:
    one = Number("guidance", 1.0, 15.0, 0.5)
    said = heard(one)
    move(one, "guidance", 7.5)
    assert (said, on(one, "guidance", Text)) == ([7.5], "7.5")
    type_in(one, "guidance", "3")
    assert said == [7.5, 3]
    one.show(3.0)  # what it means is for others to say, who then show it
    assert (said, on(one, "guidance")) == ([7.5, 3], 3.0)


@pytest.mark.parametrize("value", [10.0, 5.5, 1 / 3, 0.1, 99.99999999])
def test_digits_that_a_browser_adds_are_not_heard(value: float) -> None:
    one = Number("guidance", 0.0, 100.0, 0.5)
    one.show(value)
    said = heard(one)
    for echo in (value * (1 + 2e-16), value * (1 - 3e-16), float(f"{value:.12g}")):
        move(one, "guidance", echo)
        type_in(one, "guidance", f"{value:.12g}")
        assert said == []
        assert one.value == value


def test_digits_that_a_slider_adds_are_dropped() -> None:
    one = Number("guidance", 1.0, 15.0, 0.5)
    said = heard(one)
    move(one, "guidance", 10.000000000000002)
    move(one, "guidance", 5.500000000000001)
    assert said == [10.0, 5.5]


@pytest.mark.parametrize("text", ["", "7,5", "many", "0x10", "1 2"])
def test_a_text_that_is_no_number_is_handed_on_as_it_is(text: str) -> None:
    one = Number("steps", 1, 50, 1)
    one.show(20)
    type_in(one, "steps", text)
    assert one.value == text
    assert on(one, "steps", Text) == text
    assert on(one, "steps") == 20
    type_in(one, "steps", "20")
    assert one.value == 20


def test_a_slider_in_a_hand_keeps_its_range_and_code_gives_it_back() -> None:
    one = Number("steps", 1, 50, 1)
    slider = find(one, "steps")
    one.show(900)
    assert (slider.min, slider.max) == (1, 900)
    move(one, "steps", 700)
    one.show(700)
    assert slider.max == 900
    one.show(20)
    assert (slider.min, slider.max, slider.value) == (1, 50, 20)


def test_another_range_takes_the_value_with_it() -> None:
    one = Number("step", 1, 1, 1)
    one.limit(1, 20)
    move(one, "step", 15)
    one.limit(1, 10)
    assert (one.value, find(one, "step").max, on(one, "step", Text)) == (10, 10, "10")
    one.limit(1, 30)
    assert (one.value, find(one, "step").max) == (10, 30)


@pytest.mark.parametrize("name", VALUES)
def test_what_has_no_label_has_a_title_to_be_named_by(name: str, tiny_model: Model) -> None:
    made = Scales(["style", "ink"]) if name == "adapters" else control(name, tiny_model)
    for one in parts(made):
        assert isinstance(one, ipywidgets.Box) or one.description or title(one)


# --- samplers ---


def test_samplers_are_in_groups_by_what_they_do_and_each_has_its_sentence(tiny_model: Model) -> None:
    menu = control("sampler", tiny_model)
    assert sorted(menu.options) == sorted(tiny_model.samplers), "each once"
    groups = {title: [name for name, *_ in entries] for title, entries in menu.groups}
    own = groups.pop("the model's own", [])
    assert set(own) <= {AS_IT_CAME}
    assert list(groups) == [
        "this model's own",
        "nothing random on the way",
        "fresh noise on the way: more steps, another picture",
        "two looks at each step: twice the work",
    ]
    own, quiet, noisy, slow = groups.values()
    assert own == ["as it came"]
    assert {"DPM++ 2M Karras", "Euler", "DDIM"} <= set(quiet)
    assert {"Euler a", "DDPM", "DPM++ 2M SDE Karras"} <= set(noisy)
    assert {"Heun", "DPM2"} <= set(slow)
    rest = [entry for _, entries in menu.groups[1:] for entry in entries]
    assert all(sentence == SAMPLERS[name].sentence and label == name for name, sentence, label in rest)


def test_what_came_stands_first_and_says_what_it_is(tiny_model: Model) -> None:
    menu = control("sampler", tiny_model)
    assert menu.options[0] == menu.value == tiny_model.sampler == "as it came"
    ((name, sentence, label),) = menu.groups[0][1]
    assert (name, label) == ("as it came", "as it came: DDIM, leading")
    assert "came with this model" in sentence


def test_the_pocket_model_has_no_menu_entry_for_what_came() -> None:
    pocket = load()
    menu = control("sampler", pocket)
    assert "as it came" not in menu.options
    assert menu.value == pocket.sampler == "DPM++ 2M Karras"


# --- seeds and LoRAs ---


@pytest.mark.parametrize(
    ("text", "value"), [(" 7 ", 7), ("9007199254740993", 2**53 + 1), ("abc", "abc"), ("1.5", "1.5"), ("", "")]
)
def test_a_seed_is_read_from_its_field(text: str, value: Any) -> None:
    one = Seed()
    one.show(3)
    type_in(one, "seed", text)
    assert one.value == value


def test_dice_throw_a_seed() -> None:
    one = Seed()
    said = heard(one)
    for _ in range(4):
        press(one, "another seed")
    assert len(set(said)) == 4
    assert all(isinstance(value, int) and 0 <= value < 2**32 for value in said)
    assert on(one, "seed") == str(said[-1])


def test_a_scale_is_heard_beside_the_others() -> None:
    one = Scales(["style", "ink"])
    one.show({"style": 0.5, "not here": 1.0})
    move(one, "ink", 0.15000000000000002)
    assert one.value == {"style": 0.5, "not here": 1.0, "ink": 0.15}
    type_in(one, "style", "much")
    assert one.value["style"] == "much"


# --- models and errors ---


def test_a_model_is_itself_and_none_is_the_pocket_model(tiny_model: Model) -> None:
    assert model_of(tiny_model, "Explorer") is tiny_model
    assert model_of(None, "Explorer") is pocket() is pocket()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a fox", "Explorer takes a model here, not text: for a prompt write Explorer(prompt='a fox'), "
                  "for a model's name open it with diffexplore.load first"),
        (3, "Explorer takes a model, as diffexplore.load gives one of a pipeline, a folder or a name; got 3"),
        (Model, "Explorer takes a model, as diffexplore.load gives one of a pipeline, a folder or a name; got "
                "<class 'diffexplore.model.Model'>"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_told_what_to_write(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        model_of(given, "Explorer")


def test_a_pipeline_is_called_by_its_name(tiny_pipeline: Any) -> None:
    with pytest.raises(ValueError, match=r"got a StableDiffusionPipeline$"):
        model_of(tiny_pipeline, "Compare")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("steps must be 1"), "Steps must be 1."),
        (RuntimeError("it\nbroke."), "RuntimeError: it broke."),
        (RuntimeError(), "RuntimeError."),
        (MemoryError(), "Memory ran out (MemoryError). Make the picture smaller, close other notebooks, or restart the "
                        "kernel."),
        (torch.OutOfMemoryError("CUDA out of memory. More."), "Memory ran out (CUDA out of memory). Make the picture "
                                                              "smaller, close other notebooks, or restart the kernel."),
    ],
)  # fmt: skip
def test_an_error_is_one_sentence(error: BaseException, said: str) -> None:
    assert sentence(error) == said
