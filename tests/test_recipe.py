"""looks/recipe.py: settings in and out of a picture file, and what a hostile or foreign one gets."""

import io
import json
import struct
import warnings
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from diffexplore.looks.chunks import MAX_TEXT
from diffexplore.looks.pictures import encode, save
from diffexplore.looks.recipe import drawn_by, from_parameters, parameters, read_recipe, recipe_in, texts_of
from diffexplore.samplers import SAMPLERS
from diffexplore.settings import Settings

SUFFIXES = (".png", ".webp", ".jpg")


def png(path, **texts):
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_itxt(key, text)
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=chunks)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def plain_png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def behind_the_pixels(*pieces):
    """A PNG with pieces between its pixels and its end."""
    data = plain_png()
    return data[:-12] + b"".join(pieces) + data[-12:]


def read(text):
    """The settings of a text of another program, of which everything must be carried over."""
    settings, notes = from_parameters(text)
    assert notes == []
    return settings


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_saved_picture_carries_its_settings(tiny_trace, tmp_path, suffix):
    path = tmp_path / f"fox{suffix}"
    tiny_trace.save_image(path)
    assert read_recipe(path) == tiny_trace.settings
    with Image.open(path) as image:
        assert image.format.lower() == {".jpg": "jpeg"}.get(suffix, suffix[1:])
        if suffix != ".jpg":
            assert image.convert("RGB").tobytes() == tiny_trace.image.tobytes()
        text = image.info.get("parameters") or image.getexif().get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
        assert text.startswith("a red fox\nNegative prompt: blurry\nSteps: 4, Sampler: DDIM")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "prompt", ["狐 🦊 é", 'a "fox", Steps: 3', "line\nNegative prompt: more", "a <lora:b:1> c", "\t x "]
)
def test_every_prompt_comes_back_from_every_format(tmp_path, suffix, prompt):
    settings = Settings(prompt=prompt, negative_prompt=prompt, seed=2**63 - 1, adapters={"a: b>": 0.5}, width=64)
    path = tmp_path / f"fox{suffix}"
    path.write_bytes(encode(Image.new("RGB", (8, 8)), path.suffix[1:].replace("jpg", "jpeg"), texts=texts_of(settings)))
    assert read_recipe(path) == settings


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_programs_read_the_text_of_every_format(tmp_path, suffix):
    """Where they look: a text chunk of a PNG, the user comment of the others."""
    text = "狐 a fox\nSteps: 5, Sampler: Euler a, CFG scale: 7, Seed: 3"
    path = tmp_path / f"fox{suffix}"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    if suffix == ".png":
        png(path, parameters=text)
    else:
        Image.new("RGB", (8, 8)).save(path, exif=exif)
    assert read_recipe(path) == Settings(prompt="狐 a fox", steps=5, sampler="Euler a", guidance=7.0, seed=3)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_user_comment_in_either_order_of_bytes_and_a_plain_one(tmp_path, order):
    text = "a fox\nSteps: 5"
    for number, comment in enumerate((b"UNICODE\0" + text.encode(order), b"ASCII\0\0\0" + text.encode())):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = comment
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.jpg", exif=exif)
        assert read_recipe(tmp_path / f"{number}.jpg") == Settings(prompt="a fox", steps=5)


def test_pictures_of_other_programs_are_read(tmp_path):
    text = "a fox, <b>snow</b>\nNegative prompt: blurry\nSteps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, Model hash: 1a2b"  # noqa: E501
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_recipe(png(tmp_path / "other.png", parameters=text)) == Settings(
            prompt="a fox, <b>snow</b>", negative_prompt="blurry", steps=25, guidance=6.5, seed=42,
            sampler="DPM++ 2M Karras", width=512, height=768,
        )  # fmt: skip


def test_a_text_behind_the_pixels_is_found(tmp_path):
    text = b"parameters\0a fox\nSteps: 5"
    (tmp_path / "a.png").write_bytes(behind_the_pixels(chunk(b"tEXt", text)))
    assert read_recipe(tmp_path / "a.png") == Settings(prompt="a fox", steps=5)
    packed = b"parameters\0\0" + zlib.compress("é fox\nSteps: 6".encode("latin-1"))
    (tmp_path / "b.png").write_bytes(behind_the_pixels(chunk(b"zTXt", packed)))
    assert read_recipe(tmp_path / "b.png") == Settings(prompt="é fox", steps=6)
    packed = b"parameters\0\1\0en\0\0" + zlib.compress("狐\nSteps: 7".encode())
    (tmp_path / "c.png").write_bytes(behind_the_pixels(chunk(b"iTXt", packed)))
    assert read_recipe(tmp_path / "c.png") == Settings(prompt="狐", steps=7)


