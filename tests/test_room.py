"""Thirty learners in one room, for as long as CONTRIBUTING.md says how to ask for; the process that shares is killed in
the middle. What was measured is printed (``-s``)."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from labs import free_port

SECONDS = float(os.environ.get("DIFFEXPLORE_STRESS", "0"))
LEARNERS, PROCESSES = 30, 3


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def megabytes(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not SECONDS, reason="takes minutes: DIFFEXPLORE_STRESS=300 pytest -s tests/test_room.py")
def test_thirty_learners_share_a_model() -> None:
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "diffexplore.cli", "share", "--address", address]
    keeper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    memory: list[tuple[float, float]] = []
    each = LEARNERS // PROCESSES
    script = Path(__file__).with_name("learners.py")
    try:
        assert keeper.stdout is not None
        assert "learners write" in keeper.stdout.readline()
        rooms = [
            subprocess.Popen(
                [sys.executable, script, address, str(k * each), str(each), str(SECONDS)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for k in range(PROCESSES)
        ]  # fmt: skip
        assert [room.stdout.readline() for room in rooms] == ["ready\n"] * PROCESSES
        worker, killed, begun = max(children(keeper.pid), key=megabytes), 0.0, time.time()
        for room in rooms:
            room.stdin.write("go\n")
            room.stdin.flush()
        while any(room.poll() is None for room in rooms) and time.time() < begun + 4 * SECONDS + 120:
            time.sleep(1)
            if not killed and time.time() > begun + 0.75 * SECONDS:
                os.kill(worker, signal.SIGKILL)
                killed = time.time()
            elif not killed:
                memory.append((time.time() - begun, megabytes(worker)))
        rows = [json.loads(line) for room in rooms for line in room.communicate()[0].splitlines()]
    finally:
        keeper.terminate()
        keeper.wait(30)
    rows.sort(key=lambda row: row["asked"])
    told(rows, killed, memory)
    assert [row for row in rows if row["wrong"]] == []
    assert {row["learner"] for row in rows} == set(range(LEARNERS))
    assert not [row for row in rows if overtaken(row, rows) > 2], "somebody was served again and again before another"
    assert all(row["again"] > killed for row in rows if row["end"] > killed + 1), "somebody did not draw again"


def overtaken(row: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """How often any one other learner was served while this one waited; 1 is a turn each, 2 with one that went on."""
    counts: dict[int, int] = {}
    for one in rows:
        if one["first"] and row["asked"] < one["first"] < row["first"] and one is not row:
            counts[one["learner"]] = counts.get(one["learner"], 0) + 1
    return max(counts.values(), default=0)


def told(rows: list[dict[str, Any]], killed: float, memory: list[tuple[float, float]]) -> None:
    """Print what was measured."""
    calm = [row for row in rows if row["first"] and row["end"] < killed]  # before it had to begin anew
    run = statistics.median(row["run"] for row in calm)
    over = []
    for row in calm:
        place = sum(row["asked"] < one["end"] and one["first"] < row["first"] for one in calm if one is not row)
        over.append(row["first"] - row["asked"] - place * run)
    waits = sorted(row["first"] - row["asked"] for row in calm)
    each = [sum(row["learner"] == k for row in rows) for k in range(LEARNERS)]
    back = [
        min(row["again"] for row in rows if row["learner"] == k and row["again"] > killed) - killed
        for k in {row["learner"] for row in rows if row["again"] and row["again"] > killed}
    ]
    said = sum(any("is gone" in text for text in row["said"]) for row in rows)
    busy = sum(row["run"] for row in calm) / (max(row["end"] for row in calm) - min(row["asked"] for row in calm))
    print(
        f"\n{len(rows)} runs of {LEARNERS} learners, {min(each)} to {max(each)} each; one run {run:.2f} s, "
        f"busy {busy:.0%}\n"
        f"first frame after {statistics.median(waits):.2f} s (median), {waits[-1]:.2f} s at most\n"
        f"beyond place x run: {statistics.median(over):.2f} s (median), {max(over):.2f} s at most, "
        f"within 0.5 s: {sum(one <= 0.5 for one in over)} of {len(over)}\n"
        f"killed: {said} runs heard of it; first frame again after {min(back):.1f} to {max(back):.1f} s\n"
        f"memory of the room: {memory[len(memory) // 4][1]:.0f} MB at a quarter, {memory[-1][1]:.0f} MB before the kill"
    )
