"""Content Credentials: a signed statement in a picture file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from tiny_families import model

import diffexplore as dx
from diffexplore.looks.pictures import save


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "fox.png"
    model("sd").trace(prompt="a fox", steps=2).save_image(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_signed_picture_says_that_a_model_made_it_and_shows_the_same(
    picture: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"fox{suffix}"
    if suffix == ".png":
        path.write_bytes(picture.read_bytes())
    else:
        Image.open(picture).save(path)
    before = np.asarray(Image.open(path).convert("RGB"))
    assert dx.credentials(path) is None
    found = dx.sign(path, tmp_path / f"signed{suffix}")
    assert dx.credentials(path) is None, "the picture itself stays"
    assert found == dx.credentials(tmp_path / f"signed{suffix}")
    assert (found.intact, found.trusted) == (True, False)
    assert found.sources == ("trainedAlgorithmicMedia",)
    assert "made on the spot" in found.by
    assert "whoever calls themselves" in str(found)
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"signed{suffix}").convert("RGB")), before)


def test_a_picture_that_was_changed_since_says_so(picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    dx.sign(picture, path)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 40
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = dx.credentials(path)
    assert not found.intact
    assert "assertion.dataHash.mismatch" in found.wrong
    assert "do not hold" in str(found)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_file_that_is_cut_or_changed_anywhere_is_a_sentence_or_does_not_hold(tmp_path: Path, suffix: str) -> None:
    """But for the filling that the standard leaves room for within the statement; no bit of the picture is such."""
    path = tmp_path / f"a{suffix}"
    save(Image.effect_noise((24, 24), 60).convert("RGB"), path, dx.Settings(prompt="a fox"))
    pixels = np.asarray(Image.open(path).convert("RGB"))
    dx.sign(path)
    whole, said = path.read_bytes(), set()
    for at in range(0, len(whole), max(1, len(whole) // 50)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            path.write_bytes(data)
            try:
                found = dx.credentials(path)
                told = "none" if found is None else str(found)
                if found is not None and found.intact:
                    with suppress(UnidentifiedImageError):  # the sum of the statement's own piece does not fit
                        assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), pixels)
            except ValueError as error:
                told = str(error)
            assert "\n" not in told
            said.add(told.partition(" ")[0])
    assert {"These", "the"} <= said, "some do not hold, some cannot be read"


def test_what_cannot_be_signed_stays_as_it_was(picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(picture.read_bytes())
    (tmp_path / "a.pem").write_text("no certificate")
    with pytest.raises(ValueError, match="could not be signed"):
        dx.sign(path, certificate=tmp_path / "a.pem", key=tmp_path / "a.pem")
    assert path.read_bytes() == picture.read_bytes()
    assert dx.is_marked(path)


def test_a_recipe_and_a_mark_outlive_the_signature(picture: Path, tmp_path: Path) -> None:
    dx.sign(picture, tmp_path / "fox.png")
    assert dx.is_marked(tmp_path / "fox.png")
    assert dx.read_recipe(tmp_path / "fox.png") == dx.read_recipe(picture)


def test_bad_input_gets_one_sentence(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "a.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----")
    own = {"certificate": tmp_path / "a.pem", "key": tmp_path / "a.pem"}
    for call, told in (
        (lambda: dx.sign(3), "said by its path"), (lambda: dx.sign(tmp_path / "a.gif"), "credentials are for"),
        (lambda: dx.sign(tmp_path / "b.png"), "there is no file"),
        (lambda: dx.sign(tmp_path / "a.png"), "could not be"),
        (lambda: dx.sign(picture, "a.jpg"), "in the format that it has"),
        (lambda: dx.sign(picture, tmp_path / "o.png", certificate="x"), "go together"),
        (lambda: dx.sign(picture, tmp_path / "o.png", **own), "could not be signed"),
        (lambda: dx.credentials(tmp_path / "a.png"), "cannot be read|^$"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
