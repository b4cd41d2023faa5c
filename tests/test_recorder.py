"""The recorder: it sees every evaluation, knows its noise level, stops at once and leaves nothing behind."""

import contextlib
import copy
import functools
import inspect
import logging
import math
import random
import threading
import types
from typing import ClassVar

import numpy as np
import pytest
import torch
from tiny import make_pipeline, record

from diffexplore.pipelines.base import denoisers
from diffexplore.record import predictions
from diffexplore.record.predictions import x0_of
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Cancelled, interruptible
from diffexplore.samplers import SAMPLERS, build

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "sigma_data": 0.5,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 2.0}
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
LOG_SIGMAS = [0.5 * math.log((1 - share) / share) for share in torch.cumprod(1 - BETAS, 0).tolist()]
RANDOM = ("a", "SDE", "DDPM", "SA-Solver", "LCM", "TCD")  # words in the names of samplers that draw noise on the way
SHAPE = (1, 4, 6, 5)
TOLD = {
    # Most samplers tell the network a fractional timestep. These tell a whole one, the nearest ...
    **dict.fromkeys(("DPM++ 2M Karras", "DPM++ 2M SDE Karras", "DPM++ 3M SDE Karras", "DPM++ 2S Karras"), 0.5),
    **dict.fromkeys(("UniPC Karras", "DPM2 Karras", "DPM2 a Karras"), 0.5),
    # ... or the one below.
    **dict.fromkeys(("DPM++ 2M SDE Exponential", "DPM++ 3M SDE Exponential", "DPM++ 2M Beta"), 1.0),
    **dict.fromkeys(("DPM++ 2M flow", "UniPC flow"), 1.0),
}
"""By how many timesteps a sampler's network is at most told a level other than that of x_t."""


def answer(kind, x0, noise, x, a, b):
    """What a network that knows x0 answers; written from the definitions in the papers."""
    r = (a * a + b * b) ** 0.5
    s, data = b, 0.5
    skip, scale = data**2 / (s**2 + data**2), s * data / (s**2 + data**2) ** 0.5
    return {
        "epsilon": noise,
        "sample": x0,
        "v_prediction": (a * noise - b * x0) / r,
        "flow_prediction": noise - x0,
        "edm_epsilon": (x0 - skip * x) / scale,
        "edm_v_prediction": (x0 - skip * x) / -scale,
    }[kind]


def told(net, a, b):
    """The timestep at which a network of this sort was trained on the level (a, b)."""
    if net == "flow":
        return 1000 * b
    if net == "edm":
        return 0.25 * math.log(b)
    return float(np.interp(math.log(b / a), LOG_SIGMAS, range(1000)))


def walk(name, steps, kind):
    """Run a sampler's whole loop with a network that knows the true x0.

    Returns: the worst relative errors of x0 and of x_t, the worst difference in timesteps between the level that
    Levels tells and the one that the network is told, and the relative error of x0 at the end.
    """
    net = SAMPLERS[name].net
    scheduler = build(name, {**(FLOW if net == "flow" else BASE), "prediction_type": kind})
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    levels = Levels(scheduler)
    assert len(levels.schedule) == SAMPLERS[name].evaluations(steps)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    a, b, _ = levels.at(0)
    x = a * x0 + b * noise
    size = float(x0.abs().max())
    errors, strays, slips = [0.0], [0.0], [0.0]
    kind = f"edm_{kind}" if net == "edm" else kind
    for call, t in enumerate(scheduler.timesteps):
        a, b, _ = levels.at(call)
        assert levels.schedule[call] == float(t)
        slips.append(abs(told(net, a, b) - float(t)))
        if not set(RANDOM) & set(name.split()):
            # Nothing is random and the network never errs, so every x_t lies on the line from x0 to the noise.
            strays.append(float((x - (a * x0 + b * noise)).abs().max() / (a * x0 + b * noise).abs().max()))
        out = answer(kind, x0, (x - a * x0) / b, x, a, b)
        errors.append(float((x0_of(kind, x, out, a, b) - x0).abs().max() / size))
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        given = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        x = scheduler.step(out, t, x, **given).prev_sample
    return max(errors), max(strays), max(slips), float((x - x0).abs().max() / size)


