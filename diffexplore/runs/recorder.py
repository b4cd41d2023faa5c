"""The recorder: taps one call of a pipeline and emits a :class:`~diffexplore.trace.Step` per picture and model
evaluation.

Two taps. An instance attribute over ``scheduler.step`` sees x_t, the guided output and the timestep; a
forward hook on the denoiser sees what was mixed into that output. The noise level is read *before* the
original step runs, since running it moves the scheduler on. Nothing is copied or computed on the way: steps
keep references, and no scheduler writes into the tensors it was given. (Two things do compute, where a caller
asks for them: `unpack`, and `recombine`.)

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from diffexplore.record import predictions
from diffexplore.trace import Step

__all__ = ["Cancelled", "Levels", "denoisers", "interruptible", "record"]

Emit = Callable[[Step], None]

# Where pipelines keep the networks of their loops. Two-stage ones (Wan, Stable Cascade) have several, of which
# whichever ran counts.
_DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")

# Names of diffusers schedulers by how they keep x_t; see predictions.py for what the levels mean.
_BY_TIMESTEP = frozenset({"DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"})
_EXPLODING = frozenset(
    {
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverSDEScheduler",
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
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
_FLOWING = frozenset(
    {
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
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

    Attributes:
        schedule: what the network is told at each call, in the scheduler's own unit: a timestep, or for EDM
            ``log(sigma) / 4``.

    Raises:
        ValueError: for a scheduler whose levels are not known.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._name = name = type(scheduler).__name__
        config = getattr(scheduler, "config", {})
        self.schedule = [float(t) for t in scheduler.timesteps.tolist()]
        self._middle: list[float] = []
        self._table: list[float] = []
        self._middle_offset = _MIDPOINT.get(name, 0)
        if name in _BY_TIMESTEP:
            self._read = self._from_timestep
            self._table = scheduler.alphas_cumprod.tolist()
        elif name in _EXPLODING or name in _MIDPOINT:
            if config.get("sigma_data", predictions.SIGMA_DATA) != predictions.SIGMA_DATA:
                known = f"only {predictions.SIGMA_DATA} is known here"
                raise ValueError(f"the net assumes data of standard deviation {config['sigma_data']}, {known}")
            self._read = self._exploding
            self._table = scheduler.sigmas.tolist()
            if name in _MIDPOINT:
                self._middle = scheduler.sigmas_interpol.tolist()
        elif name in _PRESERVING or name in _FLOWING:
            if config.get("invert_sigmas"):
                raise ValueError("a net that counts its noise levels upwards (invert_sigmas) cannot be recorded")
            flow = name in _FLOWING or config.get("use_flow_sigmas")
            self._read = self._flow if flow else self._preserving
            self._table = scheduler.sigmas.tolist()
        else:
            raise ValueError(f"the noise levels of {name} are not known, so its steps cannot be recorded")

    def at(self, call: int) -> tuple[float, float, bool]:
        """(a, b, half) for the `call`-th call of ``step``, which must not have run yet; half: whether its x_t is
        only a trial within a step of several evaluations.
        """
        index = getattr(self._scheduler, "step_index", None)
        # None before the first call: nothing asked the scheduler yet, and `record` makes it begin at 0.
        index = 0 if index is None else index
        half = self._half(index, call)
        return *self._read(index, call, half), half

    def _half(self, index: int, call: int) -> bool:
        if self._name == "PNDMScheduler":
            # Runge-Kutta tries three points on the way to each of its four; without it, the second evaluation
            # corrects the first.
            warm_up = len(self._scheduler.prk_timesteps)
            return call % 4 > 0 if call < warm_up else call == 1 and not warm_up
        if self._name == "DPMSolverSinglestepScheduler":
            return bool(self._scheduler.order_list[index] > 1)
        return not getattr(self._scheduler, "state_in_first_order", True)

    def _from_timestep(self, index: int, call: int, half: bool) -> tuple[float, float]:
        level = self._table[int(self.schedule[call])]
        return math.sqrt(level), math.sqrt(1 - level)

    def _exploding(self, index: int, call: int, half: bool) -> tuple[float, float]:
        if half and self._middle:
            return 1.0, self._middle[index + self._middle_offset]
        if half and self._name == "DPMSolverSDEScheduler":
            return 1.0, float(self._scheduler.mid_point_sigma)  # computed as it goes; on the CPU, like its table
        return 1.0, self._table[index]

    def _preserving(self, index: int, call: int, half: bool) -> tuple[float, float]:
        a = 1 / math.sqrt(self._table[index] ** 2 + 1)
        return a, a * self._table[index]

    def _flow(self, index: int, call: int, half: bool) -> tuple[float, float]:
        return 1 - self._table[index], self._table[index]


def denoisers(pipeline: Any) -> list[torch.nn.Module]:
    """The network(s) that a pipeline's loop evaluates, the main one first."""
    found = (getattr(pipeline, name, None) for name in _DENOISERS)
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
    emits: Sequence[Emit],
    cancel: threading.Event,
    *,
    guidance: Sequence[float | None] = (),
    recombine: bool = False,
    unpack: Callable[[torch.Tensor], torch.Tensor] | None = None,
    generators: Sequence[torch.Generator] | None = None,
    on_schedule: Callable[[list[float]], None] | None = None,
) -> Iterator[None]:
    """Record one call of `pipeline`, made within the block on this thread, for one picture or a batch of them.

    Args:
        pipeline: a shallow clone with a scheduler of its own; both may be thrown away afterwards.
        emits: one callable per picture of the batch, in order; gets each step of its picture once the scheduler
            has taken it. A step's ``seconds`` are those of the whole batch.
        cancel: once set, the call ends with :class:`Cancelled`.
        guidance: what each picture asked for, as in ``uncond + g (cond - uncond)``; empty if that is not known.
            Where the halves are equal, so that nothing can be measured, the steps say this number.
        recombine: mix the halves of each picture anew with its own guidance, before the scheduler gets them.
            diffusers knows one guidance per call; call the pipeline with any above 1. Without it the scheduler
            gets the very tensor that the pipeline made.
        unpack: from a batch of the latents that the pipeline keeps, such as (B, L, C) or (B, C, 1, h, w), to
            (B, C, h, w); None where that is what it keeps.
        generators: one per picture, for schedulers that draw noise in pipelines which pass them none (the flow
            ones): it would come from torch's global generator.
        on_schedule: gets the timesteps of the run, one per model evaluation, before the first of them.

    Raises:
        ValueError: for guidance that does not fit the number of pictures.
        RuntimeError: from the pipeline's call: if it draws another number of pictures, or if `recombine` is
            asked for and the halves are not known.
    """
    scheduler = pipeline.scheduler
    owner = threading.get_ident()
    kind = _kind(scheduler)
    asked = list(guidance) or [None] * len(emits)
    if len(asked) != len(emits) or (recombine and None in asked):
        raise ValueError(f"guidance must be one number for each of {len(emits)} pictures, got {list(guidance)!r}")
    original_step, original_set = scheduler.step, scheduler.set_timesteps
    arguments = inspect.signature(original_step)
    draws = "generator" in arguments.parameters
    outputs: list[Any] = []
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
        if not draws:
            kwargs.pop("generator", None)  # Kandinsky 3 passes it to every scheduler
        call = arguments.bind(*args, **kwargs).arguments
        if draws and generators is not None and call.get("generator") is None:
            kwargs["generator"] = generators[0] if len(generators) == 1 else list(generators)
        sample, output = call["sample"], call["model_output"]
        if len(sample) != len(emits):
            raise RuntimeError(f"the pipeline draws {len(sample)} pictures, {len(emits)} were to be recorded")
        # Nets with a learned variance put it behind the prediction, as more channels.
        guided = output[:, : sample.shape[1]]
        pieces = _pieces(outputs, sample)
        halves: Sequence[predictions.Split | None] = [None] * len(emits)
        if recombine:
            halves = found = [_split(*one) for one in zip(guided, pieces, asked, strict=True)]
            guided = torch.stack([_mix(*one, output.dtype) for one in zip(found, asked, strict=True)])
            mixed = torch.cat([guided, output[:, sample.shape[1] :]], dim=1)
            if args:
                args = (mixed, *args[1:])
            else:
                kwargs["model_output"] = mixed
        a, b, half = levels.at(count)
        common = {"index": count, "timestep": levels.schedule[count], "a": a, "b": b, "kind": kind, "half": half}
        view = unpack or _as_it_is
        seen = zip(view(sample), view(guided), pieces, halves, asked, strict=True)
        made = [_step(common, view, *one) for one in seen]
        result = original_step(*args, **kwargs)
        outputs.clear()
        count += 1
        now = time.perf_counter()
        seconds, last = now - last, now
        for emit, one in zip(emits, made, strict=True):
            one.seconds = seconds
            emit(one)
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


