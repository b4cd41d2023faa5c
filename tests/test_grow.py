"""A VAE that has grown: the same latents, pictures of twice the side, and what the old one knew is where it begins."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from tiny_factory import FLOW, SIDE, TURBO, UNET, write_vae

from diffexplore.pocket.factory import everything, export, grow, judge_training, unet
from diffexplore.pocket.factory.pool import compose
from diffexplore.pocket.factory.scenes import Art
from diffexplore.pocket.factory.stage import Budget
from diffexplore.pocket.judge import ATTRIBUTES

TINY = dataclasses.replace(grow.RECIPE, batch=8, encoded=8, guessed=4, rate=1e-2, critic=0.35, judged=0.5)
"""A critic as loud as the one that is released costs error, which is what is looked at here, in the first steps."""


class Few:
    """24 pictures of twice the small VAE's side that are already there."""

    def __init__(self, art):
        drawn = [compose(Art(art), 4, index, 2 * SIDE) for index in range(24)]
        self.pictures = torch.from_numpy(np.stack([one.pixels for one in drawn])).permute(0, 3, 1, 2)
        self.ids = torch.full((24, 2, 40), 5)
        labels = torch.tensor([one.labels for one in drawn], dtype=torch.int8)
        self.labels = dict(zip(ATTRIBUTES, labels.unbind(1), strict=True))
        self.count = 24

    def wait(self, least):
        """They are all here."""

    def take(self):
        return self.count


@pytest.fixture
def teacher(tmp_path):
    """An untrained pocket model that draws 32 pixels."""
    write_vae(tmp_path / "small")
    vae = AutoencoderKL.from_pretrained(tmp_path / "small" / "vae").eval()
    tokenizer = unet.make_tokenizer(tmp_path / "small")
    torch.manual_seed(1)
    return unet.pipeline_of(vae, tokenizer, unet.make_text_encoder(UNET, tokenizer), unet.make_unet(UNET, (6, 4, 4)))


@pytest.fixture
def base(teacher):
    return teacher.vae


def test_it_draws_twice_the_side_from_the_same_latents_with_the_old_weights_in_their_places(base):
    made = grow.grown(base)
    z = torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        assert base.decode(z).sample.shape == (1, 3, SIDE, SIDE)
        assert made.decode(z).sample.shape == (1, 3, 2 * SIDE, 2 * SIDE)
        assert made.encode(torch.zeros(1, 3, 2 * SIDE, 2 * SIDE)).latent_dist.mode().shape == z.shape
        assert torch.equal(made.decoder.conv_in(z), base.decoder.conv_in(z))
        x = torch.randn(1, 16, 4, 4)
        assert torch.equal(made.encoder.mid_block(x), base.encoder.mid_block(x))
        x = torch.randn(1, 8, 8, 8)
        assert torch.equal(made.encoder.down_blocks[3](x), base.encoder.down_blocks[2](x))
    assert (made.config.sample_size, made.config.scaling_factor) == (2 * SIDE, base.config.scaling_factor)


def test_it_begins_as_the_old_one_between_a_halving_and_a_doubling(base):
    torch.manual_seed(3)
    z, smooth = torch.randn(4, 6, 4, 4), torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), (2 * SIDE, 2 * SIDE))
    made = grow.grown(base)
    with torch.no_grad():
        small, large = base.decode(z).sample, made.decode(z).sample
        before, after = (vae.encode(x).latent_dist.mode() for vae, x in (
            (base, torch.nn.functional.avg_pool2d(smooth, 2)), (made, smooth)
        ))  # fmt: skip
    for old, new in ((small, torch.nn.functional.avg_pool2d(large, 2)), (before, after)):
        assert float((new - old).std()) < 0.5 * float(old.std())


