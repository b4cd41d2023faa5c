"""Pictures become latents as they arrive, and batches hold what belongs together."""

import pytest
import torch
from tiny_factory import Arriving, write_vae

from diffexplore.pocket.factory.latents import Latents, read_vae
from diffexplore.pocket.factory.unet import make_tokenizer


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_vae(folder)
    return folder


def made(work, block=4):
    tokenizer = make_tokenizer(work)
    return Latents(Arriving(tokenizer), read_vae(work, "cpu"), tokenizer, bf16=False, block=block)


def test_they_are_encoded_block_by_block_as_they_arrive(work):
    latents = made(work)
    latents.feed()
    assert (latents.pool.count, latents.done, int(latents.count)) == (8, 4, 4)
    latents.wait(24)
    assert (latents.done, int(latents.count)) == (24, 24)
    assert latents.shape == (6, 4, 4)
    with torch.no_grad():
        mode = latents.vae.encode(latents.pool.pictures.float() / 127.5 - 1).latent_dist.mode()
    assert torch.allclose(latents.z.float(), mode * 0.9, atol=2e-3)


def test_a_block_that_is_not_full_is_waited_for_unless_it_is_the_last(work):
    latents = made(work, block=10)
    latents.feed(3)
    assert latents.done == 0
    latents.feed(3)
    assert latents.done == 10
    latents.feed(3)
    assert latents.done == 24


def test_a_batch_pairs_latents_with_one_of_their_captions(work):
    latents = made(work)
    latents.wait(24)
    z, words, _ = latents.batch(200, dropout=0.0, astray=0.0)
    for latent, said in zip(z, words, strict=True):
        [where] = (latents.z.float() == latent).all(-1).all(-1).all(-1).nonzero()[:, 0].tolist()
        assert said.tolist() in latents.pool.ids[where].tolist()


def test_only_what_has_arrived_is_picked(work):
    latents = made(work)
    latents.feed()
    z, *_ = latents.batch(300, dropout=0.0, astray=0.0)
    assert len({tuple(latent.flatten()[:8].tolist()) for latent in z}) == 4


def test_captions_are_left_empty_or_go_astray_as_often_as_said(work):
    latents = made(work)
    latents.wait(24)
    z, words, _ = latents.batch(2000, dropout=0.25, astray=0.5)
    empty = (words == latents.empty).all(1)
    assert 0.2 < empty.float().mean() < 0.3
    own = torch.stack([(latents.z.float() == latent).flatten(1).all(1) for latent in z]).float().argmax(1)
    true = (latents.pool.ids[own] == words[:, None]).all(2).any(1)
    assert 0.45 < true[~empty].float().mean() < 0.62


def test_an_error_in_the_subject_weighs_as_much_as_said(work):
    latents = made(work)
    latents.wait(24)
    latents.pool.subjects[:] = 0
    latents.pool.subjects[:, :8, :8] = 255  # a quarter of each picture
    *_, even = latents.batch(50, dropout=0.0, astray=0.0)
    assert torch.equal(even, torch.ones(50, 1, 4, 4))
    *_, places = latents.batch(50, dropout=0.0, astray=0.0, subject=3.0)
    assert torch.allclose(places.mean((1, 2, 3)), torch.ones(50))
    assert torch.allclose(places[:, :, :2, :2], 3 * places[:, :, 2:, 2:])


def test_a_missing_vae_is_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no VAE; train it first"):
        read_vae(tmp_path, "cpu")
