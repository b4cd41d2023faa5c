"""The field for a picture: what a page hands over is read here, and what is no picture is refused in a sentence."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffexplore.looks.pictures import encode
from diffexplore.widgets.picture import PictureField


@pytest.fixture
def field() -> Any:
    taken: list[Any] = []
    made = PictureField(lambda picture, name: taken.append((picture, name)), taken.append)
    made.heard = taken
    yield made
    made.close()


def hand_over(field: Any, data: bytes, name: str = "cat.png") -> Any:
    field._handle_custom_msg({"kind": "picture", "name": name}, [memoryview(data)])
    return field.heard[-1]


def test_a_file_is_taken_as_what_it_shows(field: Any) -> None:
    cat = Image.effect_mandelbrot((30, 20), (-2, -1, 1, 1), 60)
    picture, name = hand_over(field, encode(cat))
    assert name == "cat.png"
    assert np.array_equal(np.asarray(picture), np.asarray(cat.convert("RGB")))
    file = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(file, "PNG")
    assert hand_over(field, file.getvalue())[0].getpixel((0, 0)) == (255, 255, 255)
    turned, file = Image.new("RGB", (4, 8)), io.BytesIO()
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(file, "JPEG", exif=exif)
    assert hand_over(field, file.getvalue())[0].size == (8, 4)


@pytest.mark.parametrize("data", [b"", b"<script>alert(1)</script>", encode(Image.new("RGB", (64, 64)))[:60]])
def test_what_is_none_is_refused_by_its_name(field: Any, data: bytes) -> None:
    said = hand_over(field, data, "<b>.png")
    assert said.startswith("'<b>.png' is not taken: ")
    assert "\n" not in said


def test_it_shows_a_picture_small_and_says_what_it_is(field: Any) -> None:
    assert "drop or paste a picture" in field.about
    assert not field.thumb
    field.show(Image.new("RGB", (640, 480)), "cat.png, 640 × 480")
    assert field.about == "cat.png, 640 × 480"
    assert max(Image.open(io.BytesIO(field.thumb)).size) <= 120
    field.show(None)
    assert not field.thumb


def test_other_messages_are_nothing(field: Any) -> None:
    for content in ({"kind": "picture"}, {"kind": "else"}, "picture", None):
        field._handle_custom_msg(content, [])
    assert not field.heard
