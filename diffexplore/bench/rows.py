"""The rows of the benchmark, each a function that measures ours against plain diffusers, in turn.

To add one: a function that ends in `compare`, and its name in `MEASURES`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffexplore import samplers
from diffexplore.bench import cost
from diffexplore.bench.pairs import Row, compare
from diffexplore.bench.sweeps import beyond, cluster

__all__ = ["MEASURES", "rows"]

PROMPT = "a fox in the snow at noon"

OURS = f"""
import diffexplore as dx
model = dx.load()
trace = model.trace(prompt={PROMPT!r}, steps=20, guidance=5.0, seed=7)
assert len(trace) == 20 and trace.image.size == model.size
"""
PLAIN = f"""
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({{folder!r}})
pipe.set_progress_bar_config(disable=True)
seed = torch.Generator("cpu").manual_seed(7)
image = pipe({PROMPT!r}, num_inference_steps=20, guidance_scale=5.0, generator=seed).images[0]
assert image.size == 2 * (pipe.vae.config.sample_size,)
"""
PEAK = """
import resource
from pathlib import Path
status = Path("/proc/self/status")  # getrusage also counts what the process that started this one held
lines = status.read_text().splitlines() if status.is_file() else []
peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
print((peaks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] / 1024)
"""


def process(code: str) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a fresh interpreter that runs `code`."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code + PEAK], env=env, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(out.stdout.split()[-1])


def cold_start(rounds: int) -> list[Row]:
    """Loading the pocket model and drawing with it in a fresh process, each side on as many threads as it takes by
    itself (ours on one): seconds and peak memory; and the bare import.
    """
    from diffexplore.model import POCKET

    plain_code = PLAIN.format(folder=str(POCKET))
    return [
        compare(
            "cold start: load and 20 guided steps",
            "s",
            lambda: process(OURS)[0],
            lambda: process(plain_code)[0],
            rounds,
        ),
        compare(
            "cold start: peak memory",
            "MiB",
            lambda: process(OURS)[1],
            lambda: process(plain_code)[1],
            min(rounds, 3),
        ),
        compare(
            "import diffexplore (plain: an empty interpreter)",
            "s",
            lambda: process("import diffexplore")[0],
            lambda: process("")[0],
            rounds,
        ),
    ]


def recording(rounds: int) -> Row:
    """CPU seconds of a recorded run over those of the same plain call, model loaded, nothing remembered."""
    from diffusers import StableDiffusionPipeline

    from diffexplore.model import POCKET

    plain = StableDiffusionPipeline.from_pretrained(POCKET)
    return recorded("recording 20 guided steps (CPU time)", plain, 20, 3 * rounds)


def large(rounds: int) -> list[Row]:
    """The same with a U-Net of the size of Stable Diffusion 1.5's (860 M random weights), 256 pixels, 4 steps.

    The decoder is small, so that nearly all of the time is the loop that is recorded. Left out where 8 GiB
    are not free.
    """
    if free_gib() <= 8:
        return []
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    from diffexplore.model import POCKET

    pocket = StableDiffusionPipeline.from_pretrained(POCKET)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=pocket.text_encoder.config.hidden_size, attention_head_dim=8
        )
    components = {**pocket.components, "unet": unet.eval()}
    # 32 x 32 latents are 256 x 256 pixels of Stable Diffusion's.
    plain = StableDiffusionPipeline(**components, requires_safety_checker=False)
    return [recorded("recording 4 steps of SD 1.5's size (CPU time)", plain, 4, min(rounds, 5), latents=32)]


def recorded(name: str, plain: Any, steps: int, rounds: int, latents: int = 16) -> Row:
    import torch

    from diffexplore import Settings
    from diffexplore.model import Model

    plain.set_progress_bar_config(disable=True)
    model = Model(plain, reuse=0)
    side = latents * plain.vae_scale_factor
    settings = model.resolve(Settings(prompt=PROMPT, steps=steps, guidance=5.0, seed=7, width=side, height=side))
    draw_with(plain, str(settings.sampler))

    def recorded() -> float:
        start = time.process_time()
        model.trace(settings)
        return time.process_time() - start

    def unrecorded() -> float:
        start = time.process_time()
        plain(
            settings.prompt,
            num_inference_steps=steps,
            guidance_scale=settings.guidance,
            width=side,
            height=side,
            generator=torch.Generator("cpu").manual_seed(settings.seed),
        )
        return time.process_time() - start

    return compare(name, "s", recorded, unrecorded, rounds)


def together(rounds: int) -> list[Row]:
    """Wall seconds of four prompts drawn together, everything recorded, over four plain calls one after the other; and
    of the same four again with one of them changed, which is what happens when a column of a comparison changes.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    from diffexplore import Settings
    from diffexplore.model import POCKET, Model

    plain = StableDiffusionPipeline.from_pretrained(POCKET)
    plain.set_progress_bar_config(disable=True)
    prompts = [f"a {word} in the snow at noon" for word in ("fox", "cat", "rocket", "castle")]
    asked = [Settings(prompt=prompt, steps=20, guidance=5.0, seed=7) for prompt in prompts]
    forgetful, remembering = Model(plain, reuse=0), Model(plain)
    remembering.trace_many(asked)
    seeds = iter(range(100, 10_000))  # of the column that changes: never one that is remembered

    def together() -> float:
        start = time.perf_counter()
        forgetful.trace_many(asked)
        return time.perf_counter() - start

    def changed() -> float:
        start = time.perf_counter()
        remembering.trace_many([*asked[:3], asked[3].replace(seed=next(seeds))])
        return time.perf_counter() - start

    def apart() -> float:
        start = time.perf_counter()
        for prompt in prompts:
            generator = torch.Generator("cpu").manual_seed(7)
            plain(prompt, num_inference_steps=20, guidance_scale=5.0, generator=generator)
        return time.perf_counter() - start

    return [
        compare("four prompts together (plain: one by one)", "s", together, apart, rounds),
        compare("the same with one changed (plain: one by one)", "s", changed, apart, rounds),
    ]


