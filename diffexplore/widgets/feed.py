"""A run on its way into a viewer: what is encoded when, and what goes into which message. `viewer` has the wire.

**Flow.** At most `WINDOW` pieces are on their way, at most `RATE` a second; what is encoded meanwhile goes into the
next piece. A piece not acknowledged within `LOST` seconds no longer counts: nobody may be there (an executed notebook),
or the kernel may be too busy to hear (a blocking cell). Once all is encoded, pieces of a run that nobody ever answered
count neither. Nothing ever waits for a browser. The newest run wins: a run is
first sent when it has its first step, from then on nothing of an older one is, and the browser drops older pieces that
are still on their way. What is on show stays until something newer covers it.

**While the run goes** cheap frames are made: the view looked at first, newest step first, then the others as long as
all this takes under `SHARE` of the run's time. Where the run leaves a core free (`spare`) the decoder, the judge and
the encoder work there meanwhile: all frames are made, as good as they get, and little is left for the end. Elsewhere
none goes through the picture decoder, which would slow the run. After the run come the finished picture, the frames
the decoder makes, those of a video, the sounds, and what was left out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from diffexplore.looks.views import VIEWS
from diffexplore.widgets.film import DECODED, Film, Frame, Status, captions

if TYPE_CHECKING:
    from diffexplore.record.record import Record

__all__ = ["Feed", "spare"]

WINDOW: Final = 3
"""Pieces on their way at once."""
RATE: Final = 20
"""Pieces a second. Servers cut off a kernel at 1000 messages a second; people see no difference above this."""
LOST: Final = 0.3
"""Seconds after which a piece without an answer makes room for the next."""
SHARE: Final = 0.05
"""Part of a run's time that frames of views not looked at may take."""

_TURN: Final = 0.02  # seconds of encoding between two looks at what has come in
_PIECE_BYTES: Final = 2**20

# Kinds of message: keep in step with browser/wire.js.
PIECE: Final = "piece"
STATE: Final = "state"
HELLO: Final = "hello"
ACK: Final = "ack"
AGAIN: Final = "again"
LOOK: Final = "look"
PING: Final = "ping"
HERE: Final = "here"
WHAT_IF: Final = "what if"
REACH: Final = "reach"
LEVELS: Final = "levels"

Key = tuple[int, str, int]  # film, kind (or "final"), evaluation


def spare(trace: Record) -> bool:
    """Whether a run leaves a core free: it computes on one, and there are others. A run that computes on several is
    twice as slow beside any other work.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return trace.info.get("threads") == 1 and here > 1


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a numbered message held, so that it can be made again: frames by key, and which evaluations' numbers of each
    film."""

    keys: tuple[Key, ...]
    steps: tuple[range, ...]


