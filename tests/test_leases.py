"""leases.py: of those who want a cell one gets it, until it is done or its owner is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffexplore.experiments import leases
from diffexplore.experiments.leases import Leases, seen

OTHER = """
import sys, time
from pathlib import Path
from diffexplore.experiments.leases import Leases
folder, *names = sys.argv[1:]
with Leases(Path(folder)) as mine:
    print([mine.take(Path(folder) / name) for name in names], mine.token, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has claimed cells a and b."""
    command = [sys.executable, "-c", OTHER, str(tmp_path), "a.safetensors", "b.safetensors"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said, process.token = process.stdout.readline().rsplit(" ", 1)
    assert said == "[True, True]"
    yield process
    process.kill()
    process.communicate()


def test_a_cell_is_for_one_until_it_is_released_or_its_owner_is_gone(tmp_path: Path, other) -> None:
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    assert seen(a, other.token.strip())
    assert not seen(c, other.token.strip())
    assert not seen(a, "")
    with Leases(tmp_path) as mine:
        assert [mine.take(path) for path in (a, b, c)] == [False, False, True]
        assert not seen(a, mine.token)
        assert seen(c, mine.token)
        mine.release(a)  # of somebody else: it stays
        assert not mine.take(a)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert [mine.take(path) for path in (a, b)] == [True, True]
        mine.release(a)
        assert seen(b, mine.token)
    assert list(tmp_path.iterdir()) == []


def test_what_is_claimed_goes_free_with_the_block(tmp_path: Path, other) -> None:
    other.communicate("")
    assert list(tmp_path.iterdir()) == []


def claim(path: Path, age: float = 0, **said) -> Path:
    """A claim as another would have made it so many seconds ago."""
    file = path.with_name(f".{path.stem}{leases.SUFFIX}")
    file.write_text(json.dumps({"token": "x", "host": socket.gethostname(), "process": [os.getpid(), "0"], **said}))
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_the_claim_of_another_machine_is_good_while_it_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with Leases(tmp_path) as mine:
        claim(path, host="elsewhere")
        assert not mine.take(path)
        claim(path, age=leases.LEASE + 10, host="elsewhere")
        assert mine.take(path)


def test_a_number_that_another_process_has_by_now_is_no_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with Leases(tmp_path) as mine:
        claim(path, process=[os.getpid(), "1"])
        assert mine.take(path) or not Path("/proc/self/stat").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": 4}', '{"process": "me"}'])
def test_a_claim_that_says_nothing_is_in_nobodys_way_for_long(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    file = claim(path)
    file.write_text(text)
    os.utime(file, (time.time() - leases.LEASE - 10,) * 2)
    with Leases(tmp_path) as mine:
        assert mine.take(path)


def test_what_was_never_finished_is_taken_away(tmp_path: Path) -> None:
    old, new = tmp_path / ".0123.part", tmp_path / ".4567.part"
    for path in (old, new, tmp_path / "cell.safetensors"):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - leases.STALE - 10,) * 2)
    with Leases(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "cell.safetensors"}
