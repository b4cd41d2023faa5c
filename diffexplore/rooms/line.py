"""A learner's line to a room: one connection, kept up, with questions that wait for an answer and runs that come in.

Whatever happens at the other end, the line goes on: where the connection is lost, everybody whose run was going hears
it in one sentence, the line connects again by itself, and their runs are submitted anew. Runs come in on one thread,
which calls ``on_step``; the connection has another, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from diffexplore.pipelines.origin import Origin
from diffexplore.rooms import wire
from diffexplore.rooms.parcels import AwayError, raise_refusal
from diffexplore.words import sentence

__all__ = ["PATIENCE", "Line", "Listener"]

logger = logging.getLogger(__name__)

PATIENCE: Final = 4.0
"""Seconds without a word from the room after which it is said; and that a question waits for a connection."""
LOST: Final = 20.0  # seconds without a word after which the connection is given up
_PING: Final = 1.0
_SLOWLY: Final = 60.0  # seconds that an answer may take while the room is there
_BACK: Final = (0.1, 0.5)  # seconds between two attempts to connect, the first and the longest

Message = dict[str, Any]


class Listener(Protocol):
    """What was submitted: it hears what becomes of it, on the thread of the runs."""

    def again(self, line: Line) -> None:
        """The room is there, anew: submit. On the thread of the connection."""

    def hear(self, message: Message) -> None:
        """A message about one of its runs."""

    def news(self, text: str) -> None:
        """What there is to say of the room; "" where all is well again."""


class Line:
    """A connection to a room.

    Attributes:
        address: of the room.
        facts: what it told of its model when the connection was last made.
    """

    def __init__(self, address: str, security: Any, name: str, patience: float) -> None:
        """Connect.

        Args:
            address: what `wire.place_of` gave.
            security: what `wire.security_of` gave.
            name: how the learner is called in the room.
            patience: seconds to wait for somebody to answer there.

        Raises:
            AwayError: one sentence: nobody does, or does not let us in.
        """
        self.address = address
        self.facts: dict[str, Any] = {}
        self._security, self._name = security, name
        self._lock = threading.Lock()
        self._numbers = iter(range(1, 2**62))
        self._answers: dict[int, Future[Message]] = {}
        self._runs: dict[int, Listener] = {}
        self._incoming: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._there = threading.Event()
        self._gone = threading.Event()  # for good: closed, or another model is there
        self._ended = False
        self._says = ""
        self._first: Future[None] = Future()
        self._until = time.monotonic() + patience
        self._loop = asyncio.new_event_loop()
        self._out: asyncio.Queue[Message] = asyncio.Queue()
        self._talk: asyncio.Task[None] | None = None
        for work, what in ((self._run, "line"), (self._work, "runs")):
            threading.Thread(target=work, name=f"diffexplore {what} to {address}", daemon=True).start()
        self._first.result()

    # What the model asks

    @property
    def number(self) -> int:
        """A number that nothing else on this line has."""
        with self._lock:
            return next(self._numbers)

    def ask(self, what: str, patience: float = PATIENCE, **told: Any) -> Message:
        """Ask the room and wait for its answer; where the room goes away meanwhile, ask again when it is back.

        Args:
            what: the name of the question.
            patience: seconds to wait for a room that is away.
            told: what belongs to it.

        Raises:
            AwayError: one sentence: the room does not answer.
            ValueError, RuntimeError: what it refuses.
        """
        until = time.monotonic() + patience
        while True:
            there = self._there.wait(max(0.0, until - time.monotonic()))
            if not there or self._gone.is_set():
                raise AwayError(self._says or self._lost())
            try:
                return self._asked(what, told)
            except AwayError:
                if time.monotonic() > until:
                    raise

    def _asked(self, what: str, told: Message) -> Message:
        number, answer = self.number, Future[Message]()
        with self._lock:
            self._answers[number] = answer
        try:
            self.send({"id": number, "ask": what, **told})
            found = answer.result(_SLOWLY)
        except TimeoutError:
            raise AwayError(f"the room at {self.address} has not answered for {_SLOWLY:g} s") from None
        finally:
            with self._lock:
                self._answers.pop(number, None)
        if "error" in found:
            raise_refusal(found)
        return found

    def follow(self, number: int, listener: Listener) -> None:
        """Let somebody hear of what is submitted under a number, and submit it as soon as the room is there."""
        with self._lock:
            self._runs[number] = listener
            gone, there, says = self._gone.is_set(), self._there.is_set(), self._says
        if gone:
            listener.hear({"error": "away", "says": says})
        elif there:
            listener.again(self)
        elif says:
            self._incoming.put(lambda: listener.news(says))

    def forget(self, number: int) -> None:
        """Nothing more is to be heard of it."""
        with self._lock:
            self._runs.pop(number, None)

    def send(self, message: Message) -> None:
        """Send a message, if the room is there; returns at once."""
        with suppress(RuntimeError):  # the line is closed
            self._loop.call_soon_threadsafe(self._out.put_nowait, message)

    def hear(self, number: int, message: Message) -> None:
        """Let the listener of a number hear a message, on the thread of the runs."""
        with self._lock:
            listener = self._runs.get(number)
        if listener is not None:
            self._incoming.put(lambda: listener.hear(message))

    def close(self) -> None:
        """Hang up. What is going is over for this learner, and is stopped in the room."""
        self._end("the line to this room was closed")

    # On the thread of the runs

    def _work(self) -> None:
        while (call := self._incoming.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("a message from %s was not understood", self.address)
            del call  # or the last would keep its run

    # On the thread of the connection

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._keep())
        except BaseException as error:
            if not self._first.done():
                self._first.set_exception(error)
            else:
                logger.exception("the line to %s has failed", self.address)
        finally:
            self._end(self._says or "the line to this room was closed")
            self._loop.close()

    async def _keep(self) -> None:
        """Connect, talk, and connect again."""
        wait = _BACK[0]
        while not self._gone.is_set():
            comm = None
            try:
                comm = await asyncio.wait_for(wire.connected(self.address, self._security), PATIENCE)
                facts = await asyncio.wait_for(self._hello(comm), PATIENCE)
                self._up(facts)
                wait = _BACK[0]
                self._talk = asyncio.create_task(self._converse(comm))
                await self._talk
            except (OSError, TimeoutError) as error:
                self._failed(error)
            except asyncio.CancelledError:
                if not self._gone.is_set():
                    raise
            finally:
                if comm is not None:
                    comm.abort()
                self._down()
            if not self._gone.is_set():
                await asyncio.sleep(wait * random.uniform(0.5, 1))  # thirty learners do not knock at one moment
                wait = min(2 * wait, _BACK[1])

    async def _hello(self, comm: Any) -> dict[str, Any]:
        await comm.write({"hello": wire.VERSION, "name": self._name})
        told = await comm.read()
        if "facts" not in told:
            raise AwayError(str(told.get("says", "")) or f"what answers at {self.address} is no room")
        found: dict[str, Any] = json.loads(told["facts"])
        return found

    def _failed(self, error: Exception) -> None:
        """An attempt to connect failed: the first ones are waited for, as long as was asked."""
        if self._first.done():
            return
        fatal = isinstance(error, AwayError) or type(error).__name__ == "FatalCommClosedError"
        if not fatal and time.monotonic() < self._until:
            return
        why = sentence(error) if isinstance(error, AwayError) else f"nobody shares a model at {self.address}"
        if not isinstance(error, AwayError) and self.address.startswith("tls"):
            why += ", or not with these certificates"
        self._says = why
        self._gone.set()
        cause: BaseException = error
        while cause.__cause__ is not None:  # Dask says where in its code it failed, and the first of them why
            cause = cause.__cause__
        told = getattr(cause, "strerror", None) or sentence(cause)
        if isinstance(cause, TimeoutError | asyncio.CancelledError):
            told = "what is there does not answer"
        self._first.set_exception(AwayError(f"{why} ({told})" if why != sentence(error) else why))

    def _up(self, facts: dict[str, Any]) -> None:
        if self._first.done() and not _same(self.facts, facts):
            self._end(
                f"at {self.address} another model is shared by now, {facts.get('name')} in place of "
                f"{self.facts.get('name')}: connect again"
            )
            return
        self.facts = facts
        while not self._out.empty():  # for who was there before
            self._out.get_nowait()
        with self._lock:
            self._says = ""
            self._there.set()
            listeners = list(self._runs.values())
        for listener in listeners:
            self._incoming.put(lambda one=listener: one.news(""))  # type: ignore[misc]
            listener.again(self)
        if not self._first.done():
            self._first.set_result(None)

    def _down(self) -> None:
        with self._lock:
            was = self._there.is_set() and not self._gone.is_set()
            if was:
                self._there.clear()
            answers, self._answers = list(self._answers.values()), {}
        for answer in answers:
            if not answer.done():
                answer.set_exception(AwayError(self._lost()))
        if was:
            self._say(f"{self._lost()}; runs start again by themselves when it is back")

    def _lost(self) -> str:
        return f"the room at {self.address} is gone"

    def _say(self, text: str) -> None:
        with self._lock:
            self._says = text
            listeners = list(self._runs.values())
        for listener in listeners:
            self._incoming.put(lambda one=listener: one.news(text))  # type: ignore[misc]

    async def _converse(self, comm: Any) -> None:
        """Talk until the connection is lost."""
        heard = time.monotonic()
        quiet = False

        async def read() -> None:
            nonlocal heard
            while True:
                message = await comm.read()
                heard = time.monotonic()
                self._take(message)

        async def write() -> None:
            while True:
                await comm.write(await self._out.get())

        async def watch() -> None:
            nonlocal quiet
            while True:
                await asyncio.sleep(_PING)
                self._out.put_nowait({"ping": True})
                silent = time.monotonic() - heard
                if silent > LOST:
                    return
                if (silent > PATIENCE - _PING) != quiet:
                    quiet = not quiet
                    self._say(f"the room at {self.address} does not answer" if quiet else "")

        tasks = [asyncio.create_task(work()) for work in (read, write, watch)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, message: Mapping[str, Any]) -> None:
        if "id" in message:
            with self._lock:
                answer = self._answers.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(dict(message))
            elif "error" in message:  # of a submission
                self.hear(message["id"], dict(message))
        elif "run" in message:
            self.hear(message["run"], dict(message))
        elif "facts" in message:  # LoRAs have come or gone
            self.facts = json.loads(message["facts"])

    def _end(self, why: str) -> None:
        """It is over for good."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._gone.set()
            self._there.set()  # nobody need wait for it
            self._says = why
            runs, self._runs = list(self._runs.values()), {}
        for listener in runs:
            self._incoming.put(lambda one=listener: one.hear({"error": "away", "says": why}))  # type: ignore[misc]
        self._incoming.put(None)

        def hang_up() -> None:
            if self._talk is not None:
                self._talk.cancel()

        with suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(hang_up)


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a room that is back shares what it shared before: the same weights, at the same size; LoRAs beside them
    may have come or gone.
    """
    alike = all(before.get(name) == now.get(name) for name in ("family", "size"))
    one, other = (Origin.from_json(facts["origin"]) for facts in (before, now))
    return alike and replace(one, loras=()) == replace(other, loras=())
