"""The GPU card: what holds on the CPU holds on a CUDA card too, with networks of the sizes people work with.

``pytest -m gpu`` on a machine with a card; nothing is fetched, the weights are random (`bench.nets`). Elsewhere
each test is skipped and says so.
"""

from __future__ import annotations

import gc
import threading
import warnings

import numpy as np
import pytest
import torch

import diffexplore as dx
from diffexplore.bench.card import Bench
from diffexplore.bench.nets import NETS
from diffexplore.looks import views

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can see; there is none"),
]


@pytest.fixture(scope="module", params=NETS, ids=lambda net: net.name)
def bench(request):
    """A pipeline of each size in turn; it is gone before the next is made."""
    made = Bench(request.param)
    yield made
    del made
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def small():
    """Stable Diffusion 1.5's size."""
    made = Bench(NETS[0])
    yield made
    del made
    gc.collect()
    torch.cuda.empty_cache()


def latents(bench, **values):
    return bench.draw(output_type="latent", **values).images.float().cpu()


def test_the_picture_is_that_of_plain_diffusers(bench):
    trace = bench.model.trace(bench.settings)
    bench.like(trace.info)
    plain = bench.draw().images[0]
    assert np.array_equal(np.asarray(plain), np.asarray(bench.draw().images[0])), "plain diffusers differs from itself"
    assert np.array_equal(np.asarray(trace.image), np.asarray(plain))
    assert len(trace) == bench.settings.steps
    assert trace.image.size == (bench.settings.width, bench.settings.height)


def test_both_halves_are_found_and_the_last_estimate_is_the_picture(bench):
    trace = bench.model.trace(bench.settings)
    for step in trace:
        assert step.split == ""
        assert step.guidance == pytest.approx(5.0, rel=2e-2)  # measured in half precision
        assert step.latents.device.type == "cpu"
        assert step.finite
    last = np.asarray(trace.view("x0", len(trace) - 1), np.float32)
    final = np.asarray(trace.image.resize(trace.view("x0", len(trace) - 1).size), np.float32)
    assert np.abs(last - final).mean() < 6  # of 255


def test_recording_waits_for_the_card_no_oftener_than_plain_diffusers(bench):
    """Each further step asks the card to be done as many times as one of plain diffusers does."""

    def waits(call):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in said)

    def of_a_step(run):
        run(4), run(8)
        return (waits(lambda: run(8)) - waits(lambda: run(4))) / 4

    trace = bench.model.trace(bench.settings)
    bench.like(trace.info)
    # What a run leaves behind is moved to main memory after its last step: a few tensors of each, told apart here.
    moved = sum(len(step.held()) for step in trace) / len(trace)
    ours = of_a_step(lambda n: bench.model.trace(bench.settings.replace(steps=n)))
    plain = of_a_step(lambda n: bench.draw(num_inference_steps=n))
    assert ours <= plain + moved + 0.5


def test_previews_are_shown_while_the_run_goes_on(bench):
    seen = {}
    ready = threading.Event()

    def show(step):
        ready.wait()
        seen[step.index] = (len(job.trace), views.frame(job.trace, "x0", step.index))

    job = bench.model.submit(bench.settings, on_step=show)
    ready.set()
    trace = job.result()
    assert sorted(seen) == list(range(len(trace)))
    assert [count for count, _ in seen.values()] == [index + 1 for index in range(len(trace))]
    assert len({frame.tobytes() for _, frame in seen.values()}) > 1
    quiet = bench.model.trace(bench.settings)
    assert np.array_equal(np.asarray(trace.image), np.asarray(quiet.image))


def test_a_stopped_run_frees_the_model(bench):
    _, after = bench.until(3, lambda trace: None)
    again = bench.model.trace(bench.settings)
    assert len(again) == bench.settings.steps
    assert after >= 0
    held = torch.cuda.memory_allocated()
    for _ in range(3):
        bench.until(3, lambda trace: None)
    assert torch.cuda.memory_allocated() <= held + 2**20


