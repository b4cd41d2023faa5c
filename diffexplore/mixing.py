"""Guiders: the ways to mix the prediction with the prompt and the one without, as names, sentences and parameters.

What they compute is in `record.guiders`; here is what `Settings.guider` may say, and how it is read and written. No
torch: settings are checked without it.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from diffexplore.words import near, shown

__all__ = ["CFG", "GUIDERS", "Guider", "Parameter", "interval", "named_guider", "parameters_of"]

CFG: Final = "CFG"
"""The plain one, which every pipeline computes itself."""


class Parameter(NamedTuple):
    """A number that a guider takes: its default is that of the paper."""

    name: str
    default: float
    low: float
    high: float
    sentence: str
    whole: bool = False


@dataclass(frozen=True)
class Guider:
    """A way to mix two predictions.

    Attributes:
        name: what settings call it.
        sentence: what it does, for learners.
        paper: the arXiv number of where it was published.
        parameters: the numbers that it takes, as in ``"APG(eta=0.5)"``.
    """

    name: str
    sentence: str
    paper: str
    parameters: tuple[Parameter, ...] = field(default=())


GUIDERS: Final[dict[str, Guider]] = {
    one.name: one
    for one in (
        Guider(
            CFG,
            "Goes from the prediction without the prompt past the one with it, as far as the guidance says; too much "
            "of it burns pictures out.",
            "2207.12598",
        ),
        Guider(
            "rescale",
            "Plain guidance, brought back to the contrast that the prediction with the prompt has by itself.",
            "2305.08891",
            (Parameter("phi", 0.7, 0, 1, "how much of it: 0 is plain guidance"),),
        ),
        Guider(
            "APG",
            "Keeps what turns the estimate, takes away what only makes it stronger, which its paper blames for harsh "
            "colours, shortens what is too long, and leans against its own last steps.",
            "2410.02416",
            (
                Parameter("eta", 0.0, 0, 10, "how much is kept of what makes the estimate stronger: 1 is all of it"),
                Parameter("momentum", -0.5, -1, 1, "how much the steps before count; below 0: against them"),
                Parameter(
                    "norm", 15.0, 0, 1e6, "how long the difference may be in latents of SDXL's size; 0: any length"
                ),
            ),
        ),
        Guider(
            "CFG-Zero*",
            "First brings the prediction without the prompt to the size that fits the other best; models trained by "
            "flow matching also stand still at their first step.",
            "2503.18886",
            (Parameter("zero", 1, 0, 1000, "how many first steps stand still, with flow matching", whole=True),),
        ),
        Guider(
            "TCFG",
            "Leaves of the prediction without the prompt only what both agree on, and then guides as ever.",
            "2503.18137",
        ),
    )
}
"""Name -> guider, in the order of the menus."""

_NOT_HERE: Final = {
    "cfg++": "CFG++ (arXiv 2406.08070) takes its noise from the prediction without the prompt, and its estimate from "
    "the mix: a sampler is given one prediction, from which it makes both",
    "interval": "guidance on an interval is no mix of its own: diffexplore.interval(5.0, 0.8, 0.2) gives the changes "
    "for Settings(guidance=1, changes=...)",
    "perpneg": "perpendicular negative prompts (arXiv 2304.04968) need a third prediction, of no prompt at all, and "
    "pipelines make two",
}
_FORM: Final = re.compile(r"\s*([^()]*?)\s*(?:\((.*)\))?\s*", re.DOTALL)
_LONGEST: Final = 200


def named_guider(value: object) -> str:
    """A guider in the one way that settings keep it: its name, and in brackets those of its numbers that are not the
    paper's, as in ``"APG(eta=0.5)"``.

    Args:
        value: such a text, in small letters too; or a mapping, ``{"APG": {"eta": 0.5}}``.

    Raises:
        ValueError: one sentence, for a name that is unknown, or a number that it does not take.
    """
    name, told = _read(value)
    guider = GUIDERS[name]
    known = {one.name: one for one in guider.parameters}
    made: dict[str, float] = {}
    for key, number in told.items():
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no numbers"
            raise ValueError(f"guider {name} {takes}; got {shown(key)}{near(key, known)}")
        if key in made:
            raise ValueError(f"guider {name} is given two values of {key}")
        made[key] = _checked(name, known[key], number)
    said = [
        f"{one.name}={_digits(made[one.name])}"
        for one in guider.parameters
        if one.name in made and made[one.name] != one.default
    ]
    return f"{name}({', '.join(said)})" if said else name


def parameters_of(guider: str) -> tuple[str, dict[str, float]]:
    """The name of a guider, and all its numbers by name.

    Raises:
        ValueError: as :func:`named_guider`.
    """
    name, told = _read(named_guider(guider))
    return name, {one.name: float(told.get(one.name, one.default)) for one in GUIDERS[name].parameters}


def interval(guidance: float, high: float, low: float = 0.0) -> dict[float, dict[str, float]]:
    """The changes of a run with guidance only between two shares of noise (Kynkäänniemi et al. 2024, arXiv 2404.07724):
    for ``Settings(guidance=1.0, changes=interval(5.0, 0.8, 0.2))``. Steps outside are not asked for their second half,
    and take half the time.

    Args:
        guidance: what holds between them.
        high: the share of noise, b^2 / (a^2 + b^2), from which on there is guidance; of a noise level sigma it is
            ``sigma**2 / (1 + sigma**2)``.
        low: the one from which on there is none again; 0: there is some to the end.

    Raises:
        ValueError: one sentence, for shares that are none, or in the wrong order.
    """
    for share in (high, low):
        if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0 <= share <= 1:
            raise ValueError(f"an interval is between two shares of noise from 0 to 1, got {shown(share)}")
    if not low < high:
        raise ValueError(f"an interval goes from the higher share of noise to the lower, got {high:g} to {low:g}")
    return {float(high): {"guidance": guidance}} | ({float(low): {"guidance": 1.0}} if low else {})


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _read(value: object) -> tuple[str, dict[str, Any]]:
    """A name of the menu, and what is told of numbers."""
    told: dict[str, Any] = {}
    name: object = value
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, numbers_of),) = value.items()
        if not isinstance(numbers_of, Mapping):
            raise ValueError(f"the numbers of a guider are a mapping, such as {{'eta': 0.5}}; got {shown(numbers_of)}")
        told = {str(key): number for key, number in numbers_of.items()}
    elif isinstance(value, str) and len(value) <= _LONGEST and (found := _FORM.fullmatch(value)):
        name = found[1]
        for part in (found[2] or "").split(",") if found[2] and found[2].strip() else []:
            key, equals, text = part.partition("=")
            if not equals or key.strip() in told:
                raise ValueError(f"numbers of a guider are written as in 'APG(eta=0.5)', each once; got {shown(value)}")
            told[key.strip()] = _number(text)
    plain = {_plain(one): one for one in GUIDERS}
    if not isinstance(name, str) or _plain(name) not in plain:
        why = _NOT_HERE.get(_plain(name)) if isinstance(name, str) else None
        raise ValueError(why or f"guider must be one of {', '.join(GUIDERS)}; got {shown(name)}{near(name, GUIDERS)}")
    return plain[_plain(name)], told


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def _checked(guider: str, parameter: Parameter, value: object) -> float:
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
    if not parameter.low <= number <= parameter.high or (parameter.whole and not number.is_integer()):
        kind = "a whole number" if parameter.whole else "a number"
        raise ValueError(
            f"{parameter.name} of guider {guider} must be {kind} from {parameter.low:g} to {parameter.high:g}, "
            f"got {shown(value)}"
        )
    return number + 0.0  # of -0.0


def _digits(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
