"""``Record``: what happened in one run, as data: its settings, steps, final picture and facts.

Nothing here shows, decodes or writes anything: ``diffexplore.Trace`` is a record with the doors to who does. Pictures
need a decoder, which the model lends as ``record.decode``; a loaded record has none, but the decoded estimate of every
step as an image file (``pictures``), and a small latents-to-RGB matrix.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch

from diffexplore.record import kept
from diffexplore.record.cost import Cost
from diffexplore.record.numbers import NUMBERS, Number
from diffexplore.record.step import Step, bytes_of
from diffexplore.samplers import SAMPLERS
from diffexplore.settings import Settings
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["AXES", "MAX_PIXELS", "Decoder", "Record"]

Decoder = Callable[[torch.Tensor], np.ndarray]

AXES = {
    1: ("channels",),
    2: ("channels", "time"),
    3: ("channels", "height", "width"),
    4: ("channels", "frames", "height", "width"),
}
"""What the axes of latents are taken for by their number, where ``info["axes"]`` does not say."""

MAX_PIXELS = 64 * 2**20  # of a picture in a file: the largest that settings can ask for


class Record(Sequence[Step]):
    """All steps of one run, its final picture, and the settings that made it; ``len`` counts model
    evaluations.

    During a live run the steps grow; a reader on another thread may index and iterate at any time.

    Records pickle and deep-copy, finished or not: all but ``decode``, which belongs to a model and is None in the
    copy; ``matrix`` is computed for it where it was not yet.

    Attributes:
        settings: what was asked for, with every None filled in.
        final: the final latents (C, *axes, h, w) float32, or None (cancelled, or not there yet).
        image: the final picture (PIL), or None.
        decode: latents (C, *axes, h, w) -> what the run's end was decoded to, exactly: uint8 (H, W, 3), of a video
            (frames, H, W, 3), of a sound (channels, samples) float32; None in a loaded run.
        cancelled: True if the run was stopped; the steps are those before.
        seconds: wall time of the run, decoding included.
        expected: how many evaluations the whole run takes.
        info: plain JSON-able facts: model, its commit, family, pipeline, sampler class and config, versions, tokens,
            unknown words, notes, schedule, how many were drawn together (``batch``), what the axes of the latents are
            (``axes``); ``reused`` (True) only where the run was known already.
        pictures: of a loaded run, the decoded x0 of every step as a file (``record.kept``); else empty.
        declared: what the file of a loaded run says of numbers that are not declared here.
        output: what the pipeline made: the picture, the frames of a video (a list of PIL pictures; ``image`` is the one
            in the middle), the samples of a sound, (channels, samples), at ``info["rate"]``; None where ``image`` is.
        extra: the arguments that were handed to the pipeline beyond the settings; ``info["extra"]`` describes them.
        tape: what its model needs to decode its estimates, where that takes the run itself; never saved.
    """

    def __init__(
        self,
        settings: Settings,
        steps: Iterable[Step] = (),
        *,
        final: torch.Tensor | None = None,
        image: "Image.Image | None" = None,
        decode: Decoder | None = None,
        matrix: np.ndarray | Callable[[], np.ndarray | None] | None = None,
        cancelled: bool = False,
        seconds: float = 0.0,
        info: dict[str, Any] | None = None,
        expected: int | None = None,
        pictures: Iterable[bytes] = (),
        declared: Iterable[Number] = (),
        output: Any = None,
        extra: Mapping[str, Any] | None = None,
        tape: Any = None,
    ) -> None:
        """The arguments are the attributes. `matrix` may be a function that is called on first use; `expected` is
        otherwise counted from the sampler (a record with steps but no known sampler expects what it has).
        """
        self.settings = settings
        self.final = final
        self.image = image
        self.decode = decode
        self.cancelled = cancelled
        self.seconds = seconds
        self.info: dict[str, Any] = {} if info is None else info
        self.pictures = list(pictures)
        self.declared = {number.name: number for number in declared}
        self.output: Any = image if output is None else output
        self.extra: Mapping[str, Any] = {} if extra is None else extra
        self.tape = tape
        self._steps = self._mine(steps)
        self._matrix = matrix
        if expected is None:
            entry = SAMPLERS.get(settings.sampler or "")
            left = entry.evaluations(settings.steps) if entry else settings.steps
            expected = len(self._steps) or left
        self.expected = expected

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        try:
            return self._steps[index]
        except IndexError:
            raise IndexError(f"the trace has {len(self)} steps, there is no step {index}") from None

    def __repr__(self) -> str:
        state = ", cancelled" if self.cancelled else ""
        of = f"{len(self)} of {self.expected} evaluations"
        return f"{type(self).__name__}({of}, prompt={self.settings.prompt[:40]!r}{state})"

    def append(self, step: Step) -> None:
        """Add the next step of a live run."""
        self._steps += self._mine([step])

    def _mine(self, steps: Iterable[Step]) -> list[Step]:
        """Steps that know whose they are."""
        found = list(steps)
        for step in found:
            step.belongs(self)
        return found

    def clear(self) -> None:
        """Forget the steps of a run that has to begin anew."""
        self._steps.clear()

    def relay(self, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Lay the tensors of all its steps out anew, at one moment: a reader meets steps of the old layout or of the
        new one, and may see both only where it reads twice.

        Args:
            view: from the layout that they have, (C, *axes, h, w), to the right one.
        """
        self._steps = self._mine(step.relaid(view) for step in self._steps)

    def copy(self, **changed: Any) -> Self:
        """A new record of the same run: changes to its steps, info, picture or final latents do not reach the other.
        The tensors of the steps, which nobody can change, are shared.

        Args:
            changed: arguments of the class, in place of what this one has; ``decode=None, matrix=None`` for one that
                is to be kept, since both hold on to a model.
        """
        mine = {
            "final": None if self.final is None else self.final.clone(),
            "image": None if self.image is None else self.image.copy(),
            "decode": self.decode,
            "matrix": self._matrix,
            "cancelled": self.cancelled,
            "seconds": self.seconds,
            "info": copy.deepcopy(self.info),
            "expected": self.expected,
            "pictures": self.pictures,
            "declared": self.declared.values(),
            "output": self.output,
            "extra": self.extra,
            "tape": self.tape,
        }
        return type(self)(self.settings, [step.copy() for step in self], **(mine | changed))

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self) | {"decode": None, "_matrix": self.matrix, "_steps": list(self._steps), "tape": None}
        if self.final is not None:
            state["final"] = self.final.detach().cpu()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._mine(self._steps)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory: its tensors, each storage once and whole, and its pictures."""
        tensors = [one for step in list(self) for one in step.held()]
        size = bytes_of(tensors if self.final is None else [*tensors, self.final])
        if isinstance(self._matrix, np.ndarray):
            size += self._matrix.nbytes
        pictures = self.output if isinstance(self.output, list) else [self.image]
        for one in pictures:
            if one is not None:
                size += one.width * one.height * 4  # Pillow keeps colours in four bytes
        if isinstance(self.output, np.ndarray):
            size += self.output.nbytes
        return size + sum(map(len, self.pictures)) + getattr(self.tape, "nbytes", 0)

    def lend(self, decode: Decoder | None, matrix: np.ndarray | Callable[[], np.ndarray | None] | None) -> None:
        """Let it decode its estimates from now on.

        Args:
            decode: latents to pixels; None: not at all.
            matrix: its latents-to-RGB matrix, or what computes it.
        """
        self.decode, self._matrix = decode, matrix

    @property
    def matrix(self) -> np.ndarray | None:
        """(C + 1, 3) float32: latents (C channels and a 1) times this are RGB in 0..1, at one pixel per
        latent; None if unknown.
        """
        if callable(self._matrix):
            self._matrix = self._matrix()
        return self._matrix

    @property
    def cost(self) -> Cost | None:
        """What it cost: evaluations, seconds, memory; None while it goes, and where its file does not say."""
        return Cost.of(self.info.get("cost"))

    @property
    def axes(self) -> tuple[str, ...]:
        """What each axis of the latents is, channels first, as in ("channels", "frames", "height", "width"); empty
        while there are none.
        """
        count = len(self[0].shape) if len(self) else 0 if self.final is None else self.final.ndim
        said = self.info.get("axes")
        if isinstance(said, (list, tuple)) and (len(said) == count or not count):
            return tuple(map(str, said))
        if count in AXES or not count:
            return AXES.get(count, ())
        return ("channels", *(f"axis {k}" for k in range(1, count - 2)), "height", "width")

    @property
    def decoded(self) -> bool:
        """Whether its estimates can be seen as pictures: it has a decoder, or kept what that made."""
        return self.decode is not None or bool(self.pictures)

    @property
    def kind(self) -> str:
        """What it makes: "picture", "video", "sound" or "numbers", as far as is known."""
        return str(self.info.get("kind") or "picture")

    @property
    def frames(self) -> int:
        """How many frames each of its estimates has, of a run that was cut short those of its latents; 0 where there
        are none.
        """
        if "kind" in self.info and self.kind != "video":
            return 0
        count, axes = self.info.get("frames"), self.axes
        if isinstance(self.output, list):
            count = len(self.output)
        elif not isinstance(count, int) and "frames" in axes and len(self):
            count = self[0].shape[axes.index("frames")]
        return count if isinstance(count, int) and count > 1 else 0

    def picture(self, i: int) -> np.ndarray | None:
        """The decoded estimate of a step as a loaded run kept it.

        Args:
            i: which evaluation, from 0.

        Returns:
            (H, W, 3) uint8, of a video (frames, H, W, 3), without loss up to 128 x 128 pixels, else from a JPEG; of a
            sound (channels, samples) float32 of 16 bits; None where none was kept.

        Raises:
            IndexError: for an evaluation that is not there.
            ValueError: it is damaged.
        """
        if not self.pictures:
            return None
        try:
            if self.kind == "sound":
                return kept.samples_of(self.pictures[i])[0]
            pixels = np.asarray(kept.image_of(self.pictures[i], MAX_PIXELS))
            count = self.info.get("frames")  # where it says so, the file is a sheet of them
            return kept.frames_of(pixels, count) if isinstance(count, int) and self.frames else pixels
        except ValueError as error:
            raise ValueError(f"the picture of step {i} is damaged ({error})") from None

    def first_bad(self) -> int | None:
        """The first step that holds numbers which are not finite (NaN, or beyond what its type can hold); None where
        all is well.
        """
        return next((i for i, step in enumerate(list(self)) if not step.finite), None)

    # Numbers of the steps

    @property
    def measures(self) -> dict[str, Number]:
        """Name -> number, of all that its steps have: those that are computed, then what a probe left."""
        found = {name: number for name, number in NUMBERS.items() if number.of is not None}
        for name in dict.fromkeys(name for step in list(self) for name in step.numbers):
            found[name] = NUMBERS.get(name) or self.declared.get(name) or Number(name, name.replace("_", " "), "", "")
        return found

    def measure(self, name: str) -> np.ndarray:
        """One number per evaluation.

        Args:
            name: of a :attr:`measures`, or any that is declared: NaN where a step has none.

        Returns:
            (evaluations,) float64; of a live run, those so far.

        Raises:
            ValueError: for an unknown name.
        """
        number = NUMBERS.get(name) if isinstance(name, str) else None
        if number is None:
            known = {**NUMBERS, **self.measures}
            if not isinstance(name, str) or name not in known:
                raise ValueError(f"curve must be one of {', '.join(known)}; got {shown(name)}{near(name, known)}")
            number = known[name]
        values = []
        for i in range(len(self)):
            try:
                values.append(number.at(self, i))
            except IndexError:  # the run began anew meanwhile
                break
        return np.array(values, dtype=np.float64)

    def columns(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """What the numbers of :meth:`row` are, in order.

        Args:
            names: which; None: all :attr:`measures` but those that take the decoder.

        Returns:
            For each ``{"name", "label", "unit", "log"}``, and ``"group"`` where it belongs to one.

        Raises:
            ValueError: for an unknown name.
        """
        return [
            {"name": one.name, "label": one.label, "unit": one.unit, "log": one.log}
            | ({"group": one.group} if one.group else {})
            for one in self._asked(names)
        ]

    def row(self, i: int, names: Iterable[str] | None = None) -> list[float]:
        """The numbers of one evaluation, under the :meth:`columns` of the same `names`; NaN where there is none.

        Raises:
            IndexError: for an evaluation that is not there.
            ValueError: for an unknown name.
        """
        return [number.at(self, i) for number in self._asked(names)]

    def _asked(self, names: Iterable[str] | None) -> list[Number]:
        known = self.measures
        if names is None:
            return [number for number in known.values() if not number.decodes]
        known = {**NUMBERS, **known}
        asked = list(names)
        for name in asked:
            if name not in known:
                raise ValueError(f"a number must be one of {', '.join(known)}; got {shown(name)}{near(name, known)}")
        return [known[name] for name in asked]
