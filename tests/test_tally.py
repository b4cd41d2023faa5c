"""Pictures that are counted by clicking on them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

import diffexplore as dx
from diffexplore.experiments.seeds import Seeds
from diffexplore.settings import Settings


@pytest.fixture
def sheet() -> Seeds:
    images = [Image.new("RGB", (64, 48), (k * 20, 90, 200)) for k in range(8)]
    return Seeds(Settings(prompt="a <b>fox</b>"), range(10, 18), images, [{}] * 8)


def test_a_click_is_a_mark_in_the_sheet_and_the_share_is_told_with_its_interval(sheet: Seeds) -> None:
    widget = dx.Tally(sheet, "looks left")
    assert widget.told == "none of 8 yet"
    assert len(widget.pictures) == 8
    with Image.open(io.BytesIO(widget.pictures[3])) as shown:
        assert shown.size == (64, 48)
    widget.set_state({"chosen": ["12", "15", "99", "12"]})  # as a page says it
    assert sheet.marked("looks left") == [12, 15]
    assert widget.told.startswith("2 of 8, 25 %; of all seeds between 7 and 59 %")
    assert [(one.value, one.count) for one in sheet.shares("looks left")] == [("no", 6), ("yes", 2)]
    again = dx.Tally(sheet, "looks left")
    assert again.chosen == ["12", "15"]
    widget.close()
    again.close()


def test_what_cannot_be_counted_is_refused(sheet: Seeds) -> None:
    with pytest.raises(ValueError, match=r"Tally takes what diffexplore\.seeds drew, got 3"):
        dx.Tally(3)
    with pytest.raises(ValueError, match="needs a name"):
        dx.Tally(sheet, " ")
