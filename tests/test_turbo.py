"""The distillation: the student begins as its teacher, answers as the scheduler will, is told the guidance."""

import pytest
import torch
from tiny_factory import TURBO, UNET, Arriving, write_vae

from diffexplore.pocket.factory import turbo, unet
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


@pytest.fixture(scope="module")
def taught(work, latents):
    unet.train(work, UNET, Budget(), latents)
    turbo.train(work, TURBO, Budget(), latents)
    return work


def test_the_student_begins_as_its_teacher(latents):
    teacher = unet.make_unet(UNET, latents.shape)
    student = turbo.student_of(teacher, TURBO, latents.shape)
    x, text, told = torch.randn(2, *latents.shape), torch.randn(2, 40, 32), torch.randn(2, 8)
    with torch.no_grad():
        assert torch.equal(student(x, 500, text, timestep_cond=told).sample, teacher(x, 500, text).sample)


def test_distilling_leaves_the_teacher_and_moves_the_student(taught, latents):
    teacher = unet.trained(taught, UNET, latents.vae, latents.shape)
    pipeline = turbo.trained(taught, TURBO, latents.vae, latents.shape)
    mine, theirs = pipeline.unet.state_dict(), teacher.unet.state_dict()
    assert sum(not torch.equal(mine[key], theirs[key]) for key in theirs) > 0.9 * len(theirs)
    assert mine["time_embedding.cond_proj.weight"].abs().max() > 0
    for key, value in teacher.text_encoder.state_dict().items():
        assert torch.equal(value, pipeline.text_encoder.state_dict()[key])
    assert pipeline("a fox", num_inference_steps=4).images[0].size == (32, 32)


def test_the_guidance_is_embedded_as_the_pipeline_embeds_it(taught, latents):
    pipeline = turbo.trained(taught, TURBO, latents.vae, latents.shape)
    strength = torch.tensor([0.0, 1.5, 7.0])
    theirs = pipeline.get_guidance_scale_embedding(strength, embedding_dim=8)
    assert torch.allclose(turbo.guidance_embedding(strength, 8), theirs, atol=1e-4)


def test_an_answer_is_what_the_scheduler_makes_of_it():
    scheduler = turbo.make_scheduler()
    scheduler.set_timesteps(4)
    x, noise = torch.randn(1, 6, 4, 4), torch.randn(1, 6, 4, 4)
    for t in scheduler.timesteps:
        denoised = scheduler.step(noise, t, x).denoised
        assert torch.allclose(turbo.answer(x, noise, t[None], scheduler.alphas_cumprod), denoised, atol=1e-4)
