"""A pipeline that nobody knows opens, records and compares; and whatever fails, it is left as it was."""

import copy
import inspect

import diffusers
import numpy as np
import pytest
import torch
from handmade import handmade
from PIL import Image
from tiny_any import CASES
from tiny_any import pipeline as made
from tiny_families import family

import diffexplore as dx
from diffexplore.model import Probe
from diffexplore.pipelines.any import Looked


def settings(**changed):
    return dx.Settings(**{"prompt": "a red fox", "steps": 4, "guidance": 4.0, "seed": 3, **changed})


def plain(pipeline, **changed):
    call = {"num_inference_steps": 4, "guidance_scale": 3.0, "generator": torch.Generator().manual_seed(3), **changed}
    return np.asarray(pipeline("a red fox", **call).images[0])


@pytest.fixture(scope="module")
def pipeline():
    return handmade()


@pytest.fixture(scope="module")
def model(pipeline):
    return dx.load(pipeline, reuse=0)


def test_a_pipeline_nobody_knows_draws_its_own_picture(pipeline, model):
    trace = model.trace(settings())
    assert np.array_equal(np.asarray(trace.image), plain(pipeline))
    assert trace.info["asked"] == {"guidance_scale": 3.0}
    assert any("counts guidance from 0" in note for note in trace.info["notes"])


def test_its_steps_have_halves_the_guidance_that_was_meant_and_the_layout_of_pictures(model):
    trace = model.trace(settings())
    assert len(trace) == trace.expected == 4
    for step in trace:
        assert step.split == ""
        assert step.guidance == pytest.approx(4.0, rel=1e-3)
        assert tuple(step.latents.shape) == (4, 8, 12)
    assert trace.axes == ("channels", "height", "width")
    assert float((trace[-1].x0 - trace.final).abs().max()) <= 1e-4 * float(trace.final.abs().max())
    assert trace.info["looked"]["networks"] == ["weaver"]


def test_its_estimates_decode_to_what_its_call_would_make_of_them(model):
    trace = model.trace(settings())
    assert np.array_equal(trace.decode(trace.final), np.asarray(trace.image))
    assert np.array_equal(trace.decode(trace[-1].x0), np.asarray(trace.image))
    assert not np.array_equal(trace.decode(trace[0].x0), np.asarray(trace.image))
    assert trace.view("x0", 0).size == (48, 32)


def test_its_first_run_and_the_next_are_the_same(pipeline):
    fresh = dx.load(pipeline, reuse=0)
    first, second = fresh.trace(settings()), fresh.trace(settings())
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert [step.guidance for step in first] == [step.guidance for step in second]


def test_a_run_that_is_remembered_decodes_too(pipeline):
    remembering = dx.load(pipeline)
    first, again = remembering.trace(settings()), remembering.trace(settings())
    assert again.info["reused"]
    assert np.array_equal(again.decode(again[1].x0), first.decode(first[1].x0))
    other = remembering.trace(settings(), warmth=2.0)
    assert "reused" not in other.info


def test_it_is_compared(model):
    columns = {"weak": {"guidance": 1.5}, "strong": {"guidance": 6.0}}
    traces = dx.Compare(columns, model, prompt="a red fox", steps=2).run()
    assert list(traces) == ["weak", "strong"]
    assert not np.array_equal(*(np.asarray(trace.image) for trace in traces.values()))


def test_what_its_call_takes_beyond_settings_is_handed_over_and_checked(pipeline, model):
    assert [(one.name, one.kind, one.default) for one in model.extras] == [("warmth", "number", 1.0)]
    trace = model.trace(settings(), warmth=2.0)
    assert np.array_equal(np.asarray(trace.image), plain(pipeline, warmth=2.0))
    assert trace.info["extra"] == {"warmth": 2.0}
    with pytest.raises(ValueError, match="HandmadePipeline takes no argument 'warmht', did you mean 'warmth'"):
        model.trace(settings(), warmht=2.0)
    with pytest.raises(ValueError, match="guidance_scale cannot be handed to HandmadePipeline here"):
        model.trace(settings(), guidance_scale=2.0)
    with pytest.raises(ValueError, match="num_inference_steps cannot be handed"):
        model.trace(settings(), num_inference_steps=2)


def test_what_does_not_denoise_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="a pipeline must have components and be called, got 'object'"):
        Looked(object())


def known(name):
    """One run of a class, with a model that remembers nothing, and what the plain call of the same gives."""
    case, whole = CASES[name], made(name)
    opened = dx.load(whole, reuse=0)
    size = dict(zip(("width", "height"), case.sized, strict=True)) if case.sized else {}
    trace = opened.trace(settings(prompt="a red fox", steps=3, guidance=5.0, **size), **case.extra())
    call = {"prompt": "a red fox", "num_inference_steps": 3, **size, "use_resolution_binning": False}
    if "true_cfg_scale" in trace.info["asked"]:
        call["negative_prompt"] = " "
    takes = inspect.signature(type(whole).__call__).parameters
    call = {name: value for name, value in call.items() if name in takes}
    clone = copy.copy(whole)
    clone.scheduler = copy.deepcopy(whole.scheduler)
    torch.manual_seed(3)  # for the one scheduler here that takes no generator
    plain = clone(**call, **trace.info["asked"], **case.extra(), generator=torch.Generator().manual_seed(3))
    return case, trace, plain