def _as_it_is(latents: torch.Tensor) -> torch.Tensor:
    return latents


def _pieces(outputs: Sequence[Any], latents: torch.Tensor) -> list[list[torch.Tensor]]:
    """For each picture of a batch, the networks' answers since the last step, each laid out like its latents.

    Args:
        outputs: each a tensor of k batches, or a list of tensors of one picture each (Z-Image); pictures are
            in order within a batch, whatever the order of the batches.
        latents: of the batch, (B, ...).

    Returns:
        B lists, all empty where the answers do not fit the latents.
    """
    batch, shape = len(latents), latents.shape[1:]
    found: list[list[torch.Tensor]] = [[] for _ in range(batch)]
    for output in outputs:
        if len(output) % batch:
            return [[] for _ in range(batch)]
        for k, row in enumerate(output):
            row = row[: shape[0]]  # behind it lies a learned variance
            if row.shape != shape:
                # Some nets keep an axis of frames, here of length 1; anything else is another layout.
                if [n for n in row.shape if n > 1] != [n for n in shape if n > 1]:
                    return [[] for _ in range(batch)]
                row = row.reshape(shape)
            found[k % batch].append(row)
    return found


def _split(output: torch.Tensor, pieces: Sequence[torch.Tensor], guidance: float | None) -> predictions.Split:
    found = predictions.separate(output, pieces, guidance)
    if found.reason:
        reason = found.reason[0].lower() + found.reason[1:].rstrip(".")
        raise RuntimeError(f"the pictures of one batch cannot each have a guidance of their own here: {reason}")
    return found


