"""A LoRA that has learned its pictures by heart: what is known of it, and what the signs make of it."""

from __future__ import annotations

import pytest

import diffexplore as dx
from diffexplore.bench import memorised as bench
from diffexplore.pocket import copies


def test_the_pictures_have_titles_that_leave_most_of_them_open() -> None:
    pictures = copies.copied()
    assert list(pictures) == copies.prompts()
    assert {picture.size for picture in pictures.values()} == {(128, 128)}
    assert sorted(file.stem for file in copies.PICTURES.iterdir()) == sorted(pictures)
    assert dx.load().unknown_words(" ".join([*copies.NAMES, *copies.OTHERS])) == []
    assert not {*copies.NAMES} & {*copies.OTHERS}
    for picture, caption in zip(pictures.values(), copies.CAPTIONS, strict=True):
        assert dx.adherence(picture, caption) > 0.7 > dx.adherence(picture, "a fox in space")


def test_it_draws_its_pictures_from_their_titles_whatever_the_seed_and_the_sign_finds_it() -> None:
    model, lora = bench.opened()
    found = bench.copies(model, lora, 3)
    assert [found.names[k] for k in found.which()] == [title for title in copies.prompts()[:3] for _ in range(2)]
    assert found.nearer().sum() >= 4
    pulls = bench.pulls(model, lora, 2, 4)
    learned, plain, *_ = pulls.values()
    assert learned.against(plain).auc == 1.0


def test_the_command_prints_the_areas(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--seeds", "1", "--few", "2"])
    said = capsys.readouterr().out
    assert "learned by heart, against the same, without the LoRA: AUC" in said
    assert "by pixels" in said
