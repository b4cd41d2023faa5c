"""The recorder of a pipeline that nobody knows: it sees what passes between networks, scheduler and decoder.

The same two taps as ``recorder``, with nothing taken for granted: any component may denoise, and one whose answers fit
the latents does; answers may be longer than the latents, laid out otherwise, or mixed with x_t, which the first step
tells by least squares; a step's noise level is read from the timestep it is given; a call may have several stages, of
which the last is recorded. What a network answers is kept, so that the call can be made again without it (``replay``).
"""

import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from diffexplore.mixing import CFG
from diffexplore.pipelines.any import Looked, schedulers_of
from diffexplore.pipelines.layout import Grid, fitting
from diffexplore.record import predictions
from diffexplore.record.guiders import At
from diffexplore.record.step import Step
from diffexplore.runs.guided import Guiding
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Probe, hooked, tapped
from diffexplore.words import sentence

__all__ = ["Recount", "UnmixedError", "Watcher", "cloned", "first_tensor"]

Emit = Callable[[Step], None]
Cut = Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor | None]


class Recount(BaseException):
    """Ends a call at its first step: the pipeline counts guidance from another number than it was asked by."""


class UnmixedError(RuntimeError):
    """What a call's predictions cannot be mixed for."""


class Watcher(Probe):
    """Records one call of any pipeline, of which the first picture counts.

    The call raises RuntimeError where a guider is asked for and the halves are not found.

    Attributes:
        answers: network -> what it answered, call by call, of those that denoise.
        helpers: network -> its last answer, of those that were run between the steps and do not.
        taken: what the decoder was given.
        final: the latents after the last step, as the pipeline keeps them; None before.
        steps: how many steps the main scheduler took.
        recorded: how many of them are in the trace.
        trouble: why steps are missing, one sentence; "" where none are.
    """

    def __init__(
        self,
        family: Looked,
        emit: Emit,
        *,
        guidance: float | None,
        width: int | None,
        height: int | None,
        on_schedule: Callable[[list[float], int], None],
        on_stage: Callable[[], None],
        guider: str = CFG,
    ) -> None:
        """What to record.

        Args:
            family: what is known of the pipeline; it learns.
            emit: gets each step once the scheduler has taken it.
            guidance: what the pipeline was asked for, as it counts; None where it takes none.
            width: of the picture in pixels; None: not asked for.
            height: likewise.
            on_schedule: gets the timesteps and the number of calls, before the first of them.
            on_stage: called where the steps so far turn out to be those of an earlier stage.
            guider: how the halves are mixed, as `Settings` say it; CFG: as the pipeline does.
        """
        self._family, self._emit = family, emit
        self._asked = guidance
        self._sides = width, height
        self._on_schedule, self._on_stage = on_schedule, on_stage
        self._guider = guider
        self._undo = ExitStack()

    def attach(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.answers: dict[str, list[Any]] = {}
        self.helpers: dict[str, Any] = {}
        self.taken: list[torch.Tensor] = []
        self.final: torch.Tensor | None = None
        self.steps = self.recorded = 0
        self.trouble = ""
        self.stages: list[str] = []
        self.found: dict[str, str] = {}
        self._outputs: list[tuple[str, Any]] = []
        self._idle: set[str] = set()
        self._levels: Levels | None = None
        self._round = self._begun = 0
        self._guiding = Guiding([self._guider])
        self._mixed: torch.Tensor | None = None
        self._shape: tuple[int, ...] | None = None
        self._cut: tuple[Cut, bool] | None = None
        self._last = time.perf_counter()
        self._others: dict[str, int] = {}
        schedulers = schedulers_of(pipeline)
        main = schedulers[self._family.scheduler]
        self._scheduler, self._signature = main, inspect.signature(main.step)
        enter = self._undo.enter_context
        for name, network in self._family.named(pipeline).items():
            enter(hooked([network], after=self._after(name)))
        enter(tapped(main, "step", self._step, copies=False))
        enter(tapped(main, "set_timesteps", self._set_timesteps, copies=False))
        for name, scheduler in schedulers.items():
            if scheduler is not main:
                enter(tapped(scheduler, "step", self._counting(name), copies=False))
        decoder = getattr(pipeline, self._family.decoder, None) if self._family.decoder else None
        if decoder is not None and hasattr(decoder, "decode"):
            owner = threading.get_ident()

            def decode(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                given = args[0] if args else kwargs.get("z")
                if threading.get_ident() == owner and isinstance(given, torch.Tensor):
                    self.taken.append(given)
                return inner(*args, **kwargs)

            enter(tapped(decoder, "decode", decode))

    @property
    def earlier(self) -> list[str]:
        """What went before the steps that are in the trace, in words: each stage of the main scheduler, and what
        others took.
        """
        return [
            *self.stages,
            *(f"{count} steps of its {name.replace('_', ' ')}" for name, count in self._others.items()),
        ]

    def detach(self) -> None:
        self._undo.close()

    # The taps

    def _after(self, name: str) -> Callable[..., None]:
        def after(module: torch.nn.Module, args: Any, output: Any) -> None:
            # Pipelines may write into an answer (a sign, a scale): what is kept is a copy.
            self._outputs.append((name, output if name in self._idle else cloned(output)))

        return after

    def _counting(self, name: str) -> Callable[..., Any]:
        def step(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self._others[name] = self._others.get(name, 0) + 1
            self._keep(set())
            return inner(*args, **kwargs)

        return step

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made = inner(*args, **kwargs)
        self._levels, self._round = None, 0
        self._keep(set(self.found))  # what was asked before belongs to no step
        if self.steps == 0:
            self._last = time.perf_counter()
        return made

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call: Mapping[str, Any] = {}
        try:
            call = self._signature.bind(*args, **kwargs).arguments
        except TypeError:  # the scheduler says best itself what is wrong
            return inner(*args, **kwargs)
        made = self._mixed = None
        if not self.trouble:
            try:
                made = self._seen(call)
            except UnmixedError:
                raise
            except Exception as error:  # a run nobody knows goes on, whatever is not understood of it
                self.trouble = f"Its steps could not be read: {sentence(error)}."
        self._keep(set(self.found))
        if self._guiding.any:
            if self._mixed is None:
                raise UnmixedError(f"guider {self._guider} cannot be used here. {self.trouble}")
            given = self._signature.bind(*args, **kwargs)
            name = next(name for name, one in call.items() if one is self._answer(call))
            given.arguments[name] = self._mixed
            args, kwargs = given.args, given.kwargs
        result = inner(*args, **kwargs)
        self.final = first_tensor(result)
        self.steps += 1
        self._round += 1
        now = time.perf_counter()
        if made is not None:
            made.seconds = now - self._last
            self.recorded += 1
            self._emit(made)
        self._last = now
        return result

    def _keep(self, denoising: set[str]) -> None:
        """Put the answers since the last step on the tape."""
        for name, output in self._outputs:
            if name in denoising or name in self.answers or (not denoising and not self.steps):
                self.answers.setdefault(name, []).append(output)
            else:
                self._idle.add(name)
                self.helpers[name] = output
        self._outputs.clear()

    # What a step was

    @staticmethod
    def _answer(call: Mapping[str, Any]) -> Any:
        """What a scheduler is given of the networks."""
        values = [one for one in call.values() if isinstance(one, torch.Tensor) and one.ndim]
        return call.get("model_output", values[0] if values else None)

    def _seen(self, call: Mapping[str, Any]) -> Step:
        values = [one for one in call.values() if isinstance(one, torch.Tensor) and one.ndim]
        output = self._answer(call)
        sample = call.get("sample", values[-1] if values else None)
        assert isinstance(output, torch.Tensor), "a scheduler is given what the network answered"
        assert isinstance(sample, torch.Tensor), "a scheduler is given the latents"
        shape = tuple(sample.shape[1:])
        if self._shape not in (None, shape) and self.recorded:
            self.stages.append(f"{self.recorded} evaluations at {'x'.join(map(str, self._shape or ()))}")
            self.recorded, self._cut = 0, None
            self._on_stage()
        self._shape = shape
        guided = _head(output[0] if len(output) == len(sample) else output[:1][0], shape)
        if guided is None:
            raise ValueError(f"its answer of {tuple(output.shape)} does not fit latents of {tuple(sample.shape)}")
        timestep = call.get("timestep")
        if self._levels is None:
            self._levels = Levels(self._scheduler)
            left = self._levels.left(self._round, timestep) if self._round == 0 else len(self._levels.schedule)
            self._on_schedule(self._levels.schedule, self.recorded + left)
        a, b, half = self._levels.at(self._round, timestep)
        rows = self._rows(len(sample))
        if self._cut is None:
            self._cut = self._choose(rows, guided, sample[0])
        cut, blended = self._cut
        pieces = [made for _, row in rows if (made := cut(row, shape)) is not None]
        if len(sample) > 1 and len(pieces) == len(sample) and torch.equal(pieces[0], guided):
            pieces = pieces[:1]  # as many pictures as answers: each has one of its own
        for name in {name for name, row in rows if cut(row, shape) is not None}:
            self.found.setdefault(name, "denoises")
        scale = self._each_token(call, shape, b)
        if scale is not None:
            guided, pieces = guided * scale, [piece * scale for piece in pieces]
        if self.recorded == 0:
            self._measure(guided, pieces, sample[0] if blended else None)
        self._begun += not half
        halves = None
        if self._guiding.any:
            if len(sample) > 1 or scale is not None:
                what = (
                    "its tokens have noise levels of their own"
                    if scale is not None
                    else "it keeps several pictures at once"
                )
                raise UnmixedError(f"guider {self._guider} cannot be used here: {what}")
            at = At(sample[0], a, b, self._levels.kind, self._begun - 1)
            halves, guided = self._mix(guided, pieces, at, blended)
            self._mixed = _put(output, guided)

        def view(one: torch.Tensor) -> torch.Tensor:
            return self._family.unpack(self._pipeline, one.unsqueeze(0), *self._sides)[0]

        # A pipeline may write the next latents over these, where they are a part of more (Kandinsky 5): a copy stays.
        facts: dict[str, Any] = {
            "index": self.recorded, "timestep": self._levels.told(self._round, timestep), "seconds": 0.0, "a": a,
            "b": b, "kind": self._levels.kind, "half": half, "latents": view(sample[0].clone()),
            "output": view(guided), "guidance": self._meant(), "guider": self._guiding.of(0),
        }  # fmt: skip
        if halves is not None:
            return Step(**facts, cond=view(halves[0]), uncond=view(halves[1]))
        return Step(**facts, pieces=[view(piece) for piece in pieces], blended=blended)

    def _mix(
        self, guided: torch.Tensor, pieces: Sequence[torch.Tensor], at: At, blended: bool
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Both halves, and what the guider makes of them."""
        if len(pieces) > 2:
            what = f"this pipeline mixes {len(pieces)} predictions, and a guider only two"
            raise UnmixedError(f"guider {self._guider} cannot be used here: {what}")
        found = predictions.separate(guided, pieces, self._meant(), at.latents if blended else None)
        meant = self._meant()
        if found.cond is None or found.uncond is None or meant is None:
            reason = found.reason[:1].lower() + found.reason[1:].rstrip(".") or "its guidance is not known"
            raise UnmixedError(f"guider {self._guider} cannot be used here: {reason}")
        return (found.cond, found.uncond), self._guiding.mix(0, found, meant, at, guided.dtype)

    def _meant(self) -> float | None:
        return None if self._asked is None else self._asked + self._family.offset

    def _rows(self, batch: int) -> list[tuple[str, torch.Tensor]]:
        """(network, what it answered for the first picture), row by row, since the last step."""
        found = []
        for name, output in self._outputs:
            for answer in _answers(output):
                if answer.ndim and (len(answer) % batch == 0 or batch == 1):
                    stride = batch if len(answer) > batch else 1
                    found += [(name, answer[k]) for k in range(0, len(answer), stride)]
        return found

    def _choose(
        self, rows: Sequence[tuple[str, torch.Tensor]], guided: torch.Tensor, latents: torch.Tensor
    ) -> tuple[Cut, bool]:
        """How the answers are cut to the latents, and whether x_t is in the mix: what the first step agrees with."""
        shape, fits = tuple(guided.shape), []
        for cut in (_head, _tail, _relaid):
            pieces = [made for _, row in rows if (made := cut(row, shape)) is not None]
            if pieces:
                fits.append((cut, pieces))
        for blended in (False, True):
            for cut, pieces in fits:
                if len(pieces) == 1 and _close(guided, pieces[0]):
                    return cut, False
                if len(pieces) > 1:
                    split = predictions.separate(guided, pieces, self._meant(), latents if blended else None)
                    if not split.reason and not (blended and math.isnan(split.residual)):
                        return cut, blended
        return (fits[0][0] if fits else _head), False

    def _measure(self, guided: torch.Tensor, pieces: Sequence[torch.Tensor], latents: torch.Tensor | None) -> None:
        """What the first step tells of guidance; a pipeline that counts from 0 is asked again."""
        family, meant = self._family, self._meant()
        split = predictions.separate(guided, pieces, meant, latents)
        family.measured = split.reason or "both"
        family.embeds = len(pieces) == 1 and meant is not None and meant > 1
        if split.guidance is None or split.residual == 0.0 or self._asked is None or family.offset:
            return
        if self._asked > 0 and abs(split.guidance - self._asked - 1) <= 0.01 * max(1.0, self._asked):
            family.offset = 1
            raise Recount

    def _each_token(self, call: Mapping[str, Any], shape: tuple[int, ...], b: float) -> torch.Tensor | None:
        """Where tokens have noise levels of their own, what each one's prediction counts relative to the step's: there
        diffusers adds the prediction, which it is given negated.
        """
        own = call.get("per_token_timesteps")
        if not isinstance(own, torch.Tensor) or not b:
            return None
        levels = own[0].to(torch.float32) / float(getattr(self._scheduler.config, "num_train_timesteps", 1000)) / b
        return -levels.reshape(*levels.shape, *[1] * (len(shape) - levels.ndim))


# Answers


def cloned(value: Any) -> Any:
    """An answer that shares no memory with the given one, of the same form."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [cloned(one) for one in value]
    if isinstance(value, tuple):
        made = [cloned(one) for one in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    if isinstance(value, dict):
        fields = {name: cloned(one) for name, one in value.items()}
        return fields if type(value) is dict else type(value)(**fields)
    return value


def first_tensor(result: Any) -> torch.Tensor | None:
    """The latents in what a scheduler's step gave."""
    if isinstance(result, torch.Tensor):
        return result
    named = getattr(result, "prev_sample", None)
    if named is not None:
        return named if isinstance(named, torch.Tensor) else None
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, tuple | list) else ()
    return next((one for one in values if isinstance(one, torch.Tensor)), None)


def _answers(output: Any) -> Iterator[torch.Tensor]:
    """The tensors in an answer that may be predictions, pictures along their first axis."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _answers(output.get("sample", next(iter(output.values()), None)))
    elif isinstance(output, tuple):
        yield from _answers(output[0] if output else None)
    elif isinstance(output, list):
        for one in output:
            if isinstance(one, torch.Tensor):
                yield one.unsqueeze(0)
    elif isinstance(getattr(output, "sample", None), torch.Tensor | list):
        yield from _answers(output.sample)


def _put(output: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """What a scheduler is given, with another prediction of its one picture in it, where `_head` finds it."""
    made = output.clone()
    if made[0].numel() == row.numel():
        made[0].copy_(row.reshape(made[0].shape))
    else:
        made[0][tuple(slice(0, n) for n in row.shape)] = row
    return made


def _head(row: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The first part of an answer, in the latents' shape: behind it lies a learned variance, or more pictures."""
    if row.shape == shape:
        return row
    if row.numel() == math.prod(shape) and [n for n in row.shape if n > 1] == [n for n in shape if n > 1]:
        return row.reshape(shape)
    if row.ndim == len(shape) and all(n >= m for n, m in zip(row.shape, shape, strict=True)):
        return row[tuple(slice(0, m) for m in shape)]
    return None


def _tail(row: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The last part."""
    if row.ndim == len(shape) and all(n >= m for n, m in zip(row.shape, shape, strict=True)):
        return row[tuple(slice(n - m, n) for n, m in zip(row.shape, shape, strict=True))]
    return None


def _relaid(row: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Packed answers to latents in a grid; the last frames, where there are more of them (a picture goes before)."""
    if len(shape) not in (3, 4) or row.ndim == len(shape):
        return None
    grid = Grid(*shape) if len(shape) == 4 else Grid(shape[0], 0, *shape[1:])
    if grid.frames and row.numel() % math.prod(shape[:1] + shape[2:]) == 0:
        grid = grid._replace(frames=row.numel() // math.prod(shape[:1] + shape[2:]))
    for layout in fitting(row.shape, grid) if grid.frames >= (shape[1] if len(shape) == 4 else 0) else ():
        made = layout.unpack(row.unsqueeze(0), grid)[0]
        return made[:, -shape[1] :] if len(shape) == 4 else made
    return None


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max()) or bool((a + b).abs().max() <= 1e-5 * b.abs().max())
