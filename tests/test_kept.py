"""Estimates as bytes: sheets of frames and WAV files come back as they went in, and damage is a sentence."""

import io
import wave

import numpy as np
import pytest
from PIL import Image

from diffexplore.record.kept import frames_of, image_of, samples_of, sheet, wav


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 81])
def test_frames_come_back_from_their_sheet(count: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    on_sheet = sheet(frames)
    assert on_sheet.shape[0] * on_sheet.shape[1] < (count + np.sqrt(count) + 1) * 24
    np.testing.assert_array_equal(frames_of(on_sheet, count), frames)


def test_frames_that_cannot_lie_on_a_sheet_are_refused() -> None:
    with pytest.raises(ValueError, match="9 frames cannot lie on a sheet of 64 x 32 pixels"):
        frames_of(np.zeros((32, 64, 3), np.uint8), 9)


def test_a_sound_comes_back_to_sixteen_bits_and_what_is_too_loud_is_clipped() -> None:
    samples = np.array([[0.0, 0.5, -1.0, 2.0], [1.0, np.nan, -0.25, -3.0]], np.float32)
    back, rate = samples_of(wav(samples, 44_100))
    assert rate == 44_100
    np.testing.assert_allclose(back, [[0, 0.5, -1, 1], [1, 0, -0.25, -1]], atol=2e-5)
    with wave.open(io.BytesIO(wav(samples, 8000))) as file:  # as anybody reads it
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 4)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no sound at all", wav(np.zeros((1, 9)), 8000)[:30]])
def test_what_is_no_sound_is_a_sentence(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        samples_of(data)


def test_only_image_files_of_a_bounded_size_are_read() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG")
    assert image_of(buffer.getvalue(), 200).size == (20, 10)
    with pytest.raises(ValueError, match="20 x 10 pixels"):
        image_of(buffer.getvalue(), 199)
    with pytest.raises(ValueError, match=r"\w"):
        image_of(buffer.getvalue()[:40], 200)
