"""``Settings``: what to draw. Frozen, checked when made, JSON in and out; no torch, no diffusers.

Every refusal is a plain ``ValueError`` of one sentence that names the value and what is accepted, so that a
notebook, a widget and a log can all show it as it is.
"""

import json
import math
import numbers
from contextlib import suppress
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from diffexplore.samplers import named, unknown
from diffexplore.words import near, shown

__all__ = ["Settings"]

MAX_PROMPT = 200_000
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_SEED = 2**63 - 1
MAX_SIDE = 8192
MAX_SCALE = 10.0


class Settings(BaseModel):
    """What to draw and how. Immutable and hashable; ``None`` means "the model's own", filled in
    ``trace.settings``.

    Attributes:
        prompt: what the picture should show; up to 200,000 characters (a model says what it cuts).
        negative_prompt: what it should not show; only works with a guidance above 1.
        steps: denoising steps, 1 to 1000. Some samplers evaluate the model more than once per step.
        guidance: 0 to 100. ``noise = uncond + guidance * (cond - uncond)``, so 1 is off, and less than 1 acts as 1;
            Kandinsky 3 is off up to 2. Where guidance is an input of the network (Flux, LCM) or the mix is rescaled
            (Qwen-Image), the number is passed on and the formula does not hold.
        seed: 0 to 2**63 - 1; decides the starting noise, and all noise that a sampler adds on its way.
        sampler: a name from ``diffexplore.SAMPLERS``; the spellings of other programs, such as ``dpmpp_2m_karras``,
            become the menu's.
        width: pixels, a multiple of 8 up to 8192.
        height: as width.
        adapters: LoRAs and their scales, ``{"name": 0.8}``, of those which the model has loaded; kept as sorted pairs,
            and left out of the picture where the scale is 0.
        strength: with a picture to start from, how much noise it gets: the share of noise, b^2 / (a^2 + b^2), from 0
            (nothing is drawn) to 1.

    Raises:
        ValueError: one sentence that names the value and what is accepted.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=False)

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    guidance: float = 5.0
    seed: int = 0
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()
    strength: float | None = None

    def __init__(self, /, **values: Any) -> None:  # a file may have a field "self"
        """Check the `values` of the fields that are given; the others have their defaults."""
        known = type(self).model_fields
        for name in values:
            if name not in known:
                raise ValueError(f"settings are {', '.join(known)}; got {shown(name)}{near(name, known)}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None

    @field_validator("prompt", "negative_prompt", mode="before")
    @classmethod
    def _check_text(cls, value: object, info: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{info.field_name} must be text, got {shown(value)}")
        if len(value) > MAX_PROMPT:
            raise ValueError(f"{info.field_name} must have at most {MAX_PROMPT:,} characters, got {len(value):,}")
        if not _writable(value):
            raise ValueError(f"{info.field_name} must be valid Unicode text, got {shown(value)}")
        return str(value)

    @field_validator("steps", mode="before")
    @classmethod
    def _check_steps(cls, value: object) -> int:
        return _whole("steps", value, 1, MAX_STEPS, str(MAX_STEPS))

    @field_validator("seed", mode="before")
    @classmethod
    def _check_seed(cls, value: object) -> int:
        return _whole("seed", value, 0, MAX_SEED, "2**63 - 1")

    @field_validator("guidance", mode="before")
    @classmethod
    def _check_guidance(cls, value: object) -> float:
        number = _number(value)
        # "not within" rather than "below or above": nan compares false with everything.
        if number is None or not 0 <= number <= MAX_GUIDANCE:
            raise ValueError(f"guidance must be a number from 0 to {MAX_GUIDANCE:g} (1 is off), got {shown(value)}")
        return number

    @field_validator("strength", mode="before")
    @classmethod
    def _check_strength(cls, value: object) -> float | None:
        number = _number(value)
        if value is not None and (number is None or not 0 <= number <= 1):
            raise ValueError(f"strength must be a share of noise from 0 to 1, or None, got {shown(value)}")
        return number

    @field_validator("sampler", mode="before")
    @classmethod
    def _check_sampler(cls, value: object) -> str | None:
        found = named(value)
        if found is None and value is not None:
            raise ValueError(unknown(value))
        return found

    @field_validator("width", "height", mode="before")
    @classmethod
    def _check_side(cls, value: object, info: Any) -> int | None:
        if value is None:
            return None
        whole = _exact(value)
        if whole is None or not 8 <= whole <= MAX_SIDE or whole % 8:
            raise ValueError(
                f"{info.field_name} must be a multiple of 8 from 8 to {MAX_SIDE}, "
                f"or None for the model's own, got {shown(value)}"
            )
        return whole

    @field_validator("adapters", mode="before")
    @classmethod
    def _check_adapters(cls, value: object) -> tuple[tuple[str, float], ...]:
        wrong = ValueError(
            f"adapters must map names to scales from -{MAX_SCALE:g} to {MAX_SCALE:g}, such as {{'style': 0.8}}; "
            f"got {shown(value)}"
        )
        try:
            pairs = dict(value).items()  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise wrong from None
        made = []
        for name, scale in pairs:
            number = _number(scale)
            if (
                not isinstance(name, str)
                or not name
                or not _writable(name)
                or number is None
                or not abs(number) <= MAX_SCALE
            ):
                raise wrong
            made.append((name, number))
        return tuple(sorted(made))

    def replace(self, /, **values: Any) -> Self:
        """A copy with some values changed, checked like new ones."""
        return type(self)(**{**self.model_dump(), **values})

    @property
    def loras(self) -> list[str]:
        """The LoRAs that are on, each with its scale, in words."""
        return [f"{name} {scale:g}" for name, scale in self.adapters if scale]

    def diff(self, other: "Settings") -> dict[str, tuple[Any, Any]]:
        """What differs.

        Args:
            other: the settings to compare with.

        Returns:
            Field name -> (mine, theirs), in field order; empty where both ask for the same.
        """
        mine, theirs = self.model_dump(), other.model_dump()
        return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name]}

    def to_json(self) -> str:
        """One line of JSON that :meth:`from_json` reads back to an equal object; what is seldom asked for is left out
        where it is not.
        """
        values = self.model_dump()
        return json.dumps({name: one for name, one in values.items() if name not in _SELDOM or one != _SELDOM[name]})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Settings from :meth:`to_json`. Missing fields take their defaults, unknown ones are refused.

        Raises:
            ValueError: one sentence, for text that is no JSON object or that holds a value out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"settings must be a JSON object, got {shown(text)}") from None
        if not isinstance(values, dict):
            raise ValueError(f"settings must be a JSON object, got {shown(text)}")
        return cls(**values)


_SELDOM: dict[str, Any] = {name: Settings.model_fields[name].default for name in ("strength",)}
"""Fields that are left out of texts where they have their default."""


def _number(value: object) -> float | None:
    """`value` as a float if it is a number, else None; an integer beyond all floats is infinite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        if not isinstance(value, (int, float)):
            # numpy's float32 of 7.1 says "7.1", its nearest double 7.099999904632568: the digits that were given stay.
            with suppress(ValueError):
                return float(str(value))
        return float(value)
    except OverflowError:
        return math.inf


def _writable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _exact(value: object) -> int | None:
    """`value` as an int where that loses nothing (numpy integers, 20.0), else None."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _whole(name: str, value: object, low: int, high: int, high_text: str) -> int:
    whole = _exact(value)
    if whole is None or not low <= whole <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high_text}, got {shown(value)}")
    return whole


def _sentence(error: ValidationError) -> str:
    """The first complaint of a pydantic error as one sentence."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if cause is not None:
        return str(cause)
    return f"{first['loc'][0]}: {first['msg']}, got {shown(first['input'])}"
