"""Training: a very small world trained for a few steps, stopped, resumed and exported."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from patience import PATIENCE
from PIL import Image

from diffexplore.pocket import world
from diffexplore.pocket.factory import train

TINY = dataclasses.replace(
    train.RECIPE, pictures=24, captions=2, vae_channels=(8, 8, 16), vae_batch=2, vae_steps=6,
    unet_channels=(16, 16, 32), unet_heads=(1, 2, 2), text_width=32, text_layers=1,
    unet_batch=2, unet_steps=6, decoder_steps=4, sheet_steps=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work folder in which every stage ran once; the pictures are noise, since only the machinery is tested here."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    np.save(folder / "pictures.npy", rng.integers(0, 256, (TINY.pictures, 64, 64, 3), np.uint8))
    texts = [[world.caption(world.sample_scene(rng), rng) for _ in range(2)] for _ in range(TINY.pictures)]
    (folder / "captions.json").write_text(json.dumps(texts))
    train.train_vae(folder, TINY, train.Budget())
    train.encode(folder, TINY)
    train.train_unet(folder, TINY, train.Budget())
    return folder


def weights(folder, stage, name):
    return torch.load(folder / f"{stage}.pt", weights_only=True)["parts"][name]


def test_latents_are_standardised(work):
    latents = np.load(work / "latents.npy").astype(np.float32)
    assert latents.shape == (24, 4, 16, 16)
    assert np.abs(latents.mean((0, 2, 3))).max() < 1e-2
    assert np.abs(latents.std((0, 2, 3)) - 1).max() < 1e-2


def test_the_exported_vae_gives_exactly_those_latents(work):
    vae = train.trained_vae(work, TINY)
    pictures = torch.from_numpy(np.load(work / "pictures.npy")[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        again = vae.encode(pictures).latent_dist.mode().numpy()
    assert np.abs(again - np.load(work / "latents.npy")[:4].astype(np.float32)).max() < 5e-3


def test_standardising_leaves_the_round_trip_alone():
    torch.manual_seed(0)
    vae = train.make_vae(TINY).eval().double()
    picture = torch.rand(2, 3, 64, 64, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(picture).latent_dist.mode()).sample
        spread = vae.encode(picture).latent_dist.std
        train._standardise(vae, torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([2.0, 0.5, 4.0, 1.5]))
        after = vae.decode(vae.encode(picture).latent_dist.mode()).sample
        narrowed = vae.encode(picture).latent_dist.std
    assert (before - after).abs().max() < 1e-6
    expected = spread / torch.tensor([2.0, 0.5, 4.0, 1.5]).view(1, 4, 1, 1)
    assert torch.allclose(narrowed, expected, rtol=1e-4)


def test_a_finished_stage_does_nothing_more(work):
    before = weights(work, "unet", "unet")
    train.train_unet(work, TINY, train.Budget())
    after = weights(work, "unet", "unet")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_longer_budget_goes_on_from_before_the_rate_fell(work, tmp_path):
    for name in (
        "pictures.npy",
        "captions.json",
        "latents.npy",
        "vae.pt",
        "vae-scale.json",
        "unet.pt",
        "unet-stable.pt",
    ):
        (tmp_path / name).write_bytes((work / name).read_bytes())
    stable = torch.load(work / "unet-stable.pt", weights_only=True)
    assert 0 < stable["step"] < TINY.unet_steps
    tokenizer = train.make_tokenizer(tmp_path)
    parts = {"text": train.make_text_encoder(TINY, tokenizer), "unet": train.make_unet(TINY)}
    stage = train.Stage(tmp_path, "unet", parts, steps=20, budget=train.Budget(), rate=1e-3, ema=0.9)
    assert (stage.step, stage.fallen) == (stable["step"], False)
    train.train_unet(tmp_path, dataclasses.replace(TINY, unet_steps=20), train.Budget())
    assert torch.load(tmp_path / "unet.pt", weights_only=True)["step"] == 20


def test_export_is_a_folder_plain_diffusers_loads(work, tmp_path):
    train.export(work, TINY, tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a fox in the snow", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    assert {p.dtype for p in pipeline.text_encoder.parameters()} == {torch.float32}


def test_the_sheet_of_exported_weights_has_all_prompts_in_rows_of_eight(work, tmp_path):
    train.export(work, TINY, tmp_path / "weights")
    train.released_sheet(tmp_path / "weights", TINY)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 8 * 128)


def test_exported_weights_can_be_adopted(work, tmp_path):
    train.export(work, TINY, tmp_path / "out")
    train.adopt(tmp_path / "again", TINY, tmp_path / "out")
    for stage, part in (("vae", "vae"), ("unet", "unet"), ("unet", "text")):
        ours = torch.load(tmp_path / "again" / f"{stage}.pt", weights_only=True)
        assert (ours["step"], ours["fallen"]) == (0, False)
        if stage == "unet":
            theirs = torch.load(work / "unet.pt", weights_only=True)["average"][part]
            for key, value in theirs.items():
                assert torch.allclose(ours["parts"][part][key], value, rtol=2e-3, atol=1e-4), key


def test_known_words_are_one_token_each(work):
    tokenizer = train.make_tokenizer(work)
    for word in world.vocabulary():
        if word.isalpha():
            assert len(tokenizer.tokenize(word)) == 1, word


def test_any_text_can_be_tokenised(work):
    tokenizer = train.make_tokenizer(work)
    ids = tokenizer("Ünknøwn wörds, 狐 & 'quotes' #1!", padding="max_length", truncation=True, max_length=40).input_ids
    assert len(ids) == 40


def test_decoder_stage_changes_the_decoder_only(work, tmp_path):
    for name in ("pictures.npy", "latents.npy", "vae.pt", "vae-scale.json"):
        (tmp_path / name).write_bytes((work / name).read_bytes())
    before = train.trained_vae(tmp_path, TINY).state_dict()
    train.train_decoder(tmp_path, TINY, train.Budget())
    after = train.trained_vae(tmp_path, TINY).state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder", "post_quant_conv"}


def test_prepare_without_art_is_refused_in_one_sentence(capsys, tmp_path):
    with pytest.raises(SystemExit):
        train.main(["prepare", "--work", str(tmp_path)])
    assert "prepare needs --art FOLDER" in capsys.readouterr().err


def test_workers_end_with_the_training_that_was_killed(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "pictures.npy", rng.integers(0, 256, (24, 64, 64, 3), np.uint8))
    command = [sys.executable, "-m", "diffexplore.pocket.factory.train", "vae", "--work", str(tmp_path)]
    training = subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.PIPE)
    said = b""
    while b"vae:" not in said:  # the bar, which a worker draws: they are at work
        part = training.stderr.read1()
        assert part, said
        said += part
    training.kill()
    training.communicate(timeout=PATIENCE)  # to the end of what the workers say, which comes when the last one ends
