"""What moves and what sounds, as files: the frames of a video as an animation or as a sheet, a sound as WAV."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from diffexplore.looks.pictures import FORMATS, animation, save
from diffexplore.record import kept
from diffexplore.record.file import written
from diffexplore.values import a_path
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.settings import Settings

__all__ = ["FPS", "save_frames", "save_sound"]

FPS: Final = 8.0
"""Frames a second where a pipeline does not say."""


def save_frames(
    frames: Sequence[Image.Image],
    path: str | os.PathLike[str],
    settings: "Settings | None" = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write the frames of a video to a file; all but a GIF say how to draw them again (``diffexplore.read_recipe``).

    Args:
        frames: PIL images of one size.
        path: where to write; an existing file is replaced. The suffix decides: a .webp is an animation that loses
            nothing, a .gif one of 256 colours, a .png, .jpg or .jpeg a sheet with all frames, row by row. ``~`` is the
            home folder.
        settings: what was asked for.
        info: facts of the run; its ``model`` is named, and ``fps``, frames a second, is kept to (else :data:`FPS`).

    Raises:
        ValueError: one sentence, for another suffix.
        OSError: the file cannot be written.
    """
    place = Path(a_path(path)).expanduser()
    suffix = place.suffix.lower()
    if suffix not in {*FORMATS, ".gif"}:
        accepted = ".webp or .gif, an animation, or as .png or .jpg, a sheet of its frames"
        raise ValueError(f"a video is saved as {accepted}; got {shown(os.fspath(path), 200)}")
    if suffix in (".webp", ".gif"):
        fps = (info or {}).get("fps") or FPS
        data = animation(frames, "webp" if suffix == ".webp" else "gif", fps, settings, info)
        with written(place) as file:
            file.write(data)
    else:
        save(kept.sheet(np.stack([np.asarray(one.convert("RGB")) for one in frames])), place, settings, info)


def save_sound(samples: np.ndarray, rate: int, path: str | os.PathLike[str]) -> None:
    """Write a sound to a WAV file of 16 bits a sample; what is beyond full scale is clipped.

    Args:
        samples: (channels, samples), floats from -1 to 1.
        rate: samples a second.
        path: where to write, a .wav; an existing file is replaced. ``~`` is the home folder.

    Raises:
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    place = Path(a_path(path)).expanduser()
    if place.suffix.lower() != ".wav":
        raise ValueError(f"a sound is saved as .wav; got {shown(os.fspath(path), 200)}")
    with written(place) as file:
        file.write(kept.wav(samples, rate))