def arrays(kind, output):
    if kind == "video":
        return [np.asarray(one) for one in output]
    return [np.asarray(output)]


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_pipeline_draws_its_own_picture_and_its_last_estimate_is_it(name):
    case, trace, plain = known(name)
    assert trace.info["kind"] == case.kind
    if case.kind == "numbers":
        assert torch.equal(trace.output["image_embeddings"], plain["image_embeddings"])
    else:
        field = {"picture": "images", "video": "frames", "sound": "audios"}[case.kind]
        theirs = plain[field][0]
        if case.kind == "video" and isinstance(theirs, np.ndarray):
            theirs = [Image.fromarray((one * 255).round().astype(np.uint8)) for one in theirs]
        mine, theirs = (arrays(case.kind, one) for one in (trace.output, theirs))
        assert len(mine) == len(theirs)
        assert all(np.array_equal(one, other) for one, other in zip(mine, theirs, strict=True))
    assert 2 <= len(trace) == trace.expected <= 3
    off = float((trace[-1].x0 - trace.final).abs().max()) / float(trace.final.abs().max())
    assert off <= 1e-3
    for step in trace:
        if case.split == "both":
            assert step.split == ""
            assert step.guidance == pytest.approx(5.0, rel=1e-3)
        else:
            assert step.noise_cond is None
            said = {"one": "prompt only", "three": "mixes 3 outputs", "bent": "no plain mix"}[case.split]
            assert said in step.split


@pytest.mark.parametrize("name", ["StableDiffusionXLInpaintPipeline", "FluxKontextPipeline", "LTXPipeline"])
def test_estimates_decode_through_the_call_itself(name):
    _, trace, _ = known(name)
    shown = np.stack(arrays(trace.info["kind"], trace.output)) if trace.info["kind"] == "video" else trace.image
    assert np.array_equal(trace.decode(trace.final), np.asarray(shown))
    assert not np.array_equal(trace.decode(0.5 * trace.final), np.asarray(shown))


def test_what_was_found_is_said_and_what_was_not_has_its_reason():
    opened = dx.load(made("FluxKontextPipeline"), reuse=0)
    before = opened.abilities
    assert before["image"] is True
    assert before["split"] is None
    known("FluxKontextPipeline")
    trace = opened.trace(settings(steps=2, width=48, height=32), **CASES["FluxKontextPipeline"].extra())
    assert trace.image.size == (48, 32), "it would draw a million pixels, whatever size is asked for"
    assert "built in" in opened.abilities["split"]
    assert opened.abilities["layout"] is True
    assert dx.load(made("DDIMPipeline"), reuse=0).abilities["prompt"] == "It takes no prompt."


def test_pictures_that_are_handed_over_are_part_of_the_memory_and_of_the_trace():
    remembering = dx.load(made("FluxImg2ImgPipeline"))
    asked = settings(steps=2, width=48, height=32)
    first = remembering.trace(asked, **CASES["FluxImg2ImgPipeline"].extra())
    assert remembering.trace(asked, **CASES["FluxImg2ImgPipeline"].extra()).info["reused"]
    other = Image.new("RGB", (48, 32), "red")
    assert "reused" not in remembering.trace(asked, image=other, strength=0.8).info
    assert first.info["extra"] == {"image": "a picture of 48x32 pixels", "strength": 0.8}
    with pytest.raises(ValueError, match="FluxImg2ImgPipeline may need image= or "):
        remembering.trace(asked)


BLOCKS = {"sdxl": "StableDiffusionXLAutoBlocks", "flux": "FluxAutoBlocks", "zimage": "ZImageAutoBlocks"}


@pytest.mark.parametrize("name", BLOCKS)
def test_modular_pipelines_open_and_their_guider_is_asked_on_a_copy(name):
    modular = getattr(diffusers, BLOCKS[name])().init_pipeline()
    parts = family(name).components
    modular.update_components(**{part: value for part, value in parts.items() if part in modular.component_names})
    guider = getattr(modular, "guider", None)
    asked_before = guider and guider.guidance_scale
    trace = dx.load(modular, reuse=0).trace(settings(steps=3, width=48, height=32))
    assert (guider and guider.guidance_scale) == asked_before
    if guider is not None:
        guider.guidance_scale = 4.0
    call = {"guidance_scale": 4.0} if guider is None else {}
    plain = modular(
        prompt="a red fox", num_inference_steps=3, width=48, height=32, output="images",
        generator=torch.Generator().manual_seed(3), **call,
    )  # fmt: skip
    assert np.array_equal(np.asarray(trace.image), np.asarray(plain[0]))
    assert len(trace) == 3
    assert np.array_equal(trace.decode(trace[-1].x0), np.asarray(trace.image))
    if name == "sdxl":
        assert trace[0].guidance == pytest.approx(4.0, rel=1e-3)


STAGES = ("first", "middle", "last", "decoding")


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_fails_its_parts_are_left_as_they_were(pipeline, stage):
    fresh = dx.load(pipeline, reuse=0)
    fresh.trace(settings())  # transformers sets up hooks of its own, once
    parts = [
        one for part in pipeline.components.values() if isinstance(part, torch.nn.Module) for one in part.modules()
    ]

    def state():
        hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks), sorted(vars(one))) for one in parts]
        return hooks, sorted(vars(pipeline)), sorted(vars(pipeline.scheduler))

    before = state()

    class Breaks(Probe):
        def on_step(self, step):
            if step.index == {"first": 0, "middle": 1, "last": 3}.get(stage, -1):
                raise RuntimeError("on purpose")

    def breaking(*args):
        raise RuntimeError("on purpose")

    broken = pipeline.vae.register_forward_pre_hook(breaking) if stage == "decoding" else None
    decoder = pipeline.vae.decoder.register_forward_pre_hook(breaking) if stage == "decoding" else None
    try:
        with pytest.raises(RuntimeError, match="on purpose"):
            fresh.trace(settings(), probes=[Breaks()])
    finally:
        for one in (broken, decoder):
            if one is not None:
                one.remove()
    assert state() == before
    assert np.array_equal(np.asarray(fresh.trace(settings()).image), plain(pipeline))
