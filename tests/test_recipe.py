"""Settings in and out of a PNG, and what a hostile or foreign file gets."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from diffexplore.looks.pictures import MAX_TEXT, _from_parameters, _parameters, read_recipe
from diffexplore.settings import Settings


def png(path, **texts):
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_itxt(key, text)
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=chunks)
    return path


def test_a_saved_picture_carries_its_settings(tiny_trace, tmp_path):
    tiny_trace.save_image(tmp_path / "fox.png")
    assert read_recipe(tmp_path / "fox.png") == tiny_trace.settings
    with Image.open(tmp_path / "fox.png") as image:
        assert image.convert("RGB").tobytes() == tiny_trace.image.tobytes()
        assert image.info["parameters"].startswith("a red fox\nNegative prompt: blurry\nSteps: 4, Sampler: DDIM")


def test_pictures_of_other_programs_are_read(tmp_path):
    text = "a fox, <b>snow</b>\nNegative prompt: blurry\nSteps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, Model hash: 1a2b"  # noqa: E501
    assert read_recipe(png(tmp_path / "other.png", parameters=text)) == Settings(
        prompt="a fox, <b>snow</b>", negative_prompt="blurry", steps=25, guidance=6.5, seed=42,
        sampler="DPM++ 2M Karras", width=512, height=768,
    )  # fmt: skip


plain = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"))).map(str.strip)


@given(plain.filter(lambda t: "Negative prompt:" not in t), plain, st.integers(1, 1000), st.integers(0, 2**63 - 1))
def test_the_common_text_form_round_trips(prompt, negative, steps, seed):
    settings = Settings(prompt=prompt, negative_prompt=negative, steps=steps, seed=seed, sampler="Euler a")
    assert _from_parameters(_parameters(settings, "pocket")) == settings


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({}, "carries no recipe"),
        ({"diffexplore": "{"}, "JSON object"),
        ({"diffexplore": "[" * 100_000}, "JSON object"),
        ({"diffexplore": json.dumps({"settings": {"steps": "many"}})}, "steps must be .* got 'many'"),
        ({"diffexplore": json.dumps({"settings": {"__class__": 1}})}, "got '__class__'"),
        ({"diffexplore": "x" * (MAX_TEXT + 1)}, "at most 1,048,576 are read"),
        ({"parameters": "no steps here"}, "must name Steps"),
        ({"parameters": "a\nSteps: 20, Sampler: Magic"}, "sampler must be one of"),
        ({"parameters": "a\nSteps: ten"}, "Steps must be a number, got 'ten'"),
    ],
)
def test_bad_recipes_are_refused_in_one_sentence(tmp_path, texts, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read_recipe(png(tmp_path / "bad.png", **texts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40])
def test_files_that_are_no_png_are_refused(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match="is not a readable PNG"):
        read_recipe(tmp_path / "x.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_recipe(tmp_path / "nowhere.png")


def test_a_cancelled_run_has_no_picture_to_save(tiny_trace, tmp_path):
    from diffexplore.trace import Trace

    part = Trace(tiny_trace.settings, tiny_trace[:2], cancelled=True, expected=4)
    with pytest.raises(ValueError, match="no final picture to save: it has 2 of 4 steps"):
        part.save_image(tmp_path / "x.png")
