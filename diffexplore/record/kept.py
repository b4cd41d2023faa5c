"""How the decoded estimate of a step is kept as bytes: a picture as an image file; the frames of a video as one image
file, a sheet on which they lie row by row; a sound as WAV of 16 bits a sample.
"""

import io
import math
import wave
from typing import TYPE_CHECKING

import numpy as np

from diffexplore.words import sentence

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["frames_of", "image_of", "samples_of", "sheet", "wav"]


def sheet(frames: np.ndarray) -> np.ndarray:
    """(frames, H, W, 3) side by side, row by row, about as many across as down; places left over are black.

    Returns:
        (down H, across W, 3).
    """
    count, height, width, colours = frames.shape
    across, down = _grid(count)
    places = np.zeros((down * across, height, width, colours), frames.dtype)
    places[:count] = frames
    rows = places.reshape(down, across, height, width, colours).swapaxes(1, 2)
    return rows.reshape(down * height, across * width, colours)


def frames_of(pixels: np.ndarray, count: int) -> np.ndarray:
    """The frames of a :func:`sheet`, (count, H, W, 3).

    Raises:
        ValueError: one sentence, where so many frames cannot lie on it.
    """
    across, down = _grid(count)
    height, width = pixels.shape[:2]
    if height % down or width % across or height < down or width < across:
        raise ValueError(f"{count} frames cannot lie on a sheet of {width} x {height} pixels")
    rows = pixels.reshape(down, height // down, across, width // across, -1).swapaxes(1, 2)
    return rows.reshape(down * across, height // down, width // across, -1)[:count]


def _grid(count: int) -> tuple[int, int]:
    across = math.ceil(math.sqrt(count))
    return across, math.ceil(count / across)


def image_of(data: bytes, most: int) -> "Image.Image":
    """An image file as RGB.

    Args:
        data: a PNG, WebP or JPEG file.
        most: how many pixels are read.

    Raises:
        ValueError: one sentence, for anything else, a damaged one, or one with more pixels.
    """
    from PIL import Image

    try:
        kept = Image.open(io.BytesIO(data), formats=["PNG", "WEBP", "JPEG"])
        if kept.width * kept.height > most:
            raise OSError(f"{kept.width} x {kept.height} pixels")
        return kept.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(sentence(error)) from None


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A sound as a WAV file of 16 bits a sample; what is beyond -1 and 1 is clipped, what is no number silent.

    Args:
        samples: (channels, samples), floats from -1 to 1.
        rate: samples a second.
    """
    clipped = np.clip(np.nan_to_num(samples.astype(np.float64)), -1, 1)
    whole = np.round(clipped * 32_767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(whole))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.T.tobytes())
    return buffer.getvalue()


def samples_of(data: bytes) -> tuple[np.ndarray, int]:
    """A sound that :func:`wav` wrote: (channels, samples) float32 from -1 to 1, and its rate.

    Raises:
        ValueError: one sentence, for anything else, or a damaged one.
    """
    try:
        with wave.open(io.BytesIO(data), "rb") as file:
            if file.getsampwidth() != 2:
                raise ValueError(f"{8 * file.getsampwidth()} bits a sample, only 16 are read")
            channels, rate = file.getnchannels(), file.getframerate()
            whole = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (wave.Error, EOFError, ValueError) as error:
        raise ValueError(sentence(error)) from None
    whole = whole[: len(whole) // channels * channels]
    return (whole.reshape(-1, channels).T / 32_767).astype(np.float32), rate
