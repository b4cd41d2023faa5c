"""The numbers of a step: each declared once, with what a reader has to know of it and how it is computed.

:data:`NUMBERS` names them all, in menu order. What is declared here is at once a curve (``trace.curve(name)``), a
column for a browser (``Record.columns``) and a number in a saved file; nobody else has a list of their own. Who watches
a run adds another with :func:`declare`, and puts its values into ``step.numbers``.

Sizes are root mean squares (RMS), so they do not depend on the size of the picture, and white noise of variance 1 has
RMS 1. Where a value does not exist it is NaN, never 0.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from diffexplore.record.predictions import rms, share_of_noise
from diffexplore.words import shown

if TYPE_CHECKING:
    import torch

    from diffexplore.record.step import Step

__all__ = ["COMPUTED", "NUMBERS", "Number", "check_name", "declare"]

_NAME = re.compile(r"[A-Za-z][\w.:-]{0,99}", re.ASCII)


class Run(Protocol):
    """What a number is computed from: steps in order, and the final latents, as a `Record` has them."""

    @property
    def final(self) -> "torch.Tensor | None": ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> "Step": ...


@dataclass(frozen=True, slots=True)
class Number:
    """One number that every step of a run has.

    Attributes:
        name: what it is asked for by.
        label: what it is called where there is little room.
        unit: what it is counted in.
        sentence: what it says, for a reader.
        log: whether it is best drawn on a logarithmic axis.
        of: computes it for a step of a run, (record, i) -> float; None: it stands in ``step.numbers``.
        decodes: whether that takes a pass of the picture decoder, so that nobody computes it unasked.
        group: what it belongs to together with others, such as "guidance", whose panel shows them; "" for none.
    """

    name: str
    label: str
    unit: str
    sentence: str
    log: bool = False
    of: "Callable[[Any, int], float] | None" = None
    decodes: bool = False
    group: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        for field in ("label", "unit", "sentence", "group"):
            value = getattr(self, field)
            if not isinstance(value, str) or len(value) > 1000:
                raise ValueError(f"the {field} of {self.name} must be text, got {shown(value)}")
        if not isinstance(self.log, bool):
            raise ValueError(f"log of {self.name} must be True or False, got {shown(self.log)}")

    def at(self, record: Run, i: int) -> float:
        """Its value at evaluation `i` of a run; NaN where there is none."""
        if self.of is not None:
            return self.of(record, i)
        return record[i].numbers.get(self.name, math.nan)


def check_name(name: object) -> str:
    """The name of a number or a tensor of a step, if it is one: a letter, then letters, digits and ``_ . : -``.

    Raises:
        ValueError: it is none.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ValueError(
        f"the name of a number or tensor is a letter and up to 99 more letters, digits, or _ . : -; got {shown(name)}"
    )


NUMBERS: Final[dict[str, Number]] = {}
"""Name -> number, in menu order."""


def declare(number: Number) -> Number:
    """Make a number known: from now on it is a curve and a column of every run that has it.

    Args:
        number: with a name of its own, or that of one declared before, which it replaces.

    Returns:
        It.

    Raises:
        ValueError: the name is that of a number that is computed here.
    """
    if not isinstance(number, Number):
        raise ValueError(f"declare takes a Number, got {shown(number)}")
    if number.name in COMPUTED:
        raise ValueError(f"{number.name!r} is computed of every step: give another name to a number of your own")
    NUMBERS[number.name] = number
    return number


def _ratio(step: "Step") -> float:
    ratio = step.a / step.b if step.b else math.inf
    return ratio * ratio


def _log_ratio(step: "Step") -> float:
    if step.a > 0 and step.b > 0:
        return 2 * (math.log(step.a) - math.log(step.b))  # the ratio itself would over- or underflow first
    return -math.inf if step.b else math.inf


def _pull(space: str, part: str) -> "Callable[[Run, int], float]":
    def of(step: "Step") -> float:
        found = step.geometry
        return math.nan if found is None else float(getattr(getattr(found, space), part))

    return _each(of)


def _change(record: Run, i: int) -> float:
    i = range(len(record))[i]
    return rms(record[i].x0 - record[i - 1].x0) if i else math.nan


