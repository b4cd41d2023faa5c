"""The judge: what it reads off shipped pictures, what a prompt names, and its training from pictures to weights."""

import numpy as np
import pytest
import torch
from PIL import Image

import diffexplore as dx
from diffexplore.pocket import example, examples, judge
from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.train import Budget

WIDTHS = (8, 8, 16, 16)


@pytest.fixture(scope="module")
def art(art_folder):
    return str(art_folder)


def likeliest(read):
    return {attribute: max(values, key=values.get) for attribute, values in read.items()}


# --- reading pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", examples())
def test_shipped_examples_are_read_as_their_captions_say(name):
    read, wanted = likeliest(dx.judge(example(name))), judge.named(name)
    assert {"subject", "setting"} <= set(wanted)
    assert {attribute: read[attribute] for attribute in wanted} == wanted


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
    ("bad", "shown"),
    [
        ("fox.png", r"got 'fox\.png'"),
        (None, "got None"),
        (np.zeros((64, 64, 3), np.float32), r"got float32 of shape \(64, 64, 3\)"),
        (np.zeros((3, 64, 64), np.uint8), r"got uint8 of shape \(3, 64, 64\)"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(bad, shown):
    with pytest.raises(ValueError, match=shown):
        dx.judge(bad)


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
        scene = scenes.sample_scene(rng)
        text = scenes.caption(scene, rng)
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


# --- training ------------------------------------------------------------------------------------------------------


def test_labels_are_what_can_be_read_and_nothing_else():
    def labels(**scene):
        known = judge.labels_of(scenes.Scene("fox", **scene))
        pairs = zip(judge.ATTRIBUTES.items(), known, strict=True)
        return {attribute: values[label] for (attribute, values), label in pairs if label >= 0}

    everything = {"subject": "fox", "colour": "red", "setting": "sea", "light": "night", "style": "flat"}
    assert labels(colour="red", setting="sea", light="night", style="flat") == everything | {"quality": "clean"}
    assert labels(setting=None, light=None, backdrop="red", flaws=("noisy",)) == {
        "subject": "fox", "colour": "own", "setting": "none", "style": "render", "quality": "noisy",
    }  # fmt: skip
    assert labels(style="line") == {"subject": "fox", "setting": "meadow", "style": "line", "quality": "clean"}
    assert "colour" not in labels(style="silhouette")
    assert "quality" not in labels(flaws=("blurry", "noisy"))  # which of them shows most, nobody can say


def test_the_loss_asks_nothing_where_nothing_can_be_read():
    scores = torch.zeros(3, sum(map(len, judge.ATTRIBUTES.values())), requires_grad=True)
    labels = torch.tensor([[0, -1, 0, -1, 0, 0], [1, 2, 3, -1, 0, 0], [1, -1, 3, -1, 0, 0]])
    loss = judge._loss(scores, labels)
    assert loss.item() == pytest.approx(np.log([72, 10, 9, 4, 5]).sum(), rel=1e-5)
    loss.backward()
    asked = [part.abs().sum(1) > 0 for part in scores.grad.split([72, 10, 9, 4, 4, 5], 1)]
    assert torch.equal(torch.stack(asked, 1), labels >= 0)


def test_variation_is_small_and_leaves_noise_alone():
    torch.manual_seed(0)
    x = torch.randn(64, 3, 64, 64).clamp(-1, 1)
    varied = judge._varied(x, torch.ones(64, dtype=torch.bool))
    assert varied.shape == x.shape
    nearest = torch.minimum((varied - x).abs().mean((1, 2, 3)), (varied - x.flip(3)).abs().mean((1, 2, 3)))
    assert 0 < nearest.max() < 0.15
    softened = judge._varied(x, torch.zeros(64, dtype=torch.bool))
    assert softened.std((1, 2, 3)).min() < 0.75 * varied.std((1, 2, 3)).min()


def test_folding_changes_no_score():
    torch.manual_seed(0)
    network = judge.make_network(WIDTHS).train()
    x = torch.rand(16, 3, 64, 64) * 2 - 1
    for _ in range(20):
        network(x)
    before = network.eval()(x)
    judge._fold(network)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    assert torch.allclose(network(x), before, atol=1e-4)


@pytest.fixture(scope="module")
def work(art, tmp_path_factory):
    """A work folder in which a narrow judge trained on few pictures for long enough to know them."""
    folder = tmp_path_factory.mktemp("runs")
    judge.train(folder, art, Budget(), pictures=48, steps=200, batch=16, widths=WIDTHS, processes=1)
    return folder


def test_pictures_are_drawn_once_with_every_third_a_held_out_pair(art, work):
    pictures, labels = judge.prepare(work, "gone", 48)
    assert (pictures.shape, pictures.dtype, labels.shape) == ((48, 64, 64, 3), np.uint8, (48, 6))
    again, known = judge._labelled(scenes.Art(art), 3, holdout=True)
    assert np.array_equal(again, pictures[3])
    assert known == labels[3].tolist()


def test_training_learns_and_what_is_exported_reads_the_same(work, tmp_path):
    pictures, labels = judge.prepare(work, "gone", 48)
    judge.export(work, tmp_path / "judge.safetensors", WIDTHS)
    read = judge.probabilities(pictures, tmp_path / "judge.safetensors", WIDTHS)
    assert (read[2].argmax(1) == labels[:, 2]).mean() > 0.7  # the setting; one in nine by chance
    network = judge.make_network(WIDTHS)
    network.load_state_dict(torch.load(work / "judge.pt", weights_only=True)["parts"]["judge"])
    with torch.no_grad():
        scores = network.eval()(judge._pixels(pictures))[:, :72]
    assert np.abs(scores.softmax(1).numpy() - read[0]).max() < 0.01


def test_a_finished_training_does_nothing_more_and_a_longer_one_goes_on(work):
    def state():
        return torch.load(work / "judge.pt", weights_only=True)

    before = state()
    judge.train(work, "gone", Budget(), pictures=48, steps=200, batch=16, widths=WIDTHS)
    after = state()
    assert after["step"] == 200
    assert all(torch.equal(after["parts"]["judge"][k], v) for k, v in before["parts"]["judge"].items())
    judge.train(work, "gone", Budget(), pictures=48, steps=203, batch=16, widths=WIDTHS)
    assert state()["step"] == 203


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["train", "score"])
def test_commands_without_art_say_how_to_get_it(what, capsys):
    with pytest.raises(SystemExit):
        judge.main([what])
    assert f"{what} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d" in capsys.readouterr().err


def test_score_is_one_table_of_both_kinds(art):
    result = judge.score(art, count=30)
    head, *rows = judge.as_text(result).splitlines()
    assert head.split() == list(judge.ATTRIBUTES)
    assert [row[:14].strip() for row in rows] == ["trained pairs", "held-out pairs"]
    assert result["trained pairs"]["setting"] > 0.6  # the ground is drawn by code: stand-ins change the subject only
