"""runs/spaced.py: noise levels of one's own, in every sampler that takes them; its own ones change no bit."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import tiny_any
import torch
from tiny_families import model, size

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.record.predictions import x0_of
from diffexplore.runs.levels import Levels
from diffexplore.runs.spaced import levels_of, space, span_of
from diffexplore.samplers import SAMPLERS, build, facts_of
from diffexplore.trace import Trace

FAMILIES = ("sd", "sd3", "flux", "zimage", "lcm", "kandinsky3")
ASKED: dict[str, Any] = {"prompt": "a red fox", "guidance": 4.0, "seed": 3}
BASE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "sigma_min": 0.002, "sigma_max": 80.0,
    "sigma_data": 0.5,
}  # fmt: skip
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 2.0}
UNEVEN = {"flow": (0.97, 0.8, 0.5, 0.41, 0.1), "edm": (70.0, 20.0, 3.0, 1.0, 0.01)}
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
SIGMAS = [math.sqrt((1 - share) / share) for share in torch.cumprod(1 - BETAS, 0).tolist()]


def final(trace: Trace) -> torch.Tensor:
    assert trace.final is not None
    return trace.final


def own(name: str, sampler: str, plain: Trace) -> tuple[float, ...]:
    """The levels of a run: those that its model tells, or, where its pipeline makes them, those it went through."""
    if name in ("flux", "zimage"):
        with pytest.raises(ValueError, match="take them from a run"):
            model(name).levels(sampler=sampler)
        return tuple(step.b for step in plain)
    return model(name).levels(sampler=sampler, steps=plain.settings.steps)


def taking(name: str) -> list[str]:
    return [sampler for sampler in model(name).samplers if "sigmas" not in model(name).fixed(sampler)]


@pytest.mark.parametrize(("name", "sampler"), [(name, one) for name in FAMILIES for one in taking(name)])
def test_its_own_levels_handed_over_change_no_bit(name: str, sampler: str) -> None:
    plain = model(name).trace(**ASKED, steps=4, sampler=sampler, **size(name))
    levels = own(name, sampler, plain)
    handed = model(name).trace(**ASKED, sigmas=[*levels, 0], sampler=sampler, **size(name))
    assert handed.settings.sigmas == levels
    assert handed.settings.steps == 4
    assert torch.equal(final(handed), final(plain))
    assert [(step.a, step.b, step.timestep) for step in handed] == [(step.a, step.b, step.timestep) for step in plain]
    assert not handed.info.get("reused")


def answer(kind: str, x0: torch.Tensor, noise: torch.Tensor, x: torch.Tensor, b: float) -> torch.Tensor:
    """What a network answers that knows x0."""
    skip, scale = 0.25 / (b * b + 0.25), 0.5 * b / math.sqrt(b * b + 0.25)
    known = {"epsilon": noise, "flow_prediction": noise - x0, "edm_epsilon": (x0 - skip * x) / scale}
    return known[kind]


@pytest.mark.parametrize("name", [name for name, entry in SAMPLERS.items() if facts_of(entry.cls).laid])  # type: ignore[union-attr]
def test_every_sampler_goes_through_the_levels_that_it_is_given(name: str) -> None:
    """A network that knows the picture and the noise keeps x_t on the line between them, if both the levels and what
    the network is told of them are right."""
    entry = SAMPLERS[name]
    facts = facts_of(entry.cls)
    assert facts is not None
    kind = "epsilon" if entry.net != "flow" else "flow_prediction"
    scheduler = build(name, FLOW if entry.net == "flow" else {**BASE, "prediction_type": kind})
    asked = UNEVEN.get(entry.net, (14.0, 9.0, 3.0, 0.7, 0.05))
    scheduler.set_timesteps(len(asked))
    space(scheduler, asked)
    whole = facts.laid == "timesteps"
    assert levels_of(scheduler) == pytest.approx(asked, rel=0.2 if whole else 1e-6)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    levels = Levels(scheduler)
    assert len(levels.schedule) == entry.evaluations(len(asked))
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((1, 4, 6, 5), generator=generator) for _ in range(2))
    a, b, _ = levels.at(0)
    x, seen = a * x0 + b * noise, []
    for call, t in enumerate(scheduler.timesteps):
        a, b, half = levels.at(call)
        if not half or facts.laid == "once":
            seen.append(b if entry.net == "flow" else b / a)
        told = 1000 * b if entry.net == "flow" else float(np.interp(math.log(b / a), np.log(SIGMAS), range(1000)))
        if entry.net == "edm":
            told = math.log(b) / 4
        assert abs(float(t) - told) < (1.01 if not t.is_floating_point() or "Karras" in name else 2e-3)
        if not facts.draws_noise and not facts.noise(scheduler.config):
            assert torch.allclose(x, a * x0 + b * noise, rtol=1e-4, atol=1e-4)
        elif call == 0:
            assert torch.allclose(x, a * x0 + b * noise)
        out = answer(levels.kind, x0, (x - a * x0) / b, x, b)
        assert torch.allclose(x0_of(levels.kind, x, out, a, b), x0, atol=1e-4)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        given = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        x = scheduler.step(out, t, x, **given).prev_sample
    assert seen == pytest.approx(levels_of(scheduler), rel=1e-6)
    assert float((x - x0).abs().max()) < (0.2 if whole or name in ("DEIS", "SA-Solver") else 1e-2)


def test_the_range_is_the_models_own() -> None:
    span = span_of(build("Euler", BASE))
    assert (span.low, span.high) == pytest.approx((SIGMAS[0], SIGMAS[-1]), rel=1e-4)
    assert span_of(build("EDM Euler", BASE)).high == 80
    flow = span_of(build("Flow Euler", FLOW))
    assert (flow.flow, flow.shift, flow.high) == (True, 2.0, 1.0)


def test_whole_timesteps_are_the_nearest_and_it_is_said() -> None:
    one = model("sd")
    trace = one.trace(**ASKED, sampler="DDPM", sigmas=(14.0, 3.0, 0.7, 0.0305), **size("sd"))
    assert [round(step.sigma, 2) for step in trace] == [14.01, 3.0, 0.7, 0.03]
    assert any("whole timesteps" in note for note in trace.info["notes"])
    with pytest.raises(ValueError, match=r"3 and 2\.9999 are both at"):
        one.plan(prompt="a fox", sampler="DDPM", sigmas=(3.0, 2.9999))


def test_a_pipeline_of_no_named_family_takes_them_by_its_own_scheduler() -> None:
    one, asked = Model(tiny_any.pipeline("AuraFlowPipeline")), {"prompt": "a fox", "seed": 1, "width": 48, "height": 32}
    plain = one.trace(steps=3, **asked)
    handed = one.trace(sigmas=[step.b for step in plain], **asked)
    assert torch.equal(final(handed), final(plain))
    other = one.trace(sigmas=(1.0, 0.6, 0.5), **asked)
    assert [step.b for step in other] == pytest.approx([1.0, 0.6, 0.5])
    assert not torch.equal(final(other), final(plain))
    assert other.decode(other[-1].x0).shape[-1] == 3


def test_starts_branches_and_changes_go_by_them() -> None:
    one, levels = model("sd"), (14.0, 6.0, 2.0, 1.0, 0.3)
    asked = dx.Settings(**ASKED, sampler="DPM++ 2M", sigmas=levels, **size("sd"))
    plain = one.trace(asked)
    assert torch.equal(final(one.branch(plain, 3)), final(plain))
    branch = one.branch(plain, 3, prompt="a blue cat")
    assert [step.sigma for step in branch] == pytest.approx(levels)
    # A share of 0.6 is a level of 1.22: from the step at 1 on.
    changed = one.trace(asked, changes={0.6: {"prompt": "a blue cat"}})
    assert torch.equal(final(changed), final(branch))
    begun = one.trace(asked, image=plain.image, strength=0.6)
    assert [step.sigma for step in begun] == pytest.approx(levels[3:])
    first, second = one.trace_many([asked, asked.replace(seed=4)])
    assert [step.sigma for step in second] == pytest.approx(levels)
    assert torch.allclose(final(first), final(plain), atol=1e-3)


def test_what_cannot_be_is_refused_before_any_work() -> None:
    one = model("sd")
    for values, told in (
        (
            {"sampler": "DDIM", "sigmas": (3.0, 1.0)},
            "DDIM takes no noise levels .*: it counts.*Euler, .* can",
        ),
        ({"sampler": "Euler", "sigmas": (20.0, 1.0)}, "go from 0.02917 to 14.61, got 20"),
        ({"sampler": "Euler", "sigmas": (3.0, 0.001)}, "go from 0.02917 to 14.61, got 0.001"),
        ({"sampler": "Euler", "sigmas": (3.0, 1.0), "steps": 3}, "steps follow from sigmas, which have 2 levels"),
    ):
        with pytest.raises(ValueError, match=told):
            one.trace(prompt="a fox", **values)
    with pytest.raises(ValueError, match=r"above 0 to 1, got 1\.5"):
        model("sd3").plan(prompt="a fox", sigmas=(1.5, 0.2))