class Feed:
    """One run (one or several traces) on its way into a viewer. Made by `Viewer.feed`."""

    def __init__(self, run: int, traces: Sequence[Record], films: Sequence[Film]) -> None:
        self.run = run
        self.traces = list(traces)
        self.films = list(films)
        self.ends: dict[int, Status] = {}  # films whose run is over, noted by `Viewer.end`
        self.complete = threading.Event()  # everything is encoded and in the traits, or never will be
        self.error: BaseException | None = None
        self.pieces: list[_Piece] = []
        self.flying: dict[int, float] = {}  # piece -> when it was last sent
        self.again: dict[int, None] = {}  # pieces asked for again
        self._heard = False  # whether a browser has ever answered
        self._sent = -1e9  # when the last piece went
        self._outbox: dict[Key, None] = {}  # encoded, not yet sent
        self._told: list[tuple[int, Status, Frame | None]] = [(0, "running", None) for _ in films]
        self._known = [_known_of(trace) for trace in traces]  # of the latents in its films
        self._began = time.perf_counter()
        self._spent = 0.0

    @property
    def started(self) -> bool:
        """Whether there is something to show of it: a step, or the picture of a run without."""
        return any(len(trace) or trace.image is not None for trace in self.traces)

    @property
    def over(self) -> bool:
        return len(self.ends) == len(self.films)

    def follow(self, before: Feed) -> None:
        """It takes the place of another: pieces a second are counted over both."""
        self._sent = before._sent

    def tell_cost(self) -> None:
        """Tell the runs what their pictures took: decoding, judging, encoding; each its share."""
        for trace in self.traces:
            cost = trace.cost
            if cost is not None:
                spent = (cost.preview or 0.0) + self._spent / len(self.traces)
                trace.info["cost"] = replace(cost, preview=spent).told()

    def acknowledge(self, piece: int) -> None:
        """A browser has this piece."""
        self._heard = True
        self.flying.pop(piece, None)

    def ask_again(self, pieces: Iterable[object]) -> None:
        """A browser lacks these pieces."""
        sent = range(len(self.pieces))
        self.again |= {piece: None for piece in pieces if isinstance(piece, int) and piece in sent}

    def take_in(self, replaced: bool = False) -> None:
        """Bring the films up to what the traces hold now.

        Args:
            replaced: A newer run is about to take over: that this one was stopped for it is no news, and a page that
                heard of it would cut its timeline to what there is.
        """
        for k, (trace, film) in enumerate(zip(self.traces, self.films, strict=True)):
            end = self.ends.get(k)  # before the steps: a run that is over then has no more of them
            if replaced and end == "cancelled":
                end = None
            # A batch that failed is tried again one by one, from the first step; and how latents lie and are decoded
            # may be found out only at the end of a run.
            if len(trace) < len(film.steps) or (film.steps and _known_of(trace) != self._known[k]):
                film.steps.clear()
                film.frames.clear()
                self._told[k] = (0, "running", None)
                self._outbox = {key: None for key in self._outbox if key[0] != k}
            if not film.steps:
                self._known[k] = _known_of(trace)
            try:
                for _ in range(len(film.steps), len(trace)):
                    film.grow(trace)
            except Exception:
                if len(film.steps) < len(trace) and _known_of(trace) == self._known[k]:
                    raise  # it was neither emptied nor laid out anew while we read
            if film.status == "running":
                film.expected = max(trace.expected, len(film.steps))
            if end is not None and film.status == "running":
                film.end(trace, end)
                if film.final is not None:
                    self._outbox[k, "final", 0] = None

    def shoot(self, looked_at: str) -> bool:
        """Encode frames for about `_TURN` seconds; whether there was anything to do."""
        start = time.perf_counter()
        did = False
        for k, kind, i, exact in self._wanted(looked_at):
            try:
                self.films[k].shoot(self.traces[k], kind, i, exact)
            except Exception:
                if i < len(self.traces[k]) and _known_of(self.traces[k]) == self._known[k]:
                    raise  # it was neither emptied nor laid out anew while we read, see `take_in`
                return True
            self._outbox[k, kind, i] = None
            did = True
            if time.perf_counter() - start > _TURN:
                break
        self._spent += time.perf_counter() - start
        return did

    def _wanted(self, looked_at: str) -> Iterable[tuple[int, str, int, bool]]:
        """Frames worth making now, most wanted first."""
        free = [film.status != "running" or spare(trace) for trace, film in zip(self.traces, self.films, strict=True)]
        # What moves is seen first: a run that goes, then what takes the decoder.
        for exact in (False, True):
            for kind in sorted(VIEWS, key=lambda kind: kind != looked_at):
                for k, film in enumerate(self.films):
                    running = film.status == "running"
                    if (not exact and (not running or (free[k] and kind != looked_at))) or (exact and not free[k]):
                        continue
                    # What is decoded for one view serves the other, if that is made before it is forgotten.
                    paired = exact and kind in DECODED
                    kinds = sorted(DECODED, key=lambda one: one != kind) if paired else [kind]
                    for i in reversed(range(len(film.steps))):
                        if not exact and kind != looked_at and self._late:
                            break
                        for one in (key for name in kinds for key in film.keys(name, i)):
                            shot = film.frames.get((one, i))
                            if shot is None or (exact and isinstance(shot, Frame) and not shot.exact):
                                yield k, one, i, exact

    @property
    def _late(self) -> bool:
        """Whether frames have taken their share of the run's time."""
        return self._spent > SHARE * (time.perf_counter() - self._began)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to encode or to send."""
        return not self.again and not self._news and self._encoded

    @property
    def _encoded(self) -> bool:
        return self.over and all(film.complete for film in self.films)

    @property
    def _news(self) -> bool:
        return bool(self._outbox) or [self._tell(film) for film in self.films] != self._told

    @staticmethod
    def _tell(film: Film) -> tuple[int, Status, Frame | None]:
        return len(film.steps), film.status, film.final

    def ready(self, now: float) -> float | None:
        """Seconds until the next piece may go, 0.0 for now; None where there is nothing to send."""
        if not self.again and not self._news:
            return None
        wait = max(0.0, self._sent + 1 / RATE - now)
        flying = sorted(sent for sent in self.flying.values() if now - sent < LOST)
        # Of a run that is all encoded the rest goes at once where nobody ever answered: whoever waits waits for that.
        if len(flying) >= WINDOW and (self._heard or not self._encoded):
            wait = max(wait, flying[-WINDOW] + LOST - now)
        return wait

    def next_piece(self, now: float) -> tuple[dict[str, Any], list[bytes]]:
        """The next message and its buffers: one asked for again, else a new one with what has come together."""
        if self.again:
            number = next(iter(self.again))
            del self.again[number]
        else:
            number = len(self.pieces)
            self.pieces.append(_Piece(self._pop_keys(), self._pop_steps()))
        self.flying = {piece: sent for piece, sent in self.flying.items() if now - sent < 10 * LOST}
        self.flying[number] = self._sent = now
        return self._message(number)

    def _pop_keys(self) -> tuple[Key, ...]:
        keys: list[Key] = []
        size = 0
        for key in list(self._outbox):
            shot = self._shot(key)
            size += len(shot.data) if isinstance(shot, Frame) else 0
            if keys and size > _PIECE_BYTES:
                break
            keys.append(key)
            del self._outbox[key]
        return tuple(keys)

    def _pop_steps(self) -> tuple[range, ...]:
        ranges = tuple(range(told[0], len(film.steps)) for told, film in zip(self._told, self.films, strict=True))
        self._told = [self._tell(film) for film in self.films]
        return ranges

    def _shot(self, key: Key) -> Frame | str | None:
        k, kind, i = key
        return self.films[k].final if kind == "final" else self.films[k].frames.get((kind, i))

    def _message(self, number: int) -> tuple[dict[str, Any], list[bytes]]:
        piece = self.pieces[number]
        shots = [(key, shot) for key in piece.keys if (shot := self._shot(key)) is not None]
        films = [
            {
                "label": film.label,
                "about": film.about,
                "judged": film.judged,
                "tokens": film.tokens,
                "flags": [list(flag) for flag in film.flags],
                "size": list(film.size),
                "status": film.status,
                "expected": film.expected,
                "seconds": film.seconds,
                "columns": film.columns,
                "reel": film.reel,
                "sound": film.sound,
                "digest": film.digest,
                "first": steps.start,
                "steps": [list(film.steps[i]) for i in steps],
            }
            for film, steps in zip(self.films, piece.steps, strict=True)
        ]
        content = {
            "kind": PIECE,
            "run": self.run,
            "piece": number,
            "captions": captions(self.films),
            "films": films,
            "shots": [[*key, shot.format, shot.exact] for key, shot in shots if isinstance(shot, Frame)],
            "blanks": [[*key, shot] for key, shot in shots if isinstance(shot, str)],
        }
        return content, [shot.data for _, shot in shots if isinstance(shot, Frame)]


def _known_of(trace: Record) -> tuple[Any, ...]:
    """How its latents lie, and whether they can be decoded."""
    try:
        return tuple(trace[0].shape), trace.decode is not None
    except IndexError:  # it has no step, or began anew just now
        return ()
