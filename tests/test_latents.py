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


def made(work, **options):
    tokenizer = make_tokenizer(work)
    options = {"capacity": 24, "block": 4, **options}
    return Latents(Arriving(tokenizer), read_vae(work, "cpu"), tokenizer, bf16=False, **options)


def mode(latents, pictures):
    with torch.no_grad():
        return latents.vae.encode(pictures.float() / 127.5 - 1).latent_dist.mode() * 0.9


def test_they_are_encoded_block_by_block_as_they_arrive(work):
    latents = made(work)
    latents.feed()
    assert (latents.pool.drawn, latents.kept, int(latents.count)) == (8, 4, 4)
    latents.wait(24)
    assert latents.kept >= 24
    assert latents.shape == (6, 4, 4)


def test_latents_keep_their_captions_when_pictures_are_replaced(work):
    latents = made(work, capacity=50, block=6)
    first = None
    for _ in range(9):
        latents.feed()
        first = latents.pool.ids[:6].clone() if first is None else first
    assert latents.pool.drawn > 2 * len(latents.pool.pictures)
    assert torch.equal(latents.ids[:6], first)
    newest = (latents.kept - 1) % 50
    where = (latents.seen - 1) % 24
    assert torch.equal(latents.ids[newest], latents.pool.ids[where])
    expected = mode(latents, latents.pool.pictures[where][None])
    assert torch.allclose(latents.z[newest].float(), expected[0], atol=2e-3)


def test_once_full_new_ones_take_the_place_of_the_oldest(work):
    latents = made(work, capacity=10)
    latents.wait(10)
    before = latents.z.clone()
    latents.feed(2)
    assert int(latents.count) == 10
    changed = (latents.z != before).flatten(1).any(1)
    assert 4 <= changed.sum() <= 8


def test_what_was_replaced_before_it_was_looked_at_is_passed_over(work):
    latents = made(work)
    for _ in range(7):
        latents.pool.take()
    latents.feed(1)
    assert latents.seen == 8 * 8 - 24 + 4
    assert torch.equal(latents.ids[:4], latents.pool.ids[(latents.seen - 4) % 24 :][:4])


def test_a_batch_pairs_latents_with_one_of_their_captions(work):
    latents = made(work)
    latents.wait(24)
    z, words = latents.batch(200, dropout=0.0, astray=0.0)
    for latent, said in zip(z, words, strict=True):
        [where] = (latents.z.float() == latent).all(-1).all(-1).all(-1).nonzero()[:, 0].tolist()
        assert said.tolist() in latents.ids[where].tolist()


def test_only_what_has_arrived_is_picked(work):
    latents = made(work)
    latents.feed()
    z, _ = latents.batch(300, dropout=0.0, astray=0.0)
    assert len({tuple(latent.flatten()[:8].tolist()) for latent in z}) == 4


def test_captions_are_left_empty_or_go_astray_as_often_as_said(work):
    latents = made(work)
    latents.wait(24)
    z, words = latents.batch(2000, dropout=0.25, astray=0.5)
    empty = (words == latents.empty).all(1)
    assert 0.2 < empty.float().mean() < 0.3
    own = torch.stack([(latents.z.float() == latent).flatten(1).all(1) for latent in z]).float().argmax(1)
    true = (latents.ids[own] == words[:, None]).all(2).any(1)
    assert 0.45 < true[~empty].float().mean() < 0.62


def test_a_missing_vae_is_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no VAE; train it first"):
        read_vae(tmp_path, "cpu")