def _distance(record: Run, i: int) -> float:
    final = record[-1].x0 if record.final is None else record.final.float().cpu()
    return rms(record[i].x0 - final)


def _each(read: "Callable[[Step], float]") -> "Callable[[Run, int], float]":
    return lambda record, i: read(record[i])


def _built_in(
    name: str, label: str, unit: str, of: "Callable[[Any, int], float]", sentence: str, log: bool, group: str = ""
) -> None:
    NUMBERS[name] = Number(name, label, unit, sentence, log, of, group=group)


# fmt: off
_built_in("sigma", "σ", "ratio", _each(lambda step: step.sigma),
          "Noise level: how much noise there is per unit of picture, b / a.", log=True)
_built_in("timestep", "timestep", "training step", _each(lambda step: step.timestep),
          "The time the network is told, from its training schedule.", log=False)
_built_in("alpha", "α", "factor", _each(lambda step: step.a),
          "How much of the picture is in x_t: the factor a in x_t = a x0 + b noise.", log=False)
_built_in("snr", "SNR", "ratio of variances", _each(_ratio),
          "Signal-to-noise ratio of x_t: a squared over b squared.", log=True)
_built_in("log_snr", "log SNR", "nats", _each(_log_ratio),
          "Natural logarithm of the signal-to-noise ratio.", log=False)
_built_in("noise_share", "share of noise", "share of the variance", _each(lambda step: share_of_noise(step.a, step.b)),
          "How much of the variance of x_t is noise: b squared over a squared plus b squared, from 1 to 0.", log=False)
_built_in("seconds", "time", "seconds", _each(lambda step: step.seconds),
          "Wall time of the evaluation.", log=False)
_built_in("latents_norm", "size of x_t", "RMS, latents", _each(lambda step: rms(step.latents)),
          "Size of x_t as the sampler keeps it.", log=True)
_built_in("noise_norm", "size of the noise", "RMS, noise", _each(lambda step: rms(step.noise)),
          "Size of the predicted noise after guidance; true noise has 1.", log=False)
_built_in("x0_norm", "size of x₀", "RMS, latents", _each(lambda step: rms(step.x0)),
          "Size of the estimate of the finished latents.", log=False)
_built_in("guidance_norm", "pull of the prompt", "RMS, noise", _pull("noise", "pull"),
          "How far the noise predicted with the prompt is from that without.", log=False, group="guidance")
_built_in("change", "change of x₀", "RMS, latents", _change,
          "How far the estimate moved since the evaluation before.", log=True)
_built_in("distance", "distance to the end", "RMS, latents", _distance,
          "How far the estimate is from the final latents.", log=True)
_built_in("guidance", "guidance", "factor", _each(lambda step: math.nan if step.guidance is None else step.guidance),
          "The guidance that the two halves of the step were mixed with.", log=False, group="guidance")
for _space, _name, _end, _word in (("noise", "noise", "", "noise"), ("x0", "x0", "_x0", "x₀")):
    _built_in(f"cond_norm{_end}", f"{_word} with the prompt", f"RMS, {_name}", _pull(_space, "cond"),
              f"Size of the {_word} predicted with the prompt alone.", log=False, group="guidance")
    if _end:
        _built_in(f"guidance_norm{_end}", f"pull in {_word}", f"RMS, {_name}", _pull(_space, "pull"),
                  f"How far the {_word} predicted with the prompt is from that without.", log=False, group="guidance")
    _built_in(f"guidance_angle{_end}", f"angle in {_word}", f"degrees, {_name}", _pull(_space, "angle"),
              f"Angle between the {_word} predicted with the prompt and that without.", log=False, group="guidance")
    _built_in(f"guidance_along{_end}", f"pull along {_word}", f"RMS, {_name}", _pull(_space, "along"),
              f"Part of the pull along the {_word} predicted with the prompt: it makes that larger, below 0 smaller.",
              log=False, group="guidance")
    _built_in(f"guidance_across{_end}", f"pull across {_word}", f"RMS, {_name}", _pull(_space, "across"),
              f"Part of the pull across the {_word} predicted with the prompt: it turns that.", log=False,
              group="guidance")
# fmt: on

COMPUTED: Final = frozenset(NUMBERS)
"""Those that are computed here, of every step of every run."""
