"""Where each word looks: held to attention that was computed by others, in every family."""

import numpy as np
import pytest
import tiny_any
import torch
from tiny import make_pipeline
from tiny_families import MAKERS, family, size
from torch.overrides import TorchFunctionMode

import diffexplore as dx
from diffexplore.pipelines.base import denoisers
from diffexplore.pipelines.texts import places
from diffexplore.record.heat import where
from diffexplore.runs.probes import hooked

SETTINGS = dx.Settings(prompt="a red fox", negative_prompt="blurry low", steps=3, guidance=5.0, seed=3)
KINDS = {
    "sd": "cross", "sdxl": "cross", "lcm": "cross", "kandinsky3": "cross", "pixart": "cross", "sana": "cross",
    "sd3": "joint", "flux": "joint", "qwen": "joint", "zimage": "",
}  # fmt: skip
READ_ON = ("sd", "sdxl", "sana", "qwen")  # families of which one encoder reads left to right, and nothing else


def processors(pipeline):
    return [module.processor for net in denoisers(pipeline) for module in net.modules() if hasattr(module, "processor")]


@pytest.mark.parametrize("name", MAKERS)
def test_the_picture_keeps_its_bits_and_the_maps_are_those_of_the_right_prompt(name):
    pipeline = family(name)
    model = dx.load(pipeline, reuse=0)
    settings = SETTINGS.replace(**size(name))
    if not KINDS[name]:
        assert "known in this network" in model.abilities["attention"]
        with pytest.raises(ValueError, match="where words look cannot be shown: no attention between picture"):
            model.trace(settings, attention=True)
        return
    assert model.abilities["attention"] == KINDS[name]
    before = processors(pipeline)
    plain, trace = model.trace(settings), model.trace(settings, attention=True)
    assert torch.equal(plain.final, trace.final)
    assert np.array_equal(np.asarray(plain.image), np.asarray(trace.image))
    assert [a is b for a, b in zip(before, processors(pipeline), strict=True)] == [True] * len(before)
    assert not any(len(module._forward_hooks) for net in denoisers(pipeline) for module in net.modules())
    assert [word for word in trace.words if word[0] != "<"] == ["a", "red", "fox"]
    assert plain.words == []
    assert plain[0].attention is None
    for step in trace:
        assert step.attention.shape[0] == len(trace.words)
        whole = step.attention.sum(0)
        if KINDS[name] == "cross":
            assert torch.allclose(whole, torch.ones_like(whole), atol=1e-3)
        else:
            assert whole.min() > 0.5
            assert whole.max() < 1
    # The first step starts from the same noise: alone, each prompt looks where it looked beside the other.
    for prompt, negative in ((settings.prompt, False), (settings.negative_prompt, True)):
        if name in ("lcm", "flux"):
            assert not trace.negative_words, "guidance is an input of the network"
            continue
        alone = model.trace(settings.replace(prompt=prompt, negative_prompt="", guidance=1.0), attention=True)
        for word in prompt.split():
            if name == "sana" and negative:
                continue  # the instruction before a prompt is left out before a negative one
            assert np.allclose(alone.heat(word, 0), trace.heat(word, 0, negative=negative), atol=2e-4)


@pytest.mark.parametrize("name", READ_ON)
def test_a_word_has_the_vectors_that_it_changes_first(name):
    """Encoders that read left to right: what differs between two prompts begins at the word that does."""
    pipeline = family(name)
    model = dx.load(pipeline, reuse=0)
    seen = []

    def keep(module, args, kwargs, output=None):
        seen.append(kwargs["encoder_hidden_states"][-1].clone())

    for prompt in ("a red fox in snow", "a red cat in snow"):
        with_kwargs = pipeline.components[model._family.network].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            model.trace(SETTINGS.replace(prompt=prompt, negative_prompt="", guidance=1.0, steps=2, **size(name)))
        finally:
            with_kwargs.remove()
    one, other = seen[0], seen[-1]
    first = int((one != other).any(-1).nonzero()[0])
    texts = model._family.texts(pipeline, "a red fox in snow", {})
    found = places(texts, len(one))
    assert found.words[found.owners[first]] == "fox"
    assert found.owners.index(found.words.index("fox")) == first


