"""``Trace``: what happened in one run, and the doors to whoever shows, measures or keeps it.

The data and all that is said of it is :class:`~diffexplore.record.record.Record`; its steps are
:class:`~diffexplore.record.step.Step`, its file is described in ``diffexplore.record.file``. What stands here imports
when it is called, and no room that a trace is handed to needs more than a record.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from diffexplore.record import file, heat
from diffexplore.record.record import Decoder, Record
from diffexplore.record.step import Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["Decoder", "Step", "Trace", "opened_as_page", "opened_as_sheet"]


class Trace(Record):
    """All steps of one run, its final picture, and the settings that made it; ``len`` counts model
    evaluations.

    During a live run the steps grow; a reader on another thread may index and iterate at any time.

    Attributes:
        settings: what was asked for, with every None filled in.
        final: the final latents (C, *axes, h, w) float32, or None (cancelled, or not there yet).
        image: the final picture (PIL), or None.
        decode: latents (C, *axes, h, w) -> what the run's end was decoded to, exactly: uint8 (H, W, 3), of a video
            (frames, H, W, 3), of a sound (channels, samples) float32; None in a loaded trace.
        cancelled: True if the run was stopped; the steps are those before.
        seconds: wall time of the run, decoding included.
        expected: how many evaluations the whole run takes.
        info: plain JSON-able facts: model, its commit, family, pipeline, sampler class and config, versions, tokens,
            unknown words, notes, schedule, how many were drawn together (``batch``); ``reused`` (True) only where the
            run was known already.
    """

    def view(self, kind: str, i: int, size: int | None = None, frame: int | None = None) -> "Image.Image":
        """A step as a picture: see :func:`diffexplore.looks.views.view`.

        Args:
            kind: one of ``diffexplore.VIEWS``; or "attention:fox", where that word of the prompt looks, over the
                estimate ("attention_negative:blurry" for one of the negative prompt).
            i: which evaluation, from 0.
            size: the longest side in pixels, 1 to 8192; None: as large as the run's own picture.
            frame: of a video, which of its :attr:`frames`, from 0; None: the one in the middle. A sound has none: its
                ``x0`` is a waveform over a spectrogram.

        Raises:
            ValueError: for an unknown kind, a size out of range, or a frame that is not there.
            IndexError: for an evaluation that is not there.
            TypeError: `i` is no whole number.
        """
        from diffexplore.looks import overlay, views

        if isinstance(kind, str) and kind.startswith(("attention:", "attention_negative:")):
            return overlay.overlay(self, kind, i, size)
        return views.view(self, kind, i, size, None if frame is None else views.moment(self, frame))

    def plot(self) -> "Figure":
        """The run on one page: views over the steps and its curves. See :func:`diffexplore.looks.figures.plot`.

        Raises:
            ValueError: the run has no steps yet.
        """
        from diffexplore.looks import figures as plots

        return plots.plot(self)

    def plot_attention(
        self, words: Sequence[str] | None = None, columns: int = 6, *, negative: bool = False
    ) -> "Figure":
        """Where words look, over the estimates of some steps, and how much. See
        :func:`diffexplore.looks.figures.plot_attention`.

        Args:
            words: which, up to 8; None: those of the prompt that look most.
            columns: how many steps, 2 to 12.
            negative: of the negative prompt.

        Raises:
            ValueError: the run did not keep where words look; a word that is not there; columns out of range.
        """
        from diffexplore.looks import figures as plots

        return plots.plot_attention(self, words, columns, negative=negative)

    def plot_guidance(self, columns: int = 6) -> "Figure":
        """How guidance pulled: its halves as arrows, and their difference over the share of noise. See
        :func:`diffexplore.looks.figures.plot_guidance`.

        Args:
            columns: how many steps have arrows, 2 to 12.

        Raises:
            ValueError: the run has no step with both halves; columns out of range.
        """
        from diffexplore.looks import figures as plots

        return plots.plot_guidance(self, columns)

    def curve(self, name: str) -> np.ndarray:
        """One number per step, (steps,): see :func:`diffexplore.looks.curves.curve`.

        Args:
            name: one of ``diffexplore.CURVES``, e.g. "sigma" or "x0_norm".

        Raises:
            ValueError: for a name that is none of them.
        """
        from diffexplore.looks import curves

        return curves.curve(self, name)

    @property
    def words(self) -> list[str]:
        """The words of the prompt that :attr:`Step.attention` has maps of, with "<begin>" and "<end>", what stands
        around the prompt; [] where the run did not keep where words look.
        """
        return heat.words_of(self)

    @property
    def negative_words(self) -> list[str]:
        """Likewise those of the negative prompt."""
        return heat.words_of(self, negative=True)

    def heat(
        self,
        word: str | int | Sequence[str | int],
        i: int | None = None,
        *,
        at: str | None = None,
        negative: bool = False,
    ) -> np.ndarray:
        """Where a word looked, (h, w) from 0 to 1: see :func:`diffexplore.record.heat.heat`.

        Args:
            word: one of :attr:`words`, or several.
            i: which evaluation, from 0; None: the mean over all.
            at: only the layers of one size, such as "8x8", or one layer; `diffexplore.record.heat.where` names them.
            negative: of the negative prompt.

        Raises:
            ValueError: one sentence, for a word that is not there, or a run that did not keep where words look.
            IndexError: for an evaluation that is not there.
        """
        return heat.heat(self, word, i, at=at, negative=negative)

    def save_image(self, path: str | os.PathLike[str]) -> None:
        """The final picture as a file that carries its recipe; ``diffexplore.read_recipe`` reads it back.

        Args:
            path: where to write: a .png or .webp, which lose nothing, or a .jpg; an existing file is replaced. Of a
                video a .webp is an animation, as is a .gif (which carries no recipe); a .png or .jpg is a sheet of all
                its frames.

        Raises:
            ValueError: the run has no final picture, because it was cancelled, or made a sound; another suffix.
            OSError: the file cannot be written.
        """
        from diffexplore.looks import moving, pictures

        if self.kind == "sound":
            raise ValueError("the run made a sound, not a picture: save_sound writes it, plot draws it")
        if isinstance(self.output, list) and self.frames:
            moving.save_frames(self.output, path, self.settings, self.info)
            return
        if self.image is None:
            raise ValueError(f"the run has no final picture to save: it has {len(self)} of {self.expected} steps")
        pictures.save(self.image, path, self.settings, self.info)

    def save_sound(self, path: str | os.PathLike[str]) -> None:
        """The final sound as a WAV file of 16 bits a sample.

        Args:
            path: where to write: a .wav; an existing file is replaced.

        Raises:
            ValueError: the run has no sound; another suffix.
            OSError: the file cannot be written.
        """
        from diffexplore.looks import moving, sounds

        if self.kind != "sound":
            raise ValueError(f"the run made a {self.kind}, not a sound: save_image writes it")
        if not isinstance(self.output, np.ndarray):
            raise ValueError(f"the run has no final sound to save: it has {len(self)} of {self.expected} steps")
        moving.save_sound(self.output, sounds.rate_of(self), path)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """The viewer with this run in one HTML file that needs no kernel and no network.

        Args:
            path: where to write; an existing file is replaced.
        """
        from diffexplore.widgets import page

        page.to_html(self, os.path.expanduser(path))

    def save(self, path: str | os.PathLike[str], *, pictures: bool = True) -> None:
        """Write the run to one safetensors file (the format is in ``diffexplore.record.file``). The decoder stays
        behind.

        Args:
            path: where to write; an existing file is replaced once the new one is whole.
            pictures: decode the estimate of every step and keep the pictures too, so that a replay looks as the run
                did. Costs a pass of the decoder for each step not looked at yet. False: a replay shows linear colours,
                one pixel per latent.

        Raises:
            ValueError: the run holds what cannot be read back, such as a noise level that is no number.
            OSError: the file cannot be written.
        """
        if pictures and self.decode is not None:
            from diffexplore.widgets.film import pictures_of

            file.save(self, path, pictures_of(self))
        else:
            file.save(self, path, self.pictures if pictures else ())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a run that :meth:`save` wrote. Its ``decode`` is None; matrix, image and pictures are there.

        Args:
            path: a file of :meth:`save`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: one sentence, for a file that is no such run, or a damaged one.
        """
        return cls(**file.load(path))


def opened_as_sheet(grid: Any) -> Any:
    """The widget of an `experiments.grid.Grid`: a door, as those of a trace are."""
    from diffexplore.widgets import sheet

    return sheet.Sheet(grid)


def opened_as_page(grid: Any, path: str | os.PathLike[str], runs: bool) -> None:
    """The same as a page of its own."""
    from diffexplore.widgets import sheet

    sheet.to_html(grid, path, runs=runs)
