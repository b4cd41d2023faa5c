"""Runs with a guider: in every family and in pipelines found by looking, in batches, branches and on the way; refused,
with the reason and before any work, where there is nothing to mix."""

import re

import pytest
import torch
from handmade import handmade
from tiny_any import CASES
from tiny_any import pipeline as made
from tiny_families import MAKERS, family, model, size

import diffexplore as dx
from diffexplore.model import Model

ASKED = {"prompt": "a red fox", "negative_prompt": "cat", "steps": 3, "guidance": 5.0, "seed": 3}
MIXES = [name for name in MAKERS if len(model(name).guiders) > 1]


def settings(name: str, **changed) -> dx.Settings:
    return dx.Settings(**ASKED | changed, **size(name))


def counted(one: Model, settings: dx.Settings) -> int:
    """How many pictures its network is given in a run."""
    network, seen = getattr(one.pipeline, "unet", None) or one.pipeline.transformer, []

    def note(module, args, kwargs):
        first = args[0] if args else next(iter(kwargs.values()))
        seen.append(len(first))

    hook = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        one.trace(settings)
    finally:
        hook.remove()
    return sum(seen)


@pytest.mark.parametrize("name", MIXES)
def test_it_acts_from_where_it_is_put_and_a_branch_of_it_is_the_run(name):
    one = model(name)
    plain, run = one.trace(settings(name)), one.trace(settings(name, guider="APG"))
    assert not torch.equal(run.final, plain.final)
    assert [step.split for step in run] == ["", "", ""]
    # From the first step on it is the run; from nowhere on, the plain one, to the bit.
    assert torch.equal(one.trace(settings(name, changes={1.0: {"guider": "APG"}})).final, run.final)
    assert torch.equal(one.trace(settings(name, changes={0.0: {"guider": "APG"}})).final, plain.final)
    branch = one.branch(run, 2)  # what it remembers is replayed
    assert torch.equal(branch.final, run.final)
    assert [step.guider for step in branch] == ["APG"] * 3
    other = one.branch(plain, 1, guider="rescale")
    assert [step.guider for step in other] == ["CFG", "rescale", "rescale"]
    assert torch.equal(one.trace(other.settings).final, other.final)


def test_pictures_of_one_batch_are_mixed_each_in_its_own_way():
    one = Model(family("sd"))
    mixed = [("APG", 5.0), ("CFG", 5.0), ("TCFG", 8.0), ("APG(eta=1)", 3.0)]
    asked = [settings("sd", guider=guider, guidance=g) for guider, g in mixed]
    for settings_of, trace in zip(asked, one.trace_many(asked), strict=True):
        assert trace.info["batch"] == 4
        alone = Model(family("sd")).trace(settings_of)
        assert torch.allclose(trace.final, alone.final, atol=2e-3 * float(alone.final.abs().max()))
        assert [(step.guider, step.guidance) for step in trace] == [(settings_of.guider, settings_of.guidance)] * 3
    again = one.trace_many(asked)
    assert all(trace.info["reused"] for trace in again)


def test_between_two_shares_of_noise_it_remembers_over_steps_without_guidance_and_those_cost_half():
    one = Model(family("sd"), reuse=0)
    wanted = settings("sd", steps=4, sampler="DDIM", guider="APG")
    assert counted(one, wanted) == 8
    off = wanted.replace(guidance=1.0, changes=dx.interval(5.0, 0.9, 0.2))
    run = one.trace(off)
    assert [bool(step.split) for step in run] == [True, False, False, True]
    assert counted(one, off) == 6
    # The mix at its second guided step is that over both.
    assert torch.allclose(run[2].guided(5.0, "APG").x0, run[2].x0, atol=1e-5)
    assert not torch.allclose(run[2].guided(5.0, "APG(momentum=0)").x0, run[2].x0, atol=1e-3)
    assert torch.allclose(one.branch(run, 2).final, run.final)


def test_the_mix_of_a_run_that_takes_another_guider_begins_there(tmp_path):
    one = model("sd")
    run = one.trace(settings("sd", steps=4, sampler="DDIM", changes={0.9: {"guider": "APG"}}))
    run.save(tmp_path / "run.safetensors")
    for trace in (run, dx.Trace.load(tmp_path / "run.safetensors")):
        assert [step.guider for step in trace] == ["CFG", "APG", "APG", "APG"]
        for step in trace:
            assert torch.allclose(step.guided(5.0, step.guider).noise, step.noise, atol=1e-5)
    assert not torch.allclose(run[3].guided(5.0, "APG(eta=0.001)").noise, run[3].noise, atol=1e-3)


