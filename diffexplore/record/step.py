"""``Step``: one evaluation of the model in a run.

A step keeps what the sampler and the net exchanged (x_t, the guided output, both halves of it) and the two
numbers of ``x_t = a * x0 + b * noise``. Everything else is affine in those and is computed when asked for,
anew each time: a latent is small, the formula costs microseconds, and a long run would otherwise hold every
derived tensor twice.

Latents are (C, *axes, h, w): channels, any number of axes (the frames of a video, the time of a sound), and where there
are pictures, their two sides last. Nothing here asks how many there are.

Whoever watches a run (a probe) may leave more: a tensor of any shape in :attr:`Step.tensors`, a number in
:attr:`Step.numbers`. Both are kept, copied, saved and loaded with the step.
"""

import math
import numbers
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from diffexplore.mixing import CFG, named_guider
from diffexplore.record import guiders, predictions
from diffexplore.record.numbers import NUMBERS, check_name
from diffexplore.words import shown

__all__ = ["Geometry", "Step", "WhatIf", "bytes_of", "own"]

T = TypeVar("T")

_SETTLING = threading.Lock()  # steps of a live run are read by one thread while another fills them in


class WhatIf(NamedTuple):
    """The prediction of one step, recombined with another guidance; both shaped as the latents, float32 on the CPU."""

    noise: torch.Tensor
    x0: torch.Tensor


class Geometry(NamedTuple):
    """How the halves of one step lie to each other, as noise and as x0: one pull, seen in two spaces."""

    noise: predictions.Plane
    x0: predictions.Plane


