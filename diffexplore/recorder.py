"""The recorder: taps one call of a pipeline and emits a :class:`~diffexplore.trace.Step` per model
evaluation.

Two taps. An instance attribute over ``scheduler.step`` sees x_t, the guided output and the timestep; a
forward hook on the denoiser sees what was mixed into that output. The noise level is read *before* the
original step runs, since running it moves the scheduler on. Nothing is copied or computed on the way: steps
keep references, and no scheduler writes into the tensors it was given.

The pipeline is expected to be a shallow clone with a scheduler of its own, so those need no repair
afterwards. The denoiser and the text encoders are shared with the user's pipeline: their hooks are removed in
any case, and ignore every thread but the one that records.

Cancelling raises a private ``BaseException`` from forward pre-hooks of the networks and their blocks, so it
takes effect within one block of the denoiser, in any pipeline, whether it knows ``_interrupt`` or not.
"""

import functools
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from .trace import Step

__all__ = ["Cancelled", "Levels", "denoisers", "interruptible", "record"]

# Names of diffusers schedulers by how they keep x_t; see predictions.py for what the levels mean.
_BY_TIMESTEP = frozenset({"DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"})
_EXPLODING = frozenset(
    {
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
        "HeunDiscreteScheduler",
    }
)
_MIDPOINT = {
    "KDPM2DiscreteScheduler": 0,
    "KDPM2AncestralDiscreteScheduler": -1,
}  # where the middle's sigma lies, relative to step_index
_PRESERVING = frozenset(
    {
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "DEISMultistepScheduler",
        "UniPCMultistepScheduler",
        "SASolverScheduler",
    }
)


class Cancelled(BaseException):
    """Ends a run from inside the networks; a BaseException, so that no ``except Exception`` on the way can
    swallow it.
    """


class Levels:
    """The (a, b) of ``x_t = a * x0 + b * noise`` for each call of a scheduler's ``step``; made after
    ``set_timesteps``.

    All tables are taken to Python floats once: asking a tensor on a GPU for one number would make the queue
    wait.

    Raises:
        ValueError: for a scheduler whose levels are not known.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        name = type(scheduler).__name__
        self.schedule = [float(t) for t in scheduler.timesteps.tolist()]
        self._middle: list[float] = []
        self._table: list[float] = []
        self._middle_offset = _MIDPOINT.get(name, 0)
        if name in _BY_TIMESTEP:
            self._read = self._from_timestep
            self._table = scheduler.alphas_cumprod.tolist()
        elif name in _EXPLODING or name in _MIDPOINT:
            self._read = self._exploding
            self._table = scheduler.sigmas.tolist()
            if name in _MIDPOINT:
                self._middle = scheduler.sigmas_interpol.tolist()
        elif name in _PRESERVING:
            self._read = self._flow if scheduler.config.get("use_flow_sigmas") else self._preserving
            self._table = scheduler.sigmas.tolist()
        else:
            raise ValueError(f"the noise levels of {name} are not known, so its steps cannot be recorded")

    def at(self, call: int) -> tuple[float, float, bool]:
        """(a, b, second half?) for the `call`-th call of ``step``, which must not have run yet."""
        index = getattr(self._scheduler, "step_index", None)
        # None before the first call: nothing asked the scheduler yet, and `record` makes it begin at 0.
        index = 0 if index is None else index
        half = not getattr(self._scheduler, "state_in_first_order", True)
        return *self._read(index, call, half), half

    def _from_timestep(self, index: int, call: int, half: bool) -> tuple[float, float]:
        level = self._table[int(self.schedule[call])]
        return math.sqrt(level), math.sqrt(1 - level)

    def _exploding(self, index: int, call: int, half: bool) -> tuple[float, float]:
        if half and self._middle:
            return 1.0, self._middle[index + self._middle_offset]
        return 1.0, self._table[index]

    def _preserving(self, index: int, call: int, half: bool) -> tuple[float, float]:
        a = 1 / math.sqrt(self._table[index] ** 2 + 1)
        return a, a * self._table[index]

    def _flow(self, index: int, call: int, half: bool) -> tuple[float, float]:
        return 1 - self._table[index], self._table[index]


def denoisers(pipeline: Any) -> list[torch.nn.Module]:
    """The network(s) that a pipeline's loop evaluates."""
    found = (getattr(pipeline, name, None) for name in ("unet", "transformer"))
    return [module for module in found if isinstance(module, torch.nn.Module)]


