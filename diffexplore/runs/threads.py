"""On how many threads torch computes a model's runs.

By itself on as many as torch is set to: then a picture has the bits that plain diffusers gives it beside us. Another
count moves them: of one picture as of a batch, by about one part in ten thousand of the pocket model's final latents
(how sums are split between threads is how they round). So another count is chosen by whoever opens the model, once:
``load(threads=1)``, or ``threads="auto"``, which measures for each size whether one thread does as well as torch's own
number, and remembers it on this machine (`runs.past`). On a machine that is busy with other things two threads take
about twice the time of one: each waits for the other, which waits for a core; and one leaves the other cores free for
what is shown. The process's own setting (``torch.get_num_threads()``) is as before outside of runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import torch

from diffexplore.runs.past import past
from diffexplore.words import shown

__all__ = ["Threads", "checked", "working"]

AUTO: Final = "auto"
ROUNDS: Final = 3
"""How often each side is measured, in turn."""
WORTH: Final = 0.8
"""More threads have to take at most this part of the time of one: they keep other cores from what they could do."""
MOST: Final = 1024

Asked = int | Literal["auto"] | None
Size = tuple[int, int]


def checked(value: object) -> Asked:
    """What `load` takes.

    Raises:
        ValueError: one sentence, for anything else.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST):
        return value
    if value == AUTO:
        return AUTO
    raise ValueError(
        f"threads must be a whole number from 1 to {MOST}, 'auto', or None for torch's own, got {shown(value)}"
    )


@contextmanager
def working(count: int | None) -> Iterator[None]:
    """Within the block torch computes what this thread asks for on so many threads; None: as it is set."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Threads:
    """The number of threads of one model's runs."""

    def __init__(self, asked: Asked = None) -> None:
        """As `load` was asked."""
        self.asked = checked(asked)
        self._found: dict[tuple[str, Size], int] = {}
        self._of_size: dict[Size, int] = {}  # of the newest runs: pictures of their steps are decoded on as many

    def known(self, key: str, size: Size) -> int | None:
        """On how many a run will compute, as far as that is known without a measurement; None: on torch's own number.

        Args:
            key: what stands for the model and the machine.
            size: (width, height) of the picture.
        """
        if self.asked != AUTO:
            return self.asked
        return self._found.get((key, size)) or past().fact(_fact(key, size))

    def decoding(self, size: Size) -> int | None:
        """On how many a picture of a size is decoded: as many as the run it belongs to was computed on."""
        return self._of_size.get(size) if self.asked == AUTO else self.asked

    def count(self, key: str, size: Size, trial: Callable[[], float] | None) -> int | None:
        """On how many a run computes.

        Args:
            key, size: as in :meth:`known`.
            trial: draws a little, on as many threads as are set when it is called, and gives the seconds that took;
                None: it cannot be tried.

        Returns:
            None: on as many as torch is set to.
        """
        if self.asked != AUTO:
            return self.asked
        own = torch.get_num_threads()
        if own == 1 or os.environ.get("OMP_NUM_THREADS"):
            return None  # whoever has set it knows why
        found = self.known(key, size)
        if found is None or found > own:
            if trial is None:
                return None
            found = self._measured(own, trial)
            past().know(_fact(key, size), found)
        self._found[key, size] = self._of_size[size] = found
        return found

    @staticmethod
    def _measured(own: int, trial: Callable[[], float]) -> int:
        """One, or torch's own number."""

        def seconds(count: int) -> float:
            with working(count):
                return trial()

        pairs = [(seconds(own), seconds(1)) for _ in range(ROUNDS + 1)][1:]  # the first sets things up
        ratios = sorted(many / one for many, one in pairs)
        return own if ratios[len(ratios) // 2] <= WORTH else 1


def _fact(key: str, size: Size) -> str:
    return f"threads of {key}, {size[0]} x {size[1]}, of {torch.get_num_threads()}"
