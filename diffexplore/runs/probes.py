"""Probes: the one way to watch or to change a run.

A probe is attached to the pipeline of one run, sees every step of it, and is detached at the end, whatever happens.
Recording (`recorder.Recorder`) and cancelling (:class:`Cancel`) are probes; so is whatever a caller gives to
``Model.trace(..., probes=[...])``. They are attached, and asked at every step, in the order they were given, and
detached in the opposite one::

    class Loudness(Probe):
        '''How large the latents are, as a number of each step.'''

        def on_step(self, step):
            step.numbers["loudness"] = rms(step.latents)

The pipeline that a probe gets is a shallow clone of the user's with a scheduler of its own. The clone and its scheduler
are thrown away after the run; the networks are the user's, so every hook set on them has to go in ``detach``.
:func:`tapped` and :func:`hooked` are two ways to set something that undoes itself.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch

from diffexplore.record.record import Record
from diffexplore.record.step import Step

__all__ = [
    "Cancel", "Cancelled", "Probe", "Stop", "attached", "going_on", "hooked", "interruptible", "run_through", "tapped",
]  # fmt: skip

_MISSING = object()


class Probe:
    """What watches or changes one run; every method may be left out.

    A probe is used by one run at a time. In a batch, ``on_step`` gets the step of each picture, in the order of the
    pictures.

    Attributes:
        changes: whether the run comes out differently with it.
        leads: whether it decides where the run goes: it is then attached before the recorder, which reads what it made
            of the schedule.
        inside: whether it looks into the networks; then every evaluation is computed, none is remembered.
        outermost: whether it stands between the pipeline and its networks; such are attached after all others, and
            asked at every step before them.
    """

    changes: bool = False
    leads: bool = False
    inside: bool = False
    outermost: bool = False

    def key(self) -> Hashable | None:
        """What stands for it in the memory of runs: equal keys, equal runs.

        Returns:
            None for a probe that only watches: it sees a remembered run as any other, step by step. A probe that puts
            something into the steps has a key although it changes nothing. One that changes the run and has none is
            never remembered.
        """
        return None

    def begin(self, records: Sequence[Record]) -> None:
        """What it is going to see: the records of the pictures, in their order, with no steps yet. Before `attach`."""

    def attach(self, pipeline: Any) -> None:
        """The run begins, on this thread; `pipeline` is its clone."""

    def on_step(self, step: Step) -> None:
        """A step was made; the scheduler has taken it. What is written into its ``tensors`` and ``numbers`` is kept."""

    def detach(self) -> None:
        """The run is over, however it ended, also where ``attach`` failed: undo all that ``attach`` did."""


@contextmanager
def attached(pipeline: Any, probes: Iterable[Probe]) -> Iterator[None]:
    """Within the block the probes are attached, in their order; afterwards each is detached, whatever the others do."""
    with ExitStack() as undo:
        for probe in probes:
            undo.callback(probe.detach)
            probe.attach(pipeline)
        yield


def run_through(probes: Sequence[Probe], step: Step) -> None:
    """Show a step to each probe, in their order."""
    for probe in probes:
        probe.on_step(step)


@contextmanager
def tapped(owner: Any, name: str, around: Callable[..., Any], *, copies: bool = True) -> Iterator[None]:
    """Within the block, ``owner.name(...)`` calls ``around(inner, ...)``; `inner` is what was there before.

    Taps may be stacked. They survive a deep copy of `owner`: `inner` then belongs to the copy; without `copies`, what
    is called on a copy goes straight there.
    """
    attributes = vars(owner)
    before = attributes.get(name, _MISSING)
    now = getattr(owner, name)
    own = getattr(now, "__self__", None) is owner  # else somebody has put a function of their own there
    below = now.__func__ if own else now

    @functools.wraps(below)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        inner = functools.partial(below, self) if own else below
        return around(inner, *args, **kwargs) if copies or self is owner else inner(*args, **kwargs)

    # Pipelines ask a scheduler's methods what they take.
    signature = inspect.signature(now)
    self_too = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    vars(method)["__signature__"] = signature.replace(parameters=[self_too, *signature.parameters.values()])
    attributes[name] = MethodType(method, owner)
    try:
        yield
    finally:
        if before is _MISSING:
            attributes.pop(name, None)
        else:
            attributes[name] = before


@contextmanager
def hooked(modules: Iterable[torch.nn.Module], *, before: Any = None, after: Any = None) -> Iterator[None]:
    """Within the block, torch's forward pre-hook `before` and forward hook `after` are on each of `modules`; they are
    called on this thread only, so that a network which is used elsewhere meanwhile is left alone there.
    """
    owner = threading.get_ident()

    def here(hook: Any) -> Any:
        return lambda *args: hook(*args) if threading.get_ident() == owner else None

    with ExitStack() as undo:
        for module in modules:
            if before is not None:
                undo.callback(module.register_forward_pre_hook(here(before)).remove)
            if after is not None:
                undo.callback(module.register_forward_hook(here(after)).remove)
        yield


def going_on(result: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What a scheduler's ``step`` or a pipeline's ``prepare_latents`` gave, with other latents in it.

    Args:
        result: it: the latents, or a tuple or an output of diffusers that begins with them.
        make: gives those to go on with, of those that are there.
    """
    if isinstance(result, torch.Tensor):
        return make(result)
    if isinstance(result, tuple):
        return make(result[0]), *result[1:]
    result.prev_sample = make(result.prev_sample)
    return result


