"""The one progress bar: for work that takes minutes, on the terminal, and gone where nobody looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["progress"]


def progress(
    what: Iterable[Any] | int,
    label: str,
    *,
    total: int | None = None,
    done: int = 0,
    quiet: bool = False,
    delay: float = 0,
) -> tqdm[Any]:
    """A bar of how far some work is, drawn on stderr every few seconds.

    Args:
        what: what to go through; or how many steps there will be, to be counted by ``update()`` of the bar.
        label: a word in front of it.
        total: how many there are to go through, where `what` cannot say.
        done: steps that were taken before.
        quiet: draw nothing.
        delay: draw nothing before so many seconds have gone.

    Returns:
        The bar: goes through `what`; has ``update()``, ``set_postfix_str(text)`` and ``close()``.
    """
    from tqdm import tqdm

    if isinstance(what, int):
        return tqdm(total=what, desc=label, initial=done, mininterval=5, disable=quiet, delay=delay)
    return tqdm(what, total=total, desc=label, initial=done, mininterval=5, disable=quiet, delay=delay)
