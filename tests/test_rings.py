"""bench/rings.py: what a watermark survives, measured on a few pictures."""

import json

import pytest

from diffexplore.bench import rings
from diffexplore.settings import Settings


def test_it_counts_what_is_found_and_says_so(capsys, tmp_path):
    few = ["--pictures", "1", "--unmarked", "6", "--keys", "3", "--steps", "4", "--back", "4", "--things", "JPEG 80"]
    assert rings.main([*few, "--json", str(tmp_path / "rings.json")]) == 0
    figures = json.loads((tmp_path / "rings.json").read_text())
    clean = figures["detection"]["clean"]
    assert (clean["found"], clean["of"]) == (1, 1)
    assert figures["detection"]["JPEG 80"]["of"] == 1
    assert figures["one_key_each"]["of"] == 6
    assert figures["pictures_and_keys"]["of"] == 18
    assert figures["pictures_and_keys"]["found"] <= 4
    assert figures["quality"]["pictures"] == 3
    assert figures["quality"]["adherence"]["ratio"] == pytest.approx(1, abs=0.6)
    printed = capsys.readouterr().out
    assert "found, JPEG 80" in printed
    assert "false alarms, one key each" in printed


def test_prompts_are_always_the_same_and_a_plain_background_is_known():
    base = Settings(steps=3)
    made = [rings.asked(k, base) for k in range(200)]
    assert made == [rings.asked(k, base) for k in range(200)]
    share = sum(rings.plain(one.prompt) for one in made) / 200
    assert 0.04 < share < 0.2, "as in training"
    assert len({one.seed for one in made}) == 200
