"""Values that people and files give, as the numbers and pairs that they are meant as; no torch."""

import math
import numbers
import os
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from diffexplore.words import shown

__all__ = [
    "MOST", "a_file", "a_path", "as_int", "as_key", "as_number", "as_pairs", "as_secret", "is_writable", "members",
    "whole_number",
]  # fmt: skip

MOST: Final = 100_000
"""How many values are taken where several may be given: what has no end is not waited for."""

T = TypeVar("T")


def a_path(value: Any) -> str | os.PathLike[str]:
    """`value`, where a file is to be written.

    Raises:
        ValueError: one sentence, for what is no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"a file is said by its path, got {shown(value)}")
    return value


def a_file(value: Any) -> Path:
    """The file at a path, where ``~`` is the home folder.

    Raises:
        ValueError: one sentence, for what is no path.
        FileNotFoundError: there is no such file, or can be none of that name.
    """
    try:
        place = Path(a_path(value)).expanduser()
        if place.is_file():
            return place
    except (OSError, RuntimeError):  # a name that is too long; nobody's home
        pass
    raise FileNotFoundError(f"there is no file {shown(os.fspath(value), 200)}")


def members(name: str, values: Iterable[T], most: int = MOST) -> list[T]:
    """What holds several values as a list.

    Raises:
        ValueError: one sentence, for more than `most` of them: a range of billions, or what has no end.
    """
    found = list(islice(values, most + 1))
    if len(found) > most:
        raise ValueError(f"{name} may be at most {most:,}, got more")
    return found


def as_pairs(name: str, value: object, what: str) -> Iterable[tuple[Any, Any]]:
    """The entries of a mapping, or of what holds pairs."""
    try:
        # Not by way of a dict, which would drop the first of two equal keys.
        several = value.items() if isinstance(value, Mapping) else ((one, other) for one, other in value)  # type: ignore[attr-defined]
        found = members(name, several)
        dict(found)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must map {what}; got {shown(value)}") from None
    return found


def as_key(text: str) -> float | None:
    """A key of JSON, which is text always, as the number that it says."""
    try:
        return float(text)
    except ValueError:
        return None


def as_number(value: object) -> float | None:
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


def is_writable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_int(value: object) -> int | None:
    """`value` as an int where that loses nothing (numpy integers, 20.0), else None."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def as_secret(name: str, value: object, most: int) -> str:
    """`value` as a key that people choose: letters with accents are the same however they were typed (NFC).

    Raises:
        ValueError: one sentence, for what is no text of 1 to `most` characters.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= most or not is_writable(value):
        raise ValueError(f"{name} must be a text of 1 to {most} characters, got {shown(value)}")
    return unicodedata.normalize("NFC", value)


def whole_number(name: str, value: object, low: int, high: int, high_text: str) -> int:
    """`value` as an int.

    Raises:
        ValueError: one sentence, for what is no whole number from `low` to `high`, which is called `high_text`.
    """
    whole = as_int(value)
    if whole is None or not low <= whole <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high_text}, got {shown(value)}")
    return whole
