"""Rows on sweeps: what a cell costs beyond its run, what a second worker brings, and whether thousands of cells stay as
cheap as the first.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from diffexplore.bench.pairs import Row, compare

__all__ = ["INSTANT", "beyond", "cluster", "instant"]

INSTANT = 10_000
"""Cells that cost nothing, for the scheduler alone."""


def beyond(rounds: int, cells: int = 32) -> list[Row]:
    """Milliseconds of a cell whose run is remembered, over those of being told that run: what is left is the sweep's
    own, on an executor of threads, and with a folder.
    """
    from diffexplore import sweep
    from diffexplore.model import load

    model = load(device="cpu")
    asked: dict[str, Any] = {"x": ("seed", list(range(cells))), "steps": 4, "prompt": "a fox"}
    with ThreadPoolExecutor(1) as executor:
        known = [trace.settings for trace in sweep(model, executor=executor, **asked).traces[0] if trace is not None]

        def told() -> float:
            start = time.perf_counter()
            for one in known:
                model.submit(one).result()
            return 1000 * (time.perf_counter() - start) / cells

        def swept(folder: bool) -> float:
            with tempfile.TemporaryDirectory() as out:
                start = time.perf_counter()
                sweep(model, executor=executor, out=Path(out) if folder else None, **asked)
                return 1000 * (time.perf_counter() - start) / cells

        return [
            compare("a cell on threads (plain: its run, remembered)", "ms", lambda: swept(False), told, rounds),
            compare("the same with a folder", "ms", lambda: swept(True), told, rounds),
        ]


def instant(job: tuple[int, str]) -> bytes:
    """A cell that costs nothing."""
    return job[1].encode()


def cluster(rounds: int, cells: int = 16, instants: int = INSTANT) -> list[Row]:
    """On a Dask cluster of two worker processes: wall seconds of cells drawn by both, over those of one, with the model
    open in each; and milliseconds of each of the last tenth of ten thousand instant cells, over those of the second
    tenth. Left out where Dask is not installed.
    """
    if importlib.util.find_spec("distributed") is None:
        return []
    from distributed import Client, LocalCluster

    from diffexplore import sweep
    from diffexplore.model import load

    model, seeds = load(device="cpu"), iter(range(10**6))
    where: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, **where) as local, Client(local) as client:
        both, one = client.get_executor(), client.get_executor(workers=[next(iter(client.run(int)))])

        def drawn(executor: Any) -> float:
            start = time.perf_counter()
            asked = ("seed", [next(seeds) for _ in range(cells)])
            sweep(model, asked, executor=executor, steps=20, prompt="a fox", quiet=True)
            return time.perf_counter() - start

        drawn(both)  # both of them have opened it
        name = f"{cells} cells by two workers (plain: by one)"
        found = [compare(name, "s", lambda: drawn(both), lambda: drawn(one), rounds)]
        tenths = [_tenths(both, instants) for _ in range(min(rounds, 2) + 1)]
        last, second = (iter([one[k] for one in tenths]) for k in (-1, 1))
        name = f"one of the last of {instants:,} cells (plain: first)"
        return [*found, compare(name, "ms", lambda: next(last), lambda: next(second), len(tenths) - 1)]


def _tenths(executor: Any, cells: int) -> Sequence[float]:
    """Milliseconds of a cell, of each tenth of them."""
    from diffexplore.experiments.crew import Crew

    marks = [time.perf_counter()]
    crew: Crew[tuple[int, str]] = Crew(executor)
    jobs = ((k, "x" * 1000) for k in range(cells))
    for done, _ in enumerate(crew.work(instant, jobs), 1):
        if done % (cells // 10) == 0:
            marks.append(time.perf_counter())
    return [1000 * (b - a) / (cells // 10) for a, b in pairwise(marks)]
