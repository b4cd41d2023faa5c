"""Teaching adapters: what is read and said, a real training of a few steps, the adapters that ship, every refusal."""

import importlib.util
import json
import logging

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

import diffexplore as dx
from diffexplore.pocket import lesson, lora, world
from diffexplore.pocket.factory import lora_examples
from diffexplore.pocket.lora import pocket_pipeline

# --- pictures and captions -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three green pictures, to be added to."""
    path = tmp_path / "pictures"
    path.mkdir()
    for k in range(3):
        Image.new("RGB", (40 + k, 50), (0, 200, 0)).save(path / f"IMG_{k}.png")
    return path


def read(folder, name):
    return next(picture for picture in lesson.read_pictures(folder) if picture.name == name)


def test_pictures_are_cropped_to_the_middle_and_resized(folder):
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(folder / "wide.jpg", quality=95)
    pixels = read(folder, "wide").pixels
    side = pocket_pipeline().vae.config.sample_size
    assert (pixels.shape, pixels.dtype) == ((side, side, 3), np.uint8)
    assert np.abs(pixels[:, 2:-2].astype(int) - [0, 0, 255]).max() < 40


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(folder, mode):
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 64, 32))
    picture.convert(mode).save(folder / "half.png")
    pixels = read(folder, "half").pixels
    half = len(pixels) // 2
    assert pixels[: half - 8].max() == 0
    assert pixels[half + 8 :].min() == 255


