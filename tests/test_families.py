"""Every family: bit-identical to plain diffusers with every offered sampler, one meaning of guidance, own layouts."""

import copy
import inspect
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_pipeline
from tiny_families import MAKERS, family, model, size, unet

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.pipelines.family import FAMILIES, family_of, known_pipelines
from diffexplore.samplers import build, native


def offered() -> list[tuple[str, str]]:
    return [(name, sampler) for name in MAKERS for sampler in model(name).samplers]


def plain(name: str, settings: dx.Settings) -> np.ndarray:
    """The picture that diffusers alone makes: a clone of the pipeline with its own scheduler, no tap anywhere."""
    pipeline = copy.copy(family(name))
    base = {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
    came = settings.sampler == "as it came"
    pipeline.scheduler = (
        copy.deepcopy(pipeline.scheduler) if came else build(settings.sampler, base, seed=settings.seed)
    )
    pipeline.set_progress_bar_config(disable=True)
    step = pipeline.scheduler.step
    if name == "kandinsky3" and "generator" not in inspect.signature(step).parameters:
        # This pipeline passes a generator to every scheduler, which plain diffusers stumbles over.
        pipeline.scheduler.step = lambda *args, generator, **options: step(*args, **options)
    made = pipeline(
        **FAMILIES[name].arguments(pipeline, [settings]),
        generator=torch.Generator("cpu").manual_seed(settings.seed),
    )
    return np.asarray(made.images[0])


@pytest.mark.parametrize(("name", "sampler"), offered())
def test_the_picture_is_bit_identical_to_plain_diffusers(name, sampler):
    steps = 4
    trace = model(name).trace(
        prompt="a red fox", negative_prompt="blurry", steps=steps, guidance=4.0, seed=3, sampler=sampler, **size(name)
    )
    assert np.array_equal(np.asarray(trace.image), plain(name, trace.settings))
    assert len(trace) == trace.expected == model(name).evaluations(sampler, steps)
    assert trace.image.size == tuple(size(name).values())


# The schedulers of these end on a last bit of noise (see facts of their classes) or take one more, rescaled, step.
ENDS_NOISY = ("DDIM", "PLMS", "PNDM", "DDPM", "DEIS", "SA-Solver", "TCD", "LCM")


@pytest.mark.parametrize(("name", "sampler"), offered())
def test_the_last_x0_decodes_to_the_final_picture(name, sampler):
    came = native(name, {**family(name).scheduler.config, "_class_name": type(family(name).scheduler).__name__})
    if (came if sampler == "as it came" else sampler).startswith(ENDS_NOISY):
        pytest.skip("this sampler does not end on its last x0")
    trace = model(name).trace(prompt="a cat", steps=5, guidance=3.0, seed=1, sampler=sampler, **size(name))
    scale = float(trace.final.abs().max())
    assert float((trace[-1].x0 - trace.final).abs().max()) <= 1e-3 * scale
    last, picture = trace.decode(trace[-1].x0).astype(int), np.asarray(trace.image).astype(int)
    assert np.abs(last - picture).max() <= 1


def weights_of(pipeline):
    modules = [m for part in pipeline.components.values() if isinstance(part, torch.nn.Module) for m in part.modules()]
    return [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m)), m.training) for m in modules]


@pytest.mark.parametrize("name", MAKERS)
def test_the_users_pipeline_is_as_before(name):
    pipeline = family(name)
    Model(pipeline).trace(prompt="a fox", steps=2, **size(name))  # first: transformers sets up hooks of its own, once
    before = weights_of(pipeline), dict(vars(pipeline)), dict(pipeline.scheduler.config), vars(pipeline.scheduler)
    Model(pipeline).trace(prompt="a cat", steps=2, **size(name))
    after = weights_of(pipeline), dict(vars(pipeline)), dict(pipeline.scheduler.config), vars(pipeline.scheduler)
    assert after[0] == before[0]
    assert list(after[1]) == list(before[1])
    assert all(after[1][key] is before[1][key] for key in before[1])
    assert after[2:] == before[2:]


