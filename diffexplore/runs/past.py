"""What runs took on this machine, kept between sessions in one small file, and what that says of the next.

The file is ``runs.json`` in the user's cache folder (`folder_of`); ``DIFFEXPLORE_TIMES`` names another folder, or is
"off": then nothing is read or written, and a process knows its own runs alone. It holds sizes and seconds, no prompts.
A file that is damaged, or cannot be read or written, is as none: no run ever fails for it. Two processes may write it:
each takes along what it finds.

**The law.** The steps of a run take ``evaluations * (a + b * pixels * rows)`` seconds: a call has a price of its own,
and one by the size of what it is given; a row is a picture, or half of one under guidance. So it is on one thread,
where calling layers and computing them take turns (the pocket model, 1 to 18 times 4096 pixels a call: within 7 %).
Where several compute side by side, threads or a card, what is small does not fill them and takes little more than its
calls, and what is large takes by its size alone, so that two small sizes tell too low a price of a large one: there it
is ``evaluations * sqrt(a^2 + (b * pixels * rows)^2)``, which has both ends.

Both are found by non-negative least squares of relative errors (of the squares, there) over the newest runs, with large
errors counting less (iteratively reweighted, Holland and Welsch 1977, doi 10.1080/03610927708827533), so that one run
that was disturbed does not spoil the next guesses. As long as all runs were of one size nothing tells a from b: then a
is taken to be what launching so many layers costs. What is decoded at the end takes time by its pixels.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from diffexplore.record.file import written

__all__ = ["SWITCH", "Law", "Past", "Took", "folder_of", "law_of", "past"]

SWITCH: Final = "DIFFEXPLORE_TIMES"
"""The variable of the environment that names the folder, or says "off"."""
NAME: Final = "runs.json"
RUNS: Final = 24
"""Runs that are kept of a model."""
MODELS: Final = 64
"""Models that are kept, those that were used last."""

_FORMAT: Final = 1
_MOST_BYTES: Final = 2**20  # of a file that is read
_AFTER: Final = 1.0  # seconds after a run until it is written, with those that follow it
_FADES: Final = 0.85  # what a run counts, of the one after it
_COLD: Final = 0.2  # what the first of a process counts, which has things to set up
_ODD: Final = 0.05  # relative error from which a run counts less
_PRIOR: Final = 0.3  # what the guess of the price of a call counts, of a run
_MOST_CALL: Final = 0.7  # of what the smallest takes, at most that guess
_APART: Final = 1.3  # how far sizes lie apart where runs tell that price themselves


@dataclass(frozen=True, slots=True)
class Took:
    """What one batch of pictures took.

    Attributes:
        evaluations: of each picture.
        rows: rows of an evaluation in the mean: pictures, twice where both halves of guidance are asked for.
        pixels: of a picture.
        pictures: how many were drawn together.
        steps, decode, text: seconds, as a `Cost` has them, of all together.
        kept: bytes of all traces.
        memory: bytes on the card at most; 0 where nobody can say.
        cold: 1 for the first run of a process, else 0.
        when: seconds since 1970; tells runs apart.
    """

    evaluations: int
    rows: float
    pixels: int
    pictures: int
    steps: float
    decode: float
    text: float
    kept: int
    memory: int = 0
    cold: int = 0
    when: float = 0.0


@dataclass(frozen=True, slots=True)
class Law:
    """``count * (call + size * unit)``, or the root of their squares (`bend` is 2): see the head of this file."""

    call: float
    unit: float
    bend: int = 1

    def of(self, count: float, size: float) -> float:
        """What `count` calls of a `size` take."""
        return float(count * (self.call**self.bend + (self.unit * size) ** self.bend) ** (1 / self.bend))


def law_of(
    found: Sequence[tuple[float, float, float]],
    weights: Sequence[float] | None = None,
    call: float = 0.0,
    bend: int = 1,
) -> Law | None:
    """The law that fits best.

    Args:
        found: (count, size, what they took) of each, all above 0; others are passed over.
        weights: what each counts; None: all the same.
        call: a guess of the price of a call, for where `found` does not tell; 0: none.
        bend: 1 for a sum, 2 for the root of a sum of squares.

    Returns:
        None where there is nothing to go by.
    """
    given = [1.0] * len(found) if weights is None else weights
    right = [(n, x, y, w) for (n, x, y), w in zip(found, given, strict=True) if min(n, x, y, w) > 0]
    if not right:
        return None
    rows = [((n / y) ** bend, (n * x / y) ** bend, w) for n, x, y, w in right]
    if call > 0:
        sizes = [x for _, x, _, _ in right]
        least = min(y / n for n, _, y, _ in right)
        part = min(call / least, _MOST_CALL) * least**bend
        rows.append((1 / part, 0.0, _PRIOR if max(sizes) < _APART * min(sizes) else _PRIOR / 1000))
    odd = [1.0] * len(rows)
    a = b = 0.0
    for _ in range(8):
        a, b = _non_negative([(u, v, w * o) for (u, v, w), o in zip(rows, odd, strict=True)])
        odd = [1 / max(1.0, abs(1 - a * u - b * v) / (_ODD * bend)) for u, v, _ in rows]
    return Law(a ** (1 / bend), b ** (1 / bend), bend)


def _non_negative(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """(a, b) >= 0 with the least sum of w (a u + b v - 1)^2."""
    uu = sum(w * u * u for u, _, w in rows)
    uv = sum(w * u * v for u, v, w in rows)
    vv = sum(w * v * v for _, v, w in rows)
    u1 = sum(w * u for u, _, w in rows)
    v1 = sum(w * v for _, v, w in rows)
    singular = uu * vv - uv * uv
    if singular > 1e-9 * uu * vv:
        a, b = (u1 * vv - v1 * uv) / singular, (v1 * uu - u1 * uv) / singular
        if a >= 0 and b >= 0:
            return a, b
    # On the border one of them is none: that which leaves the smaller error.
    return max(((0.0, v1 / vv) if vv else (0.0, 0.0), (u1 / uu, 0.0)), key=lambda one: one[0] * u1 + one[1] * v1)


def folder_of(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where the file lies; None where it is switched off, or where there is no home."""
    asked = environment.get(SWITCH, "").strip()
    if asked.lower() in ("off", "0", "no", "false"):
        return None
    if asked:
        return Path(os.path.expanduser(asked))
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "diffexplore" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "diffexplore"
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "diffexplore"


