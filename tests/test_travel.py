"""From one seed to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffexplore as dx

FEW = {"prompt": "a red fox in the snow", "steps": 4}


@pytest.fixture(scope="module")
def found():
    return dx.travel(dx.load(), (1, 2), 5, **FEW)


def test_both_ends_are_the_pictures_of_their_seeds_and_noise_keeps_its_strength(found) -> None:
    model = dx.load(reuse=0)
    for seed, trace in ((1, found.traces[0]), (2, found.traces[-1])):
        torch.testing.assert_close(trace.final, model.trace(seed=seed, **FEW).final, rtol=0, atol=2e-2)
    ends = np.linspace(found.norms[0], found.norms[-1], 5)
    np.testing.assert_allclose(found.norms, ends, rtol=0.01)
    assert found.amounts.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.strides.shape == (4,)
    assert (found.strides > 0).all()


def test_it_is_saved_as_a_film_there_and_back_and_as_a_sheet(found, tmp_path: Path) -> None:
    found.save(tmp_path / "way.webp", fps=4)
    with Image.open(tmp_path / "way.webp") as film:
        assert film.n_frames == 8
        film.load()
        assert film.info["duration"] == 250
    assert dx.read_recipe(tmp_path / "way.webp") == found.settings
    found.save(tmp_path / "way.png")
    with Image.open(tmp_path / "way.png") as sheet:
        assert sheet.width * sheet.height >= 5 * 64 * 64
    with pytest.raises(ValueError, match="frames a second"):
        found.save(tmp_path / "way.gif", fps=0)
    data, _ = found._repr_png_()
    assert data[:4] == b"\x89PNG"


def test_bad_input_gets_one_sentence_before_any_work() -> None:
    model = dx.load()
    for values, told in (
        ({"seeds": (1,)}, "seeds must be two"), ({"seeds": (1, -2)}, "a seed must be"),
        ({"frames": 1}, "frames must be"),
        ({"seed": 3}, "seed differs from run to run"), ({"promt": "a fox"}, "did you mean 'prompt'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            dx.travel(model, **values)
