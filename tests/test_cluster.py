"""Sweeps on a real Dask cluster: two worker processes, whatever dies, every picture to the bit.

`DIFFEXPLORE_STRESS=20 .venv/bin/pytest tests/test_cluster.py` sweeps a hundred cells twenty times, and kills and spoils
at random; CONTRIBUTING.md says more.
"""

import json
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
from patience import PATIENCE
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.crew import Crew
from diffexplore.model import Model

TIMES = int(os.environ.get("DIFFEXPLORE_STRESS", "0"))

CELLS = 12
ASKED: dict[str, Any] = {
    "x": ("seed", list(range(CELLS // 2))),
    "y": ("prompt", ["a fox in the snow at dusk", "a red car, zorp"]),
    "steps": 3,
    "sampler": "DDIM",
}
HUNDRED: dict[str, Any] = {**ASKED, "x": ("seed", list(range(50))), "y": ("prompt", ["a red fox", "a blue cat"])}

SWEEPING = """
import json
import sys
import diffexplore as dx
from distributed import Client
address, out, source, asked = sys.argv[1:]
with Client(address) as client:
    model = dx.load(source or None, device="cpu")
    dx.sweep(model, executor=client.get_executor(), out=out, quiet=True, **json.loads(asked))
"""


def sweeping(client: Client, out: Path, asked: dict[str, Any], source: str = "") -> "subprocess.Popen[bytes]":
    """Another process that sweeps there."""
    command = [sys.executable, "-c", SWEEPING, client.scheduler.address, str(out), source, json.dumps(asked)]
    return subprocess.Popen(command)


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


class Alone:
    """The same settings drawn here, on one thread, each once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.drawn: dict[dx.Settings, dx.Trace] = {}

    def __call__(self, settings: dx.Settings) -> dx.Trace:
        if settings not in self.drawn:
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                self.drawn[settings] = self.model.trace(settings)
            finally:
                torch.set_num_threads(before)
        return self.drawn[settings]


@pytest.fixture(scope="module")
def alone(model: Model) -> Alone:
    return Alone(model)


def cells(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
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


def check(grid: Any, alone: Alone, count: int = CELLS) -> None:
    """All are there, each once, and each to the bit what the same settings give here."""
    traces = list(chain(*grid.traces))
    assert set(chain(*grid.errors)) == {""}
    assert len({id(trace) for trace in traces}) == len({trace.settings for trace in traces}) == count
    for settings, trace in zip(chain(*grid.settings), traces, strict=True):
        mine = alone(settings)
        assert trace.settings == settings
        assert torch.equal(trace.final, mine.final)
        assert trace.image.tobytes() == mine.image.tobytes()
        assert all(torch.equal(one.x0, other.x0) for one, other in zip(trace, mine, strict=True))
        assert trace.info["model"] == mine.info["model"]
        assert trace.info["unknown"] == mine.info["unknown"]


def spoil(path: Path) -> None:
    """Cut a file off, or turn over one of its bits."""
    data = bytearray(path.read_bytes())
    if random.random() < 0.5:
        del data[random.randrange(len(data)) :]
    else:
        data[random.randrange(len(data) // 2, len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def test_it_is_known_how_many_work_there(client: Client) -> None:
    for resources, workers in (({}, 2), ({"GPU": 1}, 2), ({"GPU": 2}, 1), ({"TPU": 1}, 1)):
        assert Crew(client.get_executor(**({"resources": resources} if resources else {}))).workers == workers


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(client: Client, model: Model, alone, tmp_path) -> None:
    with killing(client, tmp_path, after=3) as killed:
        grid = dx.sweep(model, executor=client.get_executor(resources={"GPU": 1}), out=tmp_path, **ASKED)
    assert killed
    check(grid, alone)
    assert not np.isnan(grid.adherence()[0]).any()  # the other names nothing that can be judged
    assert len(cells(tmp_path)) == CELLS
    assert not list(tmp_path.glob(".*.claim"))
    # Called again, nothing is drawn; what was torn or altered since is.
    spoilt = random.sample(sorted(tmp_path.glob("*.safetensors")), 2)
    for path in spoilt:
        spoil(path)
    before = cells(tmp_path)
    assert dx.sweep(model, executor=client, out=tmp_path, dry=True, **ASKED).left == 2
    check(dx.sweep(model, executor=client, out=tmp_path, **ASKED), alone)
    after = cells(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {path.name for path in spoilt}


def test_a_sweep_that_is_killed_goes_on_where_it_was(client: Client, model: Model, alone, tmp_path) -> None:
    killed = sweeping(client, tmp_path, ASKED)
    wait_for(lambda: len(cells(tmp_path)) >= 2)
    killed.kill()
    killed.wait()
    there = cells(tmp_path)
    # Two sweeps at once: this one, and another process that shares the work.
    sharing = sweeping(client, tmp_path, ASKED)
    check(dx.sweep(model, executor=client, out=tmp_path, **ASKED), alone)
    assert sharing.wait(PATIENCE) == 0
    after = cells(tmp_path)
    assert len(after) == CELLS
    assert there.items() <= after.items()
    assert not list(tmp_path.glob(".*.claim"))


@pytest.mark.skipif(not TIMES, reason="takes minutes: DIFFEXPLORE_STRESS says how many times")
def test_a_hundred_cells_survive_whatever_dies(client: Client, tmp_path: Path) -> None:
    make_pipeline().save_pretrained(tmp_path / "tiny")
    model = dx.load(tmp_path / "tiny", device="cpu", reuse=0)
    alone = Alone(model)
    for k in range(TIMES):
        out = tmp_path / f"cells {k}"
        out.mkdir()
        other = sweeping(client, out, HUNDRED, str(tmp_path / "tiny"))
        some = random.randrange(1, 60)
        wait_for(lambda out=out, some=some: len(cells(out)) >= some)
        other.kill()
        other.wait()
        there = cells(out)
        spoilt = random.sample(sorted(there), min(len(there), 3))
        for name in spoilt:
            spoil(out / name)
        there = {name: when for name, when in there.items() if name not in spoilt}
        with killing(client, out, after=random.randrange(1, 30)) if len(there) < 65 else nullcontext():
            grid = dx.sweep(model, executor=client, out=out, quiet=True, **HUNDRED)
        check(grid, alone, 100)
        after = cells(out)
        assert len(after) == 100
        assert there.items() <= after.items(), "what was there is not drawn again"
        assert not list(out.glob(".*.claim"))
        print(f"{k + 1} of {TIMES}: {len(there)} of 100 were there", flush=True)
