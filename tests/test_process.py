"""The forward process in a widget: a picture, its noise, and what the model says of it."""

from collections.abc import Iterator
from typing import Any

import ipywidgets
import numpy as np
import pytest
from knobs import find, press
from patience import wait
from PIL import Image

import diffexplore as dx
from diffexplore.looks.pictures import encode
from diffexplore.widgets.picture import PictureField


@pytest.fixture(scope="module")
def pocket() -> dx.Model:
    return dx.load()


@pytest.fixture
def process(pocket: dx.Model) -> Iterator[Any]:
    made = dx.ForwardProcess(pocket, prompt="a fox", steps=4)
    yield made
    made.close()


def picture() -> Image.Image:
    return Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 60)


def drop(process: Any, data: bytes) -> None:
    (field,) = [
        one for row in process.children for one in getattr(row, "children", ()) if isinstance(one, PictureField)
    ]
    field._handle_custom_msg({"kind": "picture", "name": "set.png"}, [data])


def labels(process: Any) -> list[str]:
    return [film.label for film in process.viewer.shown()]


def test_it_waits_for_a_picture_and_says_so(process: Any) -> None:
    assert process.viewer.truth["text"].startswith("hand over a picture first")
    press(process, "Ask")
    assert process.viewer.error.startswith("Hand over a picture first: ")
    with pytest.raises(ValueError, match="hand over a picture first"):
        process.run()
    drop(process, b"no picture")
    assert process.viewer.error.startswith("'set.png' is not taken")
    assert process.viewer.truth["text"].startswith("hand over a picture first")


def test_a_picture_is_asked_about_at_once_and_after_every_change(process: Any) -> None:
    drop(process, encode(picture()))
    assert wait(lambda: process.viewer.truth["state"] == "match")
    assert wait(lambda: labels(process) == ["noise added", "noise guessed"])
    assert process.viewer.error == ""
    find(process, "seed", ipywidgets.Text).value = "9"
    assert wait(lambda: process.viewer.truth["state"] == "match" and process.viewer.shown_run == 2)
    found = process.run()
    assert found.guessed.settings.seed == found.added.settings.seed == 9
    assert len(found.added) == len(found.guessed) == 4


def test_what_it_finds_is_what_the_function_finds(pocket: dx.Model) -> None:
    process = dx.ForwardProcess(pocket, picture(), prompt="a fox", steps=5, seed=3)
    found = process.run()
    plain = dx.loss_by_level(pocket, picture(), "a fox", steps=5, seed=3)
    assert np.array_equal(found.loss, plain.loss)
    assert found.added.image.tobytes() == plain.added.image.tobytes()
    process.close()


def test_a_run_starts_from_there(pocket: dx.Model) -> None:
    process = dx.ForwardProcess(pocket, picture(), prompt="a fox", steps=8, seed=3)
    trace = process.start_from(0.4)
    assert trace.settings.strength == 0.4
    assert wait(lambda: labels(process) == ["drawn from there"])
    assert process.viewer.truth["state"] == "match"
    plain = pocket.trace(trace.settings, image=picture())
    assert trace.image.tobytes() == plain.image.tobytes()
    with pytest.raises(ValueError, match="strength must be"):
        process.start_from(2)
    process.run()
    assert wait(lambda: labels(process) == ["noise added", "noise guessed"])
    process.close()


def test_the_model_draws_one_to_ask_about(process: Any) -> None:
    press(process, "Draw one")
    assert wait(lambda: labels(process) == ["noise added", "noise guessed"])
    assert wait(lambda: process.viewer.truth["state"] == "match")


def test_what_cannot_be_is_refused(pocket: dx.Model) -> None:
    with pytest.raises(ValueError, match="image must be"):
        dx.ForwardProcess(pocket, 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be"):
        dx.ForwardProcess(pocket, steps=0)
