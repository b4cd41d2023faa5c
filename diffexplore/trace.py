"""``Trace``: what happened in one run; ``Step``: one evaluation of the model in it.

A step keeps what the sampler and the net exchanged (x_t, the guided output, both halves of it) and the two
numbers of ``x_t = a * x0 + b * noise``. Everything else is affine in those and is computed when asked for,
anew each time: a latent is small, the formula costs microseconds, and a long run would otherwise hold every
derived tensor twice.

A trace is data. Pictures need a decoder, which the model lends as ``trace.decode``; a saved trace has none,
but keeps its final picture, the decoded estimate of every step and a small latents-to-RGB matrix.

File format (:meth:`Trace.save`): one safetensors file. Tensors: ``latents``, ``output`` (steps, C, h, w);
``cond``, ``uncond`` (the split ones, in order); ``final`` (C, h, w); ``matrix`` (C + 1, 3); ``image`` (PNG
bytes as uint8); ``pictures`` (the estimates as image files, one after the other, as uint8). The metadata key
``diffexplore`` holds JSON: ``version``, ``settings``, ``steps`` (the scalars of each), ``cancelled``,
``seconds``, ``expected``, ``info``, and ``pictures``, the bytes of each. Latents are stored in float32, so they
come back bit by bit. Nothing is ever unpickled.
"""

import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch

from diffexplore.record import predictions
from diffexplore.record.step import Step, own
from diffexplore.samplers import SAMPLERS
from diffexplore.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["Step", "Trace"]

FORMAT = 1
MAX_METADATA = 16 * 2**20  # bytes of JSON read from a file; a 1,000-step run needs about 0.2 MB
_SCALARS = ("index", "timestep", "seconds", "a", "b", "kind", "guidance", "split", "half")

Decoder = Callable[[torch.Tensor], np.ndarray]