def pocket(steps: int = 20) -> tuple[Any, Any, Any]:
    """(plain pipeline, model around it that remembers nothing, settings of one run), with the sampler in both."""
    from diffusers import StableDiffusionPipeline

    from diffexplore import Settings
    from diffexplore.model import POCKET, Model

    plain = StableDiffusionPipeline.from_pretrained(POCKET)
    plain.set_progress_bar_config(disable=True)
    model = Model(plain, reuse=0)
    settings = model.resolve(Settings(prompt=PROMPT, steps=steps, guidance=5.0, seed=7))
    draw_with(plain, str(settings.sampler))
    return plain, model, settings


def draw_with(plain: Any, sampler: str) -> None:
    """Give a plain pipeline the scheduler of a sampler; as it came, it has it already."""
    if sampler != samplers.AS_IT_CAME:
        plain.scheduler = samplers.build(sampler, plain.scheduler.config)


def draw_plain(plain: Any, settings: Any, **values: Any) -> None:
    import torch

    plain(
        settings.prompt,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=torch.Generator("cpu").manual_seed(settings.seed),
        **values,
    )


def first_frame(rounds: int) -> Row:
    """Wall seconds from asking for a run to its first decoded frame, over those of a plain call to its picture."""
    from diffexplore.looks import views

    plain, model, settings = pocket()

    def first() -> float:
        seen: list[float] = []

        def show(_: object) -> None:
            ready.wait()
            if not seen:
                views.frame(job.trace, "x0", 0)
                seen.append(time.perf_counter())
                job.cancel()

        ready = threading.Event()
        start = time.perf_counter()
        job = model.submit(settings, on_step=show)
        ready.set()  # `job` has its value from here on
        job.result()
        return seen[0] - start

    def whole() -> float:
        start = time.perf_counter()
        draw_plain(plain, settings)
        return time.perf_counter() - start

    return compare("first frame of 20 steps (plain: the picture)", "s", first, whole, rounds)


def stop(rounds: int) -> Row:
    """Wall seconds from asking to stop after step 5 of 20 until the model is free, over diffusers' own interrupt.

    The plain side sets the pipeline's interrupt flag, which skips the steps that are left and decodes all the same.
    """
    plain, model, settings = pocket()

    def ours() -> float:
        asked: list[float] = []
        ready = threading.Event()

        def step(_: object) -> None:
            ready.wait()
            if len(job.trace) == 5:
                asked.append(time.perf_counter())
                job.cancel()

        job = model.submit(settings, on_step=step)
        ready.set()
        job.result()
        return time.perf_counter() - asked[0]

    def interrupt() -> float:
        asked: list[float] = []

        def step(pipeline: Any, index: int, _: object, values: dict[str, Any]) -> dict[str, Any]:
            if index == 4:
                asked.append(time.perf_counter())
                pipeline._interrupt = True
            return values

        draw_plain(plain, settings, callback_on_step_end=step)
        return time.perf_counter() - asked[0]

    return compare("stop after step 5 of 20 (plain: its interrupt)", "s", ours, interrupt, rounds)


def evaluations(rounds: int) -> list[Row]:
    """What it is worth to remember evaluations of the network: wall seconds to the first step of a run that differs
    from one before in its guidance alone, and of a whole run that was stopped half-way before, over those of a model
    that remembers nothing.
    """
    from diffexplore.model import Model

    plain, forgetful, settings = pocket()
    numbers = iter(range(1, 10_000))

    def first_step(model: Model) -> float:
        model.trace(settings)
        stops: list[float] = []

        def stop(_: object) -> None:
            ready.wait()
            if not stops:
                stops.append(time.perf_counter())
                job.cancel()

        ready = threading.Event()
        start = time.perf_counter()
        job = model.submit(settings.replace(guidance=5.0 + next(numbers) / 100), on_step=stop)
        ready.set()
        job.result()
        return stops[0] - start

    def taken_up(model: Model) -> float:
        asked = settings.replace(seed=next(numbers))

        def stop(_: object) -> None:
            ready.wait()
            if len(job.trace) == settings.steps // 2:
                job.cancel()

        ready = threading.Event()
        job = model.submit(asked, on_step=stop)
        ready.set()
        job.result()
        start = time.perf_counter()
        model.trace(asked)
        return time.perf_counter() - start

    remembering = Model(plain)

    def row(name: str, measure: Callable[[Model], float]) -> Row:
        return compare(name, "s", lambda: measure(remembering), lambda: measure(forgetful), rounds)

    return [
        row("first step, other guidance (plain: no memory)", first_step),
        row("a stopped run, taken up (plain: no memory)", taken_up),
    ]


