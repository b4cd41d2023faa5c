"""From one seed to another: pictures whose starting noise is turned from that of the one to that of the other."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.experiments.shared import a_model, own_fields, whole
from diffexplore.looks.figures import Cell, Figure, plot_sheet
from diffexplore.looks.figures.kit import Plotted
from diffexplore.looks.moving import save_frames
from diffexplore.record.predictions import rms
from diffexplore.settings import MAX_SEED, Settings
from diffexplore.trace import Trace
from diffexplore.values import a_path
from diffexplore.words import shown

if TYPE_CHECKING:
    from PIL import Image

    from diffexplore.model import Model

__all__ = ["Travel", "travel"]

MOST = 200
_FPS = 6.0


@dataclass(frozen=True)
class Travel(Plotted):
    """What :func:`travel` drew.

    Attributes:
        settings: of the first picture.
        seeds: from which, to which.
        traces: the runs, from the one to the other.
    """

    settings: Settings
    seeds: tuple[int, int]
    traces: Sequence[Trace]

    @property
    def amounts(self) -> np.ndarray:
        """(frames,) how far each is on the way, 0 to 1."""
        return np.linspace(0, 1, len(self.traces))

    @property
    def images(self) -> list[Image.Image]:
        """The pictures."""
        return [trace.image for trace in self.traces if trace.image is not None]

    @property
    def norms(self) -> np.ndarray:
        """(frames,) the length of each starting noise, as a share of what white noise has on average."""
        first = [trace[0].latents for trace in self.traces]
        unit = [trace[0].b if trace[0].b else 1.0 for trace in self.traces]
        return np.array([rms(one) / size for one, size in zip(first, unit, strict=True)])

    @property
    def strides(self) -> np.ndarray:
        """(frames - 1,) how far apart neighbours are: root mean square of the difference of their final latents. Noise
        is turned evenly; where a stride is long, the picture jumps.
        """
        finals = [trace.final for trace in self.traces]
        pairs = itertools.pairwise(finals)
        return np.array([rms(b - a) if a is not None and b is not None else np.nan for a, b in pairs])

    def __repr__(self) -> str:
        return f"Travel(seed {self.seeds[0]} to {self.seeds[1]}, {len(self.traces)} frames)"

    def save(self, path: str | os.PathLike[str], fps: float = _FPS) -> None:
        """Write it as a film that goes there and back: a .webp or a .gif; as .png or .jpg, a sheet of the way there.

        Raises:
            ValueError: one sentence, for another suffix, or frames a second that are none.
            OSError: the file cannot be written.
        """
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 60:
            raise ValueError(f"fps must be frames a second, above 0 to 60, got {shown(fps)}")
        frames = self.images
        moves = os.fspath(a_path(path)).lower().endswith((".webp", ".gif"))
        save_frames([*frames, *frames[-2:0:-1]] if moves else frames, path, self.settings, {"fps": fps})

    def plot(self) -> Figure:
        """The pictures in order, each with how far it is, and how far it has moved from the one before (`strides`)."""
        strides = ["", *(f", moved {stride:.2f}" for stride in self.strides)]
        amounts = self.amounts
        cells = [
            Cell(trace.image, f"{100 * amount:.0f} %{stride}")
            for trace, amount, stride in zip(self.traces, amounts, strides, strict=True)
        ]
        first = self.settings
        told = f"{first.sampler} · {first.steps} steps · guidance {first.guidance:g}"
        return plot_sheet(
            cells, f"From seed {self.seeds[0]} to seed {self.seeds[1]}: {first.prompt or '(no prompt)'}", told
        )


def travel(model: Model, seeds: Sequence[int] = (1, 2), frames: int = 9, **settings: Any) -> Travel:
    """Draw the pictures on the way from one seed to another; blocking. With a sampler that adds fresh noise, which is
    that of the first seed all along, the last picture is not that of the second seed.

    Args:
        model: what draws.
        seeds: from which, to which.
        frames: how many pictures, both ends among them, 2 to 200.
        **settings: the other fields of ``Settings``.

    Raises:
        ValueError: one sentence, before any work, for what is refused.
    """
    model = a_model(model)
    own_fields(settings, ("seed", "variation"))
    if not isinstance(seeds, Sequence) or isinstance(seeds, (str, bytes)) or len(seeds) != 2:
        raise ValueError(f"seeds must be two, from which and to which, got {shown(seeds)}")
    first, last = (whole("a seed", seed, 0, MAX_SEED) for seed in seeds)
    count = whole("frames", frames, 2, MOST)
    base = Settings(**settings, seed=first)
    model.plan(base.replace(variation=(last, 1.0)))
    ways = [base.replace(variation=(last, float(amount))) for amount in np.linspace(0, 1, count)]
    traces = model.trace_many(ways)
    return Travel(traces[0].settings, (first, last), traces)
