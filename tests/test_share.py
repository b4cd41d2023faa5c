"""rooms/share.py and the command that keeps a room open: what README and teachers' page say is started as it stands
there, and what happens when it dies."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labs import free_port
from patience import PATIENCE

pytest.importorskip("distributed")

import diffexplore as dx

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEACHERS = (ROOT / "binder" / "README.md").read_text()


def blocks(text: str, language: str, word: str) -> list[str]:
    """The blocks of a page that have a word in them."""
    return [one for one in re.findall(rf"```{language}\n(.*?)```", text, re.S) if word in one]


def command(text: str) -> list[str]:
    """The line of a page that shares, as a command of this very Python."""
    program, *arguments = shlex.split(text, comments=True)
    assert program == "diffexplore"
    return [sys.executable, "-m", "diffexplore.cli", *arguments]


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.01)
    return found


def test_the_lines_of_the_readme_share_a_model_that_outlives_its_process() -> None:
    """Killed as the system kills what takes too much memory, the room is said to be gone, and a learner's Explorer goes
    on by itself."""
    port = str(free_port())
    (share,), (connect,) = blocks(README, "sh", "diffexplore share"), blocks(README, "python", "dx.connect")
    assert command(share) == command(blocks(TEACHERS, "sh", "127.0.0.1")[0])
    keeper = subprocess.Popen(command(share.replace("8790", port)), stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        assert f'learners write: model = dx.connect("tcp://127.0.0.1:{port}")' in keeper.stdout.readline()
        there: dict[str, Any] = {"dx": dx}
        exec(connect.replace("8790", port), there)
        model = there["model"]
        side = dx.load().size[0]
        assert repr(model) == f"Connected('pocket' at 'tcp://127.0.0.1:{port}', family='sd', {side}x{side})"
        children = f"/proc/{keeper.pid}/task/{keeper.pid}/children"
        (worker, *_), explorer = Path(children).read_text().split(), dx.Explorer(model, steps=600, sampler="DDIM")
        explorer.live, explorer.seed = True, 7
        until(lambda: explorer.trace)
        before = explorer.trace
        os.kill(int(worker), signal.SIGKILL)
        until(lambda: "is gone; runs start again by themselves" in explorer.viewer.error)
        assert "another begins" in keeper.stdout.readline()
        until(lambda: not explorer.viewer.error)
        until(lambda: explorer.trace is before and len(before) > 3 and explorer.status == "running")
        explorer.cancel()
        assert len(model.trace(prompt="a car", steps=3)) == 3
        explorer.close()
        model.close()
        workers = Path(children).read_text().split()
    finally:
        keeper.terminate()
        assert keeper.wait(PATIENCE) == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the teachers' page makes certificates with openssl")
def test_the_lines_of_the_teachers_page_share_between_machines(
    tiny_model: dx.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    certificates, terminal = blocks(TEACHERS, "sh", "room")
    subprocess.run(certificates, shell=True, check=True, capture_output=True)
    (notebook,) = re.findall(r"`(dx\.share\(.*?\))`", TEACHERS)
    assert "--address tls://0.0.0.0:8790 --security room" in terminal
    with eval(notebook.replace("8790", "0"), {"dx": dx, "model": tiny_model}) as room:
        port = room.address.rpartition(":")[2]
        here, elsewhere = blocks(TEACHERS, "python", "dx.connect")
        there: dict[str, Any] = {}
        exec(elsewhere.replace("teacher-laptop:8790", f"127.0.0.1:{port}"), there)
        assert len(there["model"].trace(steps=2)) == 2
        assert len(room.learners) == 1
        there["model"].close()
        assert "127.0.0.1:8790" in here
        with pytest.raises(ConnectionError, match="nobody shares a model at"):
            dx.connect(f"127.0.0.1:{port}", timeout=0.2)


def test_what_cannot_be_shared_is_said_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    from diffexplore.cli import main

    assert main(["share", "--address", "0.0.0.0:8790"]) == 2
    assert "without TLS a model is shared on 127.0.0.1 alone" in capsys.readouterr().err
    assert main(["share", "--security", "nowhere"]) == 2
    assert "the folder 'nowhere' has no ca.pem" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"share takes a model, as diffexplore\.load gives one"):
        dx.share("pocket")  # type: ignore[arg-type]