class Cancelled(BaseException):
    """Ends a run from inside the networks; a BaseException, so that no ``except Exception`` on the way can
    swallow it.
    """


class Stop:
    """What stops a run: a flag that calls whoever waits, so that nobody has to look at it again and again."""

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"Stop({'set' if self._set else 'not set'})"

    def is_set(self) -> bool:
        """Whether it was ever set."""
        return self._set

    def set(self) -> None:
        """Set it, for good, and call what waits."""
        with self._lock:
            self._set = True
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Within the block, `call()` is called once, when this is set: at once if it is already."""
        with self._lock:
            late = self._set
            if not late:
                self._waiting.append(call)
        if late:
            call()
        try:
            yield
        finally:
            with self._lock:
                if call in self._waiting:
                    self._waiting.remove(call)


@contextmanager
def interruptible(modules: Iterable[torch.nn.Module], stop: Stop) -> Iterator[None]:
    """Within the block, running any block of `modules` on this thread raises :class:`Cancelled` once `stop` is set."""

    def check(module: torch.nn.Module, args: Any) -> None:
        if stop.is_set():
            raise Cancelled

    with hooked((part for module in modules for part in _blocks(module)), before=check):
        yield


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """A network and everything in its lists of blocks, at any depth: fine enough to stop within a fraction of
    an evaluation.
    """
    yield module
    for part in module.modules():
        if isinstance(part, torch.nn.ModuleList):
            # A list may hold None where a block is left out (a middle without attention).
            yield from (block for block in part if block is not None)


class Cancel(Probe):
    """Ends a run with :class:`Cancelled` once `stop` is set: within one block of a network, in any pipeline, whether it
    knows ``_interrupt`` or not, and before the scheduler takes another step.
    """

    def __init__(self, stop: Stop, networks: Sequence[torch.nn.Module]) -> None:
        """What stops it, and the networks to look at it from: those that denoise; text encoders are added."""
        self._stop = stop
        self._networks = networks
        self._undo = ExitStack()

    def attach(self, pipeline: Any) -> None:
        encoders = [
            part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None
        ]
        self._undo.enter_context(interruptible([*self._networks, *encoders], self._stop))
        for part in pipeline.components.values():
            if callable(getattr(part, "step", None)) and hasattr(part, "set_timesteps"):
                self._undo.enter_context(tapped(part, "step", self._step))

    def detach(self) -> None:
        self._undo.close()

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._stop.is_set():
            raise Cancelled
        return inner(*args, **kwargs)
