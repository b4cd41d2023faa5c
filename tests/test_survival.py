"""What marks outlive: the picture saved anew, smaller, cropped, blurred, off a screen."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_families import model

import diffexplore as dx
from diffexplore.experiments.damage import THINGS
from diffexplore.experiments.survival import Survival
from diffexplore.looks.pictures import encode, save
from diffexplore.looks.recipe import texts_of
from diffexplore.trace import Trace

FILES = ("as saved", "PNG with its texts", "one pixel changed")
PIXELS = [one for one in THINGS if one not in (*FILES, "drawn again")]
LOSSLESS = {"as saved", "PNG with its texts", "metadata stripped"}


@pytest.fixture(scope="module")
def trace() -> Trace:
    return model("sd").trace(prompt="a fox", steps=2)


@pytest.fixture(scope="module")
def found(trace: Trace) -> Survival:
    return dx.survives(trace)


def states(found: Survival, mark: str) -> dict[str, str]:
    return {done: one.state for done, one in found.of(mark).items()}


def test_marks_in_the_file_live_as_long_as_programs_carry_them_over(found: Survival) -> None:
    assert found.marks == ["recipe", "source type", "Content Credentials"]
    for mark in ("recipe", "source type"):
        kept = {done for done, state in states(found, mark).items() if state == "kept"}
        assert kept == {"as saved", "PNG with its texts", "one pixel changed"}
    assert states(found, "Content Credentials") == {
        "as saved": "kept", "PNG with its texts": "gone", "one pixel changed": "broken",
        **dict.fromkeys(PIXELS, "gone"),
    }  # fmt: skip
    assert "assertion.dataHash.mismatch" in found.of("Content Credentials")["one pixel changed"].says
    assert found.left_out == {"drawn again": "a model draws it: model="}
    assert found.of("recipe")["as saved"].says == "'a fox', 2 steps, seed 0"
    lines = str(found).split("\n")
    assert lines[0] == "recipe: outlives 2 of 12 (PNG with its texts, one pixel changed); gone after the others"
    assert lines[2].startswith("Content Credentials: outlives none of 12; does not hold after: one pixel changed; gone")


def test_a_file_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fox.jpg"
    save(Image.effect_noise((40, 32), 50), path, dx.Settings(prompt="a fox"))
    before = path.read_bytes()
    found = dx.survives(path, things=["PNG with its texts", "one pixel changed"])
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["fox.jpg"]
    assert found.marks == ["recipe", "source type"]
    assert found.missing["Content Credentials"] == "the picture has none (there are no credentials)"
    assert "no key is known" in found.missing["watermark"]
    assert states(found, "recipe") == {"as saved": "kept", "PNG with its texts": "kept"}
    assert "one pixel changed: not done: only of a PNG" in str(found)
    with pytest.raises(ValueError, match="Content Credentials: the picture has none"):
        found.of("Content Credentials")


def test_a_watermark_in_the_noise_outlives_compression_and_not_being_drawn_again(tmp_path: Path) -> None:
    pocket = dx.load()
    ours = pocket.trace(prompt="a red fox in the snow at noon", steps=12, seed=3, watermark="our class")
    found = dx.survives(ours, model=pocket, things=["JPEG 80", "drawn again"])
    row = found.of("watermark")
    assert {done: one.state for done, one in row.items()} == {
        "as saved": "kept",
        "JPEG 80": "kept",
        "drawn again": "gone",
    }
    assert row["JPEG 80"].p == dx.detect(pocket, found.pictures["JPEG 80"], "our class").p < 1e-3
    assert f"{row['JPEG 80'].p:.2g}" in row["JPEG 80"].says
    near = np.abs(np.asarray(found.pictures["drawn again"], int) - np.asarray(ours.image, int)).mean()
    assert 1 < near < 40, "much the same picture"
    assert found.plot()

    ours.save_image(tmp_path / "fox.png")
    said = dx.survives(tmp_path / "fox.png", model=pocket, things=["JPEG 80"])
    assert said.of("watermark")["JPEG 80"].p == row["JPEG 80"].p, "the recipe says the key"
    others = dx.survives(tmp_path / "fox.png", model=pocket, key="another class", things=["JPEG 80"])
    assert "the picture has none (p = " in others.missing["watermark"]
    assert "by the model that drew the picture" in dx.survives(ours, things=["JPEG 80"]).missing["watermark"]


def test_another_mark_is_read_by_a_function_of_ones_own(tmp_path: Path) -> None:
    """Here the lowest bit of every red, the oldest of watermarks: gone with the first JPEG."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels[..., 0] |= 1
    save(pixels, tmp_path / "a.png", dx.Settings(prompt="a fox"))

    def lowest(image: Image.Image) -> str | None:
        return "ours" if np.all(np.asarray(image)[..., 0] & 1) else None

    def broken(image: Image.Image) -> Any:
        raise RuntimeError("no\nsuch model")

    found = dx.survives(tmp_path / "a.png", read={"lowest bit": lowest, "lost": broken})
    kept = {done for done, state in states(found, "lowest bit").items() if state == "kept"}
    assert kept == LOSSLESS | {"cropped to 90 %", "mirrored"}
    assert found.of("lost")["as saved"].says == "lost could not be read: no such model"


def test_without_the_extra_the_others_are_looked_for(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = dx.survives(trace, things=["JPEG 80"])
    assert found.marks == ["recipe", "source type"]
    assert "pip install 'diffexplore[marks]'" in found.missing["Content Credentials"]


def test_what_no_model_made_has_no_mark_that_says_so() -> None:
    real = Image.effect_noise((48, 48), 50)
    found = dx.survives(dx.forward(model("sd"), real, steps=2), things=["JPEG 80"])
    assert found.marks == ["recipe"]
    assert found.missing["Content Credentials"] == "no model made it"
    assert "it says nothing of its making" in found.missing["source type"]


def test_it_can_be_kept_and_looked_at(found: Survival, tmp_path: Path) -> None:
    found.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [row | {"p": ""} for row in found.table()]
    assert len(found.table()) == 3 * (len(THINGS) - 1)
    data, size = found._repr_png_()
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (2 * size["width"], 2 * size["height"])


def test_a_strangers_file_and_bad_input_get_a_sentence(tmp_path: Path, trace: Trace) -> None:
    grey = Image.new("RGB", (1, 1))
    strange = encode(grey, texts={**texts_of(dx.Settings()), "diffexplore": "[" * 100_000})
    (tmp_path / "a.png").write_bytes(strange)
    found = dx.survives(tmp_path / "a.png")
    assert found.of("recipe")["as saved"].state == "broken"
    assert "JSON object" in found.of("recipe")["as saved"].says
    assert found.plot()
    (tmp_path / "b.png").write_bytes(b"nothing")
    for call, told in (
        (lambda: dx.survives(3), "a run or the path of a file"), (lambda: dx.survives("a.gif"), "marks are in .png"),
        (lambda: dx.survives(tmp_path / "none.png"), "there is no file"),
        (lambda: dx.survives(tmp_path / "b.png"), "no picture in a format"),
        (lambda: dx.survives(trace, things=["rotated"]), "got 'rotated'"),
        (lambda: dx.survives(trace, things="JPEG 80"), "a list of at least one"),
        (lambda: dx.survives(trace, read=3), "names to functions"),
        (lambda: dx.survives(trace, read={"recipe": len}), "read by itself"),
        (lambda: dx.survives(trace, model=3), "a model is needed"),
        (lambda: dx.survives(trace, key="ours"), r"hand over model= too"),
        (lambda: dx.survives(trace, model=model("sd"), key=""), "the key must be"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
