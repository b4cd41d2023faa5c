"""``diffexplore share``: keeps a room open. The model is shared by a process of its own; where that dies, another takes
its place at the same address, and learners' runs start again. It has everything imported by then, and its model open
where that is small: the memory for two of a large one is better spent on larger runs.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from diffexplore.rooms import wire
from diffexplore.words import sentence

__all__ = ["keep"]

_SOON: Final = 5.0  # seconds: a worker that lived no longer than this has a reason that will not go away
_LATER: Final = 12.0  # seconds until another worker is made ready: what has just been opened has learners who wait
_AGAIN: Final = 3  # such workers in a row

Options = Mapping[str, Any]


class _Worker:
    """A process that will share the model, once it is told to."""

    def __init__(self, options: Options, *, ahead: bool = False) -> None:
        """Start it; `ahead`: let it open the model before it is told to share."""
        told = json.dumps({**options, "ahead": ahead})
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from diffexplore.rooms.worker import work; work()", told],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.opened = 0.0
        self.small = False

    def open(self) -> str:
        """Let it share; the address, or "" where it has died.

        Raises:
            ValueError: one sentence: it cannot.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.write("open\n")
            process.stdin.flush()
        for line in process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "refused":
                raise ValueError(rest)
            if word == "open":
                self.opened = time.monotonic()
                size, _, address = rest.partition(" ")
                self.small = size == "small"
                return address
        return ""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has died; its exit code, None where it lives after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """End it: it hears so by the end of its input, and is killed where it does not."""
        process = self._process
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def keep(source: str | None, address: str | None, security: str | None, **options: str | None) -> int:
    """Share a model until this process is ended.

    Args:
        source: what ``diffexplore.load`` takes.
        address: where, see ``diffexplore.share``.
        security: a folder of certificates.
        options: device and dtype, by name.

    Returns:
        An exit code; what is wrong is printed.
    """
    try:
        given = None if security is None else wire.security_of(security)
        place = _free(wire.place_of(address, given))
    except (ValueError, ImportError) as error:
        print(sentence(error), file=sys.stderr)
        return 2
    told = {"source": source, "address": place, "security": security, "load": options}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    workers = [_Worker(told)]
    short = 0
    try:
        while True:
            worker = workers[0]
            found = worker.open()
            if found:
                print(_said(found, security), flush=True)
            code = worker.wait(_LATER if found else None)
            if code is None:
                workers.append(_Worker(told, ahead=worker.small))
                code = worker.wait()
            short = short + 1 if not found or time.monotonic() - worker.opened < _SOON else 0
            if short == _AGAIN:
                print(f"the process that shares the model ends at once (exit code {code})", file=sys.stderr)
                return 1
            print(f"the process that shared the model has ended (exit code {code}); another begins", flush=True)
            workers.pop(0)
            if not workers:
                workers.append(_Worker(told))
    except ValueError as error:
        print(sentence(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("the room is closed", flush=True)
        return 0
    finally:
        for worker in workers:
            worker.end()


def _free(place: str) -> str:
    """An address at which every worker can be found: a free port in place of 0."""
    if not place.endswith(":0"):
        return place
    scheme, _, where = place.partition("://")
    host = where.rpartition(":")[0]
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{scheme}://{host}:{probe.getsockname()[1]}"


def _said(address: str, security: str | None) -> str:
    """What a teacher tells a class."""
    scheme, _, where = address.partition("://")
    host, _, port = where.rpartition(":")
    shown = f"{scheme}://{socket.gethostname() if host in ('0.0.0.0', '::') else host}:{port}"
    more = "" if security is None else ", security=..."
    return f'shared at {address}; learners write: model = dx.connect("{shown}"{more})'