class Trace(Sequence[Step]):
    """All steps of one run, its final picture, and the settings that made it; ``len`` counts model
    evaluations.

    During a live run the steps grow; a reader on another thread may index and iterate at any time.

    Attributes:
        settings: what was asked for, with every None filled in.
        final: the final latents (C, h, w) float32, or None (cancelled, or not there yet).
        image: the final picture (PIL), or None.
        decode: latents (C, h, w) -> uint8 (H, W, 3), exactly as the final picture was decoded; None in a
            loaded trace.
        cancelled: True if the run was stopped; the steps are those before.
        seconds: wall time of the run, decoding included.
        expected: how many evaluations the whole run takes.
        info: plain JSON-able facts: model, its commit, family, pipeline, sampler class and config, versions, tokens,
            unknown words, notes, schedule, how many were drawn together (``batch``); ``reused`` (True) only where the
            run was known already.
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
    ) -> None:
        """The arguments are the attributes. `matrix` may be a function that is called on first use; `expected` is
        otherwise counted from the sampler (a trace with steps but no known sampler expects what it has).
        """
        self.settings = settings
        self.final = final
        self.image = image
        self.decode = decode
        self.cancelled = cancelled
        self.seconds = seconds
        self.info: dict[str, Any] = {} if info is None else info
        self._steps = list(steps)
        self._matrix = matrix
        self._pictures: list[bytes] = []  # of a loaded trace: the decoded x0 of every step, encoded
        if expected is None:
            entry = SAMPLERS.get(settings.sampler or "")
            expected = entry.evaluations(settings.steps) if entry and not self._steps else len(self._steps)
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
        return f"Trace({len(self)} of {self.expected} evaluations, prompt={self.settings.prompt[:40]!r}{state})"

    def append(self, step: Step) -> None:
        """Add the next step of a live run."""
        self._steps.append(step)

    def clear(self) -> None:
        """Forget the steps of a run that has to begin anew."""
        self._steps.clear()

    @property
    def matrix(self) -> np.ndarray | None:
        """(C + 1, 3) float32: latents (C channels and a 1) times this are RGB in 0..1, at one pixel per
        latent; None if unknown.
        """
        if callable(self._matrix):
            self._matrix = self._matrix()
        return self._matrix

    # Doors to other rooms: one import, one call.

    def view(self, kind: str, i: int, size: int | None = None) -> "Image.Image":
        """A step as a picture: see :func:`diffexplore.looks.views.view`.

        Args:
            kind: one of ``diffexplore.VIEWS``.
            i: which evaluation, from 0.
            size: the longest side in pixels, 1 to 8192; None: as large as the run's own picture.

        Raises:
            ValueError: for an unknown kind, or a size out of range.
            IndexError: for an evaluation that is not there.
            TypeError: `i` is no whole number.
        """
        from diffexplore.looks import views

        return views.view(self, kind, i, size)

    def plot(self) -> "Figure":
        """The run on one page: views over the steps and its curves. See :func:`diffexplore.looks.figures.plot`.

        Raises:
            ValueError: the run has no steps yet.
        """
        from diffexplore.looks import figures as plots

        return plots.plot(self)

    def curve(self, name: str) -> np.ndarray:
        """One number per step, (steps,): see :func:`diffexplore.looks.curves.curve`.

        Args:
            name: one of ``diffexplore.CURVES``, e.g. "sigma" or "x0_norm".

        Raises:
            ValueError: for a name that is none of them.
        """
        from diffexplore.looks import curves

        return curves.curve(self, name)

    def save_image(self, path: str | os.PathLike[str]) -> None:
        """The final picture as PNG that carries its recipe; ``diffexplore.read_recipe`` reads it back.

        Args:
            path: where to write; an existing file is replaced.

        Raises:
            ValueError: the run has no final picture, because it was cancelled.
        """
        from diffexplore.looks import pictures as recipe

        recipe.write_recipe(path, self)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """The viewer with this run in one HTML file that needs no kernel and no network.

        Args:
            path: where to write; an existing file is replaced.
        """
        from diffexplore.widgets import film

        film.to_html(self, path)

    @property
    def decoded(self) -> bool:
        """Whether its estimates can be seen as pictures: it has a decoder, or kept what that made."""
        return self.decode is not None or bool(self._pictures)

    def picture(self, i: int) -> np.ndarray | None:
        """The decoded estimate of a step as a loaded trace kept it.

        Args:
            i: which evaluation, from 0.

        Returns:
            (H, W, 3) uint8, without loss up to 128 x 128 pixels, else from a JPEG; None where none was kept.

        Raises:
            IndexError: for an evaluation that is not there.
            ValueError: it is damaged.
        """
        from PIL import Image

        if not self._pictures:
            return None
        try:
            kept = Image.open(io.BytesIO(self._pictures[i]), formats=["PNG", "WEBP", "JPEG"])
            return np.asarray(kept.convert("RGB"))
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"the picture of step {i} is damaged ({type(error).__name__}: {error})") from None

    def save(self, path: str | os.PathLike[str], *, pictures: bool = True) -> None:
        """Write the run to one safetensors file (the format is in this module's docstring). The decoder stays
        behind.

        Args:
            path: where to write; an existing file is replaced.
            pictures: decode the estimate of every step and keep the pictures too, so that a replay looks as the run
                did. Costs a pass of the decoder for each step not looked at yet. False: a replay shows linear colours,
                one pixel per latent.
        """
        from safetensors.torch import save_file

        steps = list(self)
        kept = self._pictures if pictures else []
        if pictures and self.decode is not None:
            from diffexplore.widgets.film import pictures_of

            kept = pictures_of(self)
        tensors: dict[str, torch.Tensor] = {}
        if steps:
            tensors["latents"] = torch.stack([s.latents for s in steps])
            tensors["output"] = torch.stack([s.output for s in steps])
        for name in ("cond", "uncond"):
            halves = [own(half) for s in steps if not s.split and (half := getattr(s, f"_{name}")) is not None]
            if halves:
                tensors[name] = torch.stack(halves)
        if self.final is not None:
            tensors["final"] = own(self.final)
        if self.matrix is not None:
            tensors["matrix"] = torch.from_numpy(np.ascontiguousarray(self.matrix, dtype=np.float32))
        if self.image is not None:
            png = io.BytesIO()
            self.image.save(png, "PNG")
            tensors["image"] = torch.frombuffer(bytearray(png.getvalue()), dtype=torch.uint8)
        if kept:
            tensors["pictures"] = torch.frombuffer(bytearray(b"".join(kept)), dtype=torch.uint8)
        facts = {
            "version": FORMAT,
            "settings": self.settings.model_dump(),
            "steps": [{name: getattr(s, name) for name in _SCALARS} for s in steps],
            "cancelled": self.cancelled,
            "seconds": self.seconds,
            "expected": self.expected,
            "info": self.info,
            "pictures": [len(one) for one in kept],
        }
        save_file(tensors, os.fspath(path), metadata={"diffexplore": json.dumps(facts)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a run that :meth:`save` wrote. Its ``decode`` is None; matrix, image and pictures are there.

        Args:
            path: a file of :meth:`save`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: one sentence, for a file that is no such run, or a damaged one.
        """
        from PIL import Image
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get("diffexplore", "")
                if not text:
                    raise ValueError(f"{str(path)!r} is a safetensors file, but not a run saved by Trace.save")
                if len(text) > MAX_METADATA:
                    size = f"{len(text):,} characters of metadata, at most {MAX_METADATA:,} are read"
                    raise ValueError(f"{str(path)!r} holds {size}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{str(path)!r} is not a readable safetensors file ({error})") from None
        try:
            facts = json.loads(text)
            version = facts["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{str(path)!r} is not a run saved by Trace.save") from None
        if version != FORMAT:
            raise ValueError(f"{str(path)!r} is a run in format {version!r}, this version reads format {FORMAT}")
        try:
            image = None
            if "image" in tensors:
                image = Image.open(io.BytesIO(tensors["image"].numpy().tobytes()), formats=["PNG"])
                image.load()
            matrix = tensors["matrix"].numpy() if "matrix" in tensors else None
            if matrix is not None and (matrix.ndim != 2 or matrix.shape[1] != 3):
                raise ValueError(f"matrix of shape {matrix.shape}")
            trace = cls(
                Settings(**facts["settings"]),
                _steps(facts["steps"], tensors),
                final=tensors.get("final"),
                image=image,
                matrix=matrix,
                cancelled=bool(facts["cancelled"]),
                seconds=float(facts["seconds"]),
                info=dict(facts["info"]),
                expected=int(facts["expected"]),
            )
            if "pictures" in tensors:
                trace._pictures = _cut(tensors["pictures"].numpy().tobytes(), facts["pictures"], len(trace))
            return trace
        except (
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
            OSError,
            Image.DecompressionBombError,
        ) as error:
            raise ValueError(f"{str(path)!r} is a damaged run ({type(error).__name__}: {error})") from None


def _cut(data: bytes, lengths: list[int], count: int) -> list[bytes]:
    """Bytes cut into `count` pieces; ValueError where they do not fit."""
    ends = list(accumulate(lengths))
    if len(lengths) != count or min(lengths, default=0) < 0 or ends[-1:] != [len(data)]:
        raise ValueError(f"{len(lengths)} pictures of {sum(lengths)} bytes for {count} steps, found {len(data)} bytes")
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _steps(scalars: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> list[Step]:
    """The steps of a saved run; raises any of ValueError, KeyError, TypeError, IndexError where the file
    contradicts itself.
    """
    if not scalars:
        return []
    latents, output = tensors["latents"], tensors["output"]
    halves = sum(not s["split"] for s in scalars)
    expected = (len(scalars), *latents.shape[1:])
    for name, shape in (
        ("latents", expected),
        ("output", expected),
        ("cond", (halves, *expected[1:])),
        ("uncond", (halves, *expected[1:])),
    ):
        if (name in tensors or shape[0]) and (
            tensors[name].shape != shape or latents.ndim != 4 or not tensors[name].is_floating_point()
        ):
            raise ValueError(f"{name} of shape {tuple(tensors[name].shape)}")
    steps, used = [], 0
    for i, facts in enumerate(scalars):
        values = {name: facts[name] for name in _SCALARS}
        if values["kind"] not in predictions.KINDS:
            raise ValueError(f"prediction type {values['kind']!r}")
        cond = uncond = None
        if not values["split"]:
            cond, uncond = tensors["cond"][used], tensors["uncond"][used]
            used += 1
        steps.append(Step(**values, latents=latents[i], output=output[i], cond=cond, uncond=uncond))
    return steps
