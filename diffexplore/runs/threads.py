"""On how many threads torch computes a model's runs.

The pocket models, where `load` opens them, on one; every other as torch is set: then a picture has the bits that plain
diffusers gives it beside us. Another count moves them: of one picture as of a batch, by about one part in ten thousand
of the pocket model's final latents (how sums are split between threads is how they round). On one thread they are the
same on machines of any number of cores.

Why one is the pocket model's: a run alone takes a fifth longer on it than on two, on quiet cores, but what somebody
waits for takes half (``Explorer.run()``, ``Compare.run()``), since the other cores decode, judge and encode meanwhile;
and on a machine that is busy with other things two threads take about twice the time of one: each waits for the other,
which waits for a core. Plain diffusers gives its bits after ``torch.set_num_threads(1)``.

Whoever opens a model may choose, once, and it goes where the model goes (its origin says it): a number;
``threads="torch"``, its own number; or ``threads="auto"``, which measures for each size whether one thread does as well
as torch's own number, and remembers it on this machine (`runs.past`). The process's own setting
(``torch.get_num_threads()``) is as before outside of runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Literal

import torch

from diffexplore.pipelines.origin import Origin
from diffexplore.runs.past import past
from diffexplore.words import shown

__all__ = ["AUTO", "Asked", "Threads", "asked_of", "asking", "checked", "elsewhere", "working"]

AUTO: Final = "auto"
TORCH: Final = "torch"
ROUNDS: Final = 3
"""How often each side is measured, in turn."""
WORTH: Final = 0.8
"""More threads have to take at most this part of the time of one: they keep other cores from what they could do."""
MOST: Final = 1024

Asked = int | Literal["auto", "torch"] | None
Size = tuple[int, int]


def checked(value: object) -> Asked:
    """What `load` takes.

    Raises:
        ValueError: one sentence, for anything else.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST):
        return value
    if isinstance(value, str) and value in (AUTO, TORCH):
        return "auto" if value == AUTO else "torch"
    raise ValueError(
        f"threads must be a whole number from 1 to {MOST}, 'auto', 'torch' for its own number, or None for what is "
        f"usual, got {shown(value)}"
    )


def asking(origin: Origin, value: Asked) -> Origin:
    """An origin that says what was asked for; the same where that is None."""
    return origin if value is None else replace(origin, options={**origin.options, "threads": str(value)})


def asked_of(origin: Origin) -> Asked:
    """What was asked for, as its origin says it.

    Raises:
        ValueError: one sentence, where that is none.
    """
    said = origin.options.get("threads")
    return checked(int(said) if said is not None and said.isdecimal() else said)


def elsewhere(origin: Origin) -> int:
    """On how many a worker process computes: on one, as there are as many workers as cores; or on the number that the
    model was opened with.
    """
    asked = asked_of(origin)
    return asked if isinstance(asked, int) else 1


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
        """As `load` was asked; None is torch's own number here."""
        checked(asked)
        self.asked: int | Literal["auto"] | None = None if asked == "torch" else asked
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

    @classmethod
    def of(cls, origin: Origin) -> Threads:
        """Those of the model that comes from there.

        Raises:
            ValueError: one sentence, where it asks for what is none.
        """
        return cls(asked_of(origin) or (1 if origin.kind == "pocket" else None))

    def decoding(self, size: Size = (0, 0)) -> int | None:
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
