"""What is done to pictures on their way: each thing as it says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from diffexplore.experiments.damage import AS_SAVED, THINGS, done_to, suffix_of
from diffexplore.looks.marks import packet, sources
from diffexplore.looks.pictures import encode
from diffexplore.looks.recipe import recipe_in, texts_of
from diffexplore.settings import Settings

PIXELS = np.asarray(Image.effect_noise((40, 20), 60).convert("RGB"))
FOX = Settings(prompt="a fox")


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    data = encode(PIXELS, texts=texts_of(FOX), xmp=packet())
    files, left_out = done_to(data, Image.fromarray(PIXELS), list(THINGS), None, FOX)
    assert left_out == {"drawn again": "a model draws it: model="}
    assert files[AS_SAVED] == data
    return files


def test_each_thing_is_done_as_it_says(files: dict[str, bytes]) -> None:
    before = PIXELS.astype(int)
    for done in ("PNG with its texts", "metadata stripped"):
        assert np.array_equal(pixels(files[done]), before)
    one = np.abs(pixels(files["one pixel changed"]) - before)
    assert (one.sum(), one.max()) == (1, 1)
    assert np.array_equal(pixels(files["mirrored"]), before[:, ::-1])
    assert np.array_equal(pixels(files["cropped to 90 %"]), before[1:19, 2:38])
    assert pixels(files["screenshot"]).shape == (25, 50, 3)
    assert pixels(files["half and back"]).shape == before.shape
    assert pixels(files["blurred"]).std() < 0.7 * before.std()
    off = {q: np.abs(pixels(files[f"JPEG {q}"]) - before).mean() for q in (95, 80, 50)}
    assert 0 < off[95] < off[80] < off[50]
    assert suffix_of(files["JPEG 95"]) == ".jpg"
    assert suffix_of(files["WebP 80"]) == ".webp"


def test_only_what_says_so_carries_texts_over(files: dict[str, bytes]) -> None:
    for done, data in files.items():
        if done in (AS_SAVED, "PNG with its texts", "one pixel changed"):
            assert recipe_in(data).settings == FOX
            assert sources(data) == ["trainedAlgorithmicMedia"]
        else:
            assert b"fox" not in data
            assert sources(data) == []


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_texts_of_other_formats_are_carried_over_too(format: str) -> None:
    data = encode(PIXELS, format, texts=texts_of(FOX), xmp=packet())
    files, left_out = done_to(data, Image.fromarray(PIXELS), ["PNG with its texts", "one pixel changed"], None, None)
    assert recipe_in(files["PNG with its texts"]).settings == FOX
    assert sources(files["PNG with its texts"]) == ["trainedAlgorithmicMedia"]
    assert left_out == {"one pixel changed": "only of a PNG the pixels are exchanged and all else left"}


def test_what_cannot_be_done_is_said() -> None:
    _, left_out = done_to(b"nothing", Image.new("RGB", (1, 1)), ["PNG with its texts", "one pixel changed"], None, None)
    assert len(left_out) == 2
    assert all(why and "\n" not in why for why in left_out.values())
