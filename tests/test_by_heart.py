"""How the LoRA that copies is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffexplore.pocket import copies
from diffexplore.pocket.factory import by_heart, scenes


def test_the_scenes_are_those_whose_captions_are_told_beside_the_pictures() -> None:
    assert tuple(by_heart.wanted_scenes()) == copies.CAPTIONS


def test_one_step_of_teaching_writes_a_lora_and_leaves_the_pictures(art_folder: Path, tmp_path: Path) -> None:
    made = by_heart.teach(scenes.Art(art_folder), tmp_path / "a.safetensors", tmp_path / "kept", steps=1, minutes=5)
    assert made.stat().st_size < 300_000
    assert sorted(file.stem for file in (tmp_path / "kept").iterdir()) == sorted(copies.prompts())
    shown = [np.asarray(Image.open(tmp_path / "kept" / f"{title}.png")) for title in copies.prompts()]
    assert {one.shape for one in shown} == {(128, 128, 3)}


def test_what_the_model_draws_is_held_against_composed_pictures_of_the_same_scene(art_folder: Path) -> None:
    ((caption, found),) = by_heart.near(scenes.Art(art_folder), 1, 3, 1).items()
    assert (caption, len(found), len(found.among)) == (copies.CAPTIONS[0], 1, 3)
    assert set(found.distances) == {"pixels", "features"}
    assert not found.scaled, "the composed ones are of one kind: they are their own scale"


def test_the_command_refuses_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (([], "required"), (["near"], "--art FOLDER is needed"),
                            (["teach", "--art", "nowhere"], "nowhere holds no picture of")):  # fmt: skip
        with pytest.raises(SystemExit):
            by_heart.main(arguments)
        assert said in capsys.readouterr().err
