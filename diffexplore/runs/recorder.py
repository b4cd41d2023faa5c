"""The recorder: the probe that taps one call of a pipeline and makes a `Step` per picture and model evaluation.

Two taps. One around ``scheduler.step`` sees x_t, the guided output and the timestep; a forward hook on the denoiser
sees what was mixed into that output. The noise level is read *before* the original step runs, since running it moves
the scheduler on. Nothing is copied or computed on the way: steps keep references, and no scheduler writes into the
tensors it was given. (Three things do compute, where a caller asks for them: `unpack`, `recombine` and `guiders`.)
"""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from diffexplore.mixing import CFG
from diffexplore.pipelines.base import denoisers
from diffexplore.record import predictions
from diffexplore.record.guiders import At
from diffexplore.record.step import Step
from diffexplore.runs.guided import Guiding
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Probe, hooked, tapped
from diffexplore.words import sentence

__all__ = ["Recorder"]

Emit = Callable[[Step], None]


class Recorder(Probe):
    """Records one call of a pipeline, made on the thread that attached it, for one picture or a batch of them.

    The pipeline's call raises RuntimeError if it draws another number of pictures, or if `recombine` or a guider is
    asked for and the halves are not known.

    Attributes:
        trouble: why steps are missing, one sentence, such as a scheduler whose noise levels nobody knows; "" where none
            are. The run goes on either way.
    """

    def __init__(
        self,
        emits: Sequence[Emit],
        *,
        guidance: Sequence[float | None] = (),
        recombine: bool = False,
        unpack: Callable[[torch.Tensor], torch.Tensor] | None = None,
        generators: Sequence[torch.Generator] | None = None,
        on_schedule: Callable[[list[float]], None] | None = None,
        guiders: Sequence[str | None] = (),
        order: tuple[int, int] | None = None,
        replayed: Sequence[Step] = (),
        pack: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """What to record, and how.

        Args:
            emits: one callable per picture of the batch, in order; gets each step of its picture once the scheduler
                has taken it. A step's ``seconds`` are those of the whole batch.
            guidance: what each picture asked for, as in ``uncond + g (cond - uncond)``; empty if that is not known.
                Where the halves are equal, so that nothing can be measured, the steps say this number.
            recombine: mix the halves of each picture anew with its own guidance, before the scheduler gets them.
                diffusers knows one guidance per call; call the pipeline with any above 1. Without it the scheduler
                gets the very tensor that the pipeline made.
            unpack: from a batch of the latents that the pipeline keeps, such as (B, L, C) or (B, C, 1, h, w), to
                (B, C, *axes, h, w); None where that is what it keeps.
            generators: one per picture, for schedulers that draw noise in pipelines which pass them none (the flow
                ones): it would come from torch's global generator.
            on_schedule: gets the timesteps of the run, one per model evaluation, before the first of them.
            guiders: how each picture mixes its halves, as `Settings` say it; None: its guidance is off. All are mixed
                by the pipeline where that is left out.
            order: the places of the halves with and without the prompt among the network's answers, where the mix that
                the pipeline makes of them does not tell.
            replayed: the first evaluations of the run, where they are those of another one: they are mixed already.
            pack: what `unpack` undoes.

        Raises:
            ValueError: for guidance that does not fit the number of pictures.
        """
        self._emits = emits
        self._asked = list(guidance) or [None] * len(emits)
        if len(self._asked) != len(emits) or (recombine and None in self._asked):
            raise ValueError(f"guidance must be one number for each of {len(emits)} pictures, got {list(guidance)!r}")
        self._recombine = recombine
        self._view = unpack or _as_it_is
        self._generators = generators
        self._on_schedule = on_schedule
        self._guiding = Guiding(guiders or [CFG] * len(emits))
        self._order = order
        self._replayed = replayed
        self._pack = pack or _as_it_is
        self._undo = ExitStack()
        self.trouble = ""

    def ask(self, guidance: Sequence[float], guiders: Sequence[str | None]) -> None:
        """What each picture asks for from the next step on, where that changes on the way."""
        self._asked = list(guidance)
        self._guiding.ask(guiders)

    def attach(self, pipeline: Any) -> None:
        self._scheduler = scheduler = pipeline.scheduler
        self._signature = inspect.signature(scheduler.step)
        self._outputs: list[Any] = []
        self.trouble = ""
        self._levels: Levels | None = None
        self._count = self._begun = 0
        self._last = time.perf_counter()
        self._undo.enter_context(hooked(denoisers(pipeline), after=self._after_forward))
        self._undo.enter_context(tapped(scheduler, "step", self._step))
        self._undo.enter_context(tapped(scheduler, "set_timesteps", self._set_timesteps))

    def detach(self) -> None:
        self._undo.close()

    def _after_forward(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._outputs.append(output[0] if isinstance(output, tuple) else getattr(output, "sample", output))

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        self._levels = None
        try:
            self._levels = Levels(self._scheduler)
        except Exception as error:
            self._give_up(error)
        else:
            # A run that starts from a picture has said already where it begins.
            if hasattr(self._scheduler, "set_begin_index") and getattr(self._scheduler, "begin_index", None) is None:
                # Where the first two timesteps round to the same number, a scheduler that must look up its index
                # finds the second of them and ends one short of its table.
                self._scheduler.set_begin_index(0)
            if self._on_schedule is not None:
                self._on_schedule(self._levels.schedule)
        self._outputs.clear()
        self._count, self._begun, self._last = 0, 0, time.perf_counter()

    def _give_up(self, error: Exception) -> None:
        """Record no more: what is not understood of a scheduler does not keep it from drawing."""
        self._levels = None
        self.trouble = f"Its steps could not be read: {sentence(error).rstrip('.')}."

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        asked, view = self._asked, self._view
        draws = "generator" in self._signature.parameters
        if not draws:
            kwargs.pop("generator", None)  # Kandinsky 3 passes it to every scheduler
        call = self._signature.bind(*args, **kwargs).arguments
        if draws and self._generators is not None and call.get("generator") is None:
            kwargs["generator"] = self._generators[0] if len(self._generators) == 1 else list(self._generators)
        sample, output = call["sample"], call["model_output"]
        if len(sample) != len(self._emits):
            raise RuntimeError(f"the pipeline draws {len(sample)} pictures, {len(self._emits)} were to be recorded")
        # Nets with a learned variance put it behind the prediction, as more channels.
        guided = output[:, : sample.shape[1]]
        pieces = _pieces(self._outputs, sample)
        common = self._where()
        self._begun += common is not None and not common["half"]
        halves, mixed = self._mixed(sample, guided, pieces, common)
        if mixed is not None:
            guided = mixed
            whole = torch.cat([guided, output[:, sample.shape[1] :]], dim=1)
            if args:
                args = (whole, *args[1:])
            else:
                kwargs["model_output"] = whole
        seen = zip(view(sample), view(guided), pieces, halves, asked, strict=True)
        made = [] if common is None else [_step(common, view, *one) for one in seen]
        for k, one in enumerate(made):
            one.guider = self._guiding.of(k)
        result = inner(*args, **kwargs)
        self._outputs.clear()
        self._count += 1
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        for emit, one in zip(self._emits, made, strict=False):  # none of them, or one for each
            one.seconds = seconds
            emit(one)
        return result

    def _mixed(
        self,
        sample: torch.Tensor,
        guided: torch.Tensor,
        pieces: Sequence[Sequence[torch.Tensor]],
        common: Mapping[str, Any] | None,
    ) -> tuple[list[predictions.Split | None], torch.Tensor | None]:
        """The halves of those pictures that are mixed here, and the guided predictions of all; None where they are as
        the pipeline made them.
        """
        halves: list[predictions.Split | None] = [None] * len(guided)
        if self._count < len(self._replayed):
            for k in range(len(guided)):
                self._guiding.see(k, self._replayed[self._count], lambda one: self._packed(one, sample))
            return halves, None
        if not self._recombine and not self._guiding.any:
            return halves, None
        made = []
        for k, (output, found, asked) in enumerate(zip(guided, pieces, self._asked, strict=True)):
            guider = self._guiding.of(k)
            if guider == CFG and not self._recombine:
                made.append(output)
                continue
            halves[k] = half = _split(output, found, asked, self._order, guider)
            if guider == CFG:
                made.append(_mix(half, asked, guided.dtype))
                continue
            if common is None:
                raise RuntimeError(f"guider {guider} goes by the noise level. {self.trouble}")
            assert asked is not None
            at = At(sample[k], common["a"], common["b"], common["kind"], self._begun - 1)
            made.append(self._guiding.mix(k, half, asked, at, guided.dtype))
        return halves, torch.stack(made)

    def _packed(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self._pack(latents.unsqueeze(0))[0].to(like.device)

    def _where(self) -> dict[str, Any] | None:
        """What a step says of where the run is; None where that is not known."""
        levels, count = self._levels, self._count
        if levels is None:
            return None
        try:
            a, b, half = levels.at(count)
            timestep = levels.schedule[count]
        except Exception as error:
            self._give_up(error)
            return None
        return {"index": count, "timestep": timestep, "a": a, "b": b, "kind": levels.kind, "half": half}


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


def _split(
    output: torch.Tensor,
    pieces: Sequence[torch.Tensor],
    guidance: float | None,
    order: tuple[int, int] | None,
    guider: str,
) -> predictions.Split:
    if order is not None and len(pieces) == 2:
        return predictions.Split(pieces[order[0]], pieces[order[1]], guidance, 0.0, "")
    if guider != CFG and len(pieces) > 2:
        what = f"this pipeline mixes {len(pieces)} predictions, and a guider only two"
        raise RuntimeError(f"guider {guider} cannot be used here: {what}")
    found = predictions.separate(output, pieces, guidance)
    if found.reason:
        reason = found.reason[0].lower() + found.reason[1:].rstrip(".")
        what = "the pictures of one batch cannot each have a guidance of their own here"
        raise RuntimeError(f"{what if guider == CFG else f'guider {guider} cannot be used here'}: {reason}")
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
