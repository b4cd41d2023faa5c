"""widgets/recipes.py: settings from a picture or a message in the controls, and the line that says them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from knobs import error, find, notes, parts, type_in
from PIL import Image

import diffexplore as dx
from diffexplore.looks.pictures import encode
from diffexplore.looks.recipe import texts_of
from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.widgets.explorer import Explorer
from diffexplore.widgets.recipes import RecipeField

FOX = Settings(prompt="a fox", negative_prompt="blurry", steps=7, guidance=3.5, seed=2**60, sampler="Euler a")


def picture(settings: Settings | None = None, format: str = "png", by: str | None = None, world: str = "") -> bytes:
    texts = texts_of(settings, {"model": by, "world": world}) if settings else None
    return encode(Image.new("RGB", (16, 16), "red"), format, texts=texts)


def field(explorer: Explorer) -> RecipeField:
    (found,) = (one for one in parts(explorer) if isinstance(one, RecipeField))
    return found


def drop(explorer: Explorer, data: bytes, name: str = "fox.png") -> None:
    """As a page sends what is dropped on it."""
    field(explorer)._handle_custom_msg({"kind": "picture", "name": name}, [memoryview(data)])


def paste(explorer: Explorer, text: Any) -> None:
    field(explorer)._handle_custom_msg({"kind": "text", "text": text}, [])


@pytest.fixture(scope="module")
def model() -> Model:
    return dx.load()


@pytest.fixture
def explorer(model: Model) -> Iterator[Explorer]:
    made = Explorer(model, prompt="a cat")
    yield made
    made.close()


def test_a_picture_of_another_model_says_so(explorer: Explorer, model: Model) -> None:
    drop(explorer, picture(FOX, by="pocket-turbo"))
    assert explorer.prompt == "a fox"
    said = "The recipe is of a picture by 'pocket-turbo'; 'pocket' makes another one of it."
    assert said in notes(explorer)
    assert not any("Not all" in one for one in notes(explorer))
    drop(explorer, picture(FOX, by="pocket"))
    assert not any("picture by" in one for one in notes(explorer))
    drop(explorer, picture(FOX))
    assert not any("picture by" in one for one in notes(explorer))
    assert any("picture by 'my own'" in one for one in notes(Explorer.from_image(picture(FOX, by="my own"), model)))


def test_a_picture_of_a_model_that_comes_with_the_package_opens_that(model: Model) -> None:
    made = Explorer.from_image(picture(FOX.replace(sampler="LCM"), by="pocket-turbo", world="pocket"))
    assert made.model.name == "pocket-turbo"
    assert not any("picture by" in one for one in notes(made))
    assert Explorer.from_image(picture(FOX, by="pocket-turbo", world="pocket"), model).model is model
    assert Explorer.from_image(picture(FOX, by="pocket-turbo")).model.name == "pocket"  # any folder may be called so
    assert Explorer.from_image(picture(FOX)).model.name == "pocket"


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_an_explorer_of_a_picture_says_what_it_carries(model: Model, tmp_path: Path, format: str) -> None:
    (tmp_path / "fox").write_bytes(picture(FOX, format))
    for source in (picture(FOX, format), str(tmp_path / "fox"), tmp_path / "fox"):
        made = Explorer.from_image(source, model, seed=4)
        assert made.settings == model.resolve(FOX.replace(seed=4))
        assert notes(made) == []
        made.close()
    with pytest.raises(ValueError, match="the picture carries no recipe"):
        Explorer.from_image(picture())
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere'"):
        Explorer.from_image("nowhere")


def test_what_this_model_cannot_do_is_left_out_and_said(model: Model) -> None:
    asked = FOX.replace(sampler="Flow Euler", width=512, height=768, adapters={"ink": 1.0}, strength=0.5)
    made = Explorer.from_image(picture(asked), model)
    assert made.settings == model.resolve(FOX.replace(sampler=None))
    (note,) = notes(made)
    sizes = "draws {}x{} pixels, got 512x768".format(*model.size)
    for part in ("strength 0.5 is of the picture", sizes, "'Flow Euler'", "adapter 'ink'"):
        assert part in note
    made.steps = 9
    assert notes(made) == [], "the controls say something else now"
    made.close()


def test_a_dropped_picture_fills_the_controls_and_runs_nothing(explorer: Explorer) -> None:
    drop(explorer, picture(FOX))
    assert explorer.settings == explorer.model.resolve(FOX)
    assert find(explorer, "steps").value == 7
    assert find(explorer, "prompt").value == "a fox"
    assert (field(explorer).about, error(explorer), explorer.status) == ("from fox.png", "", "idle")
    assert field(explorer).thumb


def test_a_picture_without_a_recipe_changes_nothing_and_the_other_meaning_is_named(explorer: Explorer) -> None:
    before = explorer.settings
    drop(explorer, picture(), "cat\u202e.png")
    assert error(explorer).startswith("'cat\\u202e.png' carries no recipe")
    assert error(explorer).endswith("a picture to start from is handed over apart, as image=.")
    drop(explorer, b"x" * 99)
    assert "is not a readable PNG, WebP or JPEG" in error(explorer)
    drop(explorer, picture(FOX)[:-60])
    assert (explorer.prompt, error(explorer)) == ("a fox", ""), "its recipe is whole"
    assert before.prompt == "a cat"


def test_the_line_to_copy_is_read_back_wherever_it_is_pasted(explorer: Explorer, model: Model) -> None:
    drop(explorer, picture(FOX))
    line = field(explorer).text
    assert line == (
        'dx1{"prompt":"a fox","negative_prompt":"blurry","steps":7,"guidance":3.5,"seed":1152921504606846976,'
        '"sampler":"Euler a"}'
    )
    other = Explorer(model)
    paste(other, f"look at this: `{line}` it is nice")
    assert other.settings == explorer.settings
    type_in(other, "prompt", 'dx1{"prompt":"a car","seed":3}')
    assert (other.prompt, find(other, "prompt").value, other.seed, other.steps) == ("a car", "a car", 3, 20)
    type_in(other, "prompt", 'dx1{"prompt":')
    assert other.prompt == 'dx1{"prompt":', "it is being typed"
    paste(other, "a dog\nNegative prompt: blurry\nSteps: 5, Sampler: Euler, Clip skip: 2")
    assert (other.prompt, other.steps, other.sampler) == ("a dog", 5, "Euler")
    assert "left out Clip skip '2'" in notes(other)[-1]
    other.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "No settings such as"),
        ('dx2{"prompt":"a"}', "These settings are of the form dx2, this version reads dx1"),
        ('dx1{"steps":0}', "Steps must be a whole number from 1 to 1000, got 0"),
        ('dx1{"__class__":0}', "got '__class__'"),
        ("dx1" + '{"a":' * 50_000, "can be read in"),
        ('dx1{"seed":NaN}', "got nan"),
        ("x" * 2_000_000, "must be one line"),
    ],
)
def test_a_text_that_is_none_is_refused_in_one_sentence(explorer: Explorer, text: str, said: str) -> None:
    before = explorer.settings
    paste(explorer, text)
    assert said in error(explorer)
    assert "\n" not in error(explorer)
    assert explorer.settings == before


def test_what_no_page_of_ours_sends_is_passed_over(explorer: Explorer) -> None:
    before = explorer.settings
    for content in (None, [], {"kind": "text", "text": 7}, {"kind": "picture"}, {"kind": "text"}):
        field(explorer)._handle_custom_msg(content, [])
    assert (explorer.settings, error(explorer)) == (before, "")


def test_a_run_goes_on_with_what_was_dropped_where_changes_run(explorer: Explorer) -> None:
    buffer = io.BytesIO(picture(FOX.replace(steps=2)))
    explorer.live = True
    drop(explorer, buffer.getvalue())
    assert explorer.run().settings == explorer.model.resolve(FOX.replace(steps=2))