def test_two_evaluations_of_one_step_stand_still_together():
    run = model("sd3").trace(settings("sd3", sampler="Flow Heun", guider="CFG-Zero*(zero=2)"))
    still = [float(step.output.abs().max()) == 0 for step in run]
    assert still == [sum(not one.half for one in run[: i + 1]) <= 2 for i in range(len(run))]
    assert [torch.equal(step.guided(5.0, step.guider).x0, step.latents) for step in run] == still


def test_a_pipeline_nobody_knows_is_mixed_by_what_its_first_step_tells():
    one = dx.load(handmade(), reuse=0)
    asked = {"prompt": "a red fox", "steps": 4, "guidance": 4.0, "seed": 3}
    plain, run = one.trace(**asked), one.trace(**asked, guider="APG")
    assert one.guiders == list(dx.GUIDERS)
    assert not torch.equal(plain.final, run.final)
    assert torch.equal(plain.final, one.trace(**asked).final)
    for step in run:
        assert step.guider == "APG"
        assert torch.allclose(step.guided(4.0, "APG").noise, step.noise, atol=1e-4)
    assert torch.allclose(run[-1].x0, run.final, atol=1e-4 * float(run.final.abs().max()))
    assert run.view("x0", 3).tobytes() == run.image.tobytes()  # decoded by its own call, made again


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("StableDiffusionPAGPipeline", "this pipeline mixes 3 predictions, and a guider only two"),
        ("DDIMPipeline", "the call of DDIMPipeline has no word for guidance"),
    ],
)
def test_what_is_mixed_of_three_or_not_at_all_is_refused_with_the_reason(name, says):
    asked = {"prompt": "a red fox", "steps": 2, "guidance": 4.0}
    with pytest.raises((ValueError, RuntimeError), match=f"^guider '?APG'? cannot be used here: {says}"):
        dx.load(made(name), reuse=0).trace(**asked, **CASES[name].extra(), guider="APG")


def test_frames_of_a_video_are_mixed_together():
    one = dx.load(made("WanPipeline"), reuse=0)
    asked = {"prompt": "rain", "steps": 2, "guidance": 4.0, "width": 48, "height": 32}
    run = one.trace(**asked, **CASES["WanPipeline"].extra(), guider="TCFG")
    assert run[0].latents.ndim == 4
    assert all(torch.allclose(step.guided(4.0, "TCFG").noise, step.noise, atol=1e-4) for step in run)


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        (
            "sd",
            {"guidance": 1.0},
            "guider 'APG' needs a guidance above 1, here it is 1: below, there is one prediction",
        ),
        ("kandinsky3", {"guidance": 2.0}, "guider 'APG' needs a guidance above 2, here it is 2"),
        ("flux", {}, "guider 'APG' cannot be used here: the network of this FluxPipeline makes one prediction"),
        ("lcm", {"changes": {0.5: {"guider": "TCFG"}}}, "guider 'APG' cannot be used here: the network of this Latent"),
    ],
)
def test_where_there_is_nothing_to_mix_it_is_refused_before_any_work(name, changed, says):
    one = model(name)
    for ask in (one.plan, one.resolve):
        with pytest.raises(ValueError, match=re.escape(says)):
            ask(settings(name, guider="APG", **changed))
    if name in ("flux", "lcm"):
        assert one.guiders == ["CFG"]
        assert one.abilities["guiders"].endswith("so there is nothing to mix.")


def test_a_pipelines_own_way_to_mix_and_a_guider_exclude_each_other():
    with pytest.raises(ValueError, match="guider 'APG' cannot be used with guidance_rescale, which mixes"):
        model("sd").plan(settings("sd", guider="APG"), guidance_rescale=0.7)
    assert model("sd").plan(settings("sd"), guidance_rescale=0.7).extra == {"guidance_rescale": 0.7}


def test_what_is_said_of_a_run_names_its_guider_and_its_arrows_lie_where_it_went():
    one = model("sd")
    plain, same = one.trace(settings("sd")), one.trace(settings("sd", guider="APG(eta=1, momentum=0, norm=0)"))
    assert torch.allclose(plain.final, same.final, atol=1e-4)

    def arrows(trace):
        figure = trace.plot_guidance()
        return [text.xy for axes in figure.axes for text in axes.texts if getattr(text, "arrow_patch", None)]

    # With nothing taken away it is plain guidance, and is drawn as such, from what the run itself predicted.
    drawn = arrows(same)
    assert len(drawn) == 18
    for mine, other in zip(drawn, arrows(plain), strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
    assert "guider APG(eta=1, momentum=0, norm=0)" in " ".join(text.get_text() for text in same.plot().texts)
    explorer = dx.Explorer(one, guider={"APG": {"eta": 0.5}}, prompt="a fox", steps=2, **size("sd"))
    assert "    guider='APG(eta=0.5)',\n" in explorer.code()
    with pytest.raises(ValueError, match="needs a guidance above 1"):
        explorer.guidance = 1.0
    assert explorer.guidance == 5.0
    explorer.close()
