"""How we refuse and suggest: values as text for one sentence, and the nearest name."""

from difflib import get_close_matches
from typing import Any

__all__ = ["near", "shown"]


def near(value: object, names: Any) -> str:
    """``", did you mean 'Euler'?"`` where a name is close to `value`, else ``""``."""
    if not isinstance(value, str) or len(value) > 100:
        return ""
    by_lower = {name.lower(): name for name in names}
    match = get_close_matches(value.lower(), by_lower, n=1, cutoff=0.5)
    return f", did you mean {by_lower[match[0]]!r}?" if match else ""


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