@contextmanager
def interruptible(modules: Iterable[torch.nn.Module], cancel: threading.Event) -> Iterator[None]:
    """Within the block, running any block of `modules` on this thread raises :class:`Cancelled` once `cancel`
    is set.
    """
    owner = threading.get_ident()

    def check(module: torch.nn.Module, args: Any) -> None:
        if cancel.is_set() and threading.get_ident() == owner:
            raise Cancelled

    with ExitStack() as hooks:
        for module in modules:
            for part in _blocks(module):
                hooks.callback(part.register_forward_pre_hook(check).remove)
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


@contextmanager
def record(
    pipeline: Any,
    emit: Callable[[Step], None],
    cancel: threading.Event,
    *,
    guidance: float | None = None,
    on_schedule: Callable[[list[float]], None] | None = None,
) -> Iterator[None]:
    """Record one call of `pipeline`, made within the block on this thread, for one picture.

    Args:
        pipeline: a shallow clone with a scheduler of its own; both may be thrown away afterwards.
        emit: gets each step once the scheduler has taken it.
        cancel: once set, the call ends with :class:`Cancelled`.
        guidance: what the pipeline is asked for; used only where prompt and negative prompt give equal
            outputs.
        on_schedule: gets the timesteps of the run, one per model evaluation, before the first of them.
    """
    scheduler = pipeline.scheduler
    owner = threading.get_ident()
    kind = _kind(scheduler)
    original_step, original_set = scheduler.step, scheduler.set_timesteps
    arguments = inspect.signature(original_step)
    outputs: list[torch.Tensor] = []
    levels: Levels | None = None
    count = 0
    last = time.perf_counter()

    def after_forward(module: torch.nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            outputs.append(output[0] if isinstance(output, tuple) else getattr(output, "sample", output))

    @functools.wraps(original_set)
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        nonlocal levels, count, last
        original_set(*args, **kwargs)
        if hasattr(scheduler, "set_begin_index"):
            # Where the first two timesteps round to the same number, a scheduler that must look up its index
            # finds the second of them and ends one short of its table.
            scheduler.set_begin_index(0)
        levels = Levels(scheduler)
        if on_schedule is not None:
            on_schedule(levels.schedule)
        outputs.clear()
        count, last = 0, time.perf_counter()

    @functools.wraps(original_step)
    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal count, last
        if cancel.is_set():
            raise Cancelled
        assert levels is not None, "a pipeline sets its timesteps before it steps"
        call = arguments.bind(*args, **kwargs).arguments
        sample, output = call["sample"], call["model_output"]
        a, b, half = levels.at(count)
        # Nets with a learned variance put it behind the prediction, as more channels.
        channels = sample.shape[1]
        made = Step(
            index=count,
            timestep=levels.schedule[count],
            seconds=0.0,
            a=a,
            b=b,
            kind=kind,
            half=half,
            latents=sample[0],
            output=output[0, :channels],
            guidance=guidance,
            pieces=[piece[:channels] for out in outputs for piece in out],
        )
        result = original_step(*args, **kwargs)
        outputs.clear()
        count += 1
        now = time.perf_counter()
        made.seconds, last = now - last, now
        emit(made)
        return result

    networks = denoisers(pipeline)
    encoders = [
        part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None
    ]
    with ExitStack() as undo:
        undo.enter_context(interruptible([*networks, *encoders], cancel))
        for network in networks:
            undo.callback(network.register_forward_hook(after_forward).remove)
        scheduler.step, scheduler.set_timesteps = step, set_timesteps
        undo.callback(scheduler.__dict__.pop, "step", None)
        undo.callback(scheduler.__dict__.pop, "set_timesteps", None)
        yield


def _kind(scheduler: Any) -> str:
    kind = str(scheduler.config.get("prediction_type", "epsilon"))
    return f"edm_{kind}" if type(scheduler).__name__.startswith("EDM") else kind
