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
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

import numpy as np
import torch

from . import predictions
from .samplers import SAMPLERS
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["Step", "Trace", "WhatIf"]

FORMAT = 1
MAX_METADATA = 16 * 2**20  # bytes of JSON read from a file; a 1,000-step run needs about 0.2 MB
_SCALARS = ("index", "timestep", "seconds", "a", "b", "kind", "guidance", "split", "half")

Decoder = Callable[[torch.Tensor], np.ndarray]

_SETTLING = threading.Lock()  # steps of a live run are read by one thread while another fills them in


class WhatIf(NamedTuple):
    """The prediction of one step, recombined with another guidance; both (C, h, w) float32 on the CPU."""

    noise: torch.Tensor
    x0: torch.Tensor


class Step:
    """One model evaluation.

    Attributes:
        index: 0-based number of this evaluation.
        timestep: what the network was told.
        seconds: wall time of this evaluation, from the end of the one before (or the start of the loop).
        a: signal level and
        b: noise level of x_t: ``x_t = a * x0 + b * noise``.
        kind: prediction type of the network's output, one of ``predictions.KINDS``.
        half: True for the second evaluation of a two-stage step (Heun, DPM2): its x_t is an intermediate
            guess.

    Every tensor attribute is a fresh (C, h, w) float32 tensor on the CPU: changing it does not change the
    trace.
    """

    index: int
    timestep: float
    seconds: float
    a: float
    b: float
    kind: str
    half: bool

    __slots__ = (
        "_cond",
        "_guidance",
        "_latents",
        "_output",
        "_pieces",
        "_split",
        "_uncond",
        "a",
        "b",
        "half",
        "index",
        "kind",
        "seconds",
        "timestep",
    )

    def __init__(
        self,
        *,
        index: int,
        timestep: float,
        seconds: float,
        a: float,
        b: float,
        kind: str,
        latents: torch.Tensor,
        output: torch.Tensor,
        cond: torch.Tensor | None = None,
        uncond: torch.Tensor | None = None,
        guidance: float | None = None,
        split: str = "",
        half: bool = False,
        pieces: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """A step as the recorder makes it; tensors are shaped (C, h, w), on any device, in any float type.

        Args:
            index: this and all that is not named here are the attributes of that name.
            latents: x_t before the step.
            output: the guided prediction as handed to the sampler, in the meaning of `kind`.
            cond: its half with the prompt; given with `uncond` or not at all.
            uncond: its half without.
            guidance: what `output` mixes them with.
            split: why there are no halves, one sentence; "" where they are given.
            pieces: instead of the four above: the denoiser's raw outputs; the halves are found in them on first use, or
                never.
        """
        self.index, self.timestep, self.seconds = index, timestep, seconds
        self.a, self.b, self.kind, self.half = a, b, kind, half
        self._latents, self._output = latents, output
        self._cond, self._uncond, self._guidance = cond, uncond, guidance
        if pieces is None and cond is None and not split:
            split = "This pipeline makes no split into prompt and negative prompt."
        self._split = split
        self._pieces = pieces

    def __repr__(self) -> str:
        shape = tuple(self._latents.shape)
        return f"Step({self.index}, timestep={self.timestep:g}, sigma={self.sigma:.4g}, shape={shape})"

    @property
    def sigma(self) -> float:
        """Noise level ``b / a``; finite even at pure noise, where diffusers' own bound (4096) is returned."""
        return self.b / max(self.a, predictions.TINY)

    @property
    def latents(self) -> torch.Tensor:
        """x_t, before the step."""
        return _own(self._latents)

    @property
    def output(self) -> torch.Tensor:
        """The guided prediction as the network's own kind of output."""
        return _own(self._output)

    @property
    def noise(self) -> torch.Tensor:
        """The guided prediction as noise, whatever the prediction type."""
        return self._noise(self._output)

    @property
    def noise_cond(self) -> torch.Tensor | None:
        """The noise predicted with the prompt; None where :attr:`split` says why."""
        self._resolve()
        return None if self._cond is None else self._noise(self._cond)

    @property
    def noise_uncond(self) -> torch.Tensor | None:
        """The noise predicted with the negative (or empty) prompt; None where :attr:`split` says why."""
        self._resolve()
        return None if self._uncond is None else self._noise(self._uncond)

    @property
    def x0(self) -> torch.Tensor:
        """The clean latents which the guided prediction stands for."""
        return self._x0(self._output)

    @property
    def x0_cond(self) -> torch.Tensor | None:
        """The clean latents predicted with the prompt alone."""
        self._resolve()
        return None if self._cond is None else self._x0(self._cond)

    @property
    def x0_uncond(self) -> torch.Tensor | None:
        """The clean latents predicted with the negative (or empty) prompt alone."""
        self._resolve()
        return None if self._uncond is None else self._x0(self._uncond)

    @property
    def guidance(self) -> float | None:
        """The guidance found in the tensors: ``noise = uncond + guidance * (cond - uncond)``. None without a
        split.
        """
        self._resolve()
        return self._guidance

    @property
    def split(self) -> str:
        """ "" where the halves are known, else one plain sentence why not."""
        self._resolve()
        return self._split

    def what_if(self, guidance: float) -> WhatIf:
        """The prediction of this very step with another guidance; no model call.

        Raises:
            ValueError: where the step has no split, or the guidance is no finite number.
        """
        self._resolve()
        if self._cond is None or self._uncond is None:
            raise ValueError(f"step {self.index} cannot be guided anew: {self._split}")
        if not math.isfinite(guidance):
            raise ValueError(f"guidance must be a finite number, got {guidance!r}")
        mixed = predictions.guide(_own(self._cond), _own(self._uncond), guidance)
        return WhatIf(self._noise(mixed), self._x0(mixed))

    def settle(self) -> None:
        """Move everything to the CPU; called once, when a run ends.

        Until then a step refers to the run's tensors where they are: a copy per step would stall a GPU's
        queue.
        """
        with _SETTLING:
            if self._pieces is not None:
                self._pieces = [piece.detach().cpu() for piece in self._pieces]
            if self._cond is not None and self._uncond is not None:
                self._cond, self._uncond = self._cond.detach().cpu(), self._uncond.detach().cpu()
            self._latents, self._output = self._latents.detach().cpu(), self._output.detach().cpu()

    def _resolve(self) -> None:
        if self._pieces is None:
            return
        with _SETTLING:
            if self._pieces is not None:
                found = predictions.separate(self._output, self._pieces, self._guidance)
                self._cond, self._uncond = found.cond, found.uncond
                self._guidance, self._split = found.guidance, found.reason
                # Last: a thread that sees None here looks no further.
                self._pieces = None

    def _noise(self, output: torch.Tensor) -> torch.Tensor:
        return predictions.noise_of(self.kind, _own(self._latents), _own(output), self.a, self.b)

    def _x0(self, output: torch.Tensor) -> torch.Tensor:
        return predictions.x0_of(self.kind, _own(self._latents), _own(output), self.a, self.b)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)


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
        """A step as a picture: see :func:`diffexplore.views.view`.

        Args:
            kind: one of ``diffexplore.VIEWS``.
            i: which evaluation, from 0.
            size: the longest side in pixels, 1 to 8192; None: as large as the run's own picture.

        Raises:
            ValueError: for an unknown kind, or a size out of range.
            IndexError: for an evaluation that is not there.
            TypeError: `i` is no whole number.
        """
        from . import views

        return views.view(self, kind, i, size)

    def plot(self) -> "Figure":
        """The run on one page: views over the steps and its curves. See :func:`diffexplore.plots.plot`.

        Raises:
            ValueError: the run has no steps yet.
        """
        from . import plots

        return plots.plot(self)

    def curve(self, name: str) -> np.ndarray:
        """One number per step, (steps,): see :func:`diffexplore.curves.curve`.

        Args:
            name: one of ``diffexplore.CURVES``, e.g. "sigma" or "x0_norm".

        Raises:
            ValueError: for a name that is none of them.
        """
        from . import curves

        return curves.curve(self, name)

    def save_image(self, path: str | os.PathLike[str]) -> None:
        """The final picture as PNG that carries its recipe; ``diffexplore.read_recipe`` reads it back.

        Args:
            path: where to write; an existing file is replaced.

        Raises:
            ValueError: the run has no final picture, because it was cancelled.
        """
        from . import recipe

        recipe.write_recipe(path, self)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """The viewer with this run in one HTML file that needs no kernel and no network.

        Args:
            path: where to write; an existing file is replaced.
        """
        from .widgets import film

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
            from .widgets.film import pictures_of

            kept = pictures_of(self)
        tensors: dict[str, torch.Tensor] = {}
        if steps:
            tensors["latents"] = torch.stack([s.latents for s in steps])
            tensors["output"] = torch.stack([s.output for s in steps])
        for name in ("cond", "uncond"):
            halves = [_own(half) for s in steps if not s.split and (half := getattr(s, f"_{name}")) is not None]
            if halves:
                tensors[name] = torch.stack(halves)
        if self.final is not None:
            tensors["final"] = _own(self.final)
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
