"""The loss at every level: what a network says of the noise that was added to a picture, and what was added."""

import numpy as np
import pytest
import torch
from test_start import picture
from tiny_families import model

import diffexplore as dx


@pytest.fixture(scope="module")
def pocket() -> dx.Model:
    return dx.load()


@pytest.fixture(scope="module")
def fox(pocket: dx.Model) -> dx.Trace:
    return pocket.trace(prompt="a fox in the snow", steps=12, seed=7)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "qwen", "sana", "lcm", "pixart"])
def test_every_level_is_the_picture_with_the_noise_of_the_seed(name: str) -> None:
    one = model(name)
    found = dx.loss_by_level(one, picture(), "a fox", steps=4, seed=5)
    clean = one.encode(picture())
    start = one.trace(prompt="a fox", steps=4, seed=5, sampler=found.guessed.settings.sampler)[0]
    noise = start.latents / max(start.b, 1.0 if start.a == 0 else float(np.hypot(start.a, start.b)))
    for added, guessed in zip(found.added, found.guessed, strict=True):
        assert torch.equal(added.latents, guessed.latents)
        torch.testing.assert_close(added.latents, guessed.a * clean + guessed.b * added.noise, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(added.noise, noise, rtol=0.02, atol=0.02)
        torch.testing.assert_close(added.x0, clean, rtol=1e-3, atol=1e-3)
    expected = [((one.noise - other.noise) ** 2).mean() for one, other in zip(found.added, found.guessed, strict=True)]
    assert found.loss == pytest.approx(np.array(expected), rel=1e-3, abs=1e-6)
    assert np.array_equal(np.asarray(found.added.image.size), np.asarray(one.size))


def test_of_a_picture_that_is_nearly_clean_the_noise_is_hard_to_tell(pocket: dx.Model, fox: dx.Trace) -> None:
    found = dx.loss_by_level(pocket, fox.image, "a fox in the snow", steps=10)
    assert (np.diff(found.share) < 0).all()
    assert (np.diff(found.loss) > 0).all()
    assert found.loss[0] < 0.05 < 0.3 < found.loss[-1] < 1.5
    rows = found.table()
    assert [row["loss"] for row in rows] == list(found.loss)
    assert found.guessed.image.size == fox.image.size


def test_who_is_told_what_there_is_errs_less(pocket: dx.Model, fox: dx.Trace) -> None:
    told, untold, misled = (
        dx.loss_by_level(pocket, fox.image, words, steps=8).loss.mean()
        for words in ("a fox in the snow", "", "a castle at night")
    )
    assert told < untold < misled


def test_the_plain_run_of_the_same_settings_is_another_one(pocket: dx.Model, fox: dx.Trace) -> None:
    found = dx.loss_by_level(pocket, fox.image, steps=6, seed=2)
    plain = pocket.trace(found.guessed.settings)
    assert not torch.equal(plain.final, found.guessed.final)
    assert "loss" not in plain[0].numbers
    again = dx.loss_by_level(pocket, fox.image, steps=6, seed=2)
    assert again.guessed.info.get("reused")
    assert np.array_equal(again.loss, found.loss)
    other = dx.loss_by_level(pocket, picture(), steps=6, seed=2)
    assert not np.array_equal(other.loss, found.loss)


def test_it_is_drawn(pocket: dx.Model, fox: dx.Trace) -> None:
    figure = dx.loss_by_level(pocket, fox.image, steps=6).plot(3)
    assert len(figure.axes) == 4 * 3 + 1
    with pytest.raises(ValueError, match="columns must be a whole number from 2 to 12, got 1"):
        dx.loss_by_level(pocket, fox.image, steps=6).plot(1)


def test_what_cannot_be_is_refused(pocket: dx.Model) -> None:
    with pytest.raises(ValueError, match="a model is needed"):
        dx.loss_by_level("pocket", picture())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="image must be"):
        dx.loss_by_level(pocket, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be a whole number"):
        dx.loss_by_level(pocket, picture(), steps=0)
