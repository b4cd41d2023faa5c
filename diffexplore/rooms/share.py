"""``share()``: a model served to a room of learners, each with a lane of their own.

    room = dx.share(model)                        # on this machine, for its own people
    room = dx.share(model, "tls://0.0.0.0:8790", security="certificates")

The model stays where it is; settings travel in and tensors out (see `rooms.wire` and `rooms.parcels`). A learner whose
kernel ends, or who has said nothing for half a minute, has left: what they had is stopped, and their lane is free.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Self

from diffexplore.model import Model, load
from diffexplore.rooms import wire
from diffexplore.rooms.answers import ASKED, SLOW, facts_of, submission_of
from diffexplore.rooms.parcels import refusal
from diffexplore.rooms.seat import Seat, sentence_of
from diffexplore.rooms.turns import Turns
from diffexplore.words import sentence, shown

__all__ = ["Room", "share"]

logger = logging.getLogger(__name__)

HELLO: Final = 10.0  # seconds to say who one is
SILENCE: Final = 30.0  # seconds after which a learner who says nothing is gone
FRESH: Final = 10.0  # seconds that what is known of the model is told without a look at it
TELLS: Final = 1.0  # seconds between two looks at who is to hear where they stand in line, and of LoRAs that have come
_ASKED_AT_ONCE: Final = 32  # questions of one learner that are looked at


def share(model: Model | None = None, address: str | None = None, *, security: Any = None) -> Room:
    """Share a model with a room: learners open it with :func:`diffexplore.connect`, and load no weights.

    Args:
        model: what to share; None: the pocket model.
        address: where to listen, such as "tls://0.0.0.0:8790", which is every address of this machine, or
            "127.0.0.1:8790", which is what None stands for; a port of 0 is any that is free.
        security: who may connect: a folder with ca.pem, cert.pem and key.pem, or a ``distributed.Security``. None: all
            people of this machine, and on 127.0.0.1 alone.

    Returns:
        The room: its ``address`` is what to hand out, and it is open until ``close()``, or until this process ends.

    Raises:
        ValueError: one sentence, for an address or certificates which cannot be, or elsewhere without TLS.
        OSError: the address is taken, or none of this machine's.
        ImportError: without Dask; says how to get it.
    """
    if model is not None and not isinstance(model, Model):
        raise ValueError(f"share takes a model, as diffexplore.load gives one, got {shown(model)}")
    if model is not None and getattr(model, "pipeline", None) is None:
        raise ValueError(f"share takes a model that is here, got one that is shared already, {model!r}")
    given = wire.security_of(security)
    place = wire.place_of(address, given)
    return Room(load() if model is None else model, place, given)


class Room:
    """A model that is being shared, until :meth:`close`.

    Attributes:
        model: what is shared.
        address: where learners connect to.
    """

    def __init__(self, model: Model, address: str, security: Any = None) -> None:
        """Open it; `share` says what the arguments are, and checks them."""
        self.model = model
        self.address = address
        self._security = security
        self._seats: set[Seat] = set()
        self._turns = Turns(model)
        self._quick = ThreadPoolExecutor(2, "diffexplore room answers")
        self._slow = ThreadPoolExecutor(1, "diffexplore room decodes")
        self._telling, self._told, self._told_until = threading.Lock(), "", -math.inf
        self._told_of: tuple[str, ...] = ()
        self._facts()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._opened: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="diffexplore room", daemon=True)
        self._thread.start()
        try:
            self.address = self._opened.result()
        except OSError as error:
            why = error.strerror or sentence(error)
            raise OSError(error.errno, f"no model can be shared at {address}: {why}") from None

    def __repr__(self) -> str:
        return f"Room({self.model.name!r} at {self.address!r}, {len(self._seats)} learners)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def learners(self) -> list[str]:
        """Who is there, by name."""
        return sorted(seat.name for seat in list(self._seats))

    def close(self) -> None:
        """Close the room: all runs are stopped, and nobody is let in any more. The model stays."""
        loop, closing = self._loop, self._closing
        if loop is not None and closing is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # it has ended just now
                loop.call_soon_threadsafe(closing.set)
        self._thread.join(10)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is closed, `timeout` seconds at most; whether it is."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # On the thread of the room

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            else:
                logger.exception("the room at %s has failed", self.address)
        finally:
            self._quick.shutdown(wait=False, cancel_futures=True)
            self._slow.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        listener = wire.listening(self.address, self._security, self._arrived)
        await listener.start()
        visits: set[asyncio.Task[None]] = set()
        self._visits = visits
        self._opened.set_result(listener.listen_address)
        telling = asyncio.create_task(self._tell())
        try:
            await self._closing.wait()
        finally:
            telling.cancel()
            listener.stop()
            for visit in list(visits):
                visit.cancel()
            await asyncio.gather(*visits, return_exceptions=True)

    async def _tell(self) -> None:
        """Say what there is to say beside answers: where in line somebody stands, and what has become of the model."""
        while True:
            await asyncio.sleep(TELLS)
            if tuple(self.model.adapters) != self._told_of:
                self._told_until = -math.inf
                facts = await self._on(self._quick, self._facts)
                for seat in list(self._seats):
                    seat.tell({"facts": facts})
            places = self._turns.places()
            for seat in list(self._seats):
                seat.stand(places.get(seat))

    async def _arrived(self, comm: Any) -> None:
        """Somebody has connected."""
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        seat: Seat | None = None
        sending: asyncio.Task[None] | None = None
        try:
            hello = await asyncio.wait_for(comm.read(), HELLO)
            if hello.get("hello") != wire.VERSION:
                says = f"this room speaks version {wire.VERSION}, you speak {shown(hello.get('hello'))}"
                await comm.write({"error": "value", "says": f"{says}: use the same diffexplore at both ends"})
                return
            await comm.write({"facts": await self._on(self._quick, self._facts)})
            comm.most = wire.MOST_IN
            there, loop = asyncio.Event(), asyncio.get_running_loop()

            def wake() -> None:
                with suppress(RuntimeError):  # the room is closed
                    loop.call_soon_threadsafe(there.set)

            seat = Seat(self._turns, sentence_of(hello.get("name") or comm.peer_address), wake)
            self._seats.add(seat)
            sending = asyncio.create_task(self._send(comm, seat, there))
            await self._listen(comm, seat)
        except (wire.ClosedError, TimeoutError):
            pass
        except asyncio.CancelledError:
            if not (self._closing and self._closing.is_set()):
                raise
        finally:
            self._visits.discard(visit)
            if seat is not None:
                self._seats.discard(seat)
                seat.leave()
            if sending is not None:
                sending.cancel()
            comm.abort()

    async def _send(self, comm: Any, seat: Seat, there: asyncio.Event) -> None:
        """Send what there is, one message after the other, each when the one before is gone."""
        try:
            while True:
                await there.wait()
                there.clear()
                while (message := await self._on(self._quick, seat.message)) is not None:
                    await comm.write(message)
        except wire.ClosedError:
            pass
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, Exception):
                logger.exception("what there was for %s cannot be sent", seat.name)
            comm.abort()

    async def _listen(self, comm: Any, seat: Seat) -> None:
        """Take in what a learner says, as long as they are there."""
        room = asyncio.Semaphore(_ASKED_AT_ONCE)
        in_order, slowly = asyncio.Lock(), asyncio.Lock()
        answering: set[asyncio.Task[None]] = set()
        try:
            while True:
                message = await asyncio.wait_for(comm.read(), SILENCE)
                if "ping" in message:
                    seat.tell({"pong": True})
                elif "cancel" in message:
                    await self._on(self._quick, seat.cancel, message["cancel"], sentence_of(message.get("reason")))
                else:
                    await room.acquire()
                    what = message.get("ask")
                    turn = in_order if what == "submit" else slowly if what in SLOW else None
                    task = asyncio.create_task(self._answer(message, seat, turn))
                    answering.add(task)
                    task.add_done_callback(answering.discard)
                    task.add_done_callback(lambda _: room.release())
        finally:
            for task in answering:
                task.cancel()

    async def _answer(self, message: dict[str, Any], seat: Seat, turn: asyncio.Lock | None) -> None:
        """Answer one question; those that share a `turn` one after the other, as they came."""
        number, what = message.get("id"), message.get("ask")
        async with turn or asyncio.Lock():
            try:
                if what == "submit":
                    told = await self._on(self._quick, self._submit, message, seat)
                elif isinstance(what, str) and what in ASKED:
                    told = await self._on(self._slow if what in SLOW else self._quick, ASKED[what], self.model, message)
                else:
                    raise ValueError(f"a room answers {', '.join(ASKED)} and submit, got {shown(what)}")
            except Exception as error:
                if not isinstance(error, (ValueError, RuntimeError, FileNotFoundError)):
                    logger.warning("%s asked %s: %s", seat.name, shown(what), sentence(error))
                told = refusal(error)
            seat.tell({"id": number, **told})

    def _facts(self) -> str:
        """What is told to who arrives; found out once for all who do at about the same time, as when a room is back."""
        with self._telling:
            if time.monotonic() > self._told_until:
                self._told_of = tuple(self.model.adapters)
                self._told = json.dumps(facts_of(self.model))
                self._told_until = time.monotonic() + FRESH
            return self._told

    def _submit(self, message: dict[str, Any], seat: Seat) -> dict[str, Any]:
        seat.submit(submission_of(self.model, message))
        return {}

    async def _on(self, pool: ThreadPoolExecutor, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)
