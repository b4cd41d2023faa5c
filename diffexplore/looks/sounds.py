"""A step of a run that makes a sound, as a picture: a waveform over a spectrogram, or latents as what they are.

All pictures of a sound have one size and one time axis, from left to right, so that they can be read under each other:

- what can be decoded (``x0``) is a waveform, the mean of the channels with full scale from edge to edge, over a **mel
  spectrogram**: the power of short overlapping pieces (Hann window) in bands evenly spaced in mel, m = 2595 log10(1 + f
  / 700) (O'Shaughnessy 1987, Speech Communication), in decibels relative to a sine of full scale (dBFS), `FLOOR` to 0.
- all else, and ``x0`` without a decoder, is the latents: a row for each channel, or for each of its frequencies where
  they have such an axis, low ones at the bottom of a channel; a column for each moment. Grey is zero.

As with pictures no map looks at the loudest or the largest number of its own frame: steps and runs can be compared.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffexplore.looks.estimates import estimate, field_of

if TYPE_CHECKING:
    from torch import Tensor

    from diffexplore.record.record import Record

__all__ = [
    "CAPTIONS",
    "COLOURS",
    "FLOOR",
    "PLOT",
    "SIZE",
    "SUPPOSED",
    "frame",
    "heard",
    "lighter",
    "mel_spectrogram",
    "rate_of",
    "table",
]

SIZE: Final = (640, 320)
"""(width, height) of every picture of a sound."""
PLOT: Final = (64, 572)
"""From where to where the time axis runs, in pixels from the left."""
FLOOR: Final = -80.0
"""dBFS of the darkest colour; the brightest is 0."""
SUPPOSED: Final = 16_000
"""Samples a second where a pipeline does not say."""
COLOURS: Final = np.array(
    [(2, 3, 14), (40, 16, 88), (112, 28, 116), (188, 52, 92), (236, 104, 56), (252, 176, 64), (254, 250, 190)], np.uint8
)
"""Of the spectrogram, quiet to loud; each lighter than the one before."""

CAPTIONS: Final = {
    "x0": "The model's estimate of the finished sound: waveform, and mel spectrogram in decibels of full scale.",
    "latents": "The noisy latents: a row per channel (low frequencies at the bottom of each), a column per moment.",
    "guidance": "What the prompt pulls: the estimate with it minus the estimate without, in latents. Grey is no pull.",
    "change": "How the estimate changed since the evaluation before, in latents. Grey is no change.",
}
"""Kind of view -> a sentence for a reader, where it is another than that of a picture."""

_BANDS: Final = 96
_PIECE: Final = 0.046  # seconds of a piece, about: finer in frequency is coarser in time
_WAVE: Final = (8, 68)  # top and bottom of the waveform,
_PICTURE: Final = (76, 288)  # and of what is below it
_LATENTS: Final = (8, 288)
_INK, _QUIET, _PAPER, _RULE = (36, 41, 47), (87, 96, 106), (255, 255, 255), (208, 215, 222)
_GREY, _CONTRAST, _KNEE = 0.5, 0.2, 1 / 50
_HERTZ: Final = (200, 500, 1000, 2000, 5000, 10_000, 20_000)

Kind = Literal["plain", "signed"]


def rate_of(trace: "Record") -> int:
    """Samples a second of a run's sound, `SUPPOSED` where its pipeline does not say."""
    rate = trace.info.get("rate")
    return rate if isinstance(rate, int) and rate > 0 else SUPPOSED


def frame(trace: "Record", kind: str, i: int, exact: bool = True, blank: str = "") -> np.ndarray:
    """One evaluation as pixels.

    Args:
        trace: finished, or still growing.
        kind: one of ``looks.views.KINDS``.
        i: the evaluation, from 0.
        exact: decode what can be decoded; else, or where it cannot, it is drawn as latents.
        blank: why there is nothing to draw, if so.

    Returns:
        (320, 640, 3) uint8, not to be written to.
    """
    if blank:
        return np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    if exact and kind in ("x0", "x0_cond", "x0_uncond", "latents_decoded"):
        samples = estimate(trace, kind, i)
        if samples is not None:
            return heard(samples, rate_of(trace))
    how: Kind = "signed" if kind in ("guidance", "change") else "plain"
    return _latents(table(trace, kind, i), how, len(trace[i].shape) > 2)


def table(trace: "Record", kind: str, i: int) -> np.ndarray:
    """Latents of a step as (channels, frequencies, time) float32; 1 frequency where they have no such axis."""
    step = trace[i]
    if kind == "guidance":
        with_prompt, without = step.x0_cond, step.x0_uncond
        assert with_prompt is not None, "whoever asks has looked"
        assert without is not None, "whoever asks has looked"
        field: Tensor = with_prompt - without
    elif kind == "change":
        field = step.x0 - trace[i - 1].x0
    else:
        found = field_of(step, kind)
        assert found is not None, "whoever asks has looked"
        field = found
    values = field.numpy()
    if values.ndim < 3:
        return np.asarray(values.reshape(len(values), 1, -1))
    values = values.reshape(len(values), *values.shape[-2:])
    across = trace.axes.index("time") if "time" in trace.axes else values.ndim - 1
    return np.asarray(values.swapaxes(1, 2) if across == 1 else values)