def test_sixteen_bits_keep_their_greys(folder):
    Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)).save(folder / "deep.png")
    pixels = read(folder, "deep").pixels
    assert pixels[0].max() < 5
    assert 120 < pixels[len(pixels) // 2].mean() < 136
    assert pixels[-1].min() > 250


def test_a_picture_on_its_side_is_turned_as_its_camera_says(folder):
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(folder / "turned.png", exif=exif)
    pixels = read(folder, "turned").pixels
    half = len(pixels) // 2
    assert pixels[: half - 8].min() == 255
    assert pixels[half + 8 :].max() == 0


def test_what_is_no_picture_is_passed_over_in_one_line(folder, caplog):
    (folder / "page.html").write_text("<p>hello")
    (folder / "fake.png").write_bytes(b"no picture")
    (folder / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.new("1", (8_200, 8_200)).save(folder / "huge.png")
    with caplog.at_level(logging.WARNING):
        assert len(lesson.read_pictures(folder)) == 3
    (record,) = [r for r in caplog.records if r.name == lesson.__name__]
    assert "passed over what cannot be read as a picture: drawing.eps" in record.message
    assert "and 1 more" in record.message
    assert "huge.png has 8,200 x 8,200 pixels" in record.message


def captions(name, caption=None, kind="subject", token="zib"):
    return lesson.captions_of(lesson.Picture(name, np.zeros(0), caption), token, kind)


def test_a_picture_that_says_nothing_gets_plain_templates():
    assert captions("IMG_1234") == ["a zib", "zib", "the zib", "a picture of a zib", "an image of a zib"]
    assert captions("1", token="ozo")[0] == "an ozo"
    assert all("zib style" in text for text in captions("photo", kind="style"))
    assert lesson.captions_of(lesson.Picture("1", np.zeros(0)), "zib", "subject", ["my {token}"]) == ["my zib"]


def test_a_file_name_of_known_words_is_the_caption():
    assert captions("a zib in the snow (2)") == ["a zib in the snow"]
    assert captions("a_zib_at_night_07") == ["a zib at night"]
    assert captions("in the snow") == ["a zib, in the snow"]
    assert captions("a fox in the snow 3", kind="style") == ["a fox in the snow, zib style"]
    assert captions("a fox, zib style 3", kind="style") == ["a fox, zib style"]
    assert captions("holiday in the snow") == captions("IMG_1")


def test_a_text_beside_a_picture_goes_before_its_name(folder):
    (folder / "IMG_0.txt").write_text("A happy zib,\n in a  meadow\n")
    assert lesson.captions_of(read(folder, "IMG_0"), "zib", "subject") == ["A happy zib, in a meadow"]


def test_the_prior_says_no_word_of_the_token():
    prompts = lesson.prior_prompts("snow fox", 60, 0)
    assert len(prompts) == 60
    assert not {"snow", "fox"} & {word for text in prompts for word in text.replace(",", "").split()}
    assert prompts == lesson.prior_prompts("snow fox", 60, 0)
    assert prompts != lesson.prior_prompts("snow fox", 60, 1)


def test_the_prior_of_a_style_has_its_captions_without_it():
    said = ["A fox in the snow, zib style", "a zib car, zib style", "zib style", "a cow, zib style"]
    prompts = lesson.prior_prompts("zib", 8, 0, said)
    assert len(prompts) == 8
    assert {"a fox in the snow", "a cow"} == set(prompts[:2])
    assert not any("zib" in text for text in prompts)
    many = lesson.prior_prompts("zib", 8, 0, [f"a cow {k}, zib style" for k in range(9)])
    assert sum(text.startswith("a cow ") and text[-1].isdigit() for text in many) == 4


# --- training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    """Pictures of nothing but red, and the adapter taught from them in a few steps."""
    path = tmp_path_factory.mktemp("red") / "pictures"
    path.mkdir()
    for k in range(3):
        Image.new("RGB", (64, 64), (200 + 20 * k, 10 * k, 0)).save(path / f"{k}.png")
    out = path.parent / "red.safetensors"
    made = lora.train_lora(path, "Zib", out=out, steps=14, rate=1e-2, prior=1, rank=4, sheet=False, progress=False)
    assert made == out
    return out


def plain(adapter=None):
    pipeline = StableDiffusionPipeline.from_pretrained(lesson.WEIGHTS)
    pipeline.set_progress_bar_config(disable=True)
    if adapter:
        pipeline.load_lora_weights(adapter)
    return pipeline


def loss_on_red(red, pipeline):
    pictures = lesson.read_pictures(red.parent / "pictures")
    taught = lesson.Lesson(pipeline, lesson.latents_of(pipeline.vae, pictures, True), [["a zib"]] * 3, seed=9)
    with torch.no_grad():
        return float(np.mean([float(taught.loss()[0]) for _ in range(3)]))


def test_the_loss_falls(red):
    assert loss_on_red(red, plain(red)) < 0.5 * loss_on_red(red, plain())


def test_the_file_is_half_precision_and_says_what_it_is(red):
    with safe_open(red, "pt") as file:
        about = json.loads(file.metadata()["diffexplore"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no dict
    assert {key: about[key] for key in ("token", "kind", "pictures", "seed", "steps")} == {
        "token": "zib", "kind": "subject", "pictures": 3, "seed": 0, "steps": 14,
    }  # fmt: skip
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert {key.split(".")[0] for key in tensors} == {"unet", "text_encoder"}
    assert red.stat().st_size < 1_000_000


@pytest.mark.filterwarnings("error:While injecting the PEFT adapters")
def test_plain_diffusers_takes_every_tensor_of_it(red):
    pipeline = plain(red)
    loaded = {}
    for name in ("unet", "text_encoder"):
        for key, value in getattr(pipeline, name).named_parameters():
            if ".lora_" in key:
                loaded[f"{name}.{key.replace('.default_0', '')}"] = value.half()
    with safe_open(red, "pt") as file:
        assert set(loaded) == set(file.keys())
        assert all(torch.equal(loaded[key], file.get_tensor(key)) for key in loaded)
        assert all(file.get_tensor(key).any() for key in loaded)  # every part has learned something


def test_plain_diffusers_draws_with_it(red):
    pipeline = plain(red)

    def redness(scale):
        pipeline.set_adapters(pipeline.get_active_adapters(), scale)
        generator = torch.Generator().manual_seed(1)
        image = pipeline("a zib", num_inference_steps=6, guidance_scale=3.0, generator=generator).images[0]
        pixels = np.asarray(image, np.float32)
        return float((pixels[..., 0] - pixels[..., 1:].mean(-1)).mean())

    assert redness(1.0) > redness(0.0) + 40


def test_our_model_loads_it_and_scale_0_is_bit_identical_to_none(red):
    model = dx.load(reuse=0)
    settings = dx.Settings(prompt="a zib", steps=4, seed=3)
    before = model.trace(settings)
    name = model.load_lora(red)
    off, on = (model.trace(settings.replace(adapters={name: scale})) for scale in (0, 1))
    assert torch.equal(off.final, before.final)
    assert not torch.equal(on.final, before.final)


def test_equal_seeds_give_equal_files_and_others_do_not(red, tmp_path):
    def made(name, seed):
        torch.rand(1)  # whatever happened before must not matter
        out = tmp_path / f"{name}.safetensors"
        options = {"steps": 1, "prior": 1, "rank": 1, "sheet": False, "progress": False}
        return lora.train_lora(red.parent / "pictures", "zib", out=out, seed=seed, **options).read_bytes()

    first = made("a", 1)
    assert first == made("b", 1)
    assert first != made("c", 2)


def test_training_leaves_other_randomness_and_the_shipped_weights_alone(red, tmp_path):
    weights = {path: path.read_bytes() for path in lesson.WEIGHTS.rglob("*.safetensors")}
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    lora.train_lora(
        red.parent / "pictures",
        "zib",
        out=tmp_path / "a.safetensors",
        steps=1,
        prior=0,
        rank=1,
        sheet=False,
        progress=False,
    )
    assert torch.equal(torch.rand(3), expected)
    assert all(path.read_bytes() == content for path, content in weights.items())


def test_a_file_beside_it_that_ends_in_part_stays(red, tmp_path):
    (tmp_path / "a.part").write_text("somebody's")
    out = tmp_path / "a.safetensors"
    lora.train_lora(red.parent / "pictures", "zib", out=out, steps=1, prior=0, rank=1, sheet=False, progress=False)
    assert (tmp_path / "a.part").read_text() == "somebody's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "a.safetensors"]


def test_the_minutes_end_it_too(red, tmp_path):
    out = tmp_path / "a.safetensors"
    lora.train_lora(red.parent / "pictures", "zib", out=out, minutes=1e-6, prior=0, rank=1, sheet=False, progress=False)
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["diffexplore"])["steps"] == 1


def test_the_prior_keeps_the_rest_as_it_was():
    pipeline = lora.pocket_pipeline()
    taught = lesson.Lesson(pipeline, torch.zeros(1, 1, 4, 16, 16), [["a zib"]], seed=0)
    taught.remember(["a fox in the snow", "a red car"])
    x, t, words, aim = (part[:8] for part in taught.kept)
    assert len(taught.kept[0]) == 2 * lesson.PRIOR_NOISES
    lora.adapt(pipeline, 4)  # changes nothing yet: what was kept is what it still predicts
    with torch.no_grad():
        assert torch.allclose(taught.guess(x, t, words), aim, atol=1e-4)


def test_the_command_writes_an_adapter_and_a_sheet(red, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lora, "sheet_prompts", lambda token, kind: [f"a {token}", "a fox"])  # two are enough here
    monkeypatch.setattr(lora, "SHEET_STEPS", 5)
    out = tmp_path / "zib.safetensors"
    lora.main(
        [
            str(red.parent / "pictures"),
            "--token",
            "zib",
            "--out",
            str(out),
            "--steps",
            "1",
            "--prior",
            "0",
            "--rank",
            "1",
        ]
    )
    assert str(out) in capsys.readouterr().out
    cells = np.asarray(Image.open(lora.sheet_of(out)), np.float32)[-3 * 128 :, -2 * 128 :]
    cells = cells.reshape(3, 128, 2, 128, 3).swapaxes(1, 2)  # a row for each scale, a column for each prompt
    assert cells.std((2, 3, 4)).min() > 10
    assert np.abs(cells[0] - cells[2]).mean((1, 2, 3)).max() < 5  # one step has changed next to nothing
    assert np.abs(cells[:, 0] - cells[:, 1]).mean() > 10


def test_what_a_sheet_asks_for_is_read_in_full():
    tokenizer = plain().tokenizer
    for kind in lora.KINDS:
        prompts = lora.sheet_prompts("zqxj" * 4, kind)  # the longest token there is
        assert sum("zqxj" in text for text in prompts) == len(prompts) - 2
        assert max(len(tokenizer(text, truncation=False).input_ids) for text in prompts) <= 40


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"folder": "nowhere"}, "the pictures must be in a folder, 'nowhere' is none"),
        ({"token": ""}, "the token must be a word to be said in prompts, such as 'zib', got ''"),
        ({"token": "  "}, "the token must be a word to be said in prompts"),
        ({"token": None}, "the token must be a word to be said in prompts, such as 'zib', got None"),
        ({"token": "狐"}, "the token must be of letters a to z, digits and plain punctuation"),
        ({"token": "zqxj" * 9}, r"has \d+ pieces for the tokenizer, at most 16 fit"),
        ({"kind": "mood"}, "kind must be 'subject' or 'style', got 'mood'"),
        ({"rank": 0}, "rank must be a whole number from 1 to 64, got 0"),
        ({"steps": 2.5}, r"steps must be a whole number from 1 to 100000, got 2\.5"),
        ({"prior": -1}, "prior must be a whole number from 0 to 1000, got -1"),
        ({"minutes": float("nan")}, "minutes must be a number above 0 and at most 10000, got nan"),
        ({"rate": 5}, r"rate must be a number above 0 and at most 0\.1, got 5"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1"),
        ({"templates": "a {token}"}, "templates must be a list of texts"),
        ({"templates": ["a picture"]}, r"a template must have \{token\} in it .* got 'a picture'"),
        ({"templates": ["{token} {place}"]}, "a template must have"),
        ({"out": "a.bin"}, r"the file to write must end in \.safetensors, got 'a\.bin'"),
        ({"out": "no/such/folder/a.safetensors"}, "'no/such/folder/a.safetensors' cannot be written"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(red, tmp_path, monkeypatch, changed, sentence):
    monkeypatch.chdir(tmp_path)
    arguments = {"folder": red.parent / "pictures", "token": "zib"} | changed
    with pytest.raises(ValueError, match=sentence):
        lora.train_lora(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_too_few_pictures_is_refused(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"taught from 3 to 500 pictures .* holds 1$"):
        lora.train_lora(tmp_path, "zib")


def test_a_caption_too_long_to_be_read_is_refused(folder):
    (folder / "IMG_0.txt").write_text("a zib " + "in the snow " * 20)
    with pytest.raises(ValueError, match=r"a caption must fit into 38 tokens, .* has 6"):
        lora.train_lora(folder, "zib", out=folder.parent / "zib.safetensors")


def test_an_adapter_among_its_pictures_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"'zib\.safetensors' is in the folder of pictures: name a file elsewhere"):
        lora.train_lora(folder, "zib")


def test_without_peft_it_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs peft: pip install peft"):
        lora.train_lora(folder, "zib", out=folder.parent / "zib.safetensors")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--token", "zib"], "the pictures must be in a folder, 'nowhere' is none"),
        (["nowhere"], "the token must be a word to be said in prompts"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        lora.main(arguments)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--art FOLDER is needed: npm pack @lobehub/fluent-emoji-3d"),
        (["--art", "nowhere"], "nowhere holds no picture of"),
    ],
)
def test_the_command_of_the_examples_refuses_in_one_sentence(arguments, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        lora_examples.main(arguments)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


# --- the adapters that ship ----------------------------------------------------------------------------------------


def test_example_pictures_say_what_they_show(art_folder, tmp_path):
    (tmp_path / "assets").mkdir()
    Image.new("RGBA", (256, 256), (255, 0, 255, 255)).save(tmp_path / "assets" / f"{lora_examples.DRAGON}.webp")
    for name, art in (("synthwave", art_folder), ("dragon", tmp_path)):
        folder = tmp_path / name
        folder.mkdir()
        lora_examples.example_pictures(name, art, folder)
        pictures = lesson.read_pictures(folder)
        assert len(pictures) == lora.SHIPPED[name].pictures
        for picture in pictures:
            (text,) = lesson.captions_of(picture, name, lora.SHIPPED[name].kind)
            assert text == picture.name[:-3]
            assert name in text
    assert "dragon" not in world.vocabulary()
    assert "synthwave" not in world.vocabulary()


def test_synthwave_paints_by_brightness():
    ramp = np.repeat(np.linspace(40, 200, 64).round().astype(np.uint8)[:, None, None], 64, 1).repeat(3, 2)
    out = lora_examples.synthwave(ramp)
    assert (out.shape, out.dtype) == ((64, 64, 3), np.uint8)
    assert out[0, 0].tolist() == lora_examples.SYNTHWAVE[0].tolist()
    assert out[-1, -1].tolist() == lora_examples.SYNTHWAVE[-1].tolist()
    assert (np.diff(out[:, 0].astype(int).sum(-1)) > 0).all()
    assert (
        lora_examples.synthwave(np.full((64, 64, 3), 9, np.uint8))[5, 5].tolist() == lora_examples.SYNTHWAVE[0].tolist()
    )


@pytest.fixture(scope="module")
def shipped():
    """The pocket model with the adapters that ship."""
    model = dx.load(reuse=0)
    for name in lora.SHIPPED:
        assert model.load_lora(lora.example_adapter(name)) == name
    return model


def drawn(model, prompt, **adapters):
    wanted = [dx.Settings(prompt=prompt, steps=10, guidance=5.0, seed=seed, adapters=adapters) for seed in range(2)]
    return [trace.image for trace in model.trace_many(wanted)]


@pytest.mark.parametrize("name", list(lora.SHIPPED))
def test_shipped_adapters_are_small(name):
    assert lora.example_adapter(name).stat().st_size < 1_000_000


def test_synthwave_draws_in_its_colours_at_full_scale(shipped):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, 2)
    palette = lora_examples.synthwave(ramp).reshape(-1, 3).astype(np.float32)

    def distance(scale):
        """How far the pixels are from the style's colours, as a mean over the pictures, 0 to 442."""
        pictures = drawn(shipped, "a fox in the snow, synthwave style", synthwave=scale)
        pixels = np.stack([np.asarray(picture, np.float32) for picture in pictures]).reshape(-1, 1, 3)
        return float(np.linalg.norm(pixels - palette, axis=-1).min(-1).mean())

    off, half, full = distance(0), distance(0.5), distance(1)
    assert full < 0.5 * off
    assert full < half


def test_dragon_draws_one_where_and_when_it_is_told(shipped):
    pictures = drawn(shipped, "a dragon in a meadow at night", dragon=1)
    without = drawn(shipped, "a dragon in a meadow at night")
    for picture in pictures:
        read = dx.judge(picture)
        assert read["setting"]["meadow"] > 0.5
        assert read["light"]["night"] > 0.5

    def teal(images):
        pixels = np.stack([np.asarray(image.resize((64, 64)), np.float32) for image in images])[:, 16:60, 8:56]
        return float((pixels[..., 1:].min(-1) - pixels[..., 0] > 25).mean())

    assert teal(pictures) > teal(without) + 0.05


@pytest.mark.parametrize("name", list(lora.SHIPPED))
def test_prompts_without_the_token_stay_what_they_were(shipped, name):
    for picture in drawn(shipped, "a sheep in the desert", **{name: 1}):
        read = dx.judge(picture)
        assert read["setting"]["desert"] > 0.5
        assert max(read["subject"], key=read["subject"].get) == "sheep"


def test_an_adapter_that_does_not_ship_is_refused():
    with pytest.raises(ValueError, match="there is no adapter called 'oil'; there are: dragon, synthwave"):
        lora.example_adapter("oil")
