"""Branches: up to where they leave, a run is replayed without a model call; unchanged, it is the run, bit by bit."""

import re

import numpy as np
import pytest
import torch
from patience import PATIENCE
from tiny_families import MAKERS, family, model, size

import diffexplore as dx
from diffexplore.model import Model

CAR = "a long blue car on a road"


def offered() -> list[tuple[str, str]]:
    """Every sampler of Stable Diffusion; of each other family the first, the middle and the last that it offers."""
    found = []
    for name in MAKERS:
        names = model(name).samplers
        few = names if name == "sd" else [names[0], names[len(names) // 2], names[-1]]
        found += [(name, one) for one in dict.fromkeys(few)]
    return found


def run(name: str, sampler: str = "DDIM", **values) -> dx.Trace:
    asked = {"prompt": "a red fox", "negative_prompt": "blurry", "steps": 4, "guidance": 4.0, "seed": 3}
    return model(name).trace(**asked | values, sampler=sampler, **size(name))


@pytest.mark.parametrize(("name", "sampler"), offered())
def test_unchanged_it_is_the_run_and_its_first_steps_cost_nothing(name, sampler):
    """Also in the middle of a step of two evaluations."""
    one, parent = model(name), run(name, sampler)
    network, counted = getattr(one.pipeline, "unet", None) or one.pipeline.transformer, []
    at = len(parent) // 2
    hook = network.register_forward_pre_hook(lambda module, args: counted.append(1))
    branch = one.branch(parent, at)
    replayed = len(counted)
    one.trace(parent.settings)
    hook.remove()
    assert replayed * len(parent) == (len(counted) - replayed) * (len(parent) - at)
    assert torch.equal(branch.final, parent.final)
    assert np.array_equal(np.asarray(branch.image), np.asarray(parent.image))
    for mine, theirs in zip(branch, parent, strict=True):
        assert torch.equal(mine.latents, theirs.latents)
        assert torch.equal(mine.output, theirs.output)
        assert mine.guidance == theirs.guidance
    assert branch.settings == parent.settings


@pytest.mark.parametrize(("name", "sampler"), [("sd", "DPM++ 2M SDE"), ("sdxl", "Euler a"), ("flux", None)])
def test_what_follows_differs_and_the_settings_say_so(name, sampler):
    one, parent = model(name), run(name, sampler)
    branch = one.branch(parent, 2, prompt=CAR)
    assert [torch.equal(a.output, b.output) for a, b in zip(branch, parent, strict=True)] == [True, True, False, False]
    again = one.trace(branch.settings)  # with no parent at hand
    assert torch.equal(again.final, branch.final)
    told = branch.info["parent"]
    assert (told["at"], told["changes"], told["latents"], told["parent"]) == (2, {"prompt": CAR}, False, None)
    assert dx.Settings(**told["settings"]) == parent.settings
    # A branch of a branch: its own field holds to the end, other changes stay.
    twig = one.branch(branch, 1, prompt="a cat", guidance=1.0)
    assert [dict(fields) for _, fields in twig.settings.changes] == [{"prompt": "a cat", "guidance": 1.0}]
    assert twig.info["parent"]["parent"] == told


def test_latents_are_edited_where_it_leaves(tmp_path):
    one, parent = model("sd"), run("sd", "DPM++ 2M")

    def poked(latents: torch.Tensor) -> torch.Tensor:
        latents[:, 2:4, 2:6] += 1.5
        return latents

    for at in (0, 2):
        branch = one.branch(parent, at, latents=poked)
        assert torch.equal(branch[at].latents, poked(parent[at].latents))
        assert not torch.equal(branch.final, parent.final)
        assert branch.info["parent"]["latents"] is True
        given = one.branch(parent, at, latents=poked(parent[at].latents).numpy())
        assert torch.equal(given.final, branch.final)
        assert torch.equal(one.branch(parent, at, latents=lambda latents: latents).final, parent.final)
        # A branch of it is replayed with the edit, before, at and behind which it leaves.
        for later in (0, at, at + 1):
            twig = one.branch(branch, later)
            assert torch.equal(twig.final, branch.final if later >= at else parent.final)
    packed = run("flux", None)
    branch = model("flux").branch(packed, 2, latents=lambda latents: latents * 0.5)
    assert torch.equal(branch[2].latents, packed[2].latents * 0.5)
    # A run from a file is as good as one of now.
    parent.save(tmp_path / "run.safetensors")
    loaded = dx.Trace.load(tmp_path / "run.safetensors")
    assert torch.equal(one.branch(loaded, 2).final, parent.final)


@pytest.mark.parametrize(("name", "sampler"), [("sd", "DPM++ 2M"), ("sd3", None)])
def test_a_run_that_started_from_a_picture_has_branches_and_changes(name, sampler):
    picture = np.random.default_rng(0).integers(0, 255, (*reversed(size(name).values()), 3), dtype=np.uint8)
    one, parent = model(name), run(name, sampler, steps=8, image=picture, strength=0.9)
    assert 2 < len(parent) < 8
    assert torch.equal(one.branch(parent, 2).final, parent.final)
    changed = one.branch(parent, 1, prompt=CAR)
    assert torch.equal(one.trace(changed.settings, image=picture).final, changed.final)
    assert not torch.equal(changed.final, parent.final)


def test_bad_branches_are_refused_before_any_work():
    one, parent = model("sd"), run("sd")
    shape = tuple(parent[0].latents.shape)
    for wrong, says in [
        ({"at": 4}, "at must be the number of an evaluation, of 0 to 3, got 4"),
        ({"at": -1}, "at must be the number of an evaluation, of 0 to 3, got -1"),
        ({"at": True}, "at must be the number of an evaluation, of 0 to 3, got True"),
        ({"at": 1, "steps": 9}, "a branch may change prompt, negative_prompt, guidance, adapters, guider; got 'steps'"),
        ({"at": 1, "guidance": -1}, "guidance must be a number from 0 to 100"),
        ({"at": 1, "latents": torch.zeros(4, 3, 3)}, f"latents of this run have the shape {shape}, got (4, 3, 3)"),
        (
            {"at": 1, "latents": lambda latents: None},
            "latents must be a tensor, or a function that returns one, got None",
        ),
        ({"at": 1, "latents": lambda latents: latents * np.inf}, "latents must be finite numbers"),
    ]:
        with pytest.raises(ValueError, match=re.escape(says)):
            one.planner.branch(parent, **wrong)
    with pytest.raises(ValueError, match="a branch is of a trace, got 'a fox'"):
        one.branch("a fox", 1)
    with pytest.raises(RuntimeError, match="its latents come out otherwise"):
        one.branch(dx.Trace(parent.settings.replace(sampler="Euler a"), list(parent)), 2)


def test_a_branch_is_remembered_and_runs_as_a_job():
    one = Model(family("sd"))
    parent = one.trace(prompt="a fox", steps=4, seed=3, sampler="DDIM")
    plan = one.planner.branch(parent, 2, prompt=CAR)
    first, again = one.submit(plan).result(PATIENCE), one.trace(plan)
    assert torch.equal(first.final, again.final)
    assert again.info["reused"]
    assert again.info["parent"] == first.info["parent"]
    assert [len(batch) for batch in (one.trace_many([plan, plan]),)] == [2]
