"""The nearest known picture of a drawn one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import diffexplore as dx
from diffexplore.pocket import example, examples
from diffexplore.pocket.judge import seen


@pytest.fixture(scope="module")
def known() -> dict[str, Image.Image]:
    return {name: example(name) for name in examples()}


def test_a_copy_is_found_by_name_and_told_from_what_only_shows_the_same(known: dict[str, Image.Image]) -> None:
    name = "a rocket in space"
    copy = known[name].filter(ImageFilter.GaussianBlur(0.5)).resize((128, 128))
    alike = [trace.image for trace in dx.load().trace_many([dx.Settings(prompt=name, steps=8, seed=k) for k in (1, 2)])]
    found = dx.nearest([copy, *alike], known, scale=alike, features=seen)
    assert found.names[found.which()[0]] == name
    assert found.nearer().tolist() == [True, False, False]
    assert found.nearer("features")[0]
    assert found.far()[0] < 0.5 * found.scale()
    assert "by pixels: 1 of 3 nearer to one of 8 known pictures than all of the scale" in str(found)
    row = found.table()[0]
    assert (row["nearest"], row["nearer"], row["as_near"]) == (name, True, 0.0)
    assert found.plot() is not None


def test_the_distance_is_that_of_the_tile_that_differs_most() -> None:
    black, one = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    one[:16, :16] = 255
    found = dx.nearest(black, [one, np.full((64, 64, 3), 102, np.uint8)])
    assert found.distances["pixels"][0].tolist() == pytest.approx([1.0, 0.4])
    assert found.which().tolist() == [1], "a whole grey one is nearer than one with a white corner"
    assert found.own["pixels"].tolist() == pytest.approx([0.6, 0.6]), "without a scale, from one to the other"


def test_a_folder_is_read_and_what_is_no_picture_in_it_passed_over(
    known: dict[str, Image.Image], tmp_path: Path
) -> None:
    for k, (name, image) in enumerate(known.items()):
        image.save(tmp_path / f"{name}.{('png', 'webp')[k % 2]}", lossless=True)
    (tmp_path / "notes.txt").write_text("no picture")
    found = dx.nearest(next(iter(known.values())), tmp_path)
    assert sorted(found.names) == sorted(known)
    assert found.far().item() == 0.0
    found.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["nearest"], row["nearer"]) == (next(iter(known)), "True")


def test_known_pictures_of_one_name_and_two_formats_are_two(known: dict[str, Image.Image], tmp_path: Path) -> None:
    one, other, *_ = known.values()
    one.save(tmp_path / "fox.png")
    other.save(tmp_path / "fox.bmp")
    found = dx.nearest([one, other], tmp_path)
    assert [row["nearest"] for row in found.table()] == ["fox.png", "fox.bmp"]


def test_bad_input_gets_one_sentence(known: dict[str, Image.Image], tmp_path: Path) -> None:
    one = next(iter(known.values()))
    for arguments, told in (
        ((one, tmp_path / "nowhere"), "must be in a folder, .* is none"), ((one, tmp_path), "2 to 10,000 .* got 0"),
        ((one, [one]), "2 to 10,000 known pictures are needed, got 1"), (([], known), "pictures must be a picture or"),
        ((one, {1: one, "1": one}), "names that differ as text"),
        ((one, 3), "a folder, a list or a dict of pictures, got 3"), ((3, known), "image must be a PIL image"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            dx.nearest(*arguments)
    for features, told in (
        (3, "features must be a function"), (lambda image: image.nothing, "features failed on picture 1"),
        (lambda image: [np.nan], "equally many finite numbers"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            dx.nearest(one, known, features=features)
    with pytest.raises(ValueError, match="compared by pixels; got 'pixel'"):
        dx.nearest(one, known).far("pixel")