SPLIT = ("sd", "sdxl", "sd3", "kandinsky3", "pixart", "sana", "zimage")


@pytest.mark.parametrize("name", SPLIT)
def test_guidance_means_the_same_everywhere(name):
    """What was asked for is what is found in the tensors, however the pipeline itself counts."""
    trace = model(name).trace(prompt="a red fox", negative_prompt="cat", steps=3, guidance=4.0, seed=1, **size(name))
    for step in trace:
        assert step.split == ""
        assert step.guidance == pytest.approx(4.0, rel=1e-3)
        mixed = step.noise_uncond + step.guidance * (step.noise_cond - step.noise_uncond)
        assert torch.allclose(mixed, step.noise, atol=1e-3 * float(step.noise.abs().max()))


@pytest.mark.parametrize("name", ["flux", "lcm"])
def test_an_embedded_guidance_is_said_to_be_one(name):
    trace = model(name).trace(prompt="a red fox", negative_prompt="cat", steps=2, guidance=4.0, **size(name))
    assert trace[0].noise_cond is None
    assert "guidance" in trace[0].split.lower()
    notes = " ".join(trace.info["notes"])
    assert "input of this network" in notes
    assert "negative prompt is ignored" in notes
    assert trace.info["asked"] == {"guidance_scale": 4.0}


def test_what_qwen_rescales_is_not_passed_off_as_a_mix():
    trace = model("qwen").trace(prompt="a red fox", negative_prompt="cat", steps=2, guidance=4.0, **size("qwen"))
    assert trace[0].noise_cond is None
    assert "no plain mix" in trace[0].split


@pytest.mark.parametrize(("name", "asked"), [("kandinsky3", 3.0), ("zimage", 3.0)])
def test_pipelines_that_count_from_zero_are_asked_for_one_less(name, asked):
    trace = model(name).trace(prompt="a fox", steps=2, guidance=4.0, **size(name))
    assert trace.info["asked"] == {"guidance_scale": asked}
    assert any("counts guidance from 0" in note for note in trace.info["notes"])