def test_the_map_is_the_softmax_of_a_processor_of_the_users_own():
    from diffusers.models.attention_processor import AttnProcessor

    scores = []

    class Told(AttnProcessor):
        """The classic one, whose probabilities exist."""

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
            ask = attn.get_attention_scores

            def kept(*given):
                made = ask(*given)
                if encoder_hidden_states is not None:
                    scores.append(made.unflatten(0, (-1, attn.heads)).mean(1))
                return made

            attn.__dict__["get_attention_scores"] = kept
            try:
                return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
            finally:
                del attn.__dict__["get_attention_scores"]

    pipeline = make_pipeline()
    own = Told()
    pipeline.unet.set_attn_processor(own)
    model = dx.load(pipeline, reuse=0)
    plain, trace = model.trace(SETTINGS), None
    scores.clear()
    trace = model.trace(SETTINGS, attention="layers")
    assert torch.equal(plain.final, trace.final)
    assert all(one is own for one in processors(pipeline))
    layers = len(scores) // len(trace)
    for i in range(len(trace)):
        mean = torch.stack(scores[i * layers : (i + 1) * layers]).mean(0)  # (negative and prompt, places, vectors)
        for row, words, negative in ((1, trace.words, False), (0, trace.negative_words, True)):
            texts = {"a": [1], "red": [2], "fox": [3], "<begin>": [0], "blurry": [1], "low": [2]}
            for word in words:
                if word == "<end>":
                    continue
                mass = mean[row][:, texts[word]].sum(-1)
                heat = trace.heat(word, i, negative=negative)
                assert abs(heat.sum() - mass.sum().item()) <= 1e-4 * mass.sum().item()
                assert np.allclose(heat.flatten(), mass, rtol=1e-3)
    # Layer by layer too, each under its own name.
    assert len(where(trace)) == layers
    assert np.allclose(
        np.mean([trace.heat("fox", 0, at=one) for one in where(trace)], 0), trace.heat("fox", 0), rtol=2e-3
    )

    fused = make_pipeline()
    fused.fuse_qkv_projections()
    other = dx.load(fused, reuse=0).trace(SETTINGS, attention=True)
    assert torch.allclose(trace[0].attention, other[0].attention, atol=1e-4)