@pytest.mark.parametrize("steps", [4, 10, 25])
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, entry in SAMPLERS.items() for kind in sorted(entry.predictions)],
)
def test_an_oracle_gets_its_x0_back_at_every_evaluation(name, kind, steps):
    error, stray, slip, end = walk(name, steps, kind)
    assert error < 1e-5
    # These extrapolate whatever the network answers. A v belongs to its own timestep, so an average of several is
    # exact to first order only.
    averages_v = kind == "v_prediction" and name in ("PLMS", "PNDM")
    assert stray < (0.5 / steps if averages_v else 1e-5)
    assert slip <= TOLD.get(name, 0.0) + 2e-3
    # Samplers that keep a last bit of noise (the first timestep's) end near x0, the others on it.
    ends_noisy = name in ("DDIM", "PLMS", "PNDM", "DDPM", "DEIS", "SA-Solver", "TCD")
    assert end < (0.2 if ends_noisy else 1e-3)


@pytest.mark.parametrize(
    ("name", "steps", "pattern"),
    [
        ("Euler", 4, "...."),
        ("Heun", 3, ".-.-."),
        ("DPM2 a", 3, ".-.-."),
        ("DPM++ SDE", 3, ".-.-."),
        ("DPM++ 2S", 5, ".-.-."),
        ("DPM++ 2M", 4, "...."),
        ("PLMS", 4, ".-..."),
        ("PNDM", 5, ".---.---.---.."),
        ("Flow Heun", 3, ".-.-."),
    ],
)
def test_trials_within_a_step_are_told_from_its_end(name, steps, pattern):
    scheduler = build(name, FLOW if SAMPLERS[name].net == "flow" else BASE)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None
    levels, x, found = Levels(scheduler), torch.ones(SHAPE), ""
    for call, t in enumerate(scheduler.timesteps):
        found += ".-"[levels.at(call)[2]]
        x = scheduler.step(0.1 * x, t, x).prev_sample
    assert found == pattern


def test_a_table_that_tells_the_share_of_the_picture_is_read_as_one():
    from diffusers import FlowMatchEulerDiscreteScheduler

    upwards = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    upwards.set_timesteps(3)
    levels = Levels(upwards)
    assert levels.kind == "reversed_flow_prediction"
    assert levels.at(0)[:2] == (float(upwards.sigmas[0]), 1 - float(upwards.sigmas[0]))


def test_nets_that_count_otherwise_are_refused():
    from diffusers import EDMEulerScheduler

    with pytest.raises(ValueError, match=r"standard deviation 1\.0, only 0\.5"):
        Levels(EDMEulerScheduler(sigma_data=1.0))


def call(pipeline, steps=3, **options):
    options = {"guidance_scale": 5.0, "generator": torch.Generator().manual_seed(4), **options}
    return pipeline("a red fox", num_inference_steps=steps, output_type="latent", **options).images


def recorded(pipeline, cancel=None, steps=3, emit=None, **options):
    made = []
    clone = copy.copy(pipeline)
    clone.scheduler = build("Euler", dict(pipeline.scheduler.config))
    with record(clone, [emit or made.append], cancel or threading.Event(), guidance=[5.0]):
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


def test_a_scheduler_nobody_knows_tells_its_levels_by_the_noise_it_adds():
    class Own:
        config: ClassVar = {"prediction_type": "epsilon"}
        timesteps = torch.tensor([900.0, 400.0])

        def add_noise(self, x, noise, t):
            share = (t / 1000).reshape(-1, 1)
            return (1 - share**2).sqrt() * x + share * noise

    levels = Levels(Own())
    assert levels.kind == "epsilon"
    assert levels.at(0)[:2] == pytest.approx((0.19**0.5, 0.9))
    assert levels.at(1, torch.tensor(400.0))[:2] == pytest.approx((0.84**0.5, 0.4))


