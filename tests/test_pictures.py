"""looks/pictures.py: pictures leave as the file that was asked for, and come in with the right values."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from diffexplore.looks import pictures
from diffexplore.looks.marks import is_marked
from diffexplore.looks.moving import save_frames
from diffexplore.looks.pictures import encode, read_picture, read_recipe, save
from diffexplore.settings import Settings
from diffexplore.trace import Trace

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = np.arange(54, dtype=np.uint8).reshape(6, 9) * 4


def values(image: Any) -> np.ndarray:
    read = read_picture(image)
    assert read.mode == "RGB"
    return np.asarray(read)


def grey(image: Any) -> np.ndarray:
    pixels = values(image)
    assert np.array_equal(pixels, pixels[..., [0, 0, 0]])
    return pixels[..., 0]


# Out


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_picture_is_encoded_as_asked(format: str, quick: bool) -> None:
    with Image.open(io.BytesIO(encode(RGB, format, quick=quick))) as image:
        assert image.format == format.upper()
        assert image.size == (9, 6)
        if format != "jpeg":
            assert np.array_equal(np.asarray(image.convert("RGB")), RGB)
    assert encode(Image.fromarray(RGB), format, quick=quick) == encode(RGB, format, quick=quick)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.png", "PNG"),
        ("a.PNG", "PNG"),
        ("a.jpg", "JPEG"),
        ("a.jpeg", "JPEG"),
        ("a.webp", "WEBP"),
        ("a.b.JPG", "JPEG"),
    ],
)
def test_the_suffix_decides_the_format(tiny_trace: Trace, tmp_path: Path, name: str, format: str) -> None:
    tiny_trace.save_image(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == format
        off = np.abs(np.asarray(image.convert("RGB")).astype(int) - np.asarray(tiny_trace.image)).max()
        assert off <= (24 if format == "JPEG" else 0)
    assert read_recipe(tmp_path / name) == tiny_trace.settings


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt", ".png", ""])
def test_another_suffix_is_refused_in_one_sentence(tiny_trace: Trace, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"a picture is saved as one of \.png, \.webp, \.jpg, \.jpeg; got"):
        tiny_trace.save_image(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_home_folder_is_known(tiny_trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny_trace.save_image("~/fox.png")
    assert np.array_equal(values("~/fox.png"), np.asarray(tiny_trace.image))


def test_a_jpeg_says_when_a_recipe_does_not_fit(tmp_path: Path) -> None:
    settings = Settings(prompt="fox " * 10_000)
    save(RGB, tmp_path / "a.jpg", settings)
    assert read_recipe(tmp_path / "a.jpg") == settings
    settings = Settings(prompt="fox " * 20_000)
    why = r"saved without its recipe: a JPEG holds 65,500 bytes of recipe .*: save a \.png or \.webp"
    with pytest.warns(UserWarning, match=why) as said:
        save(RGB, tmp_path / "b.jpg", settings)
    assert [one.filename for one in said] == [__file__], "it points at the line that saved"
    assert np.abs(values(tmp_path / "b.jpg").astype(int) - RGB).max() <= 24, "the picture is there all the same"
    assert is_marked(tmp_path / "b.jpg"), "and says that a model made it"
    save(RGB, tmp_path / "b.webp", settings)
    assert read_recipe(tmp_path / "b.webp") == settings


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_no_mark_keeps_a_picture_from_being_saved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(RGB, path, Settings(prompt="a fox"), {"model": "a folder\udcff"})
    assert read_recipe(path).prompt == "a fox", "a name that is no text is no obstacle"
    with pytest.warns(UserWarning, match="saved without its recipe: Object of type object is not JSON"):
        save(RGB, path, Settings(prompt="a fox"), {"extra": {"thing": object()}})
    assert np.abs(values(path).astype(int) - RGB).max() <= (24 if suffix == ".jpg" else 0)
    assert is_marked(path)
    if suffix == ".webp":
        with pytest.warns(UserWarning, match="without its recipe") as said:
            save_frames([Image.fromarray(RGB)] * 2, path, Settings(), {"model": object()})
        assert [one.filename for one in said] == [__file__]
        assert is_marked(path)


def test_a_picture_without_settings_has_no_recipe(tmp_path: Path) -> None:
    save(RGB, tmp_path / "a.png")
    with pytest.raises(ValueError, match="carries no recipe"):
        read_recipe(tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tiny_trace: Trace, tmp_path: Path) -> None:
    save(RGB, tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ValueError, match="empty image"):
        save(np.zeros((4, 0, 3), np.uint8), tmp_path / "a.jpg", Settings(prompt="fox"))
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.jpg"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tiny_trace.save_image(tmp_path / "nowhere" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError):
        tiny_trace.save_image(tmp_path / "folder.png")


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="format must be one of png, webp, jpeg; got 'pngg', did you mean 'png'"):
        encode(RGB, "pngg")


def test_a_cancelled_run_has_no_picture_to_save(tiny_trace: Trace, tmp_path: Path) -> None:
    part = Trace(tiny_trace.settings, tiny_trace[:2], cancelled=True, expected=4)
    with pytest.raises(ValueError, match="no final picture to save: it has 2 of 4 steps"):
        part.save_image(tmp_path / "x.png")


# In


def test_pictures_files_and_arrays_of_the_same_values_are_the_same(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for given in (Image.fromarray(RGB), RGB, RGB / 255, (RGB / 255).astype(np.float32), (RGB / 255).astype(np.float16),
                  RGB.astype(np.uint16) * 257, tmp_path / "a.png", str(tmp_path / "a.png")):  # fmt: skip
        assert np.abs(values(given).astype(int) - RGB).max() == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bits_are_scaled(mode: str) -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    dtype = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (6, 1), deep.astype(dtype).tobytes())
    assert grey(image).tolist() == [[0, 0, 1, 1, 128, 255]]
    assert grey(deep).tolist() == [[0, 0, 1, 1, 128, 255]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_file_of_16_bits_even_a_dark_one(tmp_path: Path, suffix: str) -> None:
    for deep, right in ((GREY.astype(np.uint16) * 257, GREY), (GREY.astype(np.uint16), (GREY + 128.0) // 257)):
        Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
        assert np.array_equal(grey(tmp_path / f"a.{suffix}"), right)
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 32768, 200))
    assert grey(tmp_path / "a.pgm").tolist() == [[128, 1]]


def test_a_16_bit_picture_in_which_one_value_is_transparent(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">2H", 1000, 32768))
    pieces = (
        chunk(b"IHDR", head) + chunk(b"tRNS", struct.pack(">H", 1000)) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + pieces)
    assert grey(tmp_path / "a.png").tolist() == [[255, 128]]


def test_floats_and_whole_numbers_of_pil() -> None:
    assert grey(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))).tolist() == [[0, 128, 255]]
    assert np.array_equal(grey(Image.fromarray(GREY).convert("F")), GREY)
    assert np.array_equal(grey(Image.fromarray(GREY).convert("I")), GREY)
    assert grey(Image.fromarray(np.array([[0, 32768, 65535]], np.int32))).tolist() == [[0, 128, 255]]
    assert grey(Image.fromarray(np.array([[0, 0.5]], np.float32)).resize((1, 1), Image.Resampling.BOX)).tolist() == [
        [64]
    ]


@pytest.mark.parametrize("array", [[[np.nan, 0.0]], [[-0.1, 0.5]], [[0.0, 256.0]], [[0.0, np.inf]]])
def test_floats_out_of_range_are_refused(array: list) -> None:
    with pytest.raises(ValueError, match="must hold floats from 0 to 1, it has values from"):
        read_picture(Image.fromarray(np.array(array, np.float32)))
    for whole in ([[-1, 0]], [[0, 65536]]):
        with pytest.raises(ValueError, match="must hold whole numbers from 0 to 65535"):
            read_picture(Image.fromarray(np.array(whole, np.int32)))


def test_what_is_transparent_is_white() -> None:
    clear = np.array([[[200, 0], [200, 255], [200, 128]]], np.uint8)  # grey and opacity
    half = round(200 * 128 / 255 + 255 * 127 / 255)
    for mode in ("LA", "La", "RGBA", "RGBa"):
        image = Image.fromarray(clear).convert("LA")
        image = image.convert("RGBA").convert(mode) if mode.startswith("RGB") else image.convert(mode)
        assert np.abs(grey(image)[0].astype(int) - [255, 200, half]).max() <= 1, mode
    flat = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    flat.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert values(flat).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    flat.info["transparency"] = 1
    assert values(flat).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    flat.info["transparency"] = bytes([255, 255, 0])
    assert values(flat).tolist() == [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]]
    plain = Image.fromarray(np.array([[[9, 9, 9], [8, 8, 8]]], np.uint8))
    plain.info["transparency"] = (9, 9, 9)
    assert values(plain).tolist() == [[[255] * 3, [8] * 3]]
    assert np.all(values(np.dstack([RGB, np.zeros((6, 9), np.uint8)])) == 255)


def test_other_modes() -> None:
    assert grey(Image.fromarray(np.array([[True, False]]))).tolist() == [[255, 0]]
    assert grey(Image.fromarray(GREY)).tolist() == GREY.tolist()
    assert grey(GREY).tolist() == GREY.tolist()
    cmyk = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert values(cmyk).tolist() == [[[255, 0, 0]]]
    assert np.abs(values(Image.fromarray(RGB).convert("YCbCr")).astype(int) - RGB).max() <= 4
    with pytest.raises(ValueError, match="is in LAB colours, which are not read"):
        read_picture(Image.new("LAB", (2, 2)))


def test_a_camera_held_upright_and_the_original_left_alone() -> None:
    turned = Image.fromarray(RGB)
    turned.getexif()[0x0112] = 6  # stored on its side: turn clockwise to see it
    assert np.array_equal(values(turned), np.asarray(ImageOps.exif_transpose(turned)))
    assert turned.size == (9, 6)
    plain = Image.fromarray(RGB)
    read_picture(plain).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(plain), RGB)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_one_sentence(tmp_path: Path, format: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, format)
    whole = buffer.getvalue()
    path = tmp_path / "cut"
    for share in (0.02, 0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"cut' (cannot be read as a picture|is no picture)") as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole[: len(whole) // 2])
    if format not in ("WEBP", "TIFF"):  # those do not open at all
        with Image.open(path) as opened, pytest.raises(ValueError, match="the picture cannot be read as a picture"):
            read_picture(opened)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has 20,000 x 20,000 pixels: at most 67,108,864 are read"):
        read_picture(Image.new("1", (20_000, 20_000)))
    with pytest.raises(ValueError, match="has 9,000 x 8,000 pixels"):
        read_picture(np.broadcast_to(np.uint8(0), (8000, 9000, 3)))

    def png(width: int, height: int) -> Path:
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        (tmp_path / "bomb.png").write_bytes(
            data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        )
        return tmp_path / "bomb.png"

    with pytest.raises(ValueError, match=r"bomb\.png' has too many pixels: at most 67,108,864 are read"):
        read_picture(png(2**31 - 1, 2**31 - 1))
    with pytest.raises(ValueError, match=r"bomb\.png' has 9,000 x 9,000 pixels"):
        read_picture(png(9000, 9000))
    assert pictures.MAX_PIXELS == 8192 * 8192


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (None, "None"),
        (7, "7"),
        (torch.zeros(3, 4, 4), "tensor"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.full((8, 8), 200.0), "200"),
        (np.full((8, 8), np.nan), "nan"),
        (np.full((8, 8), -0.5), "-0.5"),
    ],
)
def test_what_is_no_picture_is_refused(image: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"image must be a PIL image or an array .*got .*{named}"):
        read_picture(image)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(ValueError, match="is no picture in a format that is read: PNG"):
        read_picture(tmp_path / "a.png")
    for name in ("nowhere.png", "a\0.png", "x" * 5000, ""):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_picture(str(tmp_path / name) if name else name)
    with pytest.raises(ValueError, match="has no pixels"):
        read_picture(Image.new("RGB", (0, 5)))
