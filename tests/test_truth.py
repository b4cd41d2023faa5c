"""The line that says whether pictures are what the controls say, for every way in which a run may stand."""

from __future__ import annotations

from typing import Any

import pytest

from diffexplore.model import Model, Plan
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.widgets.truth import STALE, truth


def plan(settings: Settings, **extra: Any) -> Plan:
    return Plan(settings, {}, [], [], {}, extra)


def test_it_matches_only_a_whole_run_of_these_settings(tiny_trace: Trace) -> None:
    own = tiny_trace.settings
    found = truth([plan(own)], [tiny_trace], 7, "done")
    assert (found["state"], found["run"]) == ("match", 7)
    for other in (own.replace(guidance=5.5), own.replace(prompt="a"), own.replace(seed=own.seed + 1)):
        assert truth([plan(other)], [tiny_trace], 7, "done") == {"state": "stale", "text": STALE}
    assert truth([plan(own), plan(own)], [tiny_trace], 7, "done")["state"] == "stale"
    assert truth([], [tiny_trace], 7, "done")["state"] == "stale"
    assert truth([plan(own, strength=0.5)], [tiny_trace], 7, "done") == {"state": "stale", "text": STALE}
    assert truth("waits for image", [tiny_trace], 7, "done") == {"state": "stale", "text": "waits for image"}
    assert truth("waits for image", [], 7, "idle") == {"state": "none", "text": "waits for image"}
    assert truth(None, [tiny_trace], 7, "done")["state"] == "stale"
    assert truth([plan(own)], [tiny_trace], 7, "running")["state"] == "busy"


@pytest.mark.parametrize(("status", "text"), [
    ("idle", "press Run"), ("failed", "the run failed before its first step"),
    ("cancelled", "the run was stopped before its first step"),
])  # fmt: skip
def test_with_nothing_on_show_it_says_why(status: str, text: str) -> None:
    assert truth([plan(Settings())], [], 0, status) == {"state": "none", "text": text}


def test_of_several_it_says_whether_they_started_from_the_same_noise(tiny_model: Model, tiny_trace: Trace) -> None:
    other = tiny_model.trace(tiny_trace.settings.replace(seed=tiny_trace.settings.seed + 1))
    less = tiny_model.trace(tiny_trace.settings.replace(guidance=2.0))
    same = truth([plan(tiny_trace.settings), plan(less.settings)], [tiny_trace, less], 1, "done")
    assert same["text"] == "pictures match the controls · same starting noise"
    apart = truth([plan(tiny_trace.settings), plan(other.settings)], [tiny_trace, other], 1, "done")
    assert (apart["state"], apart["text"]) == ("match", "pictures match the controls")