def test_denoisers_are_found(tiny_pipeline):
    assert denoisers(tiny_pipeline) == [tiny_pipeline.unet]


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "PNDM", "DPM++ SDE", "SA-Solver"])
def test_a_cancel_at_any_evaluation_keeps_the_steps_so_far_and_spoils_nothing(tiny_pipeline, sampler):
    def run(cancel, emit):
        clone = copy.copy(tiny_pipeline)
        clone.scheduler = build(sampler, dict(tiny_pipeline.scheduler.config), seed=3)
        with record(clone, [emit], cancel, guidance=[5.0]):
            return call(clone, 4)

    fresh = run(threading.Event(), lambda step: None)
    for last in range(SAMPLERS[sampler].evaluations(4) - 1):
        cancel, made = threading.Event(), []

        def emit(step, made=made, cancel=cancel, last=last):
            made.append(step)
            if step.index == last:
                stopper = threading.Thread(target=cancel.set)
                stopper.start(), stopper.join()

        with pytest.raises(Cancelled):
            run(cancel, emit)
        assert [step.index for step in made] == list(range(last + 1))
        assert torch.equal(run(threading.Event(), lambda step: None), fresh)


# Batches and layouts, on a pipeline that does nothing but loop


class Net(torch.nn.Module):
    """Answers something that depends on the latents and the prompt, in the layout it is asked to."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.blocks = torch.nn.ModuleList([torch.nn.Tanh(), torch.nn.Tanh()])

    def forward(self, x, t, prompt):
        if self.layout == "list":
            return ([self.answer(one[None, :, 0], p)[0].unsqueeze(1) for one, p in zip(x, prompt, strict=True)],)
        out = self.answer(x, prompt)
        if self.layout == "learned variance":
            out = torch.cat([out, 9 * torch.ones_like(out)], dim=1)
        return types.SimpleNamespace(sample=out) if self.layout == "object" else (out,)

    def answer(self, x, prompt):
        for block in self.blocks:
            x = block(x + prompt.reshape(-1, *[1] * (x.ndim - 1)))
        return x * (1 + 0.1 * torch.linspace(-1, 1, x.shape[-1]))


def pack(latents):
    """(B, C, h, w) to (B, h w, C), as Flux and Qwen keep them, in short."""
    return latents.flatten(2).transpose(1, 2)


def evened(x):
    return x / (1 + x.flatten(1).std(1)).reshape(-1, *[1] * (x.ndim - 1))


def unpack(latents):
    return latents.transpose(1, 2).unflatten(2, SHAPE[2:])


LAYOUTS = ("plain", "object", "learned variance", "list", "cond first", "two calls", "packed", "negated")


class Loop:
    """As much of a pipeline as the recorder touches; `layout` is one of LAYOUTS, or a mix that is none."""

    def __init__(self, layout, scheduler):
        self.layout = layout
        self.scheduler = scheduler
        self.unet = Net(layout)
        self.components = {"unet": self.unet, "scheduler": scheduler, "text_encoder": None}

    @torch.no_grad()
    def __call__(self, prompts, steps, guidance, generators, **passed):
        self.scheduler.set_timesteps(steps)
        x = torch.cat([torch.randn(SHAPE, generator=one) for one in generators])
        x = pack(x) if self.layout == "packed" else x
        for t in self.scheduler.timesteps:
            if hasattr(self.scheduler, "scale_model_input"):
                self.scheduler.scale_model_input(x, t)  # or the scheduler warns; this network scales for itself
            output = self.predict(x, t, torch.tensor(prompts), guidance)
            x = self.scheduler.step(output, t, x, **passed, return_dict=False)[0]
        return unpack(x) if self.layout == "packed" else x

    def net(self, x, t, prompt):
        scaled = evened(x)
        if self.layout == "list":
            return torch.stack(self.unet(list(scaled.unsqueeze(2)), t, prompt)[0]).squeeze(2)
        out = self.unet(scaled, t, prompt)
        return (out.sample if self.layout == "object" else out[0])[:, : x.shape[1]]

    def predict(self, x, t, prompt, guidance):
        nothing = torch.zeros_like(prompt)
        if guidance is None:
            return self.net(x, t, prompt)
        if self.layout == "two calls":
            cond, uncond = self.net(x, t, prompt), self.net(x, t, nothing)
        elif self.layout in ("cond first", "negated"):
            cond, uncond = self.net(torch.cat([x, x]), t, torch.cat([prompt, nothing])).chunk(2)
        else:
            uncond, cond = self.net(torch.cat([x, x]), t, torch.cat([nothing, prompt])).chunk(2)
        mixed = predictions.guide(cond, uncond, guidance)
        if self.layout == "negated":
            return -mixed
        if self.layout == "rescaled":
            return mixed * (cond.norm(dim=1, keepdim=True) / mixed.norm(dim=1, keepdim=True))
        if self.layout == "skip layer":
            return mixed + 2.8 * (cond - self.net(x, t, prompt / 2))
        return mixed


PROMPTS = (0.5, -0.9, 1.4)


def loop(layout, seeds=(5, 6, 7), sampler="Euler", guidance=4.0, record_as=None, prompts=PROMPTS, base=BASE, **passed):
    """A run of Loop, recorded with the options `record_as` (None: not at all); (final latents, steps by picture)."""
    pipeline = Loop(layout, build(sampler, base, seed=list(seeds)))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    made = [[] for _ in seeds]
    if record_as is None:
        return pipeline(prompts[: len(seeds)], 4, guidance, generators, **passed), made
    if record_as.pop("inject", False):
        record_as["generators"] = generators
    emits = [steps.append for steps in made]
    view = {"unpack": unpack} if layout == "packed" else {}
    with record(pipeline, emits, threading.Event(), **view, **record_as):
        return pipeline(prompts[: len(seeds)], 4, guidance, generators, **passed), made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_is_recorded_picture_by_picture(layout):
    plain, _ = loop(layout)
    final, made = loop(layout, record_as={"guidance": [4.0] * 3})
    assert torch.equal(final, plain)
    net = Net("plain")
    for k, steps in enumerate(made):
        assert [step.index for step in steps] == [0, 1, 2, 3]
        assert (steps[-1].x0 - final[k]).abs().max() < 1e-4
        for step in steps:
            assert step.latents.shape == SHAPE[1:]
            assert step.split == ""
            assert step.guidance == pytest.approx(4.0, rel=1e-3)
            whole = torch.stack([steps[step.index].latents for steps in made])
            scaled = evened(whole)
            prompt = torch.tensor(PROMPTS)
            sign = -1 if layout == "negated" else 1
            if layout != "packed":
                answers = net.answer(scaled, prompt)[k], net.answer(scaled, torch.zeros(3))[k]
            else:
                answers = [unpack(net.answer(pack(scaled), p))[k] for p in (prompt, torch.zeros(3))]
            assert torch.allclose(step.noise_cond, sign * answers[0], atol=1e-5)
            assert torch.allclose(step.noise_uncond, sign * answers[1], atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_of_one_batch_get_each_their_own_guidance(layout):
    asked = (1.5, 4.0, 9.0)
    final, made = loop(layout, record_as={"guidance": asked, "recombine": True})
    for k, g in enumerate(asked):
        # The number that the pipeline itself is called with does not matter then.
        alike, alone = loop(layout, guidance=g, record_as={"guidance": [g] * 3})
        assert torch.allclose(final[k], alike[k], rtol=1e-5, atol=1e-4)
        for step, expected in zip(made[k], alone[k], strict=True):
            assert step.guidance == g
            for name in ("latents", "noise", "noise_cond", "noise_uncond", "x0_cond"):
                assert torch.allclose(getattr(step, name), getattr(expected, name), rtol=1e-5, atol=1e-4)
    assert (final[0] - alike[0]).abs().max() > 0.1


def test_a_learned_variance_reaches_the_scheduler_beside_the_new_mix():
    seen = []

    class Spy(Loop):
        def predict(self, x, t, prompt, guidance):
            mixed = super().predict(x, t, prompt, guidance)
            return torch.cat([mixed, torch.full_like(mixed, 7.0)], dim=1)

    scheduler = build("DDPM", BASE)
    original = scheduler.step

    @functools.wraps(original)
    def step(model_output, timestep, sample, **options):
        seen.append(model_output)
        return original(model_output[:, : sample.shape[1]], timestep, sample, **options)

    scheduler.step = step
    pipeline, made = Spy("plain", scheduler), [[], []]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    emits = [steps.append for steps in made]
    with record(pipeline, emits, threading.Event(), guidance=(2.0, 3.0), recombine=True, generators=generators):
        pipeline(PROMPTS[:2], 3, 5.0, generators)
    for call, output in enumerate(seen):
        assert (output[:, 4:] == 7.0).all()
        for k in range(2):
            assert torch.equal(output[k, :4], made[k][call].output)


def test_the_scheduler_gets_the_pipelines_own_tensor():
    given, received = [], []

    class Spy(Loop):
        def predict(self, x, t, prompt, guidance):
            given.append(super().predict(x, t, prompt, guidance))
            return given[-1]

    scheduler = build("Euler", BASE)
    original = scheduler.step

    @functools.wraps(original)
    def step(model_output, *args, **options):
        received.append(model_output)
        return original(model_output, *args, **options)

    scheduler.step = step
    pipeline = Spy("plain", scheduler)
    with record(pipeline, [lambda step: None], threading.Event()):
        pipeline(PROMPTS[:1], 3, 5.0, [torch.Generator()])
    assert len(received) == 3
    assert all(one is other for one, other in zip(given, received, strict=True))


def test_latents_are_not_copied_on_the_way():
    _, made = loop("plain", record_as={"guidance": [4.0] * 3})
    for steps in zip(*made, strict=True):
        places = [[tensor.untyped_storage().data_ptr() for tensor in step.held()] for step in steps]
        assert len({latents for latents, *_ in places}) == 1
        assert len({piece for _, _, *pieces in places for piece in pieces}) == 1


@pytest.mark.parametrize(
    ("layout", "guidance", "told", "reason"),
    [
        ("rescaled", 4.0, 4.0, "no plain mix"),
        ("skip layer", 4.0, 7.0, "mixes 3 outputs"),  # which half is whose only the number that was asked for tells
        ("plain", None, 4.0, "prompt only"),
    ],
)
def test_what_cannot_be_taken_apart_is_said_and_not_recombined(layout, guidance, told, reason):
    _, made = loop(layout, guidance=guidance, record_as={"guidance": [told] * 3})
    for step in made[1]:
        assert step.noise_cond is None
        assert reason in step.split
    with pytest.raises(RuntimeError, match="guidance of their own here") as error:
        loop(layout, guidance=guidance, record_as={"guidance": [2.0, 3.0, 4.0], "recombine": True})
    assert reason in str(error.value)
    assert not str(error.value).endswith(".")


def test_beside_a_skipped_layer_the_halves_are_found_by_the_guidance_that_was_asked_for():
    _, made = loop("skip layer", guidance=4.0, record_as={"guidance": [4.0] * 3})
    _, without = loop("plain", guidance=4.0, record_as={"guidance": [4.0] * 3})
    for steps, others in zip(made, without, strict=True):
        assert steps[0].guidance == 4.0
        # Both start from the same x_t, so the first answers are the same.
        assert torch.equal(steps[0].noise_cond, others[0].noise_cond)
        assert torch.equal(steps[0].noise_uncond, others[0].noise_uncond)
        assert not torch.allclose(steps[0].noise, others[0].noise)


def test_answers_in_an_unknown_layout_are_not_passed_off_as_halves():
    class Odd(Loop):
        def net(self, x, t, prompt):
            return self.unet(x.transpose(2, 3), t, prompt)[0].transpose(2, 3)

    pipeline, made = Odd("plain", build("Euler", BASE)), []
    with record(pipeline, [made.append], threading.Event()):
        pipeline(PROMPTS[:1], 3, 5.0, [torch.Generator()])
    assert all("not seen" in step.split for step in made)


def test_a_batch_of_another_size_is_refused():
    pipeline = Loop("plain", build("Euler", BASE))
    with (
        record(pipeline, [lambda step: None], threading.Event()),
        pytest.raises(RuntimeError, match="draws 2 pictures, 1 were to be recorded"),
    ):
        pipeline(PROMPTS[:2], 3, 5.0, [torch.Generator(), torch.Generator()])


@pytest.mark.parametrize(
    "options", [{"guidance": [1.0]}, {"recombine": True}, {"guidance": [1.0, None], "recombine": True}]
)
def test_guidance_has_to_fit_the_pictures(options):
    with (
        pytest.raises(ValueError, match="one number for each of 2 pictures"),
        record(Loop("plain", build("Euler", BASE)), [print, print], threading.Event(), **options),
    ):
        pass


# Noise on the way


@pytest.mark.parametrize(
    ("sampler", "base"), [("Euler a", BASE), ("SA-Solver", BASE), ("Flow Euler", {**FLOW, "stochastic_sampling": True})]
)
def test_noise_comes_from_the_generators_where_the_pipeline_passes_none(sampler, base):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, _ = loop("plain", sampler=sampler, base=base, record_as={"inject": True})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(loop("plain", sampler=sampler, base=base, record_as={"inject": True})[0], first)
    loop("plain", sampler=sampler, base=base, record_as={})
    assert not torch.equal(torch.get_rng_state(), before)  # or there would be nothing to inject


def test_pictures_of_a_batch_draw_the_noise_they_would_draw_alone():
    options = {"sampler": "Euler a", "guidance": None}
    both, made = loop("plain", seeds=(5, 6), prompts=(0.5, 0.5), record_as={"inject": True}, **options)
    alone, alone_made = loop("plain", seeds=(6,), prompts=(0.5,), record_as={"inject": True}, **options)
    assert torch.allclose(both[1], alone[0], rtol=1e-5, atol=1e-4)
    for step, expected in zip(made[1], alone_made[0], strict=True):
        assert torch.allclose(step.latents, expected.latents, rtol=1e-5, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_a_generator_that_the_pipeline_passes_is_the_one_used():
    own = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    plain, _ = loop("plain", sampler="Euler a", generator=own)
    own = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    assert torch.equal(loop("plain", sampler="Euler a", generator=own, record_as={"inject": True})[0], plain)


@pytest.mark.parametrize("sampler", ["UniPC", "DEIS", "PNDM", "PLMS"])
def test_a_generator_that_the_scheduler_does_not_take_is_dropped(sampler):
    """Kandinsky 3 passes one to whatever scheduler it has."""
    plain, _ = loop("plain", sampler=sampler)
    generators = [torch.Generator() for _ in range(3)]
    with pytest.raises(TypeError, match="generator"):
        loop("plain", sampler=sampler, generator=generators)
    assert torch.equal(loop("plain", sampler=sampler, generator=generators, record_as={})[0], plain)


def test_whichever_network_ran_is_recorded():
    class TwoStage(Loop):
        def __init__(self, *args):
            super().__init__(*args)
            self.transformer_2 = Net("plain")
            self.ran = []

        def net(self, x, t, prompt):
            network = self.unet if t > 500 else self.transformer_2
            self.ran.append(network)
            return network(x, t, prompt)[0]

    pipeline, made = TwoStage("plain", build("Euler", BASE)), []
    with record(pipeline, [made.append], threading.Event()):
        pipeline(PROMPTS[:1], 4, 5.0, [torch.Generator()])
    assert set(pipeline.ran) == {pipeline.unet, pipeline.transformer_2}
    assert denoisers(pipeline) == [pipeline.unet, pipeline.transformer_2]
    assert all(step.split == "" for step in made)