@pytest.mark.parametrize("name", MAKERS)
def test_latents_are_unpacked_to_channels_height_width(name):
    trace = model(name).trace(prompt="a fox", steps=2, **size(name))
    width, height = size(name).values()
    channels = FAMILIES[name].channels(family(name))
    factor = FAMILIES[name].factor(family(name))
    assert tuple(trace[0].latents.shape) == (channels, height // factor, width // factor)
    assert trace[0].x0.shape == trace[0].latents.shape == trace.final.shape
    assert trace.matrix.shape == (channels + 1, 3)
    assert trace.view("noise", 0).size == trace.view("x0", 1).size


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_equals_runs_alone(name):
    asked = [
        dx.Settings(prompt=prompt, negative_prompt="cat", steps=3, guidance=guidance, seed=seed, **size(name))
        for (prompt, guidance), seed in itertools.product([("a red fox", 4.0), ("the snow at night", 6.0)], [1, 2])
    ]
    together = model(name).trace_many(asked)
    for settings, trace in zip(asked, together, strict=True):
        alone = model(name).trace(settings)
        assert torch.equal(alone[0].latents, trace[0].latents)  # the very same x_T
        for ours, theirs in zip(trace, alone, strict=True):
            for part in ("latents", "noise", "noise_cond", "noise_uncond"):
                a, b = getattr(ours, part), getattr(theirs, part)
                assert (a is None) == (b is None)
                if b is not None:
                    assert float((a - b).abs().max()) <= 1e-4 * float(b.abs().max())
            if theirs.guidance is not None:
                assert ours.guidance == pytest.approx(settings.guidance, rel=1e-3)
        assert float((trace.final - alone.final).abs().max()) <= 1e-4 * float(alone.final.abs().max())


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart", "sana"])
def test_pictures_of_different_guidance_share_a_batch(name):
    asked = [dx.Settings(prompt="a fox", negative_prompt="cat", steps=2, guidance=g, **size(name)) for g in (2.0, 7.5)]
    assert [trace.info["batch"] for trace in model(name).trace_many(asked)] == [2, 2]


@pytest.mark.parametrize("name", MAKERS)
def test_prompts_that_are_too_long_say_what_is_not_read(name):
    long = "a red fox " * 200
    read = model(name).tokens(long)
    assert read["cut"]
    assert any("it does not see" in note for note in model(name).notes(dx.Settings(prompt=long)))


@pytest.mark.parametrize("name", MAKERS)
def test_sizes_that_a_pipeline_cannot_draw_are_refused(name):
    multiple = FAMILIES[name].multiple(family(name))
    if multiple <= 8:
        pytest.skip("every size that settings take is one it can draw")
    with pytest.raises(ValueError, match=f"width must be a multiple of {multiple}"):
        model(name).resolve(dx.Settings(width=multiple + 8, height=multiple))


def test_a_class_of_no_family_is_refused_by_name():
    class Foreign:
        pass

    with pytest.raises(ValueError, match="got 'Foreign'"):
        family_of(Foreign())
    assert len(known_pipelines()) == len(set(known_pipelines()))


def test_a_subclass_belongs_to_its_family():
    class Mine(type(family("sdxl"))):
        pass

    assert family_of(Mine) is FAMILIES["sdxl"]


def test_pixart_alpha_takes_two_steps_at_least():
    class PixArtAlphaPipeline(type(family("pixart"))):
        pass

    alpha = copy.copy(family("pixart"))
    alpha.__class__ = PixArtAlphaPipeline
    with pytest.raises(ValueError, match="this pipeline takes at least 2 steps, got 1"):
        Model(alpha).resolve(dx.Settings(steps=1, sampler="DPM++ 2M Karras"))


def test_a_pipeline_that_takes_no_lora_says_so_in_one_sentence(lora):
    with pytest.raises(ValueError, match=r"'my style\.safetensors' cannot be loaded into this model"):
        model("pixart").load_lora(lora)


# What a pipeline may lack, or want beside settings


def refiner():
    """SDXL with only its second encoder."""
    whole = family("sdxl")
    parts = dict(whole.components) | {"text_encoder": None, "tokenizer": None}
    parts["unet"] = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        cross_attention_dim=16,
        transformer_layers_per_block=1,
    )
    return type(whole)(**parts, add_watermarker=False)


def test_sdxl_with_only_its_second_encoder_draws_and_reads():
    pipeline = refiner()
    pipeline.set_progress_bar_config(disable=True)
    model = Model(pipeline)
    trace = model.trace(prompt="a red fox", steps=3, guidance=4.0, seed=3, **size("sdxl"))
    arguments = FAMILIES["sdxl"].arguments(pipeline, [trace.settings])
    made = pipeline(**arguments, generator=torch.Generator("cpu").manual_seed(3)).images[0]
    assert np.array_equal(np.asarray(trace.image), np.asarray(made))
    assert trace.info["tokens"]["prompt"] == ["a", "red", "fox"]
    assert trace[0].split == ""
    assert model.tokens("a red fox " * 20)["cut"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("sd", ("vae",), r"needs a decoder of its latents \(vae\), got a StableDiffusionPipeline without"),
        ("sd", ("unet",), r"needs a network that denoises \(unet\), got a StableDiffusionPipeline without"),
        ("sd", ("text_encoder",), "needs a tokenizer and a text encoder, got a StableDiffusionPipeline without"),
        ("sd3", ("vae",), r"needs a decoder of its latents \(vae\), got a StableDiffusion3Pipeline without"),
        ("kandinsky3", ("movq",), r"needs a decoder of its latents \(movq\), got a Kandinsky3Pipeline without"),
    ],
)
def test_a_pipeline_without_a_part_is_refused_before_any_work(name, parts, said, late):
    pipeline = copy.copy(family(name))
    lacking = model = Model(pipeline) if late else None
    for part in parts:
        setattr(pipeline, part, None)
    with pytest.raises(ValueError, match=said) as caught:
        lacking = (model or Model(pipeline)).plan(prompt="a fox", **size(name))
    assert "\n" not in str(caught.value)
    assert lacking is model


