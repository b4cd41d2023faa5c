"""The judge's training, from drawn pictures to weights, and how its right answers are counted."""

import numpy as np
import pytest
import torch

from diffexplore.pocket import judge
from diffexplore.pocket.factory import judge_training
from diffexplore.pocket.factory.eyes import read_second
from diffexplore.pocket.factory.pool import compose
from diffexplore.pocket.factory.scenes import Art
from diffexplore.pocket.factory.stage import Budget

WIDTHS = (8, 8, 16, 16)


@pytest.fixture(scope="module")
def art(art_folder):
    return str(art_folder)


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


class Few:
    """A pool in which all pictures are already there: 48 of 64 pixels."""

    def __init__(self, art):
        drawn = [compose(Art(art), 3, index, 64, holdout=index % 3 == 0) for index in range(48)]
        self.pictures = torch.from_numpy(np.stack([one.pixels for one in drawn])).permute(0, 3, 1, 2)
        labels = torch.tensor([one.labels for one in drawn], dtype=torch.int8)
        self.labels = dict(zip(judge.ATTRIBUTES, labels.unbind(1), strict=True))
        self.count = 48

    def wait(self, least):
        assert least <= 48

    def take(self):
        return self.count


@pytest.fixture(scope="module")
def few(art):
    return Few(art)


@pytest.fixture(scope="module")
def work(few, tmp_path_factory):
    """A work folder in which all judges were trained on few pictures for long enough to know something of them."""
    folder = tmp_path_factory.mktemp("runs")
    judge_training.train(folder, few, Budget(), steps=60, batch=16)
    return folder


def test_training_learns_and_what_is_exported_reads_the_same(work, few):
    pictures = few.pictures.permute(0, 2, 3, 1).numpy()
    read = judge.probabilities(pictures, work / "judge.safetensors")
    assert (read[2].argmax(1) == few.labels["setting"].numpy()).mean() > 0.5  # one in nine by chance
    network = judge.make_network()
    network.load_state_dict(torch.load(work / "judges.pt", weights_only=True)["parts"]["judge"])
    with torch.no_grad():
        scores = network.eval()(judge.pixels_of(pictures))[:, :72]
    assert np.abs(scores.softmax(1).numpy() - read[0]).max() < 0.01


def test_a_finished_training_does_nothing_more_and_a_longer_one_goes_on(work, few):
    def state():
        return torch.load(work / "judges.pt", weights_only=True)

    before = state()
    judge_training.train(work, few, Budget(), steps=60, batch=16)
    after = state()
    assert after["step"] == 60
    assert all(torch.equal(after["parts"]["judge"][k], v) for k, v in before["parts"]["judge"].items())
    judge_training.train(work, few, Budget(), steps=62, batch=16)
    assert state()["step"] == 62


def test_the_second_judge_learns_alone_as_well(few, tmp_path):
    """It is no other network than beside the rest, and nothing else is written."""
    judge_training.train(tmp_path, few, Budget(), steps=60, batch=16, only="second")
    state = torch.load(tmp_path / "second.pt", weights_only=True)
    assert list(state["parts"]) == ["second"]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["judge2.safetensors"]
    x = few.pictures.float() / 127.5 - 1
    with torch.no_grad():
        parts = read_second(tmp_path / "judge2.safetensors")(x).split([len(n) for n in judge.ATTRIBUTES.values()], 1)
    assert (parts[2].argmax(1) == few.labels["setting"]).float().mean() > 0.3  # one in nine by chance


def test_a_judge_goes_on_from_the_one_that_ships(few, tmp_path):
    judge_training.train(tmp_path, few, Budget(), steps=1, batch=16, only="judge", like=judge.WEIGHTS)
    pictures = few.pictures.permute(0, 2, 3, 1).numpy()
    was = judge.probabilities(pictures)
    now = judge.probabilities(pictures, tmp_path / "judge.safetensors")
    assert all((a.argmax(1) == b.argmax(1)).mean() > 0.9 for a, b in zip(was, now, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(was, now, strict=True))  # and has learned one step


def test_the_second_judge_is_scored_beside_the_first(work, art):
    result = judge_training.score(
        art, count=6, size=64, judge=work / "judge.safetensors", second=work / "judge2.safetensors"
    )
    kinds = ["trained pairs", "trained pairs, second", "held-out pairs", "held-out pairs, second"]
    assert list(result) == kinds
    assert all(0 <= result[kind]["setting"] <= 1 for kind in kinds)


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["train", "score"])
def test_commands_without_art_say_how_to_get_it(what, capsys):
    with pytest.raises(SystemExit):
        judge_training.main([what])
    assert f"{what} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d" in capsys.readouterr().err


def test_a_judge_that_is_not_there_is_said_before_anything_is_drawn(capsys):
    with pytest.raises(SystemExit):
        judge_training.main(["train", "--art", "art", "--like", "nowhere.safetensors"])
    assert "there is no file 'nowhere.safetensors'" in capsys.readouterr().err


def test_score_is_one_table_of_both_kinds(art):
    result = judge_training.score(art, count=30)
    head, *rows = judge_training.as_text(result).splitlines()
    assert head.split() == list(judge.ATTRIBUTES)
    assert [row[:14].strip() for row in rows] == ["trained pairs", "held-out pairs"]
    assert result["trained pairs"]["setting"] > 0.6  # the ground is drawn by code: stand-ins change the subject only


def test_where_there_is_nothing_to_count_there_is_a_dash():
    text = judge_training.as_text({"one": {"subject": 0.5, "colour": float("nan")}})
    assert text.splitlines()[1].split() == ["one", "50.0", "%", "-"]
