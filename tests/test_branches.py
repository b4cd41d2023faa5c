"""An Explorer's branches: painted ones, branches of branches, and going back to one that was made before."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import PATIENCE
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.widgets.explorer import Explorer
from diffexplore.widgets.reach import edit_of

MASK = np.zeros((8, 12), bool)  # of the latents of the tiny model
MASK[2:5, 3:7] = True


def painted(tool: str, mask: np.ndarray = MASK, **more: Any) -> dict[str, Any]:
    bits = base64.b64encode(np.packbits(mask).tobytes()).decode()
    return {"tool": tool, "size": list(mask.shape), "bits": bits, **more}


def ask(one: Explorer, act: str, **more: Any) -> None:
    one.viewer._handle_custom_msg({"kind": "reach", "act": act, "run": one.viewer.shown_run, **more}, [])


def settled(one: Explorer, films: int, run: int) -> None:
    """Wait until the run of that number is complete in the viewer."""
    end = time.monotonic() + PATIENCE
    while one.status == "running" or one.viewer.shown_run != run or len(one.viewer.shown()) != films:
        assert time.monotonic() < end, one.viewer.error
        time.sleep(0.02)


def nodes(one: Explorer) -> list[tuple[Any, ...]]:
    return [(node["n"], node["of"], node["at"], node["words"]) for node in one.viewer.branches["nodes"]]


@pytest.fixture
def explorer(tiny_model: Model) -> Any:
    made = Explorer(tiny_model, prompt="a fox", steps=4, seed=3, sampler="DDIM")
    made.run()
    yield made
    made.close()


def test_what_is_painted_is_edited_there_and_the_run_says_so(explorer: Explorer) -> None:
    parent = explorer.trace
    assert parent is not None
    ask(explorer, "branch", step=1, values={}, edit=painted("poke", amount=1.5))
    settled(explorer, 2, 2)
    branch = explorer.trace
    assert branch is not None
    moved = (branch[1].latents - parent[1].latents)[0].numpy()
    assert np.allclose(moved, 1.5 * MASK, atol=1e-5)
    assert branch.info["parent"]["edit"]["edit"] == "poke"
    assert (explorer.settings, explorer.changes) == (parent.settings, ())
    assert explorer.viewer.truth["state"] == "match"
    assert nodes(explorer) == [(1, None, 0, "a fox"), (2, 1, 1, "poked 12 % of the picture")]
    # A branch of it, painted with what the first run has there, and another prompt.
    ask(explorer, "branch", step=2, values={"prompt": "a car"}, edit=painted("swap", node=1))
    settled(explorer, 2, 3)
    twig = explorer.trace
    assert twig is not None
    assert torch.equal(twig[2].latents[:, MASK], parent[2].latents[:, MASK])
    assert torch.equal(twig[2].latents[:, ~MASK], branch[2].latents[:, ~MASK])
    assert twig.info["parent"]["parent"] == branch.info["parent"]
    assert nodes(explorer)[-1] == (3, 2, 2, "a car, swapped 12 % of the picture")
    # What is shown as code makes the picture again, by way of both edits.
    scope: dict[str, Any] = {"pipeline": explorer.model.pipeline}
    exec("\n".join(explorer.viewer.code.splitlines()[:-1]), scope)
    assert torch.equal(scope["trace"].final, twig.final)
    assert explorer.viewer.branches["on"] == [2, 3]
    assert list(explorer.branched.values()) == [parent, branch, twig]


def test_a_lora_may_change_on_the_way(lora: Path) -> None:
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    explorer = Explorer(model, prompt="a fox", steps=3, seed=3, sampler="DDIM")
    explorer.run()
    assert explorer.viewer.branches["loras"] == [["style", 0.0]]
    ask(explorer, "branch", step=1, values={"prompt": "a fox", "adapters": {"style": 0}})
    assert explorer.viewer.error == "Nothing would change there: write another prompt or guidance first."
    ask(explorer, "branch", step=1, values={"adapters": {"style": 0.8}})
    settled(explorer, 2, 2)
    assert [fields for _, fields in explorer.changes] == [(("adapters", (("style", 0.8),)),)]
    assert nodes(explorer)[-1] == (2, 1, 1, "style 0.8")
    parent, branch = explorer.branched.values()
    assert [torch.equal(a.output, b.output) for a, b in zip(parent, branch, strict=True)] == [True, False, False]
    explorer.close()


def test_a_branch_that_was_made_before_is_shown_again(explorer: Explorer) -> None:
    parent = explorer.trace
    assert parent is not None
    explorer.branch(2, prompt="a car")
    settled(explorer, 2, 2)
    explorer.prompt = "a boat"
    explorer.run()
    assert explorer.viewer.branches["on"] == []
    ask(explorer, "show", node=2)
    settled(explorer, 2, 4)
    assert explorer.trace is explorer.branched[2]
    assert explorer.settings == explorer.branched[2].settings
    assert explorer.viewer.truth["state"] == "match"
    assert explorer.viewer.branches["on"] == [1, 2]
    ask(explorer, "show", node=1)
    settled(explorer, 1, 5)
    assert explorer.trace is parent
    assert (explorer.prompt, explorer.changes) == ("a fox", ())
    assert explorer.viewer.truth["state"] == "match"
    # And a branch from there, with latents from code.
    explorer.branch(1, latents=lambda latents: latents.flip(-1))
    settled(explorer, 2, 6)
    assert nodes(explorer)[-1] == (3, 1, 1, "edited latents")


def test_what_a_page_sends_is_checked(explorer: Explorer) -> None:
    before = explorer.viewer.shown_run
    for edit, says in [
        (painted("spray"), "A brush does one of poke, noise, erase, swap; got 'spray'"),
        (painted("poke", np.zeros((8, 12), bool)), "A region must have something in it"),
        (painted("poke", np.ones((9, 12), bool)), "What was painted is not the size of the latents"),
        (painted("poke") | {"bits": "AAAA"}, "What was painted is not the size of the latents"),
        (painted("poke") | {"bits": "<b>"}, "What was painted is not the size of the latents"),
        (painted("poke") | {"size": [True, 12]}, "What was painted is not the size of the latents"),
        (painted("poke", np.eye(8, dtype=bool)), "A mask must have the proportions of the latents, 8 x 12"),
        (painted("poke", amount="much"), "Value must be a number from -100 to 100, got 'much'"),
        (painted("swap", node=7), "This run is no longer kept: branch again."),
    ]:
        ask(explorer, "branch", step=1, values={}, edit=edit)
        assert explorer.viewer.error.startswith(says), edit
    ask(explorer, "show", node={"n": 1})
    assert explorer.viewer.error == "This run is no longer kept: branch again."
    assert (explorer.viewer.shown_run, explorer.branched) == (before, {})
    latents = torch.zeros(4, 3, 8, 12)
    step = Step(index=0, timestep=0.0, seconds=0.0, a=0.6, b=0.8, kind="epsilon", latents=latents, output=latents)
    video = Record(dx.Settings(), [step], info={"kind": "video"})
    with pytest.raises(ValueError, match="only the latents of a picture can be painted on: this run makes a video"):
        edit_of(painted("poke"), video, lambda number: video)