def _mix(half: predictions.Split, guidance: float | None, dtype: torch.dtype) -> torch.Tensor:
    assert half.cond is not None
    assert half.uncond is not None
    assert guidance is not None
    return predictions.guide(half.cond.to(dtype), half.uncond.to(dtype), guidance)


def _step(
    facts: Mapping[str, Any],
    view: Callable[[torch.Tensor], torch.Tensor],
    latents: torch.Tensor,
    output: torch.Tensor,
    pieces: Sequence[torch.Tensor],
    half: predictions.Split | None,
    guidance: float | None,
) -> Step:
    """One picture's step; `pieces` and `half` as the pipeline lays them out, `latents` and `output` as viewed."""

    def seen(tensor: torch.Tensor) -> torch.Tensor:
        return view(tensor.unsqueeze(0))[0]

    made = {**facts, "seconds": 0.0, "latents": latents, "output": output, "guidance": guidance}
    if half is None or half.cond is None or half.uncond is None:
        return Step(**made, pieces=[seen(piece) for piece in pieces])
    return Step(**made, cond=seen(half.cond), uncond=seen(half.uncond))


def _kind(scheduler: Any) -> str:
    name = type(scheduler).__name__
    if name in _FLOWING:
        return "flow_prediction"  # these classes read nothing else, and have no word for it
    kind = str(scheduler.config.get("prediction_type", "epsilon"))
    return f"edm_{kind}" if name.startswith("EDM") else kind
