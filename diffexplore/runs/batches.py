"""What is drawn together, and what happens where that fails: one grouping and one policy for all who draw several."""

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["BATCH", "grouped", "in_halves"]

logger = logging.getLogger(__name__)

BATCH = 8  # pictures drawn at once at most: with both halves of guidance a batch of 16 for the network

Item = TypeVar("Item")


def grouped(items: Iterable[Item], key: Callable[[Item], Hashable], most: int = BATCH) -> list[list[Item]]:
    """`items` in lists of equal `key`, `most` in a list at most, in the order in which each key first came."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def in_halves(
    batch: Sequence[Item],
    draw: Callable[[Sequence[Item]], None],
    failed: Callable[[Item, Exception], None],
) -> None:
    """Draw a batch; where that fails, for want of memory or for any other reason, its halves, down to single items.

    Only what fails by itself is failed: one bad picture costs the others nothing but time.

    Args:
        batch: what to draw, at least one.
        draw: draws some of them together; it is called again with parts of what it failed at, and begins anew.
        failed: gets an item that cannot be drawn even alone, and why. What it raises ends all.
    """
    reason = ""
    try:
        draw(batch)
        return
    except Exception as error:
        if len(batch) == 1:
            failed(batch[0], error)
            return
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    # Out here the traceback is gone, and with it what the failed call kept in memory.
    logger.warning("a batch of %d failed (%s): trying halves", len(batch), reason)
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        in_halves(half, draw, failed)
