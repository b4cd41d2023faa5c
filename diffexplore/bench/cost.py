"""Rows on what runs cost before and after: how well that is foretold, and what is spent on showing them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from diffexplore.bench.pairs import Row, compare

__all__ = ["beside", "busy", "foretold", "on_show"]

PROMPT = "a fox in the snow at noon"


@contextmanager
def busy() -> Iterator[None]:
    """Within the block a process of ours keeps one core busy."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _model(threads: int | Literal["torch"]) -> Any:
    """The pocket model's pipeline, which draws pictures of any size this way, on so many threads."""
    from diffusers import StableDiffusionPipeline

    from diffexplore.model import POCKET, Model

    plain = StableDiffusionPipeline.from_pretrained(POCKET)
    plain.set_progress_bar_config(disable=True)
    return Model(plain, reuse=0, threads=threads)


def foretold(rounds: int, *, large: int = 256, steps: int = 10) -> list[Row]:
    """Seconds that are foretold after three runs over those that are then measured, for more steps, more pixels and
    more columns than those runs had, on one thread and on as many as torch is set to. Every round begins with no past.

    Args:
        rounds: how often.
        large: pixels a side of the larger picture.
        steps: of the first run.
    """
    import torch

    counts = sorted({1, torch.get_num_threads()})
    return [row for count in counts for row in _foretold(rounds, count, large, steps)]


def _foretold(rounds: int, threads: int, large: int, steps: int) -> list[Row]:
    from diffexplore import Settings
    from diffexplore.runs.past import SWITCH

    model = _model(threads)
    usual = Settings(prompt=PROMPT, guidance=5.0, seed=7, steps=steps)
    first = [usual, usual.replace(steps=2 * steps), [usual.replace(seed=seed) for seed in (1, 2)]]
    wider = (large * 3 // 4) // 8 * 8
    asked: dict[str, Any] = {
        "twice the steps": usual.replace(steps=4 * steps),
        "larger": usual.replace(steps=steps + 5, width=large, height=wider),
        "four columns": [usual.replace(seed=seed, steps=steps + 5) for seed in range(4)],
        "four, larger": [usual.replace(seed=k, width=wider, height=wider) for k in range(4)],
    }

    def draw(one: Any) -> object:
        return model.trace_many(one) if isinstance(one, list) else model.trace(one)

    before = os.environ.get(SWITCH)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    draw(usual)  # what is set up at the first is not measured here
    try:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                os.environ[SWITCH] = folder
                for one in first:
                    draw(one)
                guesses = {name: model.estimate(one).seconds for name, one in asked.items()}
                for name, one in asked.items():
                    found[name].append((guesses[name], _seconds(lambda one=one: draw(one))))  # type: ignore[misc]
                os.environ[SWITCH] = "off"
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before
    return [_row(f"foretold on {threads}: {name} (plain: measured)", pairs) for name, pairs in found.items()]


def _row(name: str, pairs: list[tuple[float, float]]) -> Row:
    ratios = [ours / plain for ours, plain in pairs]
    ours, plain = (statistics.median(one) for one in zip(*pairs, strict=True))
    return Row(name, "s", ours, plain, statistics.median(ratios), min(ratios), max(ratios))


def on_show(rounds: int, *, steps: int = 20) -> list[Row]:
    """Wall seconds of ``Explorer.run()``, complete and in the viewer, over those of the trace alone: on one thread, as
    the pocket model computes, where the free core makes the pictures meanwhile, and as torch is set.
    """
    from diffexplore.model import load
    from diffexplore.widgets.explorer import Explorer

    def row(said: str, threads: int | Literal["torch"]) -> Row:
        model = load(device="cpu", reuse=0, threads=threads)
        explorer = Explorer(model, prompt=PROMPT, steps=steps, guidance=5.0, seed=7)
        settings = explorer.settings
        name = f"Explorer.run(){said} (plain: the trace)"
        try:
            run, trace = explorer.run, lambda: model.trace(settings)
            return compare(name, "s", lambda: _seconds(run), lambda: _seconds(trace), rounds)
        finally:
            explorer.close()

    return [row("", 1), row(", torch's threads", "torch")]


def beside(rounds: int, *, steps: int = 20) -> list[Row]:
    """Wall seconds on one thread over those on as many as torch is set to, of one run and of four columns, on quiet
    cores and beside a process that keeps one busy. None where there is one core, or torch is set to one thread.
    """
    import torch

    from diffexplore import Settings
    from diffexplore.model import Model

    if _cores() < 2 or torch.get_num_threads() < 2:
        return []
    own = _model("torch")
    one = Model(own.pipeline, reuse=0, threads=1)
    single = Settings(prompt=PROMPT, guidance=5.0, seed=7, steps=steps)
    four = [single.replace(seed=seed) for seed in range(4)]

    def row(name: str, draw: Callable[[Model], object]) -> Row:
        return compare(name, "s", lambda: _seconds(lambda: draw(one)), lambda: _seconds(lambda: draw(own)), rounds)

    def rows(where: str) -> list[Row]:
        return [
            row(f"a run, one thread, {where} (plain: torch's own)", lambda model: model.trace(single)),
            row(f"four, one thread, {where} (plain: torch's own)", lambda model: model.trace_many(four)),
        ]

    quiet = rows("quiet")
    with busy():
        return [*quiet, *rows("busy")]
