"""The benchmark of obedience: its scenes and captions, what it asks for, what it counts."""

import json

import numpy as np
import pytest

from diffexplore.model import load
from diffexplore.pocket import judge, world
from diffexplore.pocket.factory import judge_training, obedience, pool


@pytest.mark.parametrize("holdout", [False, True])
def test_full_captions_say_everything_that_can_be_read(holdout):
    for scene in obedience.bench_scenes(400, holdout=holdout):
        found, wanted = judge.named(obedience.full_caption(scene)), pool.truth(scene)
        for attribute in ("subject", "style", "setting", "light"):
            assert found.get(attribute) == wanted.get(attribute), obedience.full_caption(scene)
        assert found.get("colour", "own") == wanted.get("colour", "own")


def test_bench_scenes_are_always_the_same_and_keep_their_kind():
    for holdout in (False, True):
        chosen = obedience.bench_scenes(50, holdout=holdout)
        assert chosen == obedience.bench_scenes(60, holdout=holdout)[:50]
        assert {world.held_out(scene) for scene in chosen} == {holdout}
        assert {(scene.flaws, scene.scale, scene.side) for scene in chosen} == {((), "medium", "centre")}


def test_bench_counts_agreement_on_pictures_the_pocket_model_draws(tmp_path, capsys):
    obedience.main(["--prompts", "9", "--tables", "pairs", "negative", "--json", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result) == ["model", "prompts", "pairs", "negative"]
    assert result["model"] == "pocket"
    assert result["prompts"] == 9
    printed = capsys.readouterr().out
    assert printed.split()[:3] == ["subject", "colour", "setting"]
    for kind in ("trained pairs", "held-out pairs"):
        shares = result["pairs"][kind]
        assert list(shares) == [*judge.ATTRIBUTES, "all", "adherence"]
        assert shares["all"] <= min(shares["subject"], shares["setting"])
        assert shares["setting"] > 0.5
        assert f"{kind:<14}{100 * shares['subject']:>9.1f} %" in printed
    assert result["negative"]["blurry"]["degraded"] > result["negative"]["blurry and against it"]["degraded"]


@pytest.fixture
def asked(monkeypatch):
    """Row -> what it asks for; nothing is drawn."""
    found = {}

    def drawn(model, label, wanted):
        found[label] = wanted
        return np.zeros((len(wanted), 64, 64, 3), np.uint8)

    monkeypatch.setattr(obedience, "_drawn", drawn)
    return found


def test_bench_over_a_setting_varies_that_and_nothing_else(asked):
    (table,) = obedience.bench(4, ["guidance"]).values()
    assert list(table) == list(asked) == [f"guidance {g}" for g in (1, 2, 3, 5, 8, 12, 16)]
    usual = asked["guidance 5"]
    assert [one.seed for one in usual] == [0, 1, 2, 3]
    assert all((one.steps, one.sampler) == (20, "DPM++ 2M Karras") for one in usual)
    assert asked["guidance 16"] == [one.replace(guidance=16) for one in usual]
    with pytest.raises(ValueError, match="a table is one of pairs, guidance, steps, negative; got 'speed'"):
        obedience.bench(4, ["speed"])


def test_a_model_of_few_steps_is_asked_for_few_by_its_own_sampler(asked):
    turbo = load("pocket-turbo")
    obedience.bench(2, ["steps", "pairs"], turbo)
    assert [key for key in asked if "steps" in key] == ["steps 1", "steps 2", "steps 4", "steps 8"]
    assert {(one.steps, one.sampler) for one in asked["held-out pairs"]} == {(4, turbo.sampler)}


def test_a_benchmark_of_no_prompts_is_refused(capsys):
    with pytest.raises(SystemExit):
        obedience.main(["--prompts", "0"])
    assert "--prompts must be 1 or more, got 0" in capsys.readouterr().err


def test_a_share_of_nothing_is_null_in_the_file_and_a_dash_on_the_screen():
    drawing = world.Scene("fox", style="line")  # which shows no colour and no light
    shares = obedience.obeyed(np.full((1, 64, 64, 3), 255, np.uint8), [drawing])
    assert {name for name, share in shares.items() if np.isnan(share)} == {"colour", "light"}

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    written = json.loads(obedience.as_json({"prompts": 1, "pairs": {"one": shares}}), parse_constant=refuse)
    assert {name for name, share in written["pairs"]["one"].items() if share is None} == {"colour", "light"}
    assert judge_training.as_text({"one": shares}).split().count("-") == 2


@pytest.mark.parametrize("prompts", [0, -1, 2.5, True, None])
def test_a_benchmark_of_no_whole_number_of_prompts_is_refused(prompts):
    with pytest.raises(ValueError, match="prompts must be a whole number from 1, got"):
        obedience.bench(prompts)