def test_a_recipe_is_read_from_a_picture_that_breaks_off(tmp_path):
    whole = encode(Image.new("RGB", (64, 64)), texts=texts_of(Settings(prompt="a fox")))
    (tmp_path / "cut.png").write_bytes(whole[:-40])
    assert read_recipe(tmp_path / "cut.png").prompt == "a fox"


# What other programs write


def test_keys_are_exact_and_count_outside_quotes_only():
    head = "a fox\nSteps: 20, Sampler: Euler, CFG scale: 7"
    settings, _ = from_parameters(f"{head}, ADetailer CFG scale: 3.0, ADetailer steps: 9, Hires Steps: 5, Seed: 4")
    assert (settings.guidance, settings.steps, settings.seed) == (7.0, 20, 4)
    settings, _ = from_parameters(f'{head}, ADetailer prompt: "x, CFG scale: 3, \\"Seed: 9\\", Steps: 2", Seed: 4')
    assert (settings.guidance, settings.steps, settings.seed) == (7.0, 20, 4)
    settings, _ = from_parameters(
        f'{head}, Seed: 4, Civitai resources: [{{"type":"lora","weight":0.5}}], x: {{"a":1, Steps: 3}}'
    )
    assert (settings.guidance, settings.steps, settings.seed) == (7.0, 20, 4)


def test_a_decimal_comma_is_one():
    assert read("a\nSteps: 20, CFG scale: 7,5, Seed: 3") == Settings(prompt="a", steps=20, guidance=7.5, seed=3)
    with pytest.raises(ValueError, match=r"Steps must be a number, got '20\.5'"):
        from_parameters("a\nSteps: 20,5, Seed: 3")
    with pytest.raises(ValueError, match="CFG scale must be a number, got '7, 5'"):
        from_parameters("a\nSteps: 20, CFG scale: 7, 5, Seed: 3")


@pytest.mark.parametrize(
    ("facts", "sampler"),
    [
        ("DPM++ 2M, Schedule type: Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M, Schedule type: Automatic", "DPM++ 2M Karras"),
        ("DPM++ 2M SDE, Schedule type: Automatic", "DPM++ 2M SDE Exponential"),
        ("DPM++ 3M SDE, Schedule type: Automatic", "DPM++ 3M SDE Exponential"),
        ("DPM2 a, Schedule type: Automatic", "DPM2 a Karras"),
        ("Euler a, Schedule type: Automatic", "Euler a"),
        ("Euler, Schedule type: Uniform", "Euler"),
        ("Euler, Schedule type: Beta", "Euler Beta"),
        ("Heun, Schedule type: karras", "Heun Karras"),
        ("dpmpp_2m, Schedule type: karras", "DPM++ 2M Karras"),
        ("Euler, Schedule type: automatic", "Euler"),
        ("DPM++ 2M", "DPM++ 2M"),
        ("DPM++ 2M Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras, Schedule type: Karras", "DPM++ 2M Karras"),
    ],
)
def test_the_schedule_is_part_of_the_sampler(facts, sampler):
    assert read(f"a\nSteps: 20, Sampler: {facts}, Seed: 1").sampler == sampler


@pytest.mark.parametrize("schedule", ["SGM Uniform", "KL Optimal", "Align Your Steps", "Simple"])
def test_a_schedule_that_is_not_here_is_said(tmp_path, schedule):
    path = png(tmp_path / "a.png", parameters=f"a\nSteps: 20, Sampler: Euler, Schedule type: {schedule}")
    with pytest.warns(UserWarning, match=f"no Euler here has the noise levels '{schedule}'") as said:
        assert read_recipe(path).sampler == "Euler"
    assert len(said) == 1
    assert said[0].filename == __file__


def test_what_cannot_be_carried_over_is_said_once(tmp_path):
    more = ", ".join(f"Extra {k}: {k}" for k in range(20))
    text = f"a\nSteps: 20, Clip skip: 2, Hires upscale: 1.5, Model: m, Version: v1.10, {more}"
    with pytest.warns(UserWarning, match="left out Clip skip '2', Hires upscale '1.5', .* and 16 more$") as said:
        read_recipe(png(tmp_path / "a.png", parameters=text))
    assert len(said) == 1
    assert read("a\nSteps: 20, Clip skip: 1, Model: m, Model hash: 1, Version: v1, RNG: CPU").steps == 20


def test_loras_travel_in_the_common_text(tmp_path):
    settings = Settings(prompt="a fox", adapters={"style": 0.8, "light": -1.5, "off": 0.0}, sampler="Euler")
    text = parameters(settings)
    assert text.split("\n")[0] == "a fox <lora:light:-1.5> <lora:style:0.8>"
    again, notes = from_parameters(text)
    assert again == settings.replace(adapters={"style": 0.8, "light": -1.5})
    assert notes == ["load its LoRAs before you draw: 'light', 'style'"]
    path = png(tmp_path / "a.png", parameters="a <lora:x y:0.5> fox, <lora:z:w>\nSteps: 3")
    with pytest.warns(UserWarning, match="left out '<lora:z:w>'; load its LoRAs before you draw: 'x y'$"):
        again = read_recipe(path)
    assert again == Settings(prompt="a fox,", steps=3, adapters={"x y": 0.5})


