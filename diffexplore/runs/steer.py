"""Changes on the way: another prompt, negative prompt, guidance, guider or LoRA scale from a share of noise on.

Nothing here knows how a family reads its prompts. The pipeline is *rehearsed* once for each stage of the run: called
with that stage's settings, and stopped before its scheduler takes the first step, so that what its networks would have
been given is known: embeddings, padded and pooled as the pipeline does it, masks, ids, an embedded guidance. The run
itself is one call. Between its loop and its network stands :class:`Steering`, which keeps the latents and the time of
the loop, and takes all other inputs from the stage that the noise level says.

Where any stage has guidance, the loop is told that guidance is on, at a strength that is read anew at each use
(:class:`Dial`): the arithmetic stays the pipeline's own, to the bit. At a stage without, only the prompt's half of what
the loop hands over is evaluated, and is handed back as both halves, whose mix it is itself.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from diffexplore.pipelines.family import Family
from diffexplore.record.predictions import share_of_noise
from diffexplore.record.record import Record
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Probe, tapped
from diffexplore.settings import Settings, in_words

__all__ = ["Ahead", "Steering", "between", "changed_at", "rehearse", "steered"]

Call = tuple[tuple[Any, ...], dict[str, Any]]
Answer = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
Adapters = tuple[tuple[str, float], ...]


def changed_at(record: Record, i: int, known: Collection[float]) -> list[tuple[int, str, float]]:
    """What changes with an evaluation of a run: it, what in words, and the mark, of those that are not `known`."""
    step = record[i]
    if i and step.half:
        return []
    share = share_of_noise(step.a, step.b)
    marks = record.settings.changes
    return [(i, in_words(fields), mark) for mark, fields in marks if share <= mark and mark not in known]


class Dial(float):
    """A number that can be turned while a pipeline holds on to it: what it says of itself is what it was made of, and
    arithmetic with it goes by what it is now.
    """

    now: float

    def __new__(cls, value: float) -> Dial:
        made = super().__new__(cls, value)
        made.now = float(value)
        return made

    def __mul__(self, other: Any) -> Any:
        return self.now * other

    def __rmul__(self, other: Any) -> Any:
        return other * self.now

    def __add__(self, other: Any) -> Any:
        return self.now + other

    __radd__ = __add__


class _Between:
    """Stands where a pipeline keeps its network: calls go to `answer`, all else to the network."""

    def __init__(self, network: Any, answer: Answer) -> None:
        self._network, self._answer = network, answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(self._network, args, kwargs)


@contextmanager
def between(pipeline: Any, name: str, answer: Answer) -> Iterator[None]:
    """Within the block, the network `name` of a pipeline's clone is called by way of ``answer(network, args, kwargs)``.

    What is called there need not be called at all: hooks of the network, and who counts by them, see true evaluations
    only.
    """
    attributes = vars(pipeline)
    before = attributes[name]
    attributes[name] = _Between(before, answer)
    try:
        yield
    finally:
        attributes[name] = before


class Ahead(Probe):
    """Calls something each time before a loop asks its network, whoever answers."""

    outermost = True

    def __init__(self, network: str, call: Callable[[], None]) -> None:
        """The name of the network in the pipeline, and what is called."""
        self._network = network
        self._call = call
        self._undo = ExitStack()

    def attach(self, pipeline: Any) -> None:
        self._undo.enter_context(between(pipeline, self._network, self._answer))

    def detach(self) -> None:
        self._undo.close()

    def _answer(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._call()
        return network(*args, **kwargs)


class _Enough(BaseException):
    """Ends a rehearsal; a BaseException, so that no ``except Exception`` on the way can swallow it."""


def rehearse(pipeline: Any, name: str, scheduler: Any, arguments: Mapping[str, Any]) -> list[Call]:
    """What a call of a pipeline gives its network at its first step; nothing is evaluated.

    Args:
        pipeline: the clone of a run; it stays as it is.
        name: of the network.
        scheduler: for this call alone.
        arguments: of the call.
    """
    calls: list[Call] = []

    def note(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append((args, kwargs))
        return (empty_answer(network, args, kwargs),)

    def enough(inner: Any, *args: Any, **kwargs: Any) -> Any:
        raise _Enough

    stage = copy.copy(pipeline)
    stage.scheduler = scheduler
    with between(stage, name, note), tapped(scheduler, "step", enough):
        try:
            stage(**arguments)
        except _Enough:
            return calls
    raise RuntimeError(f"{type(pipeline).__name__} takes no step that could be changed on its way")


def empty_answer(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Nothing, in the form of what a network would answer."""
    sample = _taken(network, args, kwargs)[0]
    if isinstance(sample, (list, tuple)):
        return [torch.zeros_like(one) for one in sample]
    channels = getattr(network.config, "out_channels", None)
    if sample.ndim < 4 or not isinstance(channels, int):
        return torch.zeros_like(sample)  # tokens: as many numbers out as in
    return torch.zeros_like(sample[:, :1]).expand(-1, channels, *sample.shape[2:]).contiguous()


