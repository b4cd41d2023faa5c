"""The recorder: it sees every evaluation, knows its noise level, stops at once and leaves nothing behind."""

import contextlib
import copy
import logging
import random
import threading

import numpy as np
import pytest
import torch
from tiny import make_pipeline

from diffexplore.recorder import Cancelled, Levels, denoisers, interruptible, record
from diffexplore.samplers import SAMPLERS, build

BASE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def oracle(name, steps, kind):
    """Run a sampler's whole loop with a network that knows the true x0; give the worst relative error of x0."""
    scheduler = build(name, {**BASE, "prediction_type": kind})
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    levels = Levels(scheduler)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(1, 4, 6, 5, generator=generator)
    x = torch.randn(1, 4, 6, 5, generator=generator) * scheduler.init_noise_sigma
    worst = 0.0
    from diffexplore.predictions import x0_of

    for call, t in enumerate(scheduler.timesteps):
        a, b, _ = levels.at(call)
        scheduler.scale_model_input(x, t)
        noise = (x - a * x0) / b
        r = (a * a + b * b) ** 0.5
        out = {"epsilon": noise, "v_prediction": (a * noise - b * x0) / r, "sample": x0}[kind]
        worst = max(worst, float((x0_of(kind, x, out, a, b) - x0).abs().max() / x0.abs().max()))
        # The levels must be the scheduler's own: a wrong level would make its walk miss x0 at the end.
        given = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(out, t, x, **given).prev_sample
    return worst, float((x - x0).abs().max() / x0.abs().max())


@pytest.mark.parametrize("steps", [4, 10, 25])
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, entry in SAMPLERS.items() for kind in sorted(entry.predictions)],
)
def test_an_oracle_gets_its_x0_back_at_every_evaluation(name, kind, steps):
    worst, end = oracle(name, steps, kind)
    assert worst < 1e-5
    # Samplers that keep a last bit of noise (the first timestep's) end near x0, the others on it.
    ends_noisy = name in ("DDIM", "PLMS", "DDPM", "DEIS")
    assert end < (0.2 if ends_noisy else 1e-3)


def call(pipeline, steps=3, **options):
    options = {"guidance_scale": 5.0, "generator": torch.Generator().manual_seed(4), **options}
    return pipeline("a red fox", num_inference_steps=steps, output_type="latent", **options).images


def recorded(pipeline, cancel=None, steps=3, emit=None, **options):
    made = []
    clone = copy.copy(pipeline)
    clone.scheduler = build("Euler", dict(pipeline.scheduler.config))
    with record(clone, emit or made.append, cancel or threading.Event(), guidance=5.0):
        latents = call(clone, steps, **options)
    return made, latents


def snapshot(pipeline):
    """Everything on a pipeline that a recorder could leave behind."""
    modules = [m for part in pipeline.components.values() if isinstance(part, torch.nn.Module) for m in part.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]
    attributes = [sorted(vars(m)) for m in modules]
    return hooks, attributes, sorted(vars(pipeline)), sorted(vars(pipeline.scheduler)), dict(pipeline.scheduler.config)


@pytest.mark.parametrize("end", ["finished", "cancelled", "failed"])
def test_the_users_pipeline_is_as_before(end):
    pipeline = make_pipeline()
    before = snapshot(pipeline)
    cancel = threading.Event()

    def fail(step):
        raise MemoryError

    if end == "cancelled":
        cancel.set()
    expected = {"finished": (), "cancelled": Cancelled, "failed": MemoryError}[end]
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        recorded(pipeline, cancel, emit=fail if end == "failed" else None)
    assert snapshot(pipeline) == before


def test_global_state_is_as_before(tiny_pipeline):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = (torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate())
    levels = {name: logging.getLogger(name).level for name in ("diffusers", "transformers", "")}
    recorded(tiny_pipeline)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert {name: logging.getLogger(name).level for name in levels} == levels


def test_each_evaluation_is_one_step(tiny_pipeline):
    made, _ = recorded(tiny_pipeline, steps=5)
    assert [step.index for step in made] == list(range(5))
    sigmas = [step.sigma for step in made]
    assert sigmas == sorted(sigmas, reverse=True)


def test_both_halves_are_the_networks_own_outputs(tiny_pipeline):
    outputs = []
    hook = tiny_pipeline.unet.register_forward_hook(lambda module, args, out: outputs.append(out[0]))
    try:
        made, _ = recorded(tiny_pipeline)
    finally:
        hook.remove()
    for step, out in zip(made, outputs, strict=True):
        assert torch.equal(step.noise_uncond, out[0])
        assert torch.equal(step.noise_cond, out[1])


def test_other_threads_that_use_the_network_are_not_recorded(tiny_pipeline):
    stop = threading.Event()

    def others():
        while not stop.is_set():
            with torch.no_grad():
                tiny_pipeline.unet(torch.zeros(1, 4, 8, 12), 10, torch.zeros(1, 16, 16))

    thread = threading.Thread(target=others)
    thread.start()
    try:
        made, latents = recorded(tiny_pipeline, steps=8)
    finally:
        stop.set()
        thread.join()
    assert all(step.split == "" for step in made)
    assert torch.equal(latents, recorded(tiny_pipeline, steps=8)[1])


def test_cancel_takes_effect_within_one_block(tiny_pipeline):
    cancel = threading.Event()
    blocks = []
    first = tiny_pipeline.unet.down_blocks[0].register_forward_hook(lambda *_: cancel.set())
    later = tiny_pipeline.unet.down_blocks[1].register_forward_hook(lambda *_: blocks.append(1))
    try:
        with pytest.raises(Cancelled):
            recorded(tiny_pipeline, cancel)
    finally:
        first.remove(), later.remove()
    assert blocks == []


def test_interruptible_leaves_other_threads_alone():
    module = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    cancel = threading.Event()
    cancel.set()
    results = []
    with interruptible([module], cancel):
        with pytest.raises(Cancelled):
            module[0](torch.zeros(2))
        thread = threading.Thread(target=lambda: results.append(module[0](torch.zeros(2))))
        thread.start()
        thread.join()
    assert len(results) == 1
    module[0](torch.zeros(2))


def test_a_scheduler_nobody_knows_is_refused():
    class Strange:
        timesteps = torch.arange(3)

    with pytest.raises(ValueError, match="noise levels of Strange are not known"):
        Levels(Strange())


def test_denoisers_are_found(tiny_pipeline):
    assert denoisers(tiny_pipeline) == [tiny_pipeline.unet]
