"""Threads that do everything at once, and failures of every kind: what is drawn next is what a fresh process draws."""

import functools
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
import torch
from patience import PATIENCE
from test_recorder import snapshot
from tiny import make_pipeline

from diffexplore.model import Model
from diffexplore.runs.probes import Probe
from diffexplore.settings import Settings

SECONDS = float(os.environ.get("DIFFEXPLORE_STRESS", "8"))
"""How long the threads go on. CONTRIBUTING.md says how to let them run for a minute."""

WHAT = Settings(prompt="a red fox", steps=3, seed=5, sampler="Euler a", guidance=4.0)


@functools.cache
def expected(settings, lora):
    """The final latents in a model of their own, with nothing else going on."""
    model = Model(make_pipeline(), reuse=0)
    if settings.adapters:
        model.load_lora(lora, "style")
    return model.trace(settings).final


def plain_call(pipeline):
    """The user's own call, with nothing of ours around it."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return pipeline("a blue cat", num_inference_steps=3, generator=generator, output_type="latent").images


# All at once


@pytest.mark.parametrize("reuse", [0, 8 * 2**20])
def test_eight_threads_do_everything_at_once_and_every_finished_picture_is_right(lora, reuse):
    """trace, submit, cancel, load_lora and unload_loras, at random; each picture that was finished equals the same
    settings run alone, and the pipeline is as it was."""
    pipeline = make_pipeline()
    before = plain_call(pipeline)
    models = [Model(pipeline, reuse=reuse), Model(pipeline, reuse=reuse)]
    end = time.monotonic() + SECONDS / 2
    finished, wrong = [], []

    def settings(rng):
        return WHAT.replace(
            seed=rng.randrange(3),
            steps=rng.randrange(2, 4),
            sampler=rng.choice(["Euler a", "DDIM", "DPM++ 2M Karras"]),
            prompt=rng.choice(["a red fox", "a blue cat"]),
            adapters=rng.choice([{}, {}, {"style": 0.5}]),
        )

    def keep(trace):
        if not trace.cancelled:
            finished.append((trace.settings, trace.final))

    def client(number):
        rng = random.Random(number)
        while time.monotonic() < end:
            model = rng.choice(models)
            try:
                match rng.randrange(6):
                    case 0:
                        keep(model.trace(settings(rng)))
                    case 1 | 2:
                        keep(model.submit(settings(rng), lane=number).result(PATIENCE))
                    case 3:
                        job = model.submit(settings(rng), lane=number)
                        time.sleep(rng.random() / 50)
                        job.cancel()
                        keep(job.result(PATIENCE))
                    case 4:
                        model.load_lora(lora, "style")
                    case 5 if rng.random() < 0.3:
                        model.unload_loras()
            except ValueError as error:
                if "adapter" not in str(error):  # it was taken out meanwhile, which is said
                    wrong.append(error)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert len(finished) > 20
    for asked, final in finished:
        assert torch.equal(final, expected(asked, lora)), asked
    assert any(asked.adapters for asked, _ in finished)
    for model in models:
        model.unload_loras()
    assert torch.equal(plain_call(pipeline), before)


# Failures


class Breaks(Probe):
    """Raises somewhere inside a network."""

    def __init__(self, error):
        self.error = error

    def attach(self, pipeline):
        self.hook = pipeline.unet.up_blocks[0].register_forward_hook(self.fail)

    def fail(self, *_):
        raise self.error

    def detach(self):
        self.hook.remove()


def out_of_memory(model, lora):
    with pytest.raises(torch.OutOfMemoryError):
        model.trace(WHAT, probes=[Breaks(torch.OutOfMemoryError("tried to allocate 9 GiB"))])


def out_of_memory_with_a_lora(model, lora):
    model.load_lora(lora, "style")
    with pytest.raises(torch.OutOfMemoryError):
        model.trace(WHAT, adapters={"style": 0.7}, probes=[Breaks(torch.OutOfMemoryError("tried to allocate 9 GiB"))])


def failing_on_step(model, lora):
    def fail(step):
        raise RuntimeError("no")

    assert model.submit(WHAT, on_step=fail).add_done_callback(lambda job: None) is None
    with pytest.raises(RuntimeError, match="no"):
        model.submit(WHAT, on_step=fail).result(PATIENCE)


def cancelled(model, lora):
    job = model.submit(WHAT, steps=200)
    while not len(job.trace):
        time.sleep(0.001)
    job.cancel()
    assert job.result(PATIENCE).cancelled


def a_refused_lora(model, lora):
    from safetensors.torch import load_file, save_file

    tensors = load_file(lora)
    file = lora.parent / "refused.safetensors"
    save_file({name.replace("unet.", "unet.nowhere."): tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(ValueError, match="cannot be"):
        model.load_lora(file)


def refused_settings(model, lora):
    for values in ({"sampler": "Flow Euler"}, {"width": 50}, {"adapters": {"nobody": 1.0}}, {"steps": 0}):
        with pytest.raises(ValueError, match=r"."):
            model.trace(WHAT, **values)


def not_a_number(model, lora):
    class Spoils(Probe):
        changes = True

        def attach(self, pipeline):
            self.hook = pipeline.unet.register_forward_hook(lambda m, a, out: (out[0] * float("nan"), *out[1:]))

        def detach(self):
            self.hook.remove()

    trace = model.trace(WHAT, probes=[Spoils()])
    assert not torch.isfinite(trace.final).all()
    assert trace[0].noise_cond is None
    assert trace.first_bad() == 0


KINDS = [out_of_memory, out_of_memory_with_a_lora, failing_on_step, cancelled, a_refused_lora, refused_settings,
         not_a_number]  # fmt: skip


@pytest.mark.parametrize("failure", KINDS, ids=lambda kind: kind.__name__)
def test_after_a_failure_all_is_as_in_a_fresh_process(failure, lora):
    pipeline = make_pipeline()
    before = plain_call(pipeline)
    state, random_state = snapshot(pipeline), torch.get_rng_state()
    model = Model(pipeline)
    failure(model, lora)
    assert torch.equal(model.trace(WHAT).final, expected(WHAT, lora))
    model.unload_loras()
    assert torch.equal(plain_call(pipeline), before)
    hooks, _, own, scheduler, config = snapshot(pipeline)
    assert (hooks, own, scheduler, config) == (state[0], state[2], state[3], state[4])
    assert torch.equal(torch.get_rng_state(), random_state)


def test_interrupts_at_any_moment_leave_nothing_behind(lora):
    """The kernel's interrupt while a LoRA is loaded, switched on, used, and taken out."""
    pipeline = make_pipeline()
    before = plain_call(pipeline)
    model = Model(pipeline, reuse=0)
    rng, interrupted = np.random.default_rng(0), 0
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    end = time.monotonic() + SECONDS / 2
    try:
        while time.monotonic() < end:
            timer = threading.Timer(float(rng.uniform(0, 0.12)), os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()  # it may fire before this is over
                model.load_lora(lora, "style")
                model.trace(WHAT, adapters={"style": 0.7})
                model.unload_loras()
                timer.join()
                time.sleep(0.01)
            except KeyboardInterrupt:
                interrupted += 1
            timer.join()
            assert torch.equal(model.trace(WHAT).final, expected(WHAT, lora))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert interrupted > 3
    model.unload_loras()
    assert torch.equal(plain_call(pipeline), before)