class Past:
    """The runs of one file, and those of this process. Safe on any thread."""

    def __init__(self, folder: Path | None) -> None:
        """What is kept in `folder`; None: nothing is."""
        self._folder = folder
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._known: dict[str, list[Took]] | None = None
        self._facts: dict[str, int] = {}
        self._new = False
        self._timer: threading.Timer | None = None

    def runs(self, key: str) -> list[Took]:
        """The newest runs of a model, oldest first."""
        with self._lock:
            return list(self._all().get(key, ()))

    def note(self, key: str, took: Took) -> None:
        """Keep a run; it is written a moment later, on another thread."""
        with self._lock:
            known = self._all()
            known[key] = [*known.pop(key, ()), took][-RUNS:]  # at the end: it is the one that was used last
            self._later()

    def fact(self, key: str) -> int | None:
        """A number that was found out on this machine."""
        with self._lock:
            self._all()
            return self._facts.get(key)

    def know(self, key: str, number: int) -> None:
        """Keep it."""
        with self._lock:
            self._all()
            self._facts.pop(key, None)
            self._facts[key] = number
            self._later()

    def flush(self) -> None:
        """Write what is new now. Whatever goes wrong, what is known stays known to this process."""
        with self._writing, suppress(Exception):  # a cache: what cannot be kept is measured again
            with self._lock:
                if not self._new or self._folder is None:
                    return
                self._new = False
                mine = {key: list(kept) for key, kept in self._all().items()}
                facts = dict(self._facts)
            others, theirs = _read(self._folder / NAME)
            facts = dict(list((theirs | facts).items())[-MODELS:])
            merged = {key: _merged(others.get(key, ()), kept) for key, kept in {**others, **mine}.items()}
            newest = sorted(merged, key=lambda key: merged[key][-1].when)[-MODELS:]
            runs = {key: [list(astuple(one)) for one in merged[key]] for key in newest}
            self._folder.mkdir(parents=True, exist_ok=True)
            with written(self._folder / NAME) as file:
                file.write(json.dumps({"format": _FORMAT, "runs": runs, "facts": facts}).encode())
            with self._lock:
                known = self._all()
                for key, kept in others.items():
                    known[key] = _merged(kept, known.get(key, ()))

    def _all(self) -> dict[str, list[Took]]:
        if self._known is None:
            self._known, self._facts = ({}, {}) if self._folder is None else _read(self._folder / NAME)
        return self._known

    def _later(self) -> None:
        self._new = True
        if self._folder is not None and (self._timer is None or not self._timer.is_alive()):
            self._timer = threading.Timer(_AFTER, self.flush)
            self._timer.daemon = True
            with suppress(RuntimeError):  # the interpreter ends
                self._timer.start()


def _merged(one: Sequence[Took], other: Sequence[Took]) -> list[Took]:
    found = {took.when: took for took in (*one, *other)}
    return [found[when] for when in sorted(found)][-RUNS:]


def _read(path: Path) -> tuple[dict[str, list[Took]], dict[str, int]]:
    """What is in a file: runs, and facts; nothing where it is none of ours, or damaged."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}, {}
        told = json.loads(path.read_bytes())
        if told["format"] != _FORMAT:
            return {}, {}
        runs = {str(key): made for key, rows in told["runs"].items() if (made := _rows(rows))}
        return runs, {str(key): one for key, one in told["facts"].items() if type(one) is int}
    except Exception:  # whatever is wrong with it
        return {}, {}


def _rows(rows: Sequence[Sequence[float]]) -> list[Took]:
    names = [one.name for one in fields(Took)]
    made = []
    for row in rows:
        if len(row) == len(names) and all(
            isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in row
        ):
            made.append(Took(**dict(zip(names, row, strict=True))))  # type: ignore[arg-type]
    return made[-RUNS:]


def weights_of(runs: Sequence[Took]) -> list[float]:
    """What each run counts: the newest most, those that had things to set up less."""
    return [_FADES ** (len(runs) - 1 - k) * (_COLD if one.cold else 1.0) for k, one in enumerate(runs)]


_pasts: dict[Path | None, Past] = {}


def past() -> Past:
    """The runs of this user on this machine."""
    folder = folder_of()
    if folder not in _pasts:
        _pasts.setdefault(folder, Past(folder))
    return _pasts[folder]


def stamp() -> float:
    """A `Took.when`: now."""
    return round(time.time(), 6)


@atexit.register
def _flush_all() -> None:
    for one in list(_pasts.values()):
        one.flush()
