"""What a film is made of: small files, and no more frames or samples than there is room for."""

import io

import numpy as np
import pytest
from moving import RATE, sound, video
from PIL import Image

from diffexplore.record.kept import frames_of, samples_of
from diffexplore.widgets import shots
from diffexplore.widgets.shots import digest, encode, pictures_of, reel_of, sound_of


def test_a_drawing_is_kept_without_loss_whatever_its_size() -> None:
    squares = np.kron(np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8), np.ones((20, 20, 1)))
    shot = encode(squares.astype(np.uint8), side=640, plain=True)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shot.data)).convert("RGB")), squares)


def test_estimates_are_kept_with_all_their_frames_and_all_their_samples() -> None:
    trace = video()
    for i, data in enumerate(pictures_of(trace)):
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(frames_of(pixels, 9), trace.decode(trace[i].x0))
    heard, rate = samples_of(pictures_of(sound())[2])
    assert rate == RATE
    np.testing.assert_allclose(heard, sound().output, atol=2e-5)


def test_all_frames_are_there_while_there_is_room_then_smaller_ones_then_some(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = video(17)
    reel, side = reel_of(trace)
    assert (reel["shown"], reel["note"], side) == (list(range(17)), "", shots.SIDE)
    assert reel["middle"] == 8
    assert reel["first"] == [0, *[1] * 4, *[5] * 4, *[9] * 4, *[13] * 4], "as a causal autoencoder packs them"
    each = max(len(encode(trace.output[k]).data) for k in (0, 8, 16))
    monkeypatch.setattr(shots, "ROOM", round(1.5 * 3 * 6 * each))
    reel, _ = reel_of(trace)
    assert reel["shown"] == [0, 3, 6, 8, 10, 13, 16]
    assert reel["note"].startswith("7 of 17 frames are here: all would take")


def test_what_was_left_out_of_a_sound_is_said() -> None:
    assert sound_of(sound(), 10**6)["note"] == ""
    told = sound_of(sound(), 8000)
    assert told["seconds"] == 1.0
    assert "one channel and 8,000 samples a second, of 16,000" in told["note"]
    assert "Of 1.0 seconds the first 0.5 are here." in told["note"]
    trace = sound()
    del trace.info["rate"]
    assert "16,000 samples a second are taken" in sound_of(trace, 10**6)["note"]


def test_a_digest_tells_runs_apart_by_any_bit() -> None:
    one, other = np.zeros((2, 3)), np.zeros((2, 3))
    assert digest([one]) == digest([other])
    other[1, 2] = 1e-12
    assert digest([one]) != digest([other])
