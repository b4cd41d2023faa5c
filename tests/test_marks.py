"""What a saved picture says of where it is from."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image
from tiny_families import model

import diffexplore as dx
from diffexplore.looks.marks import sources
from diffexplore.looks.pictures import encode, save

MARK = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_every_saved_picture_says_that_a_model_made_it_in_plain_text(tmp_path: Path, suffix: str) -> None:
    trace = model("sd").trace(prompt="a fox", steps=2)
    path = tmp_path / f"fox{suffix}"
    trace.save_image(path)
    assert dx.is_marked(path)
    assert dx.is_marked(path.read_bytes())
    assert sources(path) == ["trainedAlgorithmicMedia"]
    assert MARK in path.read_bytes(), "plain and uncompressed"
    assert dx.read_recipe(path).prompt == "a fox"
    with Image.open(path) as opened:
        told = opened.getxmp()["xmpmeta"]["RDF"]["Description"]
    assert told["DigitalSourceType"] == MARK.decode(), "for whoever parses it too"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool (Debian: libimage-exiftool-perl)")
def test_exiftool_reads_what_we_say(tmp_path: Path) -> None:
    """A program of others, which parses the whole file: the same in all formats, and nothing that it would warn of."""
    settings = dx.Settings(prompt="a fox, 狐", negative_prompt="blurry", steps=3)
    for suffix in ("png", "jpg", "webp"):
        save(Image.new("RGB", (64, 64), (9, 99, 200)), tmp_path / f"fox.{suffix}", settings, {"model": "pocket"})
    made = subprocess.run(
        ["exiftool", "-json", "-struct", "-validate", "-warning", "-a", "-all", *sorted(tmp_path.glob("fox.*"))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    read = json.loads(made.stdout)
    assert [one["FileType"] for one in read] == ["JPEG", "PNG", "Extended WEBP"]
    for one in read:
        assert one["DigitalSourceType"] == MARK.decode()
        assert one["CreatorTool"] == "diffexplore"
        told = one.get("Parameters") or one["UserComment"]
        assert told.startswith("a fox, 狐\nNegative prompt: blurry\nSteps: 3,")
        own = one.get("Diffexplore") or one["ImageDescription"].removeprefix("diffexplore:")
        assert json.loads(own)["settings"]["prompt"] == settings.prompt
        # A camera's file has more than the two texts that ours has in EXIF; all else is as it should be.
        assert "required" in one.get("Warning", "required"), one["Warning"]


def test_what_began_as_a_real_picture_is_a_composite_and_a_forward_process_is_no_models_work(tmp_path: Path) -> None:
    one = model("sd")
    real = Image.new("RGB", (48, 48), (200, 40, 30))
    one.trace(prompt="a fox", steps=4, image=real, strength=0.6).save_image(tmp_path / "a.png")
    assert sources(tmp_path / "a.png") == ["compositeWithTrainedAlgorithmicMedia"]
    assert dx.is_marked(tmp_path / "a.png")
    dx.forward(one, real, steps=2).save_image(tmp_path / "b.png")
    assert not dx.is_marked(tmp_path / "b.png")
    save(real, tmp_path / "c.jpg")
    assert sources(tmp_path / "c.jpg") == []


def test_films_are_marked_as_well(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), (k * 40, 0, 0)) for k in range(3)]
    from diffexplore.looks.moving import save_frames

    save_frames(frames, tmp_path / "a.webp", dx.Settings(prompt="a fox"))
    assert dx.is_marked(tmp_path / "a.webp")


def test_hostile_metadata_harms_nothing(tmp_path: Path) -> None:
    good = encode(Image.new("RGB", (8, 8)), xmp="x DigitalSourceType " + "a" * 10_000)
    assert sources(good) == []
    bomb = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"\0" * 2**26)
    piece = len(bomb).to_bytes(4, "big") + b"iTXt" + bomb + zlib.crc32(b"iTXt" + bomb).to_bytes(4, "big")
    assert sources(good[:33] + piece + good[33:]) == []
    entity = (
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + "&b;" * 1000 + 'DigitalSourceType="' + MARK.decode()
    )
    assert sources(encode(Image.new("RGB", (8, 8)), xmp=entity)) == ["trainedAlgorithmicMedia"]
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBP", b"\xff\xd8\xff\xe1\xff\xff", b"GIF89a"):
        assert sources(data) == []
    for name in ("none.png", "x" * 5000 + ".png"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            dx.is_marked(tmp_path / name)
    with pytest.raises(ValueError, match="a path or its bytes"):
        dx.is_marked(3)
