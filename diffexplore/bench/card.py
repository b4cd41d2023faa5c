"""The rows that are measured on a GPU: what it costs to watch pipelines of the sizes people work with.

Nothing but a card is needed: the weights are random (`bench.nets`). Times are wall seconds until the picture is in main
memory, which a GPU's queue cannot hide; memory is the most that was allocated on the card during a run.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

from diffexplore.bench.nets import NETS, Net
from diffexplore.bench.pairs import Row, compare

__all__ = ["STEPS", "Bench", "rows"]

PROMPT = "a fox in the snow at noon"
STEPS = 12


class Bench:
    """One pipeline, plain and watched, with the same sampler and settings.

    Attributes:
        net: its size.
        plain: the pipeline.
        model: diffexplore's, around the same pipeline; remembers nothing.
        settings: of a run.
    """

    def __init__(self, net: Net, device: str = "cuda", *, small: bool = False) -> None:
        """Make it on a `device`; `small`: of a few thousand weights, to try the measurement out."""
        from diffexplore.model import Model
        from diffexplore.settings import Settings

        self.net, self.device = net, device
        self.plain = net.build(device, small=small)
        self.model = Model(self.plain, reuse=0)
        side = 64 if small else net.side
        self.settings = self.model.resolve(
            Settings(
                prompt=PROMPT, negative_prompt="blurry", steps=STEPS, guidance=5.0, seed=7, width=side, height=side
            )
        )

    def draw(self, **values: Any) -> Any:
        """A plain call with the run's settings, `values` in their place: what the pipeline returns."""
        import torch

        s = self.settings
        arguments = {
            "prompt": s.prompt,
            "negative_prompt": s.negative_prompt,
            "num_inference_steps": s.steps,
            "guidance_scale": s.guidance,
            "width": s.width,
            "height": s.height,
            "generator": torch.Generator("cpu").manual_seed(s.seed),
        }
        return self.plain(**{**arguments, **values})

    def like(self, info: dict[str, Any]) -> None:
        """Give the plain pipeline the scheduler of a recorded run."""
        import diffusers

        made = info["sampler"]
        self.plain.scheduler = getattr(diffusers, made["class"]).from_config(made["config"])

    def timed(self, call: Callable[[], object]) -> float:
        """Wall seconds of a call and of all that it has asked of the card."""
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def peak(self, call: Callable[[], object]) -> float:
        """MiB that were allocated on the card at most during a call."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() / 2**20

    def wait(self) -> None:
        """Until the card has done all that it was asked."""
        import torch

        if self.on_card:
            torch.cuda.synchronize()

    @property
    def on_card(self) -> bool:
        """Whether it works on a GPU, where memory and offloading can be measured."""
        return self.device != "cpu"

    def until(self, count: int, look: Callable[[Any], object], **values: Any) -> tuple[float, float]:
        """(seconds until step `count` was seen and `look(trace)` was done with it, seconds until the model was free
        after the run was stopped there).
        """
        seen: list[float] = []
        ready = threading.Event()

        def step(_: object) -> None:
            ready.wait()
            if len(job.trace) == count:
                look(job.trace)
                seen.append(time.perf_counter())
                job.cancel()

        self.wait()
        start = time.perf_counter()
        job = self.model.submit(self.settings.replace(**values), on_step=step)
        ready.set()
        job.result()
        self.wait()
        return seen[0] - start, time.perf_counter() - seen[0]

    def interrupt(self, count: int) -> float:
        """Seconds from diffusers' own interrupt after step `count` until its call returned."""
        asked: list[float] = []

        def step(pipeline: Any, index: int, _: object, values: dict[str, Any]) -> dict[str, Any]:
            if index == count - 1:
                asked.append(time.perf_counter())
                pipeline._interrupt = True
            return values

        self.draw(callback_on_step_end=step)
        self.wait()
        return time.perf_counter() - asked[0]


def recording(bench: Bench, rounds: int) -> list[Row]:
    """A recorded run over the same plain call: seconds, and memory on the card; and with a preview of each step."""
    from diffexplore.looks import views

    name = bench.net.name

    def watched() -> object:
        return bench.model.trace(bench.settings)

    def previewed() -> object:
        ready = threading.Event()

        def show(step: Any) -> None:
            ready.wait()
            views.frame(job.trace, "x0", step.index, exact=False)

        job = bench.model.submit(bench.settings, on_step=show)
        ready.set()
        return job.result()

    assert bench.model.trace(bench.settings).matrix is not None  # fitted once; and the kernels are loaded

    def row(what: str, unit: str, measure: Callable[[Callable[[], object]], float], call: Callable[[], object]) -> Row:
        return compare(f"{name}: {what}", unit, lambda: measure(call), lambda: measure(bench.draw), rounds)

    times = [
        row(f"recording {STEPS} guided steps", "s", bench.timed, watched),
        row("the same, with a preview of each", "s", bench.timed, previewed),
    ]
    return [*times, row("its peak memory", "MiB", bench.peak, watched)] if bench.on_card else times


def waiting(bench: Bench, rounds: int) -> list[Row]:
    """How soon something is seen, and how soon it stops, over the whole picture and diffusers' own interrupt."""
    from diffexplore.looks import views

    name = bench.net.name

    def first() -> float:
        return bench.until(1, lambda trace: views.frame(trace, "x0", 0))[0]

    def stop() -> float:
        return bench.until(5, lambda trace: None)[1]

    return [
        compare(f"{name}: first frame (plain: the picture)", "s", first, lambda: bench.timed(bench.draw), rounds),
        compare(f"{name}: stop after step 5 (plain: its interrupt)", "s", stop, lambda: bench.interrupt(5), rounds),
    ]


def together(bench: Bench, rounds: int) -> Row:
    """Four prompts in one batch, everything recorded, over four plain calls one after the other."""
    prompts = [f"a {word} in the snow at noon" for word in ("fox", "cat", "rocket", "castle")]
    asked = [bench.settings.replace(prompt=prompt) for prompt in prompts]

    def apart() -> None:
        for prompt in prompts:
            bench.draw(prompt=prompt)

    return compare(
        f"{bench.net.name}: four together (plain: one by one)", "s",
        lambda: bench.timed(lambda: bench.model.trace_many(asked)), lambda: bench.timed(apart), rounds,
    )  # fmt: skip


def offloaded(bench: Bench, rounds: int) -> Row:
    """A recorded run of a pipeline whose networks stay in main memory until they work, over the same plain call."""
    bench.plain.enable_model_cpu_offload()
    return compare(
        f"{bench.net.name}: recording under model offload", "s",
        lambda: bench.timed(lambda: bench.model.trace(bench.settings)), lambda: bench.timed(bench.draw), rounds,
    )  # fmt: skip


def rows(rounds: int, device: str = "cuda", *, small: bool = False) -> list[Row]:
    """All rows, size by size; each pipeline is gone before the next is made.

    Raises:
        ValueError: where there is no such card.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("bench --gpu measures a CUDA card, and torch sees none here")
    found: list[Row] = []
    for net in NETS:
        bench = Bench(net, device, small=small)
        bench.like(bench.model.trace(bench.settings).info)
        found += [*recording(bench, rounds), *waiting(bench, rounds), together(bench, rounds)]
        if net is NETS[0] and bench.on_card:
            found.append(offloaded(bench, rounds))
        del bench
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()
    return found
