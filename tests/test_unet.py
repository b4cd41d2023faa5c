"""The pocket model's training: a very small world, trained for a few steps, stopped and resumed."""

import dataclasses

import pytest
import torch
from tiny_factory import UNET, Arriving, write_vae

from diffexplore.pocket import world
from diffexplore.pocket.factory import unet
from diffexplore.pocket.factory.latents import Latents, read_vae
from diffexplore.pocket.factory.stage import Budget


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_vae(folder)
    return folder


@pytest.fixture(scope="module")
def latents(work):
    tokenizer = unet.make_tokenizer(work)
    return Latents(Arriving(tokenizer), read_vae(work, "cpu"), tokenizer, bf16=False, block=4)


@pytest.mark.parametrize("bf16", [False, True])
def test_text_and_unet_are_trained_together_and_drawn_from(work, latents, tmp_path, bf16):
    (tmp_path / "tokenizer").symlink_to(work / "tokenizer")
    shown = []
    unet.train(tmp_path, UNET, Budget(bf16=bf16), latents, lambda pipeline, step: shown.append((pipeline, step)))
    assert [step for _, step in shown] == [1, 2, 4, 6]
    pipeline = unet.trained(tmp_path, UNET, latents.vae, latents.shape)
    torch.manual_seed(UNET.seed + 2)
    before = unet.make_text_encoder(UNET, latents.tokenizer).state_dict(), unet.make_unet(UNET, latents.shape)
    for now, then in ((pipeline.text_encoder, before[0]), (pipeline.unet, before[1].state_dict())):
        moved = [key for key, value in now.state_dict().items() if not torch.equal(value, then[key])]
        assert len(moved) > 0.9 * len(then)
        assert all(torch.isfinite(value).all() for value in now.state_dict().values())
    image = pipeline("a fox in the snow", num_inference_steps=2).images[0]
    assert image.size == (32, 32)


def test_a_longer_training_goes_on_with_new_pictures(work, latents, tmp_path):
    (tmp_path / "tokenizer").symlink_to(work / "tokenizer")
    unet.train(tmp_path, UNET, Budget(), latents)
    unet.train(tmp_path, dataclasses.replace(UNET, steps=12), Budget(), latents)
    assert torch.load(tmp_path / "unet.pt", weights_only=True)["step"] == 12


def test_known_words_are_one_token_each(work):
    tokenizer = unet.make_tokenizer(work)
    for word in world.vocabulary():
        if word.isalpha():
            assert len(tokenizer.tokenize(word)) == 1, word


def test_any_text_can_be_tokenised(work):
    tokenizer = unet.make_tokenizer(work)
    ids = tokenizer("Ünknøwn wörds, 狐 & 'quotes' #1!", padding="max_length", truncation=True, max_length=40).input_ids
    assert len(ids) == 40
