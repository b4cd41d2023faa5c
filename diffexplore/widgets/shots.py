"""What a film is made of: pictures, the frames of a video and sounds, as small files that a browser shows and plays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from diffexplore.looks import pictures, sounds
from diffexplore.looks.estimates import estimate
from diffexplore.looks.moving import FPS
from diffexplore.looks.views import Moment, frame, plane_of
from diffexplore.record import kept
from diffexplore.record.record import Record

__all__ = ["ROOM", "SIDE", "Frame", "digest", "encode", "pictures_of", "reel_of", "sound", "sound_of"]

SIDE: Final = 384
"""Longest side of a frame in pixels; the finished picture may be larger."""
ROOM: Final = 16 * 2**20
"""Bytes that the frames of a video, or the sounds of all steps, may take in one film, about."""

_LOSSLESS_PIXELS: Final = 128 * 128
_SMALLER: Final = 256  # longest side of the frames of a video where larger ones take too much
_FEWEST: Final = 4  # frames of a video, however many bytes they take


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded picture: the bytes of an image file, its format (png, webp or jpeg), and whether a better one is to
    follow."""

    data: bytes
    format: str
    exact: bool = True


def encode(pixels: np.ndarray | Image.Image, *, exact: bool = True, side: int = SIDE, plain: bool = False) -> Frame:
    """Encode (H, W, 3) uint8 pixels, or a picture, as a `Frame` no longer than `side` pixels; a `plain` one, a drawing
    of few squares and lines, without loss whatever its size."""
    picture = pixels.convert("RGB") if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    # Below 32 x 32 the container is what counts, and PNG is the smaller and the faster.
    pixels_of = picture.width * picture.height
    chosen = "png" if pixels_of <= 32 * 32 else "webp" if plain or pixels_of <= _LOSSLESS_PIXELS else "jpeg"
    return Frame(pictures.encode(picture, chosen, quick=True), chosen, exact)


def pictures_of(trace: Record) -> list[bytes]:
    """The decoded x0 of every step as files (``record.kept``): pictures and frames without loss up to 128 x 128 pixels,
    else as JPEG; sounds with 16 bits a sample, silent where there is none.
    """
    return [_kept(trace, i) for i in range(len(trace))]


def _kept(trace: Record, i: int) -> bytes:
    if trace.kind == "sound":
        samples = estimate(trace, "x0", i)
        return kept.wav(np.zeros((1, 1)) if samples is None else samples, sounds.rate_of(trace))
    count = trace.frames
    if not count or "frames" not in trace.info:  # what says how many lie on a sheet
        pixels = frame(trace, "x0", i)
        return encode(pixels, side=max(pixels.shape)).data
    frames = np.stack([frame(trace, "x0", i, plane=Moment(k, count)) for k in range(count)])
    chosen = "webp" if frames[0].size <= 3 * _LOSSLESS_PIXELS and max(frames.shape) < 1000 else "jpeg"
    return pictures.encode(kept.sheet(frames), chosen, quick=True)


def sound(samples: np.ndarray, rate: int, room: int) -> Frame:
    """A sound as WAV, in about `room` bytes at most (``looks.sounds.lighter``)."""
    return Frame(kept.wav(*sounds.lighter(samples, rate, room)), "wav")


def sound_of(trace: Record, room: int) -> dict[str, Any]:
    """What a film says of a run's sound, of which each step has `room` bytes (see the head of ``film``)."""
    rate, made = sounds.rate_of(trace), trace.output
    told = []
    if not trace.info.get("rate"):
        told.append(f"The pipeline does not say its rate: {rate:,} samples a second are taken.")
    light, light_rate = sounds.lighter(made, rate, room)
    seconds = made.shape[1] / rate
    if light_rate < rate or len(light) < len(made):
        told.append(f"To be heard here it has one channel and {light_rate:,} samples a second, of {rate:,}.")
    if light.shape[1] / light_rate < seconds - 0.01:
        told.append(f"Of {seconds:.1f} seconds the first {light.shape[1] / light_rate:.1f} are here.")
    left, right = (x / sounds.SIZE[0] for x in sounds.PLOT)
    return {"seconds": seconds, "from": left, "to": right, "note": " ".join(told)}


def reel_of(trace: Record) -> tuple[dict[str, Any], int]:
    """Which frames of a video a film has, and their longest side in pixels: all of them, if need be smaller, and if
    they still take too much some of them, evenly spaced and the middle one among them (see the head of ``film``)."""
    count, note, side = trace.frames, "", SIDE
    shown = list(range(count))
    if isinstance(trace.output, list):
        for side in (SIDE, _SMALLER):
            # Of the views that are decoded the change is small, as are the others.
            each = [len(encode(trace.output[k], side=side).data) for k in {0, count // 2, count - 1}]
            whole = round(1.5 * max(each) * len(trace) * count)
            if whole <= ROOM or max(trace.output[0].size) <= _SMALLER:
                break
        if whole > ROOM:
            kept_count = max(min(_FEWEST, count), count * ROOM // whole)
            spaced = {round(k * (count - 1) / (kept_count - 1)) for k in range(kept_count)}
            shown = sorted(spaced | {count // 2})
            note = f"{len(shown)} of {count} frames are here: all would take {whole / 2**20:.0f} MB, and "
            note += f"{ROOM // 2**20} MB are the most of one run."
    shape = trace[0].shape if len(trace) else ()
    planes = shape[1] if len(shape) > 3 else 1
    lies = [plane_of(number, count, planes) for number in shown]
    first = [shown[lies.index(plane)] for plane in lies]
    fps = trace.info.get("fps") or FPS
    return {"frames": count, "middle": count // 2, "shown": shown, "first": first, "fps": fps, "note": note}, side


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Of all that a run made: equal where it is equal to the bit."""
    hasher = hashlib.blake2b(digest_size=8)
    for one in arrays:
        hasher.update(np.ascontiguousarray(one).tobytes())
    return hasher.hexdigest()
