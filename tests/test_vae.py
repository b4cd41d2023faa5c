"""The VAE's training: it gets better, goes on where it was, and its latents have unit spread."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from diffexplore.pocket.factory import judge_training, vae
from diffexplore.pocket.factory.critic import make_critic
from diffexplore.pocket.factory.pool import compose
from diffexplore.pocket.factory.scenes import Art
from diffexplore.pocket.factory.stage import Budget
from diffexplore.pocket.judge import ATTRIBUTES

TINY = dataclasses.replace(vae.RECIPE, size=64, channels=(8, 16, 16, 24), latent=4, batch=4, whole=0.5, judged=0.75)


class Few:
    """24 pictures of 64 pixels that are already there."""

    def __init__(self, art):
        drawn = [compose(Art(art), 4, index, 64) for index in range(24)]
        self.pictures = torch.from_numpy(np.stack([one.pixels for one in drawn])).permute(0, 3, 1, 2)
        labels = torch.tensor([one.labels for one in drawn], dtype=torch.int8)
        self.labels = dict(zip(ATTRIBUTES, labels.unbind(1), strict=True))
        self.count = 24

    def wait(self, least):
        """They are all here."""

    def take(self):
        return self.count


@pytest.fixture(scope="module")
def few(art_folder):
    return Few(str(art_folder))


def error(network, few):
    with torch.no_grad():
        x = few.pictures.float() / 127.5 - 1
        return float((network.decode(network.encode(x).latent_dist.mode()).sample - x).square().mean())


@pytest.mark.parametrize("sighted", [True, False], ids=["with a sight", "without"])
def test_it_learns_goes_on_and_is_written_with_unit_latents(few, tmp_path, sighted):
    if sighted:
        judge_training.train(tmp_path, few, Budget(), steps=1, batch=4)
    torch.manual_seed(TINY.seed)
    before = error(vae.make_vae(TINY), few)
    vae.train(tmp_path, few, Budget(), TINY, steps=24)
    made = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert error(made, few) < 0.9 * before
    with torch.no_grad():
        latents = made.encode(few.pictures.float() / 127.5 - 1).latent_dist.mode()
    assert latents.shape[1:] == (4, 8, 8)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-2)
    assert (tmp_path / "vae-sheet.png").is_file()
    vae.train(tmp_path, few, Budget(), TINY, steps=26)
    assert torch.load(tmp_path / "vae.pt", weights_only=True)["step"] == 26


def test_a_sight_that_was_trained_alone_is_found_first(few, tmp_path, capsys):
    device = torch.device("cpu")
    assert vae.read_sight(tmp_path, device) is None
    assert "no perceptual loss" in capsys.readouterr().out
    judge_training.train(tmp_path, few, Budget(), steps=1, batch=4)
    common = vae.read_sight(tmp_path, device)
    judge_training.train(tmp_path, few, Budget(), steps=2, batch=4, only="sight")
    alone = vae.read_sight(tmp_path, device)
    kept = torch.load(tmp_path / "sight.pt", weights_only=True)["parts"]["sight"]
    assert all(torch.equal(value, kept[name]) for name, value in alone.state_dict().items())
    assert not all(torch.equal(value, kept[name]) for name, value in common.state_dict().items())


def test_the_error_is_told_of_pictures_it_never_saw(art_folder):
    torch.manual_seed(0)
    assert 3 < vae.psnr(vae.make_vae(TINY).eval(), str(art_folder), size=64, count=16) < 20


class Keeps:
    """A VAE of 64 pixels that keeps every one."""

    config = SimpleNamespace(sample_size=64)

    def parameters(self):
        return iter([torch.zeros(1)])

    def encode(self, x):
        assert x.shape[-2:] == (64, 64)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x + 1e-6))

    def decode(self, z):
        return SimpleNamespace(sample=z)


def test_of_larger_pictures_what_enlarging_would_keep_is_told(art_folder):
    same, larger = (vae.psnr(Keeps(), str(art_folder), size=size, count=16) for size in (64, 128))
    assert same > 100
    assert 20 < larger < 50


def test_each_pull_is_as_long_as_the_recipe_says(few):
    torch.manual_seed(0)
    critic = make_critic()
    true = few.pictures[:4].float() / 127.5 - 1
    made = true + 0.3 * torch.randn_like(true)
    plain, loss = vae.Losses(TINY.perceptual, TINY.critic, None, critic).pull(made, true, judged=False)
    judged, _ = vae.Losses(TINY.perceptual, TINY.critic, None, critic).pull(made, true, judged=True)
    assert float(loss) > 0
    assert float((judged - plain).norm() / plain.norm()) == pytest.approx(TINY.critic, rel=1e-3)
