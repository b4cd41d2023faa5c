"""The judge's training, from drawn pictures to weights, and how its right answers are counted."""

import numpy as np
import pytest
import torch

from diffexplore.pocket import judge, world
from diffexplore.pocket.factory import judge_training, scenes
from diffexplore.pocket.factory.train import Budget

WIDTHS = (8, 8, 16, 16)


@pytest.fixture(scope="module")
def art(art_folder):
    return str(art_folder)


def test_labels_are_what_can_be_read_and_nothing_else():
    def labels(**scene):
        known = judge_training.labels_of(world.Scene("fox", **scene))
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
    loss = judge_training._loss(scores, labels)
    assert loss.item() == pytest.approx(np.log([72, 10, 9, 4, 5]).sum(), rel=1e-5)
    loss.backward()
    asked = [part.abs().sum(1) > 0 for part in scores.grad.split([72, 10, 9, 4, 4, 5], 1)]
    assert torch.equal(torch.stack(asked, 1), labels >= 0)


def test_variation_is_small_and_leaves_noise_alone():
    torch.manual_seed(0)
    x = torch.randn(64, 3, 64, 64).clamp(-1, 1)
    varied = judge_training._varied(x, torch.ones(64, dtype=torch.bool))
    assert varied.shape == x.shape
    nearest = torch.minimum((varied - x).abs().mean((1, 2, 3)), (varied - x.flip(3)).abs().mean((1, 2, 3)))
    assert 0 < nearest.max() < 0.15
    softened = judge_training._varied(x, torch.zeros(64, dtype=torch.bool))
    assert softened.std((1, 2, 3)).min() < 0.75 * varied.std((1, 2, 3)).min()


def test_folding_changes_no_score():
    torch.manual_seed(0)
    network = judge.make_network(WIDTHS).train()
    x = torch.rand(16, 3, 64, 64) * 2 - 1
    for _ in range(20):
        network(x)
    before = network.eval()(x)
    judge_training._fold(network)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    assert torch.allclose(network(x), before, atol=1e-4)


@pytest.fixture(scope="module")
def work(art, tmp_path_factory):
    """A work folder in which a narrow judge trained on few pictures for long enough to know them."""
    folder = tmp_path_factory.mktemp("runs")
    judge_training.train(folder, art, Budget(), pictures=48, steps=200, batch=16, widths=WIDTHS, processes=1)
    return folder


def test_pictures_are_drawn_once_with_every_third_a_held_out_pair(art, work):
    pictures, labels = judge_training.prepare(work, "gone", 48)
    assert (pictures.shape, pictures.dtype, labels.shape) == ((48, 64, 64, 3), np.uint8, (48, 6))
    again, known = judge_training.labelled(scenes.Art(art), 3, holdout=True)
    assert np.array_equal(again, pictures[3])
    assert known == labels[3].tolist()


def test_training_learns_and_what_is_exported_reads_the_same(work, tmp_path):
    pictures, labels = judge_training.prepare(work, "gone", 48)
    judge_training.export(work, tmp_path / "judge.safetensors", WIDTHS)
    read = judge.probabilities(pictures, tmp_path / "judge.safetensors", WIDTHS)
    assert (read[2].argmax(1) == labels[:, 2]).mean() > 0.7  # the setting; one in nine by chance
    network = judge.make_network(WIDTHS)
    network.load_state_dict(torch.load(work / "judge.pt", weights_only=True)["parts"]["judge"])
    with torch.no_grad():
        scores = network.eval()(judge.pixels_of(pictures))[:, :72]
    assert np.abs(scores.softmax(1).numpy() - read[0]).max() < 0.01


def test_a_finished_training_does_nothing_more_and_a_longer_one_goes_on(work):
    def state():
        return torch.load(work / "judge.pt", weights_only=True)

    before = state()
    judge_training.train(work, "gone", Budget(), pictures=48, steps=200, batch=16, widths=WIDTHS)
    after = state()
    assert after["step"] == 200
    assert all(torch.equal(after["parts"]["judge"][k], v) for k, v in before["parts"]["judge"].items())
    judge_training.train(work, "gone", Budget(), pictures=48, steps=203, batch=16, widths=WIDTHS)
    assert state()["step"] == 203


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["train", "score"])
def test_commands_without_art_say_how_to_get_it(what, capsys):
    with pytest.raises(SystemExit):
        judge_training.main([what])
    assert f"{what} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d" in capsys.readouterr().err


def test_score_is_one_table_of_both_kinds(art):
    result = judge_training.score(art, count=30)
    head, *rows = judge_training.as_text(result).splitlines()
    assert head.split() == list(judge.ATTRIBUTES)
    assert [row[:14].strip() for row in rows] == ["trained pairs", "held-out pairs"]
    assert result["trained pairs"]["setting"] > 0.6  # the ground is drawn by code: stand-ins change the subject only


def test_where_there_is_nothing_to_count_there_is_a_dash():
    text = judge_training.as_text({"one": {"subject": 0.5, "colour": float("nan")}})
    assert text.splitlines()[1].split() == ["one", "50.0", "%", "-"]
