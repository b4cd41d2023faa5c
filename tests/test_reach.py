"""Reaching into the run on show: what a page asks for becomes a mark of the next run, or a branch beside this one."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from patience import PATIENCE

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.widgets.explorer import Explorer
from diffexplore.widgets.reach import mark_of, others, remarked


def explorer(model: Model, **more: Any) -> Explorer:
    made = Explorer(model, prompt="a fox", steps=4, seed=3, sampler="DDIM", **more)
    made.run()
    return made


def ask(one: Explorer, act: str, **more: Any) -> None:
    content = {"kind": "reach", "act": act, "run": one.viewer.shown_run, **more}
    one.viewer._handle_custom_msg(content, [])


def settled(one: Explorer, wanted: int) -> None:
    """Wait until so many films are complete in the viewer."""
    end = time.monotonic() + PATIENCE
    while one.status == "running" or len(one.viewer.shown()) != wanted:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_branch_stands_beside_its_parent_and_the_controls_say_it(tiny_model: Model) -> None:
    one = explorer(tiny_model)
    parent = one.trace
    assert parent is not None
    ask(one, "branch", step=2, values={"prompt": "a car", "guidance": 5.0})
    settled(one, 2)
    assert [film.label for film in one.viewer.shown()] == ["parent", "branch"]
    branch = one.trace
    assert branch is not None
    assert torch.equal(branch[1].output, parent[1].output)
    assert not torch.equal(branch[2].output, parent[2].output)
    mark = mark_of(parent, 2)
    assert dict(one.changes) == {mark: (("prompt", "a car"),)}
    assert one.settings == branch.settings
    assert one.viewer.truth["state"] == "match"
    assert f"changes={{{mark!r}: {{'prompt': 'a car'}}}}" in one.code()
    assert one.viewer.shown()[1].flags == [(2, "a car", mark)]
    # Run draws what the controls say, alone, and comes to the same.
    alone = one.run()
    settled(one, 1)
    assert torch.equal(alone.final, branch.final)
    assert one.viewer.truth["state"] == "match"
    one.close()


def test_marks_are_put_moved_and_taken_away(tiny_model: Model) -> None:
    one = explorer(tiny_model)
    first = one.trace
    assert first is not None
    ask(one, "put", step=1, values={"guidance": 1.0})
    settled(one, 1)
    (mark,) = dict(one.changes)
    assert mark == mark_of(first, 1)
    assert one.viewer._marks == [[mark, "guidance 1", {"guidance": 1.0}]]
    while one.viewer.shown()[0].flags != [(1, "guidance 1", mark)]:
        settled(one, 1)
    ask(one, "put", step=3, mark=mark, values={"guidance": 1.0})
    settled(one, 1)
    (moved,) = dict(one.changes)
    assert moved == mark_of(first, 3)
    ask(one, "take", mark=moved)
    settled(one, 1)
    assert one.changes == ()
    one.close()


def test_what_is_refused_is_said_in_place_and_loses_nothing(tiny_model: Model) -> None:
    one = explorer(tiny_model)
    shown = one.viewer.shown_run
    ask(one, "branch", step=2, values={"prompt": "a fox"})
    assert one.viewer.error == "Nothing would change there: write another prompt or guidance first."
    ask(one, "put", step=9, values={"prompt": "a car"})
    assert one.viewer.error == "The kernel no longer has this step: press Run."
    ask(one, "put", step=1, values={"guidance": -3})
    assert one.viewer.error.startswith("Guidance must be a number from 0 to 100")
    with pytest.raises(ValueError, match="at must be the number of an evaluation, of 0 to 3, got 7"):
        one.branch(7, prompt="a car")
    with pytest.raises(ValueError, match="changes are placed by a share of noise"):
        one.changes = {7: {"prompt": "a car"}}
    assert (one.viewer.shown_run, one.changes) == (shown, ())
    one.close()


def test_what_holds_at_a_mark_is_told_from_what_is_new() -> None:
    settings = dx.Settings(prompt="a fox", guidance=5.0, changes={0.8: {"prompt": "a car"}})
    assert others(settings, 0.9, {"prompt": "a cat", "guidance": 5}) == {"prompt": "a cat"}
    assert others(settings, 0.5, {"prompt": "a car", "guidance": 1.0}) == {"guidance": 1.0}
    with pytest.raises(ValueError, match="nothing would change there"):
        others(settings, 0.5, {"prompt": "a car"})
    assert remarked(settings, 0.3, {"prompt": "a car"}, old=0.8) == {0.3: {"prompt": "a car"}}
    assert remarked(settings, None, {}, old=0.8) == {}
