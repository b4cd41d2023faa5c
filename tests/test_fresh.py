"""runs/fresh.py: one meaning of fresh noise, from nothing random to as much as in DDPM, and the ends to the bit."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_families import family, model, size

from diffexplore.runs.fresh import Fresh
from diffexplore.runs.levels import Levels
from diffexplore.samplers import build
from diffexplore.trace import Trace

BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 2.0}
ASKED: dict[str, Any] = {"prompt": "a red fox", "guidance": 4.0, "seed": 3, "steps": 6}


def run(sampler: str, share: float | None = None, name: str = "sd", **more: Any) -> Trace:
    return model(name).trace(**{**ASKED, **more}, sampler=sampler, fresh_noise=share, **size(name))


def final(trace: Trace) -> torch.Tensor:
    assert trace.final is not None
    return trace.final


def away(one: Trace, other: Trace) -> float:
    """The largest difference of what two runs end in, relative to the second."""
    return float((final(one) - final(other)).abs().max() / final(other).abs().max())


def test_euler_a_without_is_euler_and_euler_with_is_euler_a() -> None:
    euler, ancestral = run("Euler"), run("Euler a")
    assert away(run("Euler a", 0), euler) < 1e-5
    assert away(run("Euler", 1), ancestral) < 1e-5
    assert away(euler, ancestral) > 0.01
    assert torch.equal(final(run("Euler", 0)), final(euler))
    assert torch.equal(final(run("Euler a", 1)), final(ancestral))
    # Between them it goes over without a jump.
    assert away(run("Euler a", 1 - 1e-7), ancestral) < 1e-4
    assert away(run("Euler a", 0.5), ancestral) > 0.01
    assert away(run("Euler", 2), ancestral) > 0.01


def test_ddim_with_all_of_it_is_ddim_of_plain_diffusers_with_eta_1() -> None:
    pipeline = copy.copy(family("sd"))
    pipeline.scheduler = build("DDIM", {**pipeline.scheduler.config, "_class_name": "DDIMScheduler"})
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline(
        prompt="a red fox", num_inference_steps=6, guidance_scale=4.0, eta=1.0, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(3), **size("sd"),
    ).images  # fmt: skip
    assert torch.equal(final(run("DDIM", 1)), plain[0])
    assert torch.equal(final(run("DDIM", 0)), final(run("DDIM")))
    # DDPM is as much of it, up to the rounding of its last timestep.
    assert away(run("DDPM", 1 - 1e-7), run("DDPM")) < 1e-4
    assert away(run("DDPM", 0), run("DDIM")) < 0.01 < away(run("DDPM"), run("DDIM"))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_flow_takes_it_too(name: str) -> None:
    plain = run("Flow Euler", name=name)
    assert torch.equal(final(run("Flow Euler", 0, name)), final(plain))
    assert away(run("Flow Euler", 1e-7, name), plain) < 1e-4
    assert away(run("Flow Euler", 1, name), plain) > 0.01


@pytest.mark.parametrize("name", ["Euler", "Euler a Trailing", "DDPM", "Flow Euler"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.5])
def test_the_noise_left_at_every_level_is_as_loud_as_the_level_says(name: str, share: float) -> None:
    """Of a network that knows the picture: of x_t = a x0 + b noise, what is not x0 has the size b at every step,
    however much of it was drawn anew; and what was not is that of the start."""
    flow = name.startswith("Flow")
    scheduler = build(name, FLOW if flow else BASE)
    probe = Fresh(share)
    probe.attach(SimpleNamespace(scheduler=scheduler))
    scheduler.set_timesteps(6)
    levels, generator = Levels(scheduler), torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((1, 4, 64, 64), generator=generator) for _ in range(2))
    a, b, _ = levels.at(0)
    x = a * x0 + b * noise
    for call, t in enumerate(scheduler.timesteps):
        a, b, _ = levels.at(call, t)
        found = (x - a * x0) / b
        assert float(found.std()) == pytest.approx(1, abs=0.02)
        kept = float((found * noise).mean())  # of the noise that there was at the start
        assert kept == pytest.approx(1, abs=0.03) if share == 0 or call == 0 else kept < 0.98
        if not flow and hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        x = scheduler.step(found - x0 if flow else found, t, x, generator=generator).prev_sample
    assert torch.allclose(x, x0, atol=0.2)
    probe.detach()


def test_branches_batches_and_changes_draw_the_same_noise() -> None:
    plain = run("Euler a", 0.5)
    assert torch.equal(final(model("sd").branch(plain, 3)), final(plain))
    assert torch.equal(final(run("Euler a", 0.5, changes={1.0: {"prompt": "a blue cat"}})), final(
        run("Euler a", 0.5, prompt="a blue cat")
    ))  # fmt: skip
    pair = model("sd").trace_many([plain.settings, plain.settings.replace(seed=4)])
    assert torch.allclose(final(pair[0]), final(plain), atol=1e-3)


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    one = model("sd")
    for sampler, share, told in (
        ("DPM++ 2M", 0.5, "it remembers steps that had none of it; Euler, Euler a, DDIM can"),
        ("DPM++ 2M SDE", 0.5, "it solves for its own share of it"),
        ("DDIM", 1.5, "DDIM cannot be asked for a fresh noise of 1.5: it takes a share from 0 to 1; Euler"),
    ):
        with pytest.raises(ValueError, match=told):
            one.plan(prompt="a fox", sampler=sampler, fresh_noise=share)
    assert one.fixed("Heun") == {
        "fresh_noise": "Heun cannot be asked for a fresh noise of 1: it adds nothing on the way, and its step has no "
        "room for noise; Euler, Euler a, DDIM can."
    }