def ip_adapter(network):
    """The weights of an IP-Adapter for a network of `tiny`."""
    width, tokens, random = network.config.cross_attention_dim, 4, torch.Generator().manual_seed(1)

    def weight(*shape):
        return 0.1 * torch.randn(*shape, generator=random)

    projection = {
        "proj.weight": weight(tokens * width, width),
        "proj.bias": weight(tokens * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    keys, number = {}, 1
    for name, layer in network.named_modules():
        if name.endswith("attn2"):
            for part in ("to_k", "to_v"):
                keys[f"{number}.{part}_ip.weight"] = weight(layer.to_k.out_features, width)
            number += 2
    return {"image_proj": projection, "ip_adapter": keys}


def adapted():
    """A pipeline of its own with an IP-Adapter, and what encodes its pictures."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    pipeline = make_pipeline()
    pipeline.unet._load_ip_adapter_weights([ip_adapter(pipeline.unet)])
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=pipeline.unet.config.cross_attention_dim,
    )  # fmt: skip
    torch.manual_seed(5)
    encoder = CLIPVisionModelWithProjection(config).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipeline.register_modules(image_encoder=encoder, feature_extractor=processor)
    return pipeline


@pytest.mark.parametrize("by", ["ip_adapter_image", "ip_adapter_image_embeds"])
def test_the_picture_of_an_ip_adapter_is_passed_on_and_counts_in_the_memory(by):
    pipeline = adapted()
    pipeline.set_progress_bar_config(disable=True)
    model, asked = Model(pipeline), {"prompt": "a fox", "steps": 2, "guidance": 4.0}
    width, random = pipeline.unet.config.cross_attention_dim, torch.Generator().manual_seed(2)
    made = []
    for colour in ("red", "blue"):
        given = Image.new("RGB", (40, 48), colour)
        if by == "ip_adapter_image_embeds":
            given = [torch.randn(2, 1, width, generator=random)]
        trace = model.trace(**asked, **{by: given})
        assert "reused" not in trace.info
        arguments = FAMILIES["sd"].arguments(pipeline, [trace.settings])
        plain = copy.copy(pipeline)
        plain.scheduler = copy.deepcopy(pipeline.scheduler)
        picture = plain(**arguments, generator=torch.Generator("cpu").manual_seed(0), **{by: given}).images[0]
        assert np.array_equal(np.asarray(trace.image), np.asarray(picture))
        assert model.trace(**asked, **{by: given}).info["reused"]
        made.append(np.asarray(trace.image))
    assert not np.array_equal(*made)


def test_the_picture_of_an_ip_adapter_is_refused_where_nothing_could_read_it():
    picture = Image.new("RGB", (40, 48), "red")
    blind = adapted()
    blind.register_modules(image_encoder=None)
    for pipeline, said in (
        (make_pipeline(), "ip_adapter_image is for an IP-Adapter, and this pipeline has none"),
        (blind, "needs an image encoder, and this pipeline has none: hand over ip_adapter_image_embeds"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            Model(pipeline).plan(prompt="a fox", steps=2, ip_adapter_image=picture)
        assert "\n" not in str(caught.value)


def test_an_ip_adapter_that_nobody_gave_a_picture_is_refused_in_one_sentence():
    pipeline = make_pipeline()
    model = Model(pipeline)
    before, processors = model.trace(prompt="a fox", steps=2), dict(pipeline.unet.attn_processors)
    pipeline.unet._load_ip_adapter_weights([ip_adapter(pipeline.unet)])
    for ask in (model.trace, model.submit, Model(pipeline).trace):
        with pytest.raises(ValueError, match=r"has an IP-Adapter, which needs a picture .*unload_ip_adapter") as caught:
            ask(prompt="a fox", steps=2)
        assert "\n" not in str(caught.value)
    pipeline.unet.encoder_hid_proj = None
    pipeline.unet.config.encoder_hid_dim_type = None
    pipeline.unet.set_attn_processor(processors)
    after = model.trace(prompt="a fox", steps=2)
    assert np.array_equal(np.asarray(after.image), np.asarray(before.image))
