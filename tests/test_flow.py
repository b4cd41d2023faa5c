"""The flow model's training, and that it draws alike however many tokens of zeros stand in for T5."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_factory import FLOW, UNET, Arriving, write_vae

from diffexplore.model import Model
from diffexplore.pocket.factory import flow, unet
from diffexplore.pocket.factory.latents import Latents, read_vae
from diffexplore.pocket.factory.stage import Budget
from diffexplore.pocket.factory.unet import make_tokenizer


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_vae(folder)
    tokenizer = make_tokenizer(folder)
    return Latents(Arriving(tokenizer), read_vae(folder, "cpu"), tokenizer, bf16=False, block=4)


def parts(latents):
    torch.manual_seed(0)
    first, second = flow.make_text_encoders(FLOW, latents.tokenizer)
    transformer = flow.make_transformer(FLOW, latents.shape)
    for weight in transformer.parameters():  # what begins as zero would hide what is wrong
        torch.nn.init.normal_(weight, std=0.2)
    return {"text": first.eval(), "text_2": second.eval(), "transformer": transformer.eval()}


@pytest.mark.parametrize("bf16", [False, True])
def test_readers_and_transformer_are_trained_together_and_drawn_from(latents, tmp_path, bf16):
    shown = []
    flow.train(tmp_path, FLOW, Budget(bf16=bf16), latents, lambda pipeline, step: shown.append(step))
    assert shown == [1, 2, 4, 6]
    pipeline = flow.trained(tmp_path, FLOW, latents.vae, latents.shape)
    assert type(pipeline).__name__ == "StableDiffusion3Pipeline"
    for part in (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
        assert all(torch.isfinite(value).all() for value in part.state_dict().values())
    assert pipeline("a fox in the snow", num_inference_steps=2).images[0].size == (32, 32)


def test_long_captions_are_read_whole_now_and_then(latents, tmp_path, monkeypatch):
    seen, own = [], flow.read_prompts
    monkeypatch.setattr(flow, "read_prompts", lambda *args: seen.append(args[2].shape[1]) or own(*args))
    flow.train(tmp_path, dataclasses.replace(FLOW, steps=11), Budget(), latents)
    assert seen == [40, *[FLOW.short] * 9, 40]


def test_the_transformer_is_compiled_where_that_is_asked(latents, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, *args, **kwargs: asked.append(type(part).__name__))
    flow.train(tmp_path / "a", FLOW, Budget(), latents)
    flow.train(tmp_path / "b", FLOW, Budget(compiled=True), latents)
    assert asked == ["SD3Transformer2DModel"]
    text, network = unet.make_text_encoder(UNET, latents.tokenizer), unet.make_unet(UNET, latents.shape)
    teacher = unet.pipeline_of(latents.vae, latents.tokenizer, text, network)
    flow.train(tmp_path / "c", FLOW, Budget(compiled=True), latents, teacher=teacher)
    assert asked[1:] == ["SD3Transformer2DModel", "UNet2DConditionModel"]


def test_prompts_are_read_as_the_pipeline_reads_them(latents):
    made = parts(latents)
    pipeline = flow.pipeline_of(FLOW, latents.vae, latents.tokenizer, made)
    words = torch.tensor([latents.tokenizer("a red fox", padding="max_length", max_length=40).input_ids])
    with torch.no_grad():
        text, pooled = flow.read_prompts(made["text"], made["text_2"], words, 5)
        theirs, _, theirs_pooled, _ = pipeline.encode_prompt("a red fox", None, None, max_sequence_length=5)
    assert torch.equal(text, theirs)
    assert torch.equal(pooled, theirs_pooled)


@pytest.mark.parametrize(("few", "many"), [(8, 8), (8, 256), (1, 256), (8, 1)])
def test_a_few_zeros_with_more_weight_are_as_many(latents, few, many):
    made = parts(latents)
    transformer = made["transformer"]
    words = torch.tensor(latents.tokenizer(["a red fox", "snow"], padding="max_length", max_length=40).input_ids)
    x, t = torch.randn(2, *latents.shape), torch.tensor([300.0, 800.0])

    def drawn(zeros):
        text, pooled = flow.read_prompts(made["text"], made["text_2"], words, zeros)
        return transformer(hidden_states=x, timestep=t, encoder_hidden_states=text, pooled_projections=pooled).sample

    with torch.no_grad():
        plain, other = drawn(many), drawn(few)
        weighted = flow.Weighted()
        transformer.set_attn_processor(weighted)
        is_zero = torch.arange(40 + few) >= 40
        weighted.bias = (is_zero * torch.log(torch.tensor(many / few))).expand(2, -1)
        ours = drawn(few)
    assert torch.allclose(ours, plain, atol=1e-5, rtol=1e-4)
    assert few == many or not torch.allclose(other, plain, atol=1e-3)


def test_a_teacher_expects_the_direction_to_the_only_latent_it_knows(latents):
    """Of a world of one picture the noise is known exactly, so the direction has to be noise minus latent."""
    only = torch.randn(1, *latents.shape)
    clean = unet.make_scheduler().alphas_cumprod.double()

    def sees(x, t, words):
        low = t.double().floor().long().clamp(max=len(clean) - 2)
        share = t.double() - low
        a = torch.lerp(clean.logit()[low], clean.logit()[low + 1], share).sigmoid().view(-1, 1, 1, 1)
        return SimpleNamespace(sample=((x.double() - a.sqrt() * only) / (1 - a).sqrt()).float())

    class Network(torch.nn.Module):
        forward = staticmethod(sees)

    text = unet.make_text_encoder(UNET, latents.tokenizer)
    pipeline = SimpleNamespace(text_encoder=text, unet=Network(), scheduler=unet.make_scheduler())
    teacher = flow.Teacher(pipeline, torch.device("cpu"))
    sigma = torch.linspace(0.06, 0.92, 40)
    noise = torch.randn(40, *latents.shape)
    x = torch.lerp(only.expand_as(noise), noise, sigma.view(-1, 1, 1, 1))
    words = latents.empty[None].expand(40, -1)
    assert torch.allclose(teacher(x, sigma, words), noise - only, atol=2e-3)


def test_a_reader_begins_as_the_teachers_as_far_as_they_are_alike(latents):
    torch.manual_seed(1)
    text = unet.make_text_encoder(UNET, latents.tokenizer).eval()
    first, _ = flow.make_text_encoders(FLOW, latents.tokenizer)
    pipeline = SimpleNamespace(text_encoder=text, unet=torch.nn.Identity(), scheduler=unet.make_scheduler())
    flow.Teacher(pipeline, torch.device("cpu")).teach(first.eval())
    words = torch.tensor([latents.tokenizer("a red fox", padding="max_length", max_length=40).input_ids])
    with torch.no_grad():
        mine = first(words, output_hidden_states=True).hidden_states[1]
        theirs = text(words, output_hidden_states=True).hidden_states[1]
    assert torch.equal(mine, theirs)


def test_the_recorder_asks_the_empty_reader_for_as_little_as_it_can_and_draws_the_pipelines_own_picture(latents):
    """Plain diffusers computes 256 tokens that say nothing unless it is told."""
    pipeline = flow.pipeline_of(FLOW, latents.vae, latents.tokenizer, parts(latents))
    trace = Model(pipeline).trace(prompt="a red fox", steps=3, guidance=4.0, seed=2)
    own = pipeline(
        "a red fox", num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator("cpu").manual_seed(2),
        max_sequence_length=2,
    ).images[0]  # fmt: skip
    assert np.array_equal(np.asarray(trace.image), np.asarray(own))
    assert Model(pipeline).tokens("a red fox")["tokens"] == ["a", "red", "fox"]
    assert len(Model(pipeline).tokens("fox " * 60)["cut"]) == 60 - 38  # what the other two readers have room for
