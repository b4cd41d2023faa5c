"""The judge: what it reads off pictures, whatever is switched on around it, and what a prompt names."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import diffexplore as dx
from diffexplore.pocket import example, examples, judge, world


def likeliest(read):
    return {attribute: max(values, key=values.get) for attribute, values in read.items()}


# --- reading pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", examples())
def test_shipped_examples_are_read_as_their_captions_say(name):
    read, wanted = likeliest(dx.judge(example(name))), judge.named(name)
    assert {"subject", "setting"} <= set(wanted)
    assert {attribute: read[attribute] for attribute in wanted} == wanted


def test_what_it_sees_is_said_as_a_caption():
    told = judge.said(example("a fox in the snow at noon"))
    assert told == "a fox in the snow at noon"
    assert judge.named(told) == {"subject": "fox", "setting": "snow", "light": "noon"}


def test_probabilities_are_given_for_every_value():
    read = dx.judge(example("a rocket in space"))
    assert list(read) == ["subject", "colour", "setting", "light", "style", "quality"]
    for attribute, values in judge.ATTRIBUTES.items():
        assert tuple(read[attribute]) == values
        assert sum(read[attribute].values()) == pytest.approx(1, abs=1e-5)
        assert min(read[attribute].values()) >= 0


def test_an_array_and_its_picture_are_read_alike():
    picture = example("a fox in the snow at noon")
    assert dx.judge(np.array(picture)) == dx.judge(picture)


def test_pictures_of_other_sizes_and_modes_are_resized():
    picture = example("a robot in the city at night")
    for other in (picture.resize((256, 256)), picture.convert("RGBA")):
        read = likeliest(dx.judge(other))
        assert (read["subject"], read["setting"], read["light"]) == ("robot", "city", "night")


def test_several_are_read_as_one_by_one():
    pictures = [example(name) for name in examples()]
    together = judge.judge_many(pictures)
    for picture, read in zip(pictures, together, strict=True):
        alone = dx.judge(picture)
        for attribute, values in alone.items():
            assert read[attribute] == pytest.approx(values, abs=1e-4)
    assert judge.judge_many([]) == []


@pytest.mark.parametrize(
    ("bad", "error", "sentence"),
    [
        ("fox.png", FileNotFoundError, r"there is no file 'fox\.png'"),
        (None, ValueError, "got None"),
        (np.full((64, 64, 3), 7, np.float32), ValueError, "got values from 7 to 7"),
        (np.zeros((3, 64, 64), np.uint8), ValueError, r"got the shape \(3, 64, 64\)"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(bad, error, sentence):
    with pytest.raises(error, match=sentence):
        dx.judge(bad)
    with pytest.raises(error, match=sentence):
        dx.adherence(bad, "a fox")


def test_a_file_is_read_as_its_picture(tmp_path):
    picture = example("a fox in the snow at noon")
    picture.save(tmp_path / "fox.png")
    assert dx.judge(tmp_path / "fox.png") == dx.judge(str(tmp_path / "fox.png")) == dx.judge(picture)


def test_sixteen_bits_and_floats_are_read_as_the_same_picture_in_eight():
    grey = example("a fox in the snow at noon").convert("L")
    wanted = dx.judge(grey)
    pixels = np.array(grey)
    assert dx.judge(Image.fromarray(pixels.astype(np.uint16) * 257)) == wanted
    assert dx.judge(pixels.astype(np.uint16) * 257) == wanted
    assert dx.judge(Image.fromarray(pixels.astype(np.float32) / 255)) == wanted


def test_what_is_transparent_is_white():
    picture = example("a fox in the snow at noon")
    clear, white = picture.convert("RGBA"), picture.copy()
    clear.paste((0, 0, 0, 0), (0, 0, 64, 20))
    white.paste((255, 255, 255), (0, 0, 64, 20))
    assert dx.judge(clear) == dx.judge(white)


def test_a_damaged_picture_is_refused_in_a_sentence(tmp_path):
    example("a fox in the snow at noon").save(tmp_path / "fox.png")
    whole = (tmp_path / "fox.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.png' cannot be read as a picture"):
        dx.judge(tmp_path / "half.png")
    with (
        Image.open(tmp_path / "half.png") as opened,
        pytest.raises(ValueError, match="the picture cannot be read as a picture"),
    ):
        dx.judge(opened)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    huge = Image.new("1", (20_000, 20_000))
    with pytest.raises(ValueError, match="the picture has 20,000 x 20,000 pixels"):
        dx.judge(huge)
    with pytest.raises(ValueError, match="the picture has 20,000 x 20,000 pixels"):
        judge.judge_many([huge])


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


AROUND = {
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", torch.float16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "double precision": lambda: default_dtype(torch.float64),
    "half precision": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "deterministic": deterministic,
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("first", [False, True], ids=["read before", "read for the first time"])
def test_what_is_switched_on_around_it_changes_no_number(around, first, tmp_path):
    picture, prompt = example("a fox in the snow at noon"), "a fox in the snow"
    read, kept = dx.judge(picture), dx.adherence(picture, prompt)
    weights = judge.WEIGHTS
    if first:
        weights = tmp_path / "judge.safetensors"
        weights.write_bytes(judge.WEIGHTS.read_bytes())
    pixels = np.array(picture)[None]
    with AROUND[around]():
        assert dx.judge(picture) == read
        assert dx.adherence(picture, prompt) == kept
        again = judge.probabilities(pixels, weights)
    for part, values in zip(again, read.values(), strict=True):
        assert part[0].tolist() == list(values.values())
    later = judge.probabilities(pixels, weights)
    assert all(np.array_equal(a, b) for a, b in zip(later, again, strict=True))


def test_reading_leaves_random_numbers_alone(tmp_path):
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(judge.WEIGHTS.read_bytes())
    before = torch.get_rng_state()
    judge.probabilities(np.zeros((1, 64, 64, 3), np.uint8), weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [3, "fox.png", Image.new("RGB", (64, 64))])
def test_what_is_no_list_of_pictures_is_refused(bad):
    with pytest.raises(ValueError, match="judge_many takes a list of images"):
        judge.judge_many(bad)


def test_the_judge_that_ships_is_small():
    assert judge.WEIGHTS.stat().st_size < 1_500_000


# --- prompts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a puppy", {"subject": "dog"}),
        ("A  Fox,\nat SUNSET", {"subject": "fox", "light": "golden hour"}),
        ("snowy field", {"setting": "snow"}),
        ("a teddy bear", {"subject": "teddy bear"}),
        ("a bear and a fox", {"subject": "bear"}),
        ("a t-rex in the dark", {"subject": "dinosaur", "light": "night"}),
        ("a dark cat", {"subject": "cat", "colour": "black"}),
        ("a dark silhouette of a horse", {"subject": "horse", "style": "silhouette"}),
        ("a snowman in a green field", {"subject": "snowman", "setting": "meadow"}),
        ("a red fox on a blue background", {"subject": "fox", "colour": "red", "setting": "none"}),
        ("a cake under a blue sky", {"subject": "cake", "light": "noon"}),
        ("a pencil sketch of a bus in town", {"subject": "bus", "setting": "city", "style": "line"}),
        ("a fox, washed out", {"subject": "fox", "quality": "low contrast"}),
        ("an out of focus fox", {"subject": "fox", "quality": "blurry"}),
        ("a fox, in focus", {"subject": "fox", "quality": "clean"}),
        ("a foxglove carpet", {}),
        ("", {}),
    ],
)
def test_prompts_name_what_they_name(prompt, expected):
    assert judge.named(prompt) == expected


def test_what_captions_say_is_what_the_scene_is():
    rng = np.random.default_rng(4)
    for _ in range(3000):
        scene = world.sample_scene(rng)
        text = world.caption(scene, rng)
        truth = {"setting": scene.setting or "none", "light": scene.light, "colour": scene.colour or "own",
                 "subject": scene.subject, "style": scene.style}  # fmt: skip
        found = judge.named(text)
        assert found.pop("quality", "clean") in (scene.flaws or ("clean",)), (text, found)
        assert all(truth[attribute] == value for attribute, value in found.items()), (text, found)
        assert not scene.colour or "colour" in found or (scene.flaws and not found), text


def test_adherence_is_the_mean_over_what_the_prompt_names():
    picture = example("a fox in the snow at noon")
    read = dx.judge(picture)
    expected = (read["subject"]["fox"] + read["setting"]["desert"]) / 2
    assert dx.adherence(picture, "a fox in the desert") == pytest.approx(expected, abs=1e-6)


def test_adherence_is_high_for_the_right_prompt_and_low_for_a_wrong_one():
    for name in examples():
        assert dx.adherence(example(name), name) > 0.8, name
        assert dx.adherence(example(name), "a pink cow on a green background") < 0.3, name


def test_adherence_passes_over_what_the_prompt_makes_unreadable():
    picture = example("a rocket in space")
    assert dx.adherence(picture, "a rocket in space at night") == dx.adherence(picture, "a rocket in space")
    drawing = example("a line drawing of a snail in a forest")
    prompt = "a sketch of a {}snail in a forest{}"
    assert dx.adherence(drawing, prompt.format("red ", " at dawn")) == dx.adherence(drawing, prompt.format("", ""))


def test_a_prompt_that_names_nothing_is_refused():
    with pytest.raises(ValueError, match="the prompt 'a yak' names nothing the judge knows"):
        dx.adherence(example("a rocket in space"), "a yak")


def test_a_prompt_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="a prompt is text, got 7"):
        judge.named(7)


@pytest.mark.parametrize(("prompt", "judged", "unknown", "told"), [
    ("a dragon in a meadow", ("meadow",), ("dragon",), "1 of 2 words"),
    ("xylophone wizard in the snow", ("snow",), ("xylophone", "wizard"), "1 of 3 words"),
    ("a Fox in the  SNOW at noon", ("fox", "snow", "noon"), (), "3 of 3 words"),
    ("a large fox, sharp", ("fox", "sharp"), (), "2 of 3 words"),
    ("a red fox and a blue cat", ("red", "fox"), (), "2 of 4 words"),
    ("a yak", (), ("yak",), "0 of 1 word"),
    ("", (), (), "0 of 0 words"),
])  # fmt: skip
def test_it_is_known_of_which_words_the_judge_speaks(prompt, judged, unknown, told):
    found = judge.coverage(prompt)
    assert (found.judged, found.unknown, str(found)) == (judged, unknown, told)


def test_every_word_of_the_picture_world_is_known_to_somebody():
    for word in world.vocabulary():
        assert judge.coverage(word).unknown == (), word


def test_each_of_ten_thousand_words_is_counted():
    found = judge.coverage("a red fox beside a zebrafish-like thing, " * 2500)
    assert [len(words) for words in found] == [len(words) * 2500 for words in judge.coverage(
        "a red fox beside a zebrafish-like thing"
    )]  # fmt: skip
    assert len(found.judged) == 5000


def test_coverage_refuses_what_is_no_prompt():
    with pytest.raises(ValueError, match="a prompt is text, got 7"):
        judge.coverage(7)
