"""How we refuse and suggest: values as text for one sentence, the nearest name, an error as one line."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["listed", "near", "sentence", "shown"]


def listed(things: Iterable[str], most: int = 6) -> str:
    """Things with commas between them, the first `most` and how many more there are."""
    said = list(things)
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return f"{', '.join(said[:most])}{more}"


def near(value: object, names: Any) -> str:
    """``", did you mean 'Euler'?"`` where a name is close to `value`, else ``""``."""
    if not isinstance(value, str) or len(value) > 100:
        return ""
    by_lower = {name.lower(): name for name in names}
    match = get_close_matches(value.lower(), by_lower, n=1, cutoff=0.5)
    return f", did you mean {by_lower[match[0]]!r}?" if match else ""


def sentence(error: BaseException, limit: int = 300) -> str:
    """An error's message on one plain line, cut where it would flood the page.

    Our own refusals are sentences already and come out as they are. What comes from elsewhere may be many lines, or
    none: then the name of its type says what it can.
    """
    name = type(error).__name__
    try:
        text = str(error)
        if isinstance(error, KeyError) and error.args:
            # Its text is the repr of what was not found: quotes around a sentence, or a word that says nothing alone.
            (told, *_) = error.args
            text = told if isinstance(told, str) and " " in told.strip() else f"{name}: {text}"
    except Exception:  # like a repr, an exception's own text may fail
        text = ""
    # What cannot be written as UTF-8 would fail where the line is shown.
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return text[:limit] + ("..." if len(text) > limit else "") or name


def shown(value: object, limit: int = 60) -> str:
    """A value for an error message: its repr, on one line, cut where it would flood the sentence."""
    if isinstance(value, (str, bytes)):
        text = repr(value[:limit]) + ("..." if len(value) > limit else "")
    else:
        try:
            text = " ".join(repr(value).split())
        except Exception:  # a repr may fail in any way; Python's own does for integers of over 4,300 digits
            text = f"an unprintable {type(value).__name__}"
        if len(text) > limit:
            text = text[:limit] + "..."
    return text