@pytest.mark.parametrize("name", ["sd3", "flux", "qwen"])
def test_of_joint_attention_it_is_the_part_of_the_whole_softmax_that_falls_on_the_prompt(name):
    pipeline = family(name)
    model = dx.load(pipeline, reuse=0)
    settings = SETTINGS.replace(guidance=1.0, negative_prompt="", steps=1, **size(name))
    scores = []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.nn.functional.scaled_dot_product_attention and inside:
                given = dict(zip(("query", "key"), args, strict=False)) | (kwargs or {})
                query, key = given["query"].double(), given["key"].double()
                scores.append((query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1)[0])
            return func(*args, **(kwargs or {}))

    inside = []
    with (
        hooked(denoisers(pipeline), before=lambda *_: inside.append(1), after=lambda *_: inside.clear()),
        Seen(),
    ):
        trace = model.trace(settings, attention=True)
    mean = torch.stack(scores).mean(0)
    picture = slice(0, 24) if name == "sd3" else slice(-24, None)
    text = slice(24, None) if name == "sd3" else slice(0, -24)
    assert torch.allclose(trace[0].attention.sum(0).flatten().double(), mean[picture, text].sum(-1), atol=1e-3)
    # One token a character: "a", its space, then "red".
    before = len(pipeline.prompt_template_encode.split("{}")[0]) - 34 if name == "qwen" else 0
    first = {"sd3": 24 + 16 + 2, "flux": 2, "qwen": before + 2}[name]
    red = mean[picture, first : first + 4].sum(-1)
    if name == "sd3":
        red = red + mean[picture, 24 + 2]  # CLIP's token of it
    assert np.allclose(trace.heat("red", 0).flatten(), red, rtol=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        "AuraFlowPipeline",
        "ChromaPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusion3Img2ImgPipeline",
        "WanPipeline",
    ],
)
def test_of_pipelines_found_by_looking_the_answers_tell_which_is_the_prompt(name):
    case = tiny_any.CASES[name]
    model = dx.load(tiny_any.pipeline(name), reuse=0)
    width, height = case.sized
    settings = SETTINGS.replace(width=width, height=height, steps=2)
    plain = model.trace(settings, **case.extra())
    if name == "WanPipeline":
        with pytest.raises(ValueError, match="what it makes is not one picture"):
            model.trace(settings, attention=True, **case.extra())
        return
    trace = model.trace(settings, attention=True, **case.extra())
    assert torch.equal(plain.final, trace.final)
    assert [word for word in trace.words if word[0] != "<"] == ["a", "red", "fox"]
    assert [word for word in trace.negative_words if word[0] != "<"] == ["blurry", "low"]
    swapped = settings.replace(prompt=settings.negative_prompt, negative_prompt=settings.prompt)
    other = model.trace(swapped, attention=True, **case.extra())
    assert np.allclose(trace.heat("fox", 0), other.heat("fox", 0, negative=True), atol=2e-4)
    assert np.allclose(trace.heat("low", 0, negative=True), other.heat("low", 0), atol=2e-4)


def test_what_changes_on_the_way_is_not_told_of_the_words_before():
    model = dx.load(make_pipeline(), reuse=0)
    turned = model.trace(SETTINGS.replace(steps=6, changes={0.5: {"prompt": "a blue cat"}}), attention=True)
    kept = [step.attention is not None for step in turned]
    assert kept == sorted(kept, reverse=True)
    assert {True, False} == set(kept)
    assert "until the prompt changes on the way" in turned.info["notes"][-1]
    assert all("attention_negative" in step.tensors for step in turned)
    off = model.trace(SETTINGS.replace(steps=6, changes={0.5: {"guidance": 1.0}}), attention=True)
    assert all(step.attention is not None for step in off)
    assert "attention_negative" not in off[-1].tensors
    branch = model.branch(turned, 1, prompt="a cat")
    assert branch.words == turned.words, "of the steps that it shares"
    assert [step.attention is not None for step in branch] == [True] + [False] * 5


def test_a_batch_a_memory_and_what_cannot_be_known():
    model = dx.load(make_pipeline())
    several = [SETTINGS, SETTINGS.replace(prompt="a blue cat in the snow", seed=4)]
    jobs = model.submit_many(several, attention=True)
    for job, settings in zip(jobs, several, strict=True):
        trace, alone = job.result(), dx.load(make_pipeline(), reuse=0).trace(settings, attention=True)
        assert trace.info["batch"] == 2
        assert trace.words == alone.words == ["<begin>", *settings.prompt.split(), "<end>"]
        assert torch.allclose(trace[0].attention, alone[0].attention, atol=1e-3)
    first = model.trace(SETTINGS, attention=True)
    again = model.trace(SETTINGS, attention=True)
    assert again.info["reused"]
    assert again.words == first.words
    assert torch.equal(again[1].attention, first[1].attention)
    assert model.trace(SETTINGS).words == []
    with pytest.raises(ValueError, match='attention must be True, False or "layers", got 3'):
        model.trace(SETTINGS, attention=3)

    model.pipeline.unet.compile()
    assert "was compiled" in model.abilities["attention"]
    with pytest.raises(ValueError, match="cannot be shown: its network was compiled"):
        model.trace(SETTINGS, attention=True)