class _Named(MutableMapping[str, T]):
    """Values by name, each checked as it comes in; what is handed out cannot be used to change them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values: dict[str, T] = {}
        self.update(values)

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[check_name(name)] = self._checked(name, value)

    def __getitem__(self, name: str) -> T:
        return self._out(self._values[name])

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))  # a live step may gain one meanwhile

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(self._values)}}}"

    @property
    def kept(self) -> dict[str, T]:
        """The very values, of now."""
        return dict(self._values)

    @staticmethod
    def _checked(name: str, value: Any) -> T:
        raise NotImplementedError

    @staticmethod
    def _out(value: T) -> T:
        return value


class _Tensors(_Named[torch.Tensor]):
    @staticmethod
    def _checked(name: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_complex():
            got = f"{value.dtype}, {value.layout}" if isinstance(value, torch.Tensor) else shown(value)
            raise ValueError(f"{name} must be a dense tensor of real numbers, got {got}")
        return value.detach()

    @staticmethod
    def _out(value: torch.Tensor) -> torch.Tensor:
        return value.to("cpu", copy=True, memory_format=torch.contiguous_format)


class _Numbers(_Named[float]):
    @staticmethod
    def _checked(name: str, value: Any) -> float:
        if name in NUMBERS and NUMBERS[name].of is not None:
            raise ValueError(f"{name!r} is computed of every step: give another name to a number of your own")
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError(f"{name} must be a number, got {shown(value)}")
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must be a number that fits a float, got {shown(value)}") from None


class _Halves:
    """Both halves of one output, or what they are to be found in; shared by the copies of a step, so that they are
    found once."""

    __slots__ = ("blended", "cond", "geometry", "guidance", "pieces", "split", "uncond")

    def __init__(
        self,
        cond: torch.Tensor | None,
        uncond: torch.Tensor | None,
        guidance: float | None,
        split: str,
        pieces: Sequence[torch.Tensor] | None,
        blended: bool = False,
    ) -> None:
        self.cond, self.uncond, self.guidance, self.split, self.pieces = cond, uncond, guidance, split, pieces
        self.blended = blended
        self.geometry: Geometry | None = None  # computed when it is first asked for

    def found(self, output: torch.Tensor, latents: torch.Tensor) -> "_Halves":
        """Itself, once the halves of `output` have been looked for."""
        if self.pieces is not None:
            with _SETTLING:
                if self.pieces is not None:
                    with_latents = latents if self.blended else None
                    found = predictions.separate(output, self.pieces, self.guidance, with_latents)
                    self.cond, self.uncond = found.cond, found.uncond
                    self.guidance, self.split = found.guidance, found.reason
                    # Last: a thread that sees None here looks no further.
                    self.pieces = None
        return self

    def tensors(self) -> list[torch.Tensor]:
        return [one for one in (self.cond, self.uncond, *(self.pieces or ())) if one is not None]

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "_Halves":
        """The same of tensors that are elsewhere."""
        pieces = None if self.pieces is None else [move(piece) for piece in self.pieces]
        cond, uncond = (None if half is None else move(half) for half in (self.cond, self.uncond))
        return _Halves(cond, uncond, self.guidance, self.split, pieces, self.blended)


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
        guider: how its halves were mixed, as `Settings` say it.

    Every tensor attribute is a fresh (C, *axes, h, w) float32 tensor on the CPU: changing it does not change the
    trace. Steps pickle and deep-copy, with their tensors on the CPU.
    """

    index: int
    timestep: float
    seconds: float
    a: float
    b: float
    kind: str
    half: bool
    guider: str

    __slots__ = (
        "_halves",
        "_latents",
        "_numbers",
        "_output",
        "_run",
        "_tensors",
        "a",
        "b",
        "guider",
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
        tensors: Mapping[str, torch.Tensor] | None = None,
        numbers: Mapping[str, float] | None = None,
        blended: bool = False,
        guider: str = CFG,
    ) -> None:
        """A step as the recorder makes it; tensors are shaped (C, *axes, h, w), on any device, in any float type.

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
            tensors: more tensors by name, of any shape, and
            numbers: more numbers.
            blended: whether x_t is in the mix of the pieces too.
        """
        self.index, self.timestep, self.seconds = index, timestep, seconds
        self.a, self.b, self.kind, self.half, self.guider = a, b, kind, half, guider
        self._run: Callable[[], Sequence[Step] | None] | None = None
        self._latents, self._output = latents, output
        if pieces is None and cond is None and not split:
            split = "This pipeline makes no split into prompt and negative prompt."
        self._halves = _Halves(cond, uncond, guidance, split, pieces, blended)
        self._tensors = _Tensors(tensors or {})
        self._numbers = _Numbers(numbers or {})

    def __repr__(self) -> str:
        return f"Step({self.index}, timestep={self.timestep:g}, sigma={self.sigma:.4g}, shape={self.shape})"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *axes, h, w) of the latents."""
        return tuple(self._latents.shape)

    @property
    def sigma(self) -> float:
        """Noise level ``b / a``; finite even at pure noise, where diffusers' own bound (4096) is returned."""
        return self.b / max(self.a, predictions.TINY)

    @property
    def tensors(self) -> MutableMapping[str, torch.Tensor]:
        """More tensors of this evaluation by name, such as attention maps; any shape, any real type.

        One that is put in is referred to where it is, until the run ends; one that is taken out is a fresh copy on the
        CPU, of its own type.
        """
        return self._tensors

    @property
    def numbers(self) -> MutableMapping[str, float]:
        """More numbers of this evaluation by name; ``record.numbers.declare`` says what a name means."""
        return self._numbers

    @property
    def attention(self) -> torch.Tensor | None:
        """Where each word of the prompt looks, (words, h, w) float32 from 0 to 1: for each place the word's share of
        its attention; None where the run did not keep it. ``trace.words`` names them.
        """
        found = self._tensors.get("attention")
        return None if found is None else found.float()

    @property
    def latents(self) -> torch.Tensor:
        """x_t, before the step."""
        return own(self._latents)

    @property
    def output(self) -> torch.Tensor:
        """The guided prediction as the network's own kind of output."""
        return own(self._output)

    @property
    def output_cond(self) -> torch.Tensor | None:
        """Its half with the prompt; None where :attr:`split` says why."""
        half = self._found().cond
        return None if half is None else own(half)

    @property
    def output_uncond(self) -> torch.Tensor | None:
        """Its half without; None where :attr:`split` says why."""
        half = self._found().uncond
        return None if half is None else own(half)

    @property
    def noise(self) -> torch.Tensor:
        """The guided prediction as noise, whatever the prediction type."""
        return self._noise(self._output)

    @property
    def noise_cond(self) -> torch.Tensor | None:
        """The noise predicted with the prompt; None where :attr:`split` says why."""
        half = self._found().cond
        return None if half is None else self._noise(half)

    @property
    def noise_uncond(self) -> torch.Tensor | None:
        """The noise predicted with the negative (or empty) prompt; None where :attr:`split` says why."""
        half = self._found().uncond
        return None if half is None else self._noise(half)

    @property
    def x0(self) -> torch.Tensor:
        """The clean latents which the guided prediction stands for."""
        return self._x0(self._output)

    @property
    def x0_cond(self) -> torch.Tensor | None:
        """The clean latents predicted with the prompt alone."""
        half = self._found().cond
        return None if half is None else self._x0(half)

    @property
    def x0_uncond(self) -> torch.Tensor | None:
        """The clean latents predicted with the negative (or empty) prompt alone."""
        half = self._found().uncond
        return None if half is None else self._x0(half)

    @property
    def guidance(self) -> float | None:
        """The guidance found in the tensors: ``noise = uncond + guidance * (cond - uncond)``. None without a
        split.
        """
        return self._found().guidance

    @property
    def geometry(self) -> Geometry | None:
        """How both halves lie to each other: sizes, angle, and the difference's parts along and across the half with
        the prompt. None without a split. Computed once, at first use.
        """
        found = self._found()
        if found.geometry is None and found.cond is not None and found.uncond is not None:
            noise = predictions.plane(self._noise(found.cond), self._noise(found.uncond))
            found.geometry = Geometry(noise, predictions.plane(self._x0(found.cond), self._x0(found.uncond)))
        return found.geometry

    @property
    def split(self) -> str:
        """ "" where the halves are known, else one plain sentence why not."""
        return self._found().split

    @property
    def finite(self) -> bool:
        """Whether x_t, the output and the x0 it stands for hold neither NaN nor infinity."""
        return all(bool(torch.isfinite(one).all()) for one in (self._latents, self._output, self.x0))

    def belongs(self, run: "Sequence[Step]") -> None:
        """Let it know the run that it is a step of, which it does not keep: what some guiders mix depends on the steps
        before. The first that still is counts.
        """
        if self._run is None or self._run() is None:
            self._run = weakref.ref(run)

    def guided(self, g: float | None = None, guider: str | Mapping[str, Any] = CFG) -> WhatIf:
        """The prediction of this very step as another mix of its halves would have had it; no model call.

        A guider that remembers, as APG does by its momentum, is taken over the steps before, as if the run had had it
        so far; of a run that had this very guider, from where it began.

        Args:
            g: the guidance; None: the one that was found in the step.
            guider: how the halves are mixed, one of ``diffexplore.GUIDERS``, as `Settings` take it.

        Raises:
            ValueError: where the step has no split, for a guidance that is no finite number, or an unknown guider; and
                for one that remembers where the run that the step is of is no more.
        """
        found = self._found()
        if found.cond is None or found.uncond is None:
            raise ValueError(f"step {self.index} cannot be guided anew: {found.split}")
        name = named_guider(guider)
        asked = found.guidance if g is None else g
        if isinstance(asked, bool) or not isinstance(asked, numbers.Real) or not math.isfinite(asked):
            raise ValueError(f"guidance must be a finite number, got {shown(asked)}")
        mixed = guiders.anew(self, None if self._run is None else self._run(), float(asked), name)
        return WhatIf(self._noise(mixed), self._x0(mixed))

    def what_if(self, guidance: float) -> WhatIf:
        """The prediction of this very step with another guidance: :meth:`guided` by its plain name.

        Raises:
            ValueError: where the step has no split, or the guidance is no finite number.
        """
        if guidance is None:
            raise ValueError("guidance must be a finite number, got None")
        return self.guided(guidance)

    def copy(self) -> "Step":
        """A step of the same tensors, which nobody changes, with tables of names and numbers of its own."""
        made = object.__new__(Step)
        for name in Step.__slots__:
            setattr(made, name, getattr(self, name))
        made._tensors, made._numbers = _Tensors(self._tensors.kept), _Numbers(self._numbers.kept)
        made._run = None
        return made

    def adopt(self, other: "Step") -> None:
        """Take over what was seen of this very evaluation in another run: the halves, and what probes left.

        Args:
            other: that run's step.
        """
        self._halves, self.guider = other._halves, other.guider
        self._tensors, self._numbers = _Tensors(other._tensors.kept), _Numbers(other._numbers.kept)

    def held(self) -> list[torch.Tensor]:
        """The very tensors that it refers to: for who counts or compares them, not to be changed."""
        return [self._latents, self._output, *self._halves.tensors(), *self._tensors.kept.values()]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it keeps in memory: each storage once, and whole."""
        return bytes_of(self.held())

    def relaid(self, view: Callable[[torch.Tensor], torch.Tensor]) -> "Step":
        """The same step with its tensors laid out anew, where a run has told how they lie; what probes left is shared.

        Args:
            view: from the layout that they have, (C, *axes, h, w), to the right one.
        """
        made = object.__new__(Step)
        with _SETTLING:
            for name in Step.__slots__:
                setattr(made, name, getattr(self, name))
            made._halves, made._run = self._halves.moved(view), None
            made._latents, made._output = view(self._latents), view(self._output)
        return made

    def settle(self) -> None:
        """Move everything to the CPU; called once, when a run ends.

        Until then a step refers to the run's tensors where they are: a copy per step would stall a GPU's
        queue.
        """
        with _SETTLING:
            here = self._halves.moved(_here)
            # The halves are found under the same lock, by a reader of a copy too: what is shared changes in place.
            self._halves.pieces, self._halves.cond, self._halves.uncond = here.pieces, here.cond, here.uncond
            self._latents, self._output = _here(self._latents), _here(self._output)
            self._tensors = _Tensors({name: _here(tensor) for name, tensor in self._tensors.kept.items()})

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        with _SETTLING:
            state = {name: getattr(self, name) for name in Step.__slots__}
            state["_halves"] = self._halves.moved(_alone)
        state |= {"_run": None, "_latents": _alone(self._latents), "_output": _alone(self._output)}
        state["_tensors"] = _Tensors({name: _alone(tensor) for name, tensor in self._tensors.kept.items()})
        return None, state

    def _found(self) -> _Halves:
        return self._halves.found(self._output, self._latents)

    def _noise(self, output: torch.Tensor) -> torch.Tensor:
        return predictions.noise_of(self.kind, own(self._latents), own(output), self.a, self.b)

    def _x0(self, output: torch.Tensor) -> torch.Tensor:
        return predictions.x0_of(self.kind, own(self._latents), own(output), self.a, self.b)


def own(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)


def bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes that tensors keep in memory: each storage once, and whole."""
    storages = {(one.device, one.untyped_storage().data_ptr()): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def _here(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu()


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """It on the CPU, without what else lies in its storage, which pickle would take along."""
    here = _here(tensor)
    return here.clone() if here.untyped_storage().nbytes() > here.nbytes else here