def preview(rounds: int) -> Row:
    """CPU milliseconds of one preview of x0 in linear colours over those of one that is decoded; none remembered."""
    from diffexplore.looks import views

    _, model, settings = pocket()
    trace = model.trace(settings)

    def previews(exact: bool) -> float:
        views.forget(trace)
        start = time.process_time()
        for index in range(len(trace)):
            views.frame(trace, "x0", index, exact=exact)
        return 1000 * (time.process_time() - start) / len(trace)

    return compare(
        "one preview, linear (plain: decoded)", "ms", lambda: previews(False), lambda: previews(True), rounds
    )


def each(model: Any, settings: Any) -> float:
    """CPU milliseconds of a recorded run, per step."""
    start = time.process_time()
    model.trace(settings)
    return 1000 * (time.process_time() - start) / settings.steps


def growth(rounds: int) -> Row:
    """CPU milliseconds of one step in a recorded run of 40 over those in one of 10: 1 where cost grows with steps
    alone, less where a fixed part is spread over more of them.
    """
    _, model, few = pocket(10)
    many = few.replace(steps=40)
    return compare(
        "a step of a run of 40 (plain: of 10)", "ms", lambda: each(model, many), lambda: each(model, few), rounds
    )


def size(rounds: int) -> Row:
    """CPU milliseconds of one recorded step at twice the side, four times the pixels, over those at the usual one."""
    _, model, usual = pocket(10)
    side = int(usual.width or 0)
    large = usual.replace(width=2 * side, height=2 * side)
    name = f"a step of {2 * side} px (plain: of {side} px)"
    return compare(name, "ms", lambda: each(model, large), lambda: each(model, usual), rounds)


def columns(rounds: int) -> Row:
    """Wall seconds that one column of six takes, drawn together, over those of one drawn alone."""
    _, model, one = pocket(10)

    def each(count: int) -> float:
        start = time.perf_counter()
        model.trace_many([one.replace(seed=k) for k in range(count)])
        return (time.perf_counter() - start) / count

    return compare("one column of six (plain: one alone)", "s", lambda: each(6), lambda: each(1), rounds)


def step(rounds: int) -> Row:
    """Milliseconds of one guided step of the pocket model's denoiser (batch of two, float32) on one core, over those
    of a plain product of two 1024 x 1024 matrices (2.1 GFLOP).
    """
    import torch

    plain, _, _ = pocket()
    threads = torch.get_num_threads()
    latents, text = torch.randn(2, 4, 16, 16), torch.randn(2, 40, plain.unet.config.cross_attention_dim)
    one, other = torch.randn(2, 1024, 1024)

    def each(call: Callable[[], object]) -> float:
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                call()
                start = time.perf_counter()
                for _ in range(20):
                    call()
                return 1000 * (time.perf_counter() - start) / 20
        finally:
            torch.set_num_threads(threads)

    return compare(
        "a guided step, one core (plain: a matrix product)",
        "ms",
        lambda: each(lambda: plain.unet(latents, 500, text)),
        lambda: each(lambda: one @ other),
        rounds,
    )


def mixed_anew(rounds: int) -> Row:
    """Milliseconds to mix the last of 20 recorded steps by a guider that remembers all before it, over those of plain
    guidance anew.
    """
    _, model, settings = pocket()
    last = (trace := model.trace(settings))[-1]

    def each(guider: str) -> float:
        start = time.perf_counter()
        for _ in range(20):
            last.guided(9.0, guider)
        return 1000 * (time.perf_counter() - start) / 20

    assert len(trace) == 20
    return compare("what if, APG at step 20 (plain: CFG)", "ms", lambda: each("APG"), lambda: each("CFG"), rounds)


def free_gib() -> float:
    """Main memory that is free, in GiB; 0 where that cannot be told."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable")), 0.0)


MEASURES: tuple[Callable[[int], Row | list[Row]], ...] = (
    cold_start, recording, large, together, first_frame, evaluations, stop, preview, growth, size, columns, step,
    mixed_anew, beyond, cluster, cost.foretold, cost.on_show, cost.beside,
)  # fmt: skip
"""What is measured, in the order of the table."""


def rows(rounds: int) -> list[Row]:
    """All rows, in the order of the table."""
    found: list[Row] = []
    for measure in MEASURES:
        made = measure(rounds)
        found += made if isinstance(made, list) else [made]
    return found
