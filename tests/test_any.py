"""A pipeline that nobody knows opens, records and compares; and whatever fails, it is left as it was."""

import numpy as np
import pytest
import torch
from handmade import handmade

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
