"""One prompt, many seeds, and counts of what the pictures show."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffexplore as dx
from diffexplore.experiments.counts import wilson
from diffexplore.experiments.seeds import Seeds, read_all

FEW = {"prompt": "a fox", "steps": 4}


@pytest.fixture(scope="module")
def found() -> Seeds:
    return dx.seeds(dx.load(), 6, **FEW)


def test_each_picture_is_that_of_its_seed_and_the_judge_reads_it(found: Seeds) -> None:
    assert found.seeds == (0, 1, 2, 3, 4, 5)
    alone = dx.load(reuse=0).trace(seed=3, **FEW)
    assert np.abs(np.asarray(found.images[3], int) - np.asarray(alone.image, int)).max() <= 1
    read = dx.judge(found.images[3])
    assert found.read[3]["setting"] == max(read["setting"], key=read["setting"].__getitem__)
    shares = found.shares("setting")
    assert sum(one.count for one in shares) == 6
    first = shares[0]
    assert (first.low, first.high) == wilson(first.count, 6)
    assert f"{first.count} of 6" in str(first)


def test_pictures_are_counted_by_hand_and_by_a_function_of_ones_own(found: Seeds) -> None:
    found.mark("looks left", [1, 4])
    assert found.marked("looks left") == [1, 4]
    assert [(one.value, one.count) for one in found.shares("looks left")] == [("no", 4), ("yes", 2)]
    with pytest.raises(ValueError, match="the seeds are"):
        found.mark("looks left", [17])
    with pytest.raises(ValueError, match="did you mean 'looks left'"):
        found.shares("look left")

    def bright(image: Image.Image) -> bool:
        return float(np.asarray(image).mean()) > 100

    own = dx.seeds(dx.load(), [2, 5], read=bright, **FEW)
    assert own.attributes == ["shows"]
    assert {row["shows"] for row in own.table()} <= {"yes", "no"}
    with pytest.raises(ValueError, match=r"read failed on picture 1: .*no such thing"):
        dx.seeds(dx.load(), [2], read=lambda image: {}["no such thing"], **FEW)


def test_two_prompts_are_compared_over_the_seeds_that_they_share(found: Seeds) -> None:
    night = dx.seeds(dx.load(), range(2, 8), prompt="a fox in a city at night", steps=4)
    gap = found.compare(night, "light", "night")
    assert gap.both + gap.first + gap.second + gap.neither == 4, "the seeds 2 to 5"
    ours = [one["light"] == "night" for one in found.read[2:]]
    theirs = [one["light"] == "night" for one in night.read[:4]]
    assert gap.difference == pytest.approx((sum(theirs) - sum(ours)) / 4)
    with pytest.raises(ValueError, match="in no picture of a seed that both have"):
        found.compare(dx.seeds(dx.load(), [9], **FEW), "light", "night")


def test_the_table_is_a_csv_that_no_spreadsheet_takes_for_formulas(found: Seeds, tmp_path: Path) -> None:
    found.mark("=1+1", [0], yes="@risky")
    found.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == list("012345")
    assert rows[0]["setting"] == found.read[0]["setting"]
    assert rows[0]["'=1+1"] == "'@risky"
    assert found.plot("setting") is not None


def test_bad_input_gets_one_sentence_before_any_work() -> None:
    model = dx.load()
    for values, told in (
        ({"n": 0}, "n must be a whole number from 1"), ({"n": []}, "n must be 1 to"),
        ({"n": [1, -1]}, "a seed must be"),
        ({"seed": 1}, "seed differs from run to run"), ({"read": 3}, "read must be a function"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            dx.seeds(model, **values)
    with pytest.raises(ValueError, match="n must be a whole number"):
        dx.seeds(model, dx.Settings())  # type: ignore[arg-type]


def test_what_is_counted_can_be_told_from_the_seeds_and_saved(tmp_path: Path) -> None:
    sheet = Seeds(dx.Settings(sampler="DDIM"), (3, 5), [Image.new("RGB", (8, 8))] * 2, [{}, {}])
    for arguments, told in (
        (("seed", [3]), "cannot be called 'seed'"), (("big", 3), "must be a list, got 3"),
        (("big", None), "must be a list, got None"), (("big", [[3]]), r"the seeds are \[3, 5\], got \[3\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            sheet.mark(*arguments)  # type: ignore[arg-type]
    for yes, no in (("x", "x"), (5, "no"), ("", "no"), ("\ud800", "no")):
        with pytest.raises(ValueError, match="yes and no must be two texts"):
            sheet.mark("big", [3], yes=yes, no=no)  # type: ignore[arg-type]
    assert sheet.attributes == [], "nothing that was refused is left behind"
    sheet.mark("big", [5])
    with pytest.raises(ValueError, match="pictures of seeds too, got None"):
        sheet.compare(None, "big")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a file is said by its path, got None"):
        sheet.to_csv(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read failed on picture 1: what is counted cannot be called 'seed'"):
        read_all(sheet.images, lambda _: {"seed": 7}, False)
    sheet.read = read_all(sheet.images, lambda _: "\ud800", False)
    sheet.to_csv(tmp_path / "odd.csv")
    assert (tmp_path / "odd.csv").read_text().splitlines() == ["seed,shows", "3,\\ud800", "5,\\ud800"]