def test_a_guider_travels_in_both_texts():
    asked = Settings(prompt="a fox", guider="APG(eta=0.5, norm=2)")
    text = parameters(asked)
    assert text.endswith('Guider: "APG(eta=0.5, norm=2)"')
    assert from_parameters(text) == (asked, [])
    assert "Guider" not in parameters(Settings(prompt="a fox"))


def test_lines_behind_the_facts_are_passed_over():
    assert read("a fox\nSteps: 7, Seed: 2\nTemplate: a __animal__") == Settings(prompt="a fox", steps=7, seed=2)


def as_others_read(text):
    """Prompt and negative prompt as AUTOMATIC1111's program takes them apart: line by line, each stripped."""
    *lines, _ = text.strip().split("\n")
    prompt, negative, done = [], [], False
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            done, line = True, line[len("Negative prompt:") :].strip()
        (negative if done else prompt).append(line)
    return "\n".join(prompt), "\n".join(negative)


@pytest.mark.parametrize("prompt", ["Negative prompt: a fox", "a\n Negative prompt:", "Negative prompt:\nSteps: 3"])
def test_a_prompt_that_looks_like_a_negative_one_survives(prompt):
    settings = Settings(prompt=prompt, negative_prompt=prompt, steps=9, sampler="Euler")
    text = parameters(settings)
    assert read(text) == settings
    for half in as_others_read(text):
        assert half.replace("\u200b", "") == prompt, "all that was added has no width"


plain = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"))).map(str.strip)
marked = st.lists(
    st.one_of(plain, st.sampled_from(["Negative prompt:", "Steps: 3, Seed: 4", "<lora:a:1>", "\u200b", "\n", '"', ","]))
).map(lambda parts: " ".join(parts).replace(" \n ", "\n").strip())


@given(marked, marked, st.integers(1, 1000), st.integers(0, 2**63 - 1))
def test_the_common_text_form_round_trips(prompt, negative, steps, seed):
    settings = Settings(prompt=prompt, negative_prompt=negative, steps=steps, seed=seed, sampler="Euler a")
    assert from_parameters(parameters(settings, 'my, "odd": model')) == (settings, [])


words = st.text(st.characters(codec="utf-8"), max_size=200)
shares = st.floats(0, 1)
asked = st.builds(
    Settings,
    prompt=words,
    negative_prompt=words,
    steps=st.integers(1, 1000),
    guidance=st.floats(0, 100),
    seed=st.integers(0, 2**63 - 1),
    sampler=st.none() | st.sampled_from(sorted(SAMPLERS)),
    width=st.none() | st.integers(1, 1024).map(lambda n: 8 * n),
    height=st.none() | st.integers(1, 1024).map(lambda n: 8 * n),
    adapters=st.dictionaries(words.filter(bool), st.floats(-10, 10), max_size=3),
    strength=st.none() | shares,
    skips=st.dictionaries(st.integers(0, 3), st.fixed_dictionaries({"skip": st.floats(0, 10)}), max_size=3),
    variation=st.none() | st.tuples(st.integers(0, 2**63 - 1), shares),
    guider=st.sampled_from(["CFG", "APG"]),
    fresh_noise=st.none() | shares,
    changes=st.dictionaries(
        shares, st.fixed_dictionaries({"prompt": words, "guidance": st.floats(0, 100)}), max_size=3
    ),
)


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@given(settings=asked)
@example(Settings(prompt="\0\x1b\u202e\r\n", adapters={"\0": 1.0}))
def test_every_settings_come_back_from_every_format(format, settings):
    data = encode(Image.new("RGB", (8, 8)), format, texts=texts_of(settings, {"model": settings.prompt}))
    assert recipe_in(data) == (settings, [])
    assert Settings.from_text(settings.to_text()) == settings


