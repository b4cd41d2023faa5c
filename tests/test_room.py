"""Thirty learners in one room, for as long as CONTRIBUTING.md says how to ask for; the process that shares is killed in
the middle. What was measured is printed (``-s``): first frames against places in the queue, how long anybody went
without a picture, memory, and when everybody drew again."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from labs import free_port
from patience import PATIENCE

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
        worker, killed, begun = children(keeper.pid)[0], 0.0, time.time()  # the others wait to take over
        for room in rooms:
            room.stdin.write("go\n")
            room.stdin.flush()
        # A pipe that nobody reads is full after some hundred runs, and then nobody draws.
        readers = ThreadPoolExecutor(PROCESSES)
        printed = [readers.submit(room.stdout.read) for room in rooms]
        while any(room.poll() is None for room in rooms) and time.time() < begun + 4 * SECONDS + 120:
            time.sleep(1)
            if not killed and time.time() > begun + 0.75 * SECONDS:
                os.kill(worker, signal.SIGKILL)
                killed = time.time()
            elif not killed:
                memory.append((time.time() - begun, megabytes(worker)))
        rows = [json.loads(line) for one in printed for line in one.result(PATIENCE).splitlines()]
    finally:
        keeper.terminate()
        keeper.wait(PATIENCE)
    rows.sort(key=lambda row: float(row["asked"]))
    told(rows, begun, killed, memory)
    assert [row for row in rows if row["wrong"]] == []
    assert {row["learner"] for row in rows} == set(range(LEARNERS))
    assert not [row for row in rows if overtaken(row, rows) > 2], "somebody was served again and again before another"
    assert all(row["again"] > killed for row in rows if row["end"] > killed + 1), "somebody did not draw again"


def overtaken(row: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """How often any one other learner had a picture while this one waited for theirs; 1 is a turn each, 2 with one that
    was being drawn."""
    counts: dict[int, int] = {}
    for one in rows:
        if row["first"] and one["first"] and row["asked"] < one["end"] < row["end"] and one is not row:
            counts[one["learner"]] = counts.get(one["learner"], 0) + 1
    return max(counts.values(), default=0)


def gaps(rows: list[dict[str, Any]], begun: float, end: float) -> list[float]:
    """The longest time that each learner went without a picture, in seconds; pauses between two wishes do not count."""
    found = []
    for learner in range(LEARNERS):
        mine = [row for row in rows if row["learner"] == learner and begun <= row["asked"] and row["end"] <= end]
        found.append(max((row["end"] - row["asked"] for row in mine), default=end - begun))
    return found


def told(rows: list[dict[str, Any]], begun: float, killed: float, memory: list[tuple[float, float]]) -> None:
    """Print what was measured."""
    calm = [row for row in rows if row["first"] and row["end"] < killed]  # before it had to begin anew
    # One run is what the room took for each while somebody always waited, serving it included.
    turns = sorted(row["end"] for row in calm)
    run = statistics.median(row["run"] for row in calm)
    served = statistics.median(b - a for a, b in itertools.pairwise(turns))
    over, ahead = [], []
    for row in calm:
        place = sum(one["asked"] < row["asked"] < one["end"] for one in rows)
        ahead.append(place)
        over.append(row["first"] - row["asked"] - place * run)
    waits = sorted(row["first"] - row["asked"] for row in calm)
    whole = sorted(row["end"] - row["asked"] for row in calm)
    each = [sum(row["learner"] == k for row in rows) for k in range(LEARNERS)]
    again = {k: [row["again"] for row in rows if row["learner"] == k and row["again"]] for k in range(LEARNERS)}
    back = sorted(
        min(at for at in ats if at > killed) - killed for ats in again.values() if max(ats, default=0.0) > killed
    )
    said = sum(any("is gone" in text for text in row["said"]) for row in rows)
    lines = [text for row in rows for text in row["lines"]]
    gone = gaps(rows, begun, killed)
    print(
        f"\n{len(rows)} runs of {LEARNERS} learners, {min(each)} to {max(each)} each; one run {run:.2f} s, a picture "
        f"every {served:.2f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
        f"place in the queue: {statistics.median(ahead):.0f} (median), {max(ahead)} at most\n"
        f"first frame after {statistics.median(waits):.2f} s (median), {waits[-1]:.2f} s at most; "
        f"picture after {statistics.median(whole):.2f} s (median), {whole[-1]:.2f} s at most\n"
        f"first frame within place x run + 0.5 s: {sum(one <= 0.5 for one in over)} of {len(over)} "
        f"({sum(one <= 0.5 for one in over) / len(over):.1%}); beyond place x run: {max(over):.2f} s at most\n"
        f"longest that anybody waited for a picture: {max(gone):.1f} s (of all learners' longest, median "
        f"{statistics.median(gone):.1f} s)\n"
        f"memory of the room: {memory[0][1]:.0f} MB at the start, {memory[len(memory) // 4][1]:.0f} MB at a quarter, "
        f"{memory[-1][1]:.0f} MB at the end\n"
        f"killed: {said} runs heard of it; first frame again after {back[0]:.1f} s (first learner), "
        f"{statistics.median(back):.1f} s (median), {back[-1]:.1f} s (last of {len(back)})\n"
        f"places told: {len(lines)}, such as {lines[len(lines) // 2] if lines else 'none'!r}"
    )