# Numbers


def mel_spectrogram(samples: np.ndarray, rate: int, columns: int, bands: int = _BANDS) -> tuple[np.ndarray, np.ndarray]:
    """The power of a sound by frequency and time.

    Args:
        samples: (channels, samples); of several channels it is the mean of their powers.
        rate: samples a second.
        columns: of the result, each the mean of the pieces that begin in it.
        bands: likewise, evenly spaced in mel from 0 to half the rate.

    Returns:
        (bands, columns) dBFS, low frequencies first: 0 is a sine of full scale, silence is `FLOOR` at most by 80 more;
        and the middle of each band in Hz.
    """
    sound = np.nan_to_num(np.asarray(samples, np.float32))
    piece = int(np.clip(2 ** round(math.log2(max(_PIECE * rate, 2))), 16, 4096))
    count = sound.shape[1]
    # Every sample counts alike at half a piece; a short sound is looked at as often as there are columns.
    hop = max(1, min(piece // 2, count // max(columns, 1) or 1))
    padded = np.pad(sound, ((0, 0), (piece // 2, piece)))
    starts = np.arange(0, max(count, 1), hop)
    window = np.hanning(piece + 1)[:-1].astype(np.float32)
    power = np.zeros((len(starts), piece // 2 + 1))
    for channel in padded:
        pieces = np.lib.stride_tricks.sliding_window_view(channel, piece)[starts]
        power += np.abs(np.fft.rfft(pieces * window, axis=1)) ** 2 / (window.sum() / 2) ** 2 / len(padded)
    which = np.minimum(np.arange(len(starts)) * columns // max(len(starts), 1), columns - 1)
    total = np.zeros((columns, power.shape[1]))
    np.add.at(total, which, power)
    seen = np.bincount(which, minlength=columns)
    filled = np.flatnonzero(seen)  # of a short sound some columns have no piece of their own
    nearest = filled[np.abs(np.arange(columns)[:, None] - filled[None, :]).argmin(axis=1)]
    mean = total[nearest] / seen[nearest, None]
    filters, middles = _filters(piece, rate, bands)
    return 10 * np.log10(filters @ mean.T + 1e-16), middles


@cache
def _filters(piece: int, rate: int, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """(bands, frequencies) weights, triangles in frequency no narrower than the spectrum is sharp, by which a tone in
    the middle of a band keeps its power: a Hann window spreads it over 1.5 frequencies."""
    edges = _hertz(np.linspace(0, _mel(rate / 2), bands + 2))
    middles = edges[1:-1]
    sharp = rate / piece
    low = np.maximum(middles - edges[:-2], sharp)
    high = np.maximum(edges[2:] - middles, sharp)
    off = np.arange(piece // 2 + 1) * sharp - middles[:, None]
    weights = np.clip(1 - np.where(off < 0, -off / low[:, None], off / high[:, None]), 0, None)
    return weights / 1.5, middles


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


def lighter(samples: np.ndarray, rate: int, room: int) -> tuple[np.ndarray, int]:
    """A sound as WAV of 16 bits that a browser plays and that takes no more than `room` bytes.

    First its channels become one, then its rate is halved as long as 8,000 a second are left, then its end is cut. A
    rate below that is multiplied, since browsers need not play it.

    Args:
        samples: (channels, samples).
        rate: samples a second.
        room: bytes.

    Returns:
        (channels, samples) float32 and their rate.
    """
    sound = np.nan_to_num(np.asarray(samples, np.float64))
    if rate < 8000:
        times = -(-8000 // rate)
        sound, rate = _resampled(sound, sound.shape[1] * times), rate * times
    if len(sound) > 2 or 2 * sound.size > room:
        sound = sound.mean(axis=0, keepdims=True)
    while 2 * sound.size > room and rate % 2 == 0 and rate >= 16_000:
        sound, rate = _resampled(sound, sound.shape[1] // 2), rate // 2
    return sound[:, : max(1, room // (2 * len(sound)))].astype(np.float32), rate


def _resampled(sound: np.ndarray, count: int) -> np.ndarray:
    """The same sound in `count` samples, what they cannot hold left out (through its Fourier transform)."""
    spectrum = np.fft.rfft(sound, axis=1)
    kept = np.zeros((len(sound), count // 2 + 1), complex)
    common = min(kept.shape[1], spectrum.shape[1])
    kept[:, :common] = spectrum[:, :common]
    return np.asarray(np.fft.irfft(kept, count, axis=1) * (count / sound.shape[1]))


# Pictures


def heard(samples: np.ndarray, rate: int) -> np.ndarray:
    """A sound as a waveform over a mel spectrogram, with their axes.

    Args:
        samples: (channels, samples).
        rate: samples a second.

    Returns:
        (320, 640, 3) uint8.
    """
    image, pen = _sheet()
    left, right = PLOT
    wide = right - left
    mean = np.nan_to_num(samples.mean(axis=0))
    edges = np.linspace(0, len(mean), wide + 1).astype(int)
    top, bottom = _WAVE
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    pen.rectangle((left, top, right, bottom), fill=(246, 248, 250))
    for x in range(wide):
        part = np.clip(mean[edges[x] : max(edges[x + 1], edges[x] + 1)], -1, 1)
        if len(part):
            pen.line((left + x, middle - half * part.max(), left + x, middle - half * part.min()), fill=(9, 105, 218))
    pen.line((left, middle, right, middle), fill=_RULE)
    for words, y in (("1", top + 6), ("0", middle), ("-1", bottom - 6)):
        pen.text((left - 6, y), words, _QUIET, _font(15), "rm")

    top, bottom = _PICTURE
    decibels, middles = mel_spectrogram(samples, rate, wide)
    strength = np.clip(decibels / -FLOOR + 1, 0, 1)[::-1]
    image.paste(Image.fromarray(_colours(_stretched(strength, bottom - top, wide))), (left, top))
    for hertz in _HERTZ:
        if not middles[0] < hertz < rate / 2:
            continue
        y = bottom - (bottom - top) * _mel(hertz) / _mel(rate / 2)
        pen.line((left - 4, y, left, y), fill=_QUIET)
        if y > top + 8:
            pen.text((left - 6, y), f"{hertz / 1000:g}", _QUIET, _font(15), "rm")
    pen.text((6, (top + bottom) / 2), "kHz", _INK, _font(16), "lm")
    _scale(image, pen, top, bottom)
    _seconds(pen, len(mean) / rate, bottom)
    pen.rectangle((left, top, right, bottom), outline=_RULE)
    return np.asarray(image)


def _latents(values: np.ndarray, how: Kind, tall: bool) -> np.ndarray:
    """Latents, a row for each channel (and frequency), with names for the axes."""
    image, pen = _sheet()
    (left, right), (top, bottom) = PLOT, _LATENTS
    channels, frequencies, _ = values.shape
    if how == "signed":
        # As differences of pictures are drawn: two standard deviations either way fill the range of colours.
        grey = _GREY + np.arcsinh(values / 4 / _KNEE) * (0.5 / math.asinh(1 / _KNEE))
    else:
        grey = _GREY + _CONTRAST * values
    rows = grey[:, ::-1].reshape(channels * frequencies, -1)
    sound = np.isfinite(rows)
    pixels = np.repeat((np.clip(np.where(sound, rows, 0), 0, 1) * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    pixels[~sound] = (255, 0, 255)
    image.paste(Image.fromarray(_stretched(pixels, bottom - top, right - left)), (left, top))
    high = (bottom - top) / channels
    every = max(1, math.ceil(channels / 12))
    for channel in range(channels):
        y = top + channel * high
        if channel and tall:
            pen.line((left, y, right, y), fill=_PAPER)
        if channel % every == 0:
            pen.text((left - 6, y + high / 2), str(channel + 1), _QUIET, _font(15), "rm")
    pen.text((4, bottom + 14), "channel", _INK, _font(16), "lm")
    pen.text(((left + right) / 2, bottom + 14), "time, one column per latent", _INK, _font(16), "mm")
    pen.rectangle((left, top, right, bottom), outline=_RULE)
    return np.asarray(image)


def _sheet() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", SIZE, _PAPER)
    return image, ImageDraw.Draw(image)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _colours(strength: np.ndarray) -> np.ndarray:
    """0 to 1 as colours."""
    at = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(strength, at, COLOURS[:, k]) for k in range(3)], axis=-1).astype(np.uint8)


def _stretched(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows and columns repeated as often as they fit."""
    rows = np.arange(height) * len(values) // height
    columns = np.arange(width) * values.shape[1] // width
    return values[rows][:, columns]


def _scale(image: Image.Image, pen: ImageDraw.ImageDraw, top: int, bottom: int) -> None:
    """What the colours mean, at the right."""
    left = PLOT[1] + 10
    image.paste(Image.fromarray(_colours(np.repeat(np.linspace(1, 0, bottom - top)[:, None], 8, axis=1))), (left, top))
    for decibels in (0, -20, -40, -60, -80):
        y = top + (bottom - top) * decibels / FLOOR
        pen.text((left + 12, min(max(y, top + 6), bottom - 6)), str(decibels), _QUIET, _font(14), "lm")
    pen.text((left - 4, top - 10), "dBFS", _INK, _font(15), "lm")


def _seconds(pen: ImageDraw.ImageDraw, seconds: float, bottom: int) -> None:
    """The time axis."""
    left, right = PLOT
    each = 10 ** math.floor(math.log10(max(seconds, 1e-6) / 2))
    step = next(one for one in (each, 2 * each, 5 * each, 10 * each) if seconds / one <= 8)
    for k in range(int(seconds / step + 1e-9) + 1):
        x = left + (right - left) * k * step / max(seconds, 1e-6)
        pen.line((x, bottom, x, bottom + 4), fill=_QUIET)
        if x < right - 14:
            pen.text((x, bottom + 13), f"{k * step:g}", _QUIET, _font(15), "mm")
    pen.text((right, bottom + 13), "s", _INK, _font(16), "mm")
