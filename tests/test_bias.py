"""What a vague prompt prefers, held against what was taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.experiments.bias import Bias, taught_by
from diffexplore.settings import Settings


def counted(shares: list[float], taught: list[float] | None, of: int, random: np.random.Generator) -> Bias:
    """What a model of known preferences would come to."""
    counts = random.multinomial(of, shares)[None]
    values = tuple("abcdefgh"[: len(shares)])
    told = None if taught is None else np.array(taught)
    return Bias(Settings(), "setting", values, (5.0,), counts, told, tuple(range(of)))


def test_a_preference_that_was_built_in_is_recovered_and_none_is_claimed_where_there_is_none() -> None:
    random = np.random.default_rng(3)
    even, bent = [0.2] * 5, [0.5, 0.2, 0.1, 0.1, 0.1]
    recovered = claimed = named = 0
    for _ in range(100):
        found = counted(bent, even, 60, random)
        rows = found.table()
        recovered += all(row["low"] <= share <= row["high"] for row, share in zip(rows, bent, strict=True))
        named += found.preferred(5.0).get("a") == "more"
        claimed += bool(counted(even, even, 60, random).preferred(5.0))
    assert recovered >= 90
    assert named >= 90
    assert claimed <= 7


def test_how_far_it_is_from_what_was_taught_is_told_beside_what_chance_would_give(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    found = counted([0.5, 0.5], [1.0, 0.0], 2000, random)
    assert found.distances[0] == pytest.approx(0.5, abs=0.05)
    assert found.by_chance == pytest.approx(0.0)
    even = [0.25] * 4
    chance = np.mean([counted(even, even, 40, random).distances[0] for _ in range(400)])
    assert counted(even, even, 40, random).by_chance == pytest.approx(chance, rel=0.1)
    unknown = counted(even, None, 40, random)
    unknown.to_csv(tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text("utf-8").splitlines()
    assert (lines[0], len(lines)) == ("guidance,value,count,of,share,low,high,taught", 5)
    assert lines[1].endswith(","), "nothing is known of what was taught"
    assert unknown.preferred(5.0) == {}
    assert np.isnan(unknown.distances).all()
    assert "most often" in str(unknown)


def test_the_pocket_model_is_read_by_its_judge_and_held_against_its_training() -> None:
    found = dx.bias(dx.load(), "setting", n=12, guidance=(1, 8), prompt="a fox", steps=4)
    assert found.counts.sum(axis=1).tolist() == [12, 12]
    told = taught_by("a fox", "setting")
    assert [told.get(value, 0.0) for value in found.values] == pytest.approx(found.taught.tolist())
    sheet = dx.seeds(dx.load(), 12, prompt="a fox", steps=4, guidance=8.0)
    counts = {one.value: one.count for one in sheet.shares("setting")}
    assert {v: int(c) for v, c in zip(found.values, found.counts[1], strict=True) if c} == counts
    assert found.plot() is not None
    assert "guidance 8" in str(found)
    dark = dx.bias(dx.load(), "dark", n=4, guidance=5.0, prompt="a fox", steps=2, taught={"yes": 1, "no": 3},
                   read=lambda image: {"dark": np.asarray(image).mean() < 90})  # fmt: skip
    assert dark.taught.tolist() == [0.25, 0.75]
    assert dark.counts.sum() == 4


def test_bad_input_gets_one_sentence_before_any_work() -> None:
    model = dx.load()
    for values, told in (
        ({"attribute": "setting", "prompt": "a fox in the snow"}, r"names the setting \(snow\)"),
        ({"attribute": "moood", "prompt": "a fox"}, "attribute must be one of"),
        ({"attribute": "style", "prompt": "a red fox"}, "so there is nothing to prefer|names the style"),
        ({"guidance": [], "prompt": "a fox"}, "guidance must be a number"),
        ({"seed": 2, "prompt": "a fox"}, "seed differs from run to run"),
        ({"taught": {"sea": -1}, "prompt": "a fox"}, "taught must map values"),
        ({"guidance": np.array([5.0, 500.0]), "prompt": "a fox"}, "guidance must be a number .* got 500"),
        ({"read": 3, "prompt": "a fox"}, "read must be a function of a picture, got 3"),
        ({"attribute": None, "read": str, "prompt": "a fox"}, "attribute must be a name, got None"),
        ({"n": "many", "prompt": "a fox"}, "n must be a whole number"),
    ):
        with pytest.raises(ValueError, match=told):
            dx.bias(model, **values)
