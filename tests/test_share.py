"""rooms/share.py and the command that keeps a room open: how a teacher starts one, and what happens when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labs import free_port

pytest.importorskip("distributed")

import diffexplore as dx


def test_a_room_that_dies_is_said_and_draws_again_by_itself(tmp_path: Path) -> None:
    """The command, killed as the system kills what takes too much memory; a learner's Explorer goes on."""
    port = free_port()
    command = [sys.executable, "-m", "diffexplore.cli", "share", "--address", f"127.0.0.1:{port}"]
    keeper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        told = keeper.stdout.readline()
        assert f'learners write: model = dx.connect("tcp://127.0.0.1:{port}")' in told
        model = dx.connect(f"127.0.0.1:{port}", timeout=60)
        workers = [int(pid) for pid in Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()]
        explorer = dx.Explorer(model, prompt="a red fox", steps=600, sampler="DDIM")
        explorer.live, explorer.seed = True, 7
        _until(lambda: explorer.trace)
        before = explorer.trace
        os.kill(workers[0], signal.SIGKILL)
        _until(lambda: "is gone; runs start again by themselves" in explorer.viewer.error, 5)
        assert "another begins" in keeper.stdout.readline()
        _until(lambda: not explorer.viewer.error, 60)
        _until(lambda: explorer.trace is before and len(before) > 3 and before[0].index == 0, 60)
        explorer.cancel()
        assert len(model.trace(prompt="a car", steps=3)) == 3
        explorer.close()
        model.close()
    finally:
        keeper.terminate()
        assert keeper.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def _until(true: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.01)
    return found
