"""Learners of a room, moving by a script: ``python learners.py ADDRESS FIRST COUNT SECONDS`` says "ready" once all are
there, waits for a line, and prints a line of JSON for each run: who asked, when, when its first frame came and when it
was over, and what was wrong with it."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from contextlib import suppress

import torch

import diffexplore as dx

STEPS = 8
_print = threading.Lock()


def wrong_with(trace: dx.Trace, asked: dict[str, object], seed: int) -> str:
    """What shows that a run is not the one that was asked for: settings, and the noise that its seed begins with."""
    if trace.settings.prompt != asked["prompt"] or len(trace) != STEPS or trace.image is None:
        return repr(trace)
    begun = trace[0].latents.flatten()
    noise = torch.randn((1, *trace[0].shape), generator=torch.Generator().manual_seed(seed)).flatten()
    alike = float(torch.dot(begun, noise) / (begun.norm() * noise.norm()))
    return "" if alike > 0.999 else f"another's noise: {alike:.3f}"


def note(step: dx.Step, at: list[float]) -> None:
    """When a run shows something, and shows something again after it had to begin anew."""
    if step.index == 0:
        at.append(time.time())


def hear(job: dx.model.Job, said: list[str], lines: list[str]) -> None:
    """What is said of a run while it goes, and where it stands in line."""
    for text, texts in ((job.news, said), (job.line, lines)):
        if text and (not texts or texts[-1] != text):
            texts.append(text)


def learn(model: dx.Model, number: int, until: float) -> None:
    rng = random.Random(number)
    move = 0
    while time.time() < until:
        asked: dict[str, object] = {}
        first: list[float] = []
        jobs = []
        for _ in range(rng.choice((1, 1, 3))):  # a slider is dragged, or let go at once
            move += 1
            seed = number * 10_000 + move
            asked = {"prompt": f"a fox {number} {move}", "seed": seed, "steps": STEPS}
            first = []
            began = time.time()
            with suppress(ConnectionError):  # the room is away; a widget says so, and its learner tries again
                jobs.append(model.submit(lane="explorer", on_step=lambda step, at=first: note(step, at), **asked))
            time.sleep(0.03)
        if not jobs or jobs[-1].trace.settings.seed != seed:
            continue
        said: list[str] = []
        lines: list[str] = []
        jobs[-1].add_news_callback(lambda job, at=(said, lines): hear(job, *at))
        try:
            trace = jobs[-1].result(600)
            drawn, wrong = time.time(), wrong_with(trace, asked, seed)
            for i in (STEPS - 1, STEPS // 2):
                trace.view("x0", i)
            row = {"first": first[0], "again": first[-1], "end": drawn, "run": trace.seconds, "wrong": wrong}
        except Exception as error:
            row = {"first": None, "again": None, "end": time.time(), "run": 0.0, "wrong": repr(error)}
        with _print:
            print(json.dumps({"learner": number, "asked": began, "said": said, "lines": lines, **row}), flush=True)
        time.sleep(rng.uniform(0, 1.5))


if __name__ == "__main__":
    address, first, count, seconds = sys.argv[1], *map(float, sys.argv[2:])
    models = [dx.connect(address, name=f"learner {int(first) + k}", timeout=60) for k in range(int(count))]
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.time() + seconds
    threads = [threading.Thread(target=learn, args=(one, int(first) + k, until)) for k, one in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in models:
        one.close()
