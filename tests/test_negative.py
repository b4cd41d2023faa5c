"""Negative prompts explained: leaving a word out shows what it did."""

from __future__ import annotations

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.experiments.negative import negative_words
from diffexplore.model import Model

WHAT = {"prompt": "a red fox", "steps": 3, "seed": 2, "sampler": "DDIM"}


@pytest.mark.parametrize(
    ("negative", "parts"),
    [("blurry, low quality,  night", ["blurry", "low quality", "night"]), ("blurry night", ["blurry", "night"])],
)
def test_each_part_is_left_out_once(tiny_model: Model, negative: str, parts: list[str]) -> None:
    found = negative_words(tiny_model, negative_prompt=negative, **WHAT)
    assert list(found.without) == parts
    for part, run in found.without.items():
        left = [other for other in parts if other != part]
        assert [p in run.settings.negative_prompt for p in parts] == [p in left for p in parts]
    assert found.none.settings.negative_prompt == ""


def test_how_far_a_word_moved_the_picture_is_measured_against_all_of_them(tiny_model: Model) -> None:
    found = negative_words(tiny_model, negative_prompt="blurry, night", **WHAT)
    alone = tiny_model.trace(negative_prompt="night", **WHAT)
    whole = tiny_model.trace(negative_prompt="blurry, night", **WHAT)
    none = tiny_model.trace(**WHAT)
    expected = np.linalg.norm(whole.final - alone.final) / np.linalg.norm(whole.final - none.final)
    assert found.moved["blurry"] == pytest.approx(expected, rel=1e-2)
    assert [row["moved"] for row in found.table()] == sorted(found.moved.values(), reverse=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "got 0"),
        ({"negative_prompt": "blurry"}, "got 1"),
        ({"negative_prompt": ",".join(map(str, range(13)))}, "got 13"),
        ({"negative_prompt": "blurry, night", "guidance": 1.0}, "negative prompt is ignored"),
    ],
)
def test_what_cannot_be_explained_is_refused_before_any_work(tiny_model: Model, values: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        negative_words(tiny_model, **{**WHAT, **values})


def test_the_figure_names_every_part(tiny_model: Model) -> None:
    found = negative_words(tiny_model, negative_prompt="blurry, $night", **WHAT)
    titles = [text.get_text() for text in found.plot().texts]
    assert len(titles) == 4
    assert any("without $night" in title for title in titles)


def test_it_is_a_public_name() -> None:
    assert dx.negative_words is negative_words
