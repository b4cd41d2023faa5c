"""A call of a pipeline that nobody knows, made on a clone of it, and made again to decode an estimate.

No decoder is known of such a pipeline, but its own call ends in one. So the call is made once more, with the networks
answering from the record of the run and the last step of the scheduler giving the estimate in place of its result: what
comes out is what the pipeline would have made of it, to the last pixel.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from diffexplore.pipelines.any import Looked, schedulers_of
from diffexplore.pipelines.layout import Grid, Layout
from diffexplore.pipelines.output import Made, made_of
from diffexplore.pipelines.signature import is_modular
from diffexplore.record.step import bytes_of
from diffexplore.runs.probes import tapped
from diffexplore.runs.watch import cloned

__all__ = ["Tape", "clone_of", "dice", "play"]


@dataclass
class Tape:
    """What it takes to make a call again.

    Attributes:
        arguments: of the call, the generator aside.
        seed: of its generator.
        answers: network -> what it answered, call by call.
        helpers: network -> its last answer, of those whose answers count no more.
        steps: how many steps the main scheduler took.
        layout: how the latents lie, and
        grid: in what grid.
        dtype: of the latents.
        diced: whether it drew from torch's global generator.
        guidance: of its guider, where a run sets that.
        device: where the latents were.
        kind: what it made, as ``pipelines.output.Made`` says it.
    """

    arguments: Mapping[str, Any]
    seed: int
    answers: dict[str, list[Any]]
    helpers: dict[str, Any]
    steps: int
    layout: Layout
    grid: Grid
    dtype: torch.dtype
    diced: bool = False
    guidance: float | None = None
    device: str = "cpu"
    kind: str = "picture"
    lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    def settle(self) -> None:
        """Move everything to the CPU, where a run's steps are kept."""
        self.answers, self.helpers = _to(self.answers, "cpu"), _to(self.helpers, "cpu")

    @property
    def nbytes(self) -> int:
        """Bytes of what the networks answered."""
        return bytes_of(list(_tensors([self.answers, self.helpers])))


def clone_of(pipeline: Any, guidance: float | None = None) -> Any:
    """A shallow clone with schedulers of its own, as they came with all their state; pipelines in it are cloned too.

    Args:
        pipeline: any.
        guidance: for the guider of a modular one, whose call takes no number; None: as it came.
    """
    own: dict[int, Any] = {id(one): copy.deepcopy(one) for one in schedulers_of(pipeline).values()}
    return _clone(pipeline, own, guidance if is_modular(pipeline) else None)


def _clone(pipeline: Any, own: dict[int, Any], guidance: float | None) -> Any:
    made = copy.copy(pipeline)
    attributes = vars(made)
    for name, value in list(attributes.items()):
        if id(value) in own:
            attributes[name] = own[id(value)]
        elif hasattr(value, "components") and callable(value) and hasattr(value, "set_progress_bar_config"):
            attributes[name] = own[id(value)] = _clone(value, own, guidance)
        elif guidance is not None and "guider" in name and hasattr(value, "guidance_scale"):
            attributes[name] = copy.deepcopy(value)
            attributes[name].guidance_scale = guidance
    if is_modular(made):
        attributes["_blocks"] = copy.deepcopy(made.blocks)  # each has a progress bar of its own
        _quiet(attributes["_blocks"])
    if hasattr(made, "set_progress_bar_config"):
        made.set_progress_bar_config(disable=True)
    return made


def _quiet(block: Any) -> None:
    if hasattr(block, "set_progress_bar_config"):
        block.set_progress_bar_config(disable=True)
    for one in (getattr(block, "sub_blocks", None) or {}).values():
        _quiet(one)


@contextlib.contextmanager
def dice(seed: int, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Within the block torch's global generators begin at `seed`, for what draws from them; afterwards they are as they
    were. Gives a function that tells whether anything was drawn.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        yield lambda: not torch.equal(before, torch.get_rng_state())


def play(family: Looked, pipeline: Any, tape: Tape, latents: torch.Tensor) -> Made:
    """What a recorded call makes of other latents after its last step.

    Args:
        family: of the pipeline.
        pipeline: the one that was recorded; left as it is.
        tape: of that call.
        latents: (C, *axes, h, w), as its steps have them.
    """
    clone = clone_of(pipeline, tape.guidance)
    owner, left = threading.get_ident(), {name: iter(answers) for name, answers in tape.answers.items()}
    packed = tape.layout.pack(latents.unsqueeze(0), tape.grid).to(tape.device, tape.dtype)
    count = 0

    def answering(name: str) -> Callable[..., Any]:
        def forward(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != owner:
                return inner(*args, **kwargs)
            answer = next(left[name], None) if name in left else tape.helpers[name]
            return inner(*args, **kwargs) if answer is None else _to(cloned(answer), tape.device)

        return forward

    def step(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        result = inner(*args, **kwargs)
        count += 1
        return _swapped(result, packed) if count == tape.steps else result

    networks = family.named(pipeline)
    with contextlib.ExitStack() as undo:
        enter = undo.enter_context
        enter(tape.lock)
        for name in {*tape.answers, *tape.helpers}:
            enter(tapped(networks[name], "forward", answering(name)))
        enter(tapped(schedulers_of(clone)[family.scheduler], "step", step, copies=False))
        if tape.diced:
            enter(dice(tape.seed, torch.device(tape.device)))
        arguments = dict(tape.arguments)
        if "generator" in family.takes:
            arguments["generator"] = torch.Generator("cpu").manual_seed(tape.seed)
        return made_of(clone(**arguments), pipeline)


def _swapped(result: Any, latents: torch.Tensor) -> Any:
    """What a scheduler's step gave, with other latents in it."""

    def swap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.shape[1:] != latents.shape[1:]:
            return value
        made = value.clone()
        made[:1] = latents  # the first picture is the one that was recorded
        return made

    if isinstance(result, torch.Tensor):
        return swap(result)
    if isinstance(result, tuple):
        return tuple(map(swap, result))
    made = copy.copy(result)
    for name, value in list(made.items()):
        made[name] = swap(value)
    return made


def _to(value: Any, device: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_to(one, device) for one in value]
    if isinstance(value, tuple):
        made = [_to(one, device) for one in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    if isinstance(value, dict):
        fields = {name: _to(one, device) for name, one in value.items()}
        return fields if type(value) is dict else type(value)(**fields)
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(one)
