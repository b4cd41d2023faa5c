"""Sweeps on a real Dask cluster: two worker processes, whatever dies, every picture to the bit.

`DIFFEXPLORE_STRESS=60 .venv/bin/pytest tests/test_cluster.py` draws a hundred cells, and goes on killing for a minute.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster

import diffexplore as dx
from diffexplore.experiments.crew import Crew
from diffexplore.model import Model

SECONDS = float(os.environ.get("DIFFEXPLORE_STRESS", "0"))
"""How long killing goes on. CONTRIBUTING.md says how to let it go on for longer."""

CELLS = 100 if SECONDS else 12
ASKED: dict[str, Any] = {
    "x": ("seed", list(range(CELLS // 2))),
    "y": ("prompt", ["a fox in the snow at dusk", "a red car, zorp"]),
    "steps": 3,
    "sampler": "DDIM",
}

SWEEPING = f"""
import sys
import diffexplore as dx
from distributed import Client
with Client(sys.argv[1]) as client:
    dx.sweep(dx.load(device="cpu"), executor=client.get_executor(), out=sys.argv[2], quiet=True, **{ASKED!r})
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, resources={"GPU": 1}, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def model() -> Model:
    return dx.load(device="cpu", reuse=0)


@pytest.fixture(scope="module")
def alone(model: Model) -> Callable[[dx.Settings], dx.Trace]:
    """The same settings drawn here, on one thread."""
    drawn: dict[dx.Settings, dx.Trace] = {}

    def draw(settings: dx.Settings) -> dx.Trace:
        if settings not in drawn:
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                drawn[settings] = model.trace(settings)
            finally:
                torch.set_num_threads(before)
        return drawn[settings]

    return draw


def cells(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@contextmanager
def killing(client: Client, folder: Path, after: int) -> Iterator[list[int]]:
    """Within the block a worker is killed as soon as so many cells more are there."""
    before, killed = len(cells(folder)), []

    def kill() -> None:
        wait_for(lambda: len(cells(folder)) >= before + after)
        killed.append(random.choice(list(client.run(os.getpid).values())))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    yield killed
    killer.join()


def check(grid: Any, alone: Callable[[dx.Settings], dx.Trace]) -> None:
    """All are there, each once, and each to the bit what the same settings give here."""
    traces = list(chain(*grid.traces))
    assert grid.errors == [[""] * (CELLS // 2)] * 2
    assert len({id(trace) for trace in traces}) == len({trace.settings for trace in traces}) == CELLS
    for settings, trace in zip(chain(*grid.settings), traces, strict=True):
        mine = alone(settings)
        assert trace.settings == settings
        assert torch.equal(trace.final, mine.final)
        assert trace.image.tobytes() == mine.image.tobytes()
        assert all(torch.equal(one.x0, other.x0) for one, other in zip(trace, mine, strict=True))
        assert trace.info["world"] == "pocket"
        assert trace.info["unknown"] == mine.info["unknown"]
    assert not np.isnan(grid.adherence()[0]).any()  # the other names nothing that can be judged


def test_it_is_known_how_many_work_there(client: Client) -> None:
    for resources, workers in (({}, 2), ({"GPU": 1}, 2), ({"GPU": 2}, 1), ({"TPU": 1}, 1)):
        assert Crew(client.get_executor(**({"resources": resources} if resources else {}))).workers == workers


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(client: Client, model: Model, alone, tmp_path) -> None:
    with killing(client, tmp_path, after=3) as killed:
        grid = dx.sweep(model, executor=client.get_executor(resources={"GPU": 1}), out=tmp_path, **ASKED)
    assert killed
    check(grid, alone)
    assert len(cells(tmp_path)) == CELLS
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path.glob("*.safetensors"))
    # Called again, nothing is drawn; what was torn or altered since is.
    before = cells(tmp_path)
    torn, altered = random.sample(sorted(tmp_path.iterdir()), 2)
    torn.write_bytes(torn.read_bytes()[:-1000])
    data = bytearray(altered.read_bytes())
    data[random.randrange(len(data) // 2, len(data))] ^= 1
    altered.write_bytes(data)
    torn_at, altered_at = cells(tmp_path)[torn.name], cells(tmp_path)[altered.name]
    assert dx.sweep(model, executor=client, out=tmp_path, dry=True, **ASKED).left == 2
    check(dx.sweep(model, executor=client, out=tmp_path, **ASKED), alone)
    after = cells(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {torn.name, altered.name}
    assert after[torn.name] > torn_at
    assert after[altered.name] > altered_at


def test_a_sweep_that_is_killed_goes_on_where_it_was(client: Client, model: Model, alone, tmp_path) -> None:
    command = [sys.executable, "-c", SWEEPING, client.scheduler.address, str(tmp_path)]
    end = time.monotonic() + SECONDS
    while not cells(tmp_path) or time.monotonic() < end:
        for path in tmp_path.iterdir():
            path.unlink()
        sweeping = subprocess.Popen(command)
        wait_for(lambda: len(cells(tmp_path)) >= 2)
        time.sleep(random.random() / 2)
        sweeping.kill()
        sweeping.wait()
        there = cells(tmp_path)
        # Two sweeps at once: this one, and another process that shares the work.
        sharing = subprocess.Popen(command)
        with killing(client, tmp_path, after=1) if SECONDS else nullcontext():
            check(dx.sweep(model, executor=client, out=tmp_path, **ASKED), alone)
        assert sharing.wait(300) == 0
        after = cells(tmp_path)
        assert len(after) == CELLS
        assert there.items() <= after.items()