@pytest.mark.parametrize("sighted", [True, False], ids=["with a sight", "without"])
def test_it_learns_to_draw_and_to_encode_what_the_old_one_would_and_goes_on(teacher, art_folder, tmp_path, sighted):
    base = teacher.vae
    few = Few(str(art_folder))
    if sighted:
        judge_training.train(tmp_path, few, Budget(), steps=1, batch=4, only="sight")
    true = few.pictures.float() / 127.5 - 1
    with torch.no_grad():
        wanted = base.encode(torch.nn.functional.avg_pool2d(true, 2)).latent_dist.mode()

    def errors(vae):
        with torch.no_grad():
            drawn, read = vae.decode(wanted).sample, vae.encode(true).latent_dist.mode()
        return float((drawn - true).square().mean()), float((read - wanted).square().mean())

    torch.manual_seed(TINY.seed)
    first = errors(grow.grown(base))
    grow.train(tmp_path, few, Budget(), teacher, TINY, steps=40)
    made = AutoencoderKL.from_pretrained(tmp_path / "vae")
    # The small VAE was never trained: its latents say little more of a picture than how bright it is.
    assert np.less(errors(made), np.multiply((0.9, 0.6), first)).all()
    assert (tmp_path / "grow-sheet.png").is_file()
    grow.train(tmp_path, few, Budget(), teacher, TINY, steps=42)
    assert torch.load(tmp_path / "grow.pt", weights_only=True)["step"] == 42


def test_a_guess_is_what_the_denoiser_makes_of_noised_latents(teacher):
    """With a denoiser that sees exactly the noise it is the latents; with one that sees none, they and the noise."""
    torch.manual_seed(0)
    z, words = torch.randn(64, 6, 4, 4), torch.full((64, 40), 5)
    clean = teacher.scheduler.alphas_cumprod
    seen = {}

    def sees_all(x, t, text):
        a = clean[t].view(-1, 1, 1, 1)
        seen["levels"] = t
        return type("Out", (), {"sample": (x - a.sqrt() * z) / (1 - a).sqrt()})

    guesses = grow._Guesses(teacher, (100, 550), z.device)
    assert guesses(z, words).shape == z.shape
    assert not guesses(z, words).requires_grad
    guesses.unet = sees_all
    assert torch.allclose(guesses(z, words), z, atol=1e-4)
    assert 100 <= int(seen["levels"].min()) < int(seen["levels"].max()) < 550
    guesses.unet = lambda x, t, text: type("Out", (), {"sample": torch.zeros_like(x)})
    error = guesses(z, words) - z
    assert 0.1 < float(error.std()) < float(((1 - clean[549]) / clean[549]).sqrt())


def test_a_model_grows_and_others_learn_beside_it_at_its_new_size(art_folder, tmp_path):
    write_vae(tmp_path / "there")
    tiny = {"pocket": dataclasses.replace(UNET, steps=2), "turbo": dataclasses.replace(TURBO, steps=2)}
    common = {"pictures": 64, "workers": 1, "sheets": False}
    first = everything.Plan(tmp_path / "there", str(art_folder), ("unet",), 5, **common, **tiny)
    first = dataclasses.replace(first, vae=dataclasses.replace(first.vae, size=SIDE))
    assert everything.Everything(first).run() == []
    old = tmp_path / "there" / "export" / "pocket"
    here = everything.Plan(tmp_path / "here", str(art_folder), ("grow",), 5, grow=TINY, grow_steps=2, **common)
    plan = everything.beside(here, old)
    assert plan.vae.size == 2 * SIDE
    assert everything.Everything(plan).run() == []
    grown, small = export.open_folder(tmp_path / "here" / "export" / "pocket"), export.open_folder(old)
    drawn = grown("a fox", num_inference_steps=2, output_type="np").images
    assert drawn.shape == (1, 2 * SIDE, 2 * SIDE, 3)
    assert all(torch.equal(a, b) for a, b in zip(grown.unet.parameters(), small.unet.parameters(), strict=True))
    later = dataclasses.replace(here, stages=("flow",), flow=dataclasses.replace(FLOW, steps=2))
    plan = everything.beside(later, old)
    assert plan.vae.size == 2 * SIDE, "the work folder's VAE has grown"
    assert everything.Everything(plan).run() == []
    flow = export.open_folder(tmp_path / "here" / "export" / "pocket-flow")
    assert flow("a fox", num_inference_steps=2).images[0].size == (2 * SIDE, 2 * SIDE)


def test_to_grow_needs_a_teacher(capsys):
    with pytest.raises(SystemExit):
        everything.main(["--art", "nowhere", "--stages", "grow"])
    assert "to grow needs --teacher FOLDER" in capsys.readouterr().err