def test_four_prompts_in_one_batch_are_those_drawn_alone(bench):
    asked = [
        bench.settings.replace(prompt=f"a {word}", guidance=g) for word, g in zip("abcd", (1.5, 3, 5, 8), strict=True)
    ]
    traces = bench.model.trace_many(asked)
    assert {trace.info["batch"] for trace in traces} == {4}
    for trace, one in zip(traces, asked, strict=True):
        alone = bench.model.trace(one)
        assert torch.equal(trace[0].latents, alone[0].latents)  # the same noise to begin with
        error = (trace[0].x0 - alone[0].x0).norm() / alone[0].x0.norm()
        assert error < 0.05  # half precision, other kernels for another batch


def test_two_explorers_of_one_card_both_end_with_their_own_settings(small):
    explorers = [dx.Explorer(small.model, prompt="a fox", seed=seed, steps=6, width=256, height=256) for seed in (1, 2)]
    try:
        threads = [threading.Thread(target=explorer.run) for explorer in explorers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [explorer.trace.settings.seed for explorer in explorers] == [1, 2]
        for explorer in explorers:
            alone = small.model.trace(explorer.trace.settings)
            assert explorer.status == "done"
            assert np.array_equal(np.asarray(explorer.trace.image), np.asarray(alone.image))
    finally:
        for explorer in explorers:
            explorer.close()


def test_memory_that_runs_out_is_said_and_survived(small):
    before = np.asarray(small.model.trace(small.settings).image)
    explorer = dx.Explorer(small.model, prompt="a fox", steps=2, width=4096, height=4096)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            explorer.run()
        assert "Memory ran out" in explorer.viewer.error
        assert explorer.status == "failed"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        explorer.close()
    gc.collect()
    torch.cuda.empty_cache()
    assert np.array_equal(np.asarray(small.model.trace(small.settings).image), before)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_an_offloaded_pipeline_draws_its_own_picture(offload):
    """What is in main memory between its turns works as it does alone, and is there again after the run."""
    pipeline = NETS[0].build("cpu", small=True)
    plain = NETS[0].build("cpu", small=True)
    getattr(plain, f"enable_{offload}_cpu_offload")()
    model = dx.load(pipeline, offload=offload)
    asked = model.resolve(dx.Settings(prompt="a fox", steps=4, guidance=5.0, seed=7, width=64, height=64))
    trace = model.trace(asked)
    second = model.trace(asked.replace(guidance=5.5))
    sampler = trace.info["sampler"]
    import diffusers

    plain.scheduler = getattr(diffusers, sampler["class"]).from_config(sampler["config"])

    def draw(guidance):
        generator = torch.Generator("cpu").manual_seed(7)
        return plain("a fox", num_inference_steps=4, guidance_scale=guidance, width=64, height=64, generator=generator)

    assert np.array_equal(np.asarray(trace.image), np.asarray(draw(5.0).images[0]))
    assert np.array_equal(np.asarray(second.image), np.asarray(draw(5.5).images[0]))
    assert model.pipeline.unet.conv_in.weight.device.type == ("cpu" if offload == "model" else "meta")


def test_the_pocket_model_draws_on_the_card_what_plain_diffusers_does():
    from diffusers import StableDiffusionPipeline

    from diffexplore.model import POCKET
    from diffexplore.samplers import build

    model = dx.load(device="cuda", reuse=0)
    trace = model.trace(prompt="a fox in the snow at noon", steps=20, guidance=5.0, seed=7)
    plain = StableDiffusionPipeline.from_pretrained(POCKET).to("cuda")
    plain.scheduler = build(str(trace.settings.sampler), plain.scheduler.config)
    generator = torch.Generator("cpu").manual_seed(7)
    image = plain("a fox in the snow at noon", num_inference_steps=20, guidance_scale=5.0, generator=generator).images[
        0
    ]
    assert np.array_equal(np.asarray(trace.image), np.asarray(image))
