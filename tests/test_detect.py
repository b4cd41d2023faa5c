"""Detection of a watermark by inversion, on the pocket model's own pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tiny_families import model as tiny
from tiny_families import size

import diffexplore as dx
from diffexplore.experiments.detect import Detection, inverted, scored
from diffexplore.model import Model

PROMPTS = ("a red fox in the snow", "a blue car in a city at night", "a cat in a meadow", "an owl at the sea")
KEY = "of room 12"


@pytest.fixture(scope="module")
def pocket() -> Model:
    return dx.load(reuse=0)


@pytest.fixture(scope="module")
def pictures(pocket: Model) -> list[dx.Trace]:
    return [pocket.trace(prompt=one, steps=10, seed=k, watermark=KEY) for k, one in enumerate(PROMPTS)]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_marked_pictures_are_found_by_their_key_alone(pocket: Model, pictures: list[dx.Trace]) -> None:
    for trace in pictures:
        noise = inverted(pocket, trace, steps=6)
        assert scored(noise, KEY).found
        assert scored(noise, KEY).p < 1e-3
        others = [scored(noise, f"another {k}").p for k in range(50)]
        assert np.mean(np.array(others) <= 0.01) <= 0.06
        assert scored(inverted(pocket, jpeg(trace.image, 80), steps=6), KEY).p < 1e-2


def test_unmarked_ones_are_not(pocket: Model) -> None:
    for k, prompt in enumerate(PROMPTS[:2]):
        noise = inverted(pocket, pocket.trace(prompt=prompt, steps=10, seed=k), steps=6)
        found = [scored(noise, f"{KEY} {j}").at(0.01) for j in range(100)]
        assert np.mean(found) <= 0.05


def test_it_says_what_it_found_in_a_sentence(pocket: Model, pictures: list[dx.Trace], tmp_path) -> None:
    pictures[0].save_image(tmp_path / "fox.png")
    found = dx.detect(pocket, tmp_path / "fox.png", KEY, steps=6)
    assert found == dx.detect(pocket, np.asarray(pictures[0].image), KEY, steps=6)
    assert found.tried == 4
    assert found.at(0.001)
    assert str(found).startswith("The key is in this picture (z = ")
    blind = dx.detect(pocket, pictures[0], KEY, prompt="", steps=6)
    assert blind.statistic < found.statistic, "what the judge reads helps"
    lost = Detection(0.3, 1.8, 8)
    assert not lost.found
    assert "was not found (z = 1.8, the best of 8 places): of other keys 30% may" in str(lost)
    assert "about one in 1,000 would" in str(Detection(0.001, 3.1, 1))


@pytest.mark.parametrize("name", ["flux", "sana"])
def test_other_families_are_run_backwards_too(name: str) -> None:
    one = tiny(name)
    trace = one.trace(prompt="a fox", steps=1, seed=3, watermark=KEY, **size(name))
    found = dx.detect(one, trace, KEY, steps=2)
    assert 0 <= found.p <= 1
    assert np.isfinite(found.statistic)


def test_refusals_are_one_sentence_before_any_work(pocket: Model, tmp_path) -> None:
    picture = Image.new("RGB", (64, 64))
    for key in ("", None, 7, "x" * 201):
        with pytest.raises(ValueError, match="the key must be a text of 1 to 200 characters, got"):
            dx.detect(pocket, picture, key)
    with pytest.raises(ValueError, match="a model is needed"):
        dx.detect("pocket", picture, KEY)
    with pytest.raises(ValueError, match="steps must be a whole number from 2 to 1000, got 1"):
        dx.detect(pocket, picture, KEY, steps=1)
    with pytest.raises(FileNotFoundError):
        dx.detect(pocket, tmp_path / "none.png", KEY)
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        Detection(0.5, 0.0, 1).at(2)
    blind = tiny("sd")
    encoder, blind.pipeline.vae.encoder = blind.pipeline.vae.encoder, None
    try:
        with pytest.raises(ValueError, match="has no encoder for pictures"):
            dx.detect(blind, picture, KEY)
    finally:
        blind.pipeline.vae.encoder = encoder
    assert np.isfinite(dx.detect(pocket, picture, KEY, steps=2).statistic), "a black picture is one"