# What is refused


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({}, "carries no recipe"),
        ({"diffexplore": "{"}, "JSON object"),
        ({"diffexplore": "[" * 100_000}, "JSON object"),
        ({"diffexplore": json.dumps({"settings": {"steps": "many"}})}, "steps must be .* got 'many'"),
        ({"diffexplore": json.dumps({"settings": {"__class__": 1}})}, "got '__class__'"),
        ({"diffexplore": json.dumps({"settings": {"self": 1}})}, "cannot be used"),
        ({"diffexplore": json.dumps({"settings": {"\ud800": 1}})}, "cannot be used"),
        ({"diffexplore": "x" * (MAX_TEXT + 1)}, "at most 1,048,576 are read"),
        ({"parameters": "no steps here"}, "must name Steps"),
        ({"parameters": "a\nSteps: 20, Sampler: Magic"}, "sampler must be one of"),
        ({"parameters": "a\nSteps: ten"}, "Steps must be a number, got 'ten'"),
        ({"parameters": "a\nSteps: 20, Size: large"}, "Size must be as in 512x768, got 'large'"),
        ({"parameters": '{"a": {}}'}, "JSON in the form of another program"),
    ],
)
def test_bad_recipes_are_refused_in_one_sentence(tmp_path, texts, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read_recipe(png(tmp_path / "bad.png", **texts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 40,
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1\x00\x00",
        b"\xff\xd8\xff\xe1\x00\xff",
        b"RIFF\xff\xff\xff\x00WEBP",
        b"GIF89a" + bytes(40),
    ],
)
def test_files_that_are_no_such_picture_are_refused(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match="is not a readable PNG, WebP or JPEG") as caught:
        read_recipe(tmp_path / "x.png")
    assert "\n" not in str(caught.value)


def test_every_cut_and_flip_of_a_file_is_a_sentence_or_a_recipe(tmp_path):
    settings = Settings(prompt="a fox", steps=3)
    for suffix in ("png", "webp", "jpeg"):
        whole = encode(Image.new("RGB", (8, 8)), suffix, texts=texts_of(settings))
        for at in range(0, len(whole), 3):
            for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
                (tmp_path / "x").write_bytes(data)
                try:
                    said = read_recipe(tmp_path / "x").prompt
                except ValueError as error:
                    said = str(error)
                assert "\n" not in said


def test_a_damaged_text_is_said(tmp_path):
    piece = chunk(b"tEXt", b"parameters\0a fox\nSteps: 5")
    (tmp_path / "a.png").write_bytes(behind_the_pixels(piece[:-1] + b"x"))
    with pytest.raises(ValueError, match="holds a damaged text 'parameters'"):
        read_recipe(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(behind_the_pixels(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(10**8)))))
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_recipe(tmp_path / "b.png")


def test_a_hundred_thousand_texts_are_not_read(tmp_path):
    data = plain_png()
    many = data[:33] + chunk(b"tEXt", b"key\0text") * 100_000 + data[33:]
    (tmp_path / "many.png").write_bytes(many)
    with pytest.raises(ValueError, match="is in more than 65,536 pieces"):
        read_recipe(tmp_path / "many.png")


def test_a_missing_file_is_named(tmp_path):
    for name in ("nowhere.png", "a\0b.png", "~/nowhere.png"):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*png"):
            read_recipe(tmp_path / name)
    with pytest.raises(ValueError, match="a file is said by its path, got 5"):
        read_recipe(5)


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    png(tmp_path / "fox.png", parameters="a fox\nSteps: 5")
    assert read_recipe("~/fox.png").prompt == "a fox"


def test_what_a_pipeline_was_given_beyond_settings_is_said_when_a_recipe_is_read(tmp_path):
    info = {"model": "m", "extra": {"image": "a picture of 48x32 pixels", "strength": 0.6}}
    save(Image.new("RGB", (8, 8)), tmp_path / "a.png", Settings(prompt="a fox"), info)
    with pytest.warns(UserWarning, match=r"to be handed over beside it: image a picture of 48x32 pixels, strength 0.6"):
        assert read_recipe(tmp_path / "a.png") == Settings(prompt="a fox")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_says_by_which_model_it_was_drawn(tmp_path, suffix):
    path = tmp_path / f"fox{suffix}"
    save(Image.new("RGB", (8, 8)), path, Settings(), {"model": "a fox", "world": "pocket"})
    assert drawn_by(path) == drawn_by(path.read_bytes()) == ("a fox", True)
    save(Image.new("RGB", (8, 8)), path, Settings(), {"model": "a fox"})
    assert drawn_by(path) == ("a fox", False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"model": 3}',
        '{"model": null}',
        "{" * 10_000,
        '{"model": ["pocket"]}',
        "nonsense",
        f'{{"model": {"9" * 5000}}}',
    ],
)
def test_a_picture_that_names_no_model_is_of_none(tmp_path, text):
    assert drawn_by(png(tmp_path / "a.png", diffexplore=text)) == ("", False)


def test_the_name_of_a_model_cannot_be_a_flood(tmp_path):
    assert len(drawn_by(png(tmp_path / "a.png", diffexplore=json.dumps({"model": "x" * 10_000}))).name) == 200
    assert drawn_by(png(tmp_path / "b.png", parameters="a fox\nSteps: 3")).name == ""
    with pytest.raises(ValueError, match="the picture is not a readable"):
        drawn_by(b"no picture")
    with pytest.raises(FileNotFoundError):
        drawn_by(tmp_path / "nowhere.png")