def _named(network: Any) -> tuple[str, str]:
    """What a network calls the latents and the time."""
    names = [name for name in inspect.signature(network.forward).parameters if name != "self"]
    return names[0], "timestep" if "timestep" in names else names[1]


def _taken(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The latents and the time of a call."""
    names = _named(network)
    return [kwargs[name] if name in kwargs else args[place] for place, name in enumerate(names)]


def _put(network: Any, call: Call, values: Sequence[Any]) -> Call:
    """A call with other latents and another time."""
    args, kwargs = list(call[0]), dict(call[1])
    for place, (name, value) in enumerate(zip(_named(network), values, strict=True)):
        if name in kwargs:
            kwargs[name] = value
        else:
            args[place] = value
    return tuple(args), kwargs


@dataclass(frozen=True)
class Stage:
    """What holds from a share of noise on.

    Attributes:
        mark: that share; infinity for what a run begins with.
        calls: what the networks are given at each step, beside the latents and the time.
        dial: the strength of guidance, as the pipeline counts; None where guidance is none of its arguments.
        asked: the guidance of each picture, as settings count.
        guiders: how each picture mixes its predictions; None where its guidance is off.
        adapters: the LoRAs that are on.
    """

    mark: float
    calls: Sequence[Call]
    dial: float | None
    asked: Sequence[float]
    guiders: Sequence[str | None]
    adapters: Adapters


def steered(
    family: Family,
    pipeline: Any,
    settings: Sequence[Settings],
    extra: Mapping[str, Any],
    scheduler: Callable[[], Any],
    wearing: Callable[[Adapters], AbstractContextManager[None]],
) -> tuple[dict[str, Any], list[Stage], Dial | None]:
    """The call that draws settings which change on their way.

    Args:
        family: of the `pipeline`.
        pipeline: the clone of the run.
        settings: of each picture of the batch, whose stages have equal marks and share a batch each.
        extra: arguments of the pipeline beyond settings.
        scheduler: makes one for a rehearsal.
        wearing: switches LoRAs on for a block.

    Returns:
        Keywords of the call, but for the generators and the kind of output; its stages; and the dial among the
        keywords, None where no stage has guidance that could be turned.
    """
    plans = [one.stages() for one in settings]
    stages = [(rows[0][0], [stage for _, stage in rows]) for rows in zip(*plans, strict=True)]
    guided = [group for _, group in stages if family.guided(pipeline, group[0])]
    called = family.arguments(pipeline, guided[0] if guided else stages[0][1]) | dict(extra)
    names = [name for name in ("guidance_scale", "true_cfg_scale") if name in called] if guided else []
    dial = Dial(called[names[0]]) if names else None
    made: list[Stage] = []
    for mark, group in stages:
        arguments = family.arguments(pipeline, group) | dict(extra)
        counted, on = arguments, family.guided(pipeline, group[0])
        if not on:
            counted = family.arguments(pipeline, [group[0].model_copy(update={"guidance": 1.0})])
        generators = [torch.Generator("cpu").manual_seed(one.seed) for one in group]
        with wearing(group[0].adapters):
            calls = rehearse(
                pipeline,
                family.network,
                scheduler(),
                {
                    **arguments,
                    "generator": generators if len(generators) > 1 else generators[0],
                    "output_type": "latent",
                },
            )
        strength = float(counted[names[0]]) if names else None
        mixes = [one.guider if on else None for one in group]
        made.append(Stage(mark, calls, strength, [one.guidance for one in group], mixes, group[0].adapters))
    return called | ({names[0]: dial} if names else {}), made, dial


class Steering(Probe):
    """Gives the network of a run what the stage says that the noise level has come to.

    A step of several evaluations is of one piece: those that only try a point further on (`Step.half`) belong to the
    stage of their step.
    """

    changes = True
    outermost = True

    def __init__(
        self,
        network: str,
        stages: Sequence[Stage],
        dial: Dial | None,
        wearing: Callable[[Adapters], AbstractContextManager[None]],
        ask: Callable[[Sequence[float], Sequence[str | None]], None],
        since: int | None = None,
    ) -> None:
        """What changes, and where.

        Args:
            network: its name in the pipeline.
            stages: as :func:`steered` made them, with its
            dial: the guidance of the call.
            wearing: switches LoRAs on for a block.
            ask: is told what guidance each picture asks for from now on, and which guider.
            since: an evaluation that a stage begins at in any case, also within a step.
        """
        self._network = network
        self._stages = stages
        self._dial = dial
        self._wearing = wearing
        self._ask = ask
        self._since = since
        self._undo = ExitStack()
        self._worn = ExitStack()

    def attach(self, pipeline: Any) -> None:
        self._scheduler = pipeline.scheduler
        self._levels: Levels | None = None
        self._begin()
        self._undo.enter_context(tapped(self._scheduler, "set_timesteps", self._set_timesteps))
        self._undo.enter_context(tapped(self._scheduler, "step", self._step))
        self._undo.enter_context(between(pipeline, self._network, self._answer))

    def detach(self) -> None:
        self._undo.close()
        self._worn.close()

    def _begin(self) -> None:
        self._evaluation, self._call, self._place, self._output = 0, 0, -1, None

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        self._levels = Levels(self._scheduler)
        self._begin()

    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        self._evaluation, self._call, self._output = self._evaluation + 1, 0, None
        return result

    def _go(self) -> Stage:
        """The stage of the evaluation that is about to be made."""
        assert self._levels is not None, "a pipeline sets its timesteps before it asks its network"
        a, b, half = self._levels.at(self._evaluation)
        if self._place < 0 or not half or self._evaluation == self._since:
            share = share_of_noise(a, b)
            come = sum(share <= stage.mark for stage in self._stages) - 1
            if come > self._place:
                self._turn(come)
        return self._stages[self._place]

    def _turn(self, place: int) -> None:
        before = None if self._place < 0 else self._stages[self._place]
        self._place, stage = place, self._stages[place]
        if self._dial is not None and stage.dial is not None:
            self._dial.now = stage.dial
        if (self._stages[0] if before is None else before).adapters != stage.adapters:
            self._worn.close()
            self._worn.enter_context(self._wearing(stage.adapters))
        self._ask(stage.asked, stage.guiders)

    def _answer(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._call == 0:
            self._stage = self._go()
        calls, number = self._stage.calls, self._call
        self._call += 1
        if number >= len(calls):  # the half that this stage does without
            return self._output
        sample, time = _taken(network, args, kwargs)
        given, wanted = len(sample), len(_taken(network, *calls[number])[0])
        if wanted < given:
            # Both halves are of the same latents; of several pictures, each half has them all in order.
            sample = sample[:wanted]
            time = time[:wanted] if isinstance(time, torch.Tensor) and time.ndim and len(time) == given else time
        args, kwargs = _put(network, calls[number], (sample, time))
        output = network(*args, **kwargs)
        self._output = _times(output, given // wanted)
        return self._output


def _times(output: Any, times: int) -> Any:
    """An answer, so many times over."""
    if times == 1:
        return output
    if isinstance(output, tuple):
        return (_times(output[0], times), *output[1:])
    if isinstance(output, list):
        return output * times
    return torch.cat([output] * times)
