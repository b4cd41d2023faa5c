"""Who draws which cell of a folder, where several processes share it: a claim is a small file beside the cell.

It is made in one go, so of two that want a cell one gets it, and it dies with its owner: on the owner's machine at
once, since the process is gone; on others when it was not renewed for a while, by the clock of the folder. A claim that
is wrongly taken for dead costs a cell drawn twice, with the same bits, and nothing else.
"""

import functools
import json
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Leases", "seen"]

LEASE = 60.0  # seconds after which a claim that was not renewed is dead
RENEW = 10.0
SUFFIX = ".claim"
STALE = 3600.0  # seconds after which a file that was never finished is nobody's


class Leases:
    """The claims of one sweep in a folder; released at the end of the ``with`` block.

    Attributes:
        token: by which others know that they see the same folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        self._mine: set[Path] = set()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._renewing: threading.Thread | None = None
        self._ahead = 0.0  # of the folder's clock, before ours

    def __enter__(self) -> "Leases":
        with suppress(OSError):
            now = _clock(self.folder)
            self._ahead = now - time.time()
            _sweep_up(self.folder, now)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        for path in list(self._mine):
            self.release(path)

    def take(self, path: Path) -> bool:
        """Whether the cell at `path` may be drawn: nobody else is at it.

        What this very process is at already may be drawn again: which of its threads waits for which, nobody knows.

        Raises:
            OSError: the folder cannot be written to.
        """
        claim = _claim(path)
        for _ in range(3):  # whoever takes a dead one away may find a new one there
            try:
                with open(claim, "x") as file:
                    json.dump({"token": self.token, **_whoami()}, file)
            except FileExistsError:
                owner = _read(claim)
                if owner is not None and owner.get("process") == _whoami()["process"]:
                    return True
                if owner is not None and self._lives(claim, owner):
                    return False
                with suppress(FileNotFoundError):
                    claim.unlink()
            else:
                with self._lock:
                    self._mine.add(path)
                    if self._renewing is None:
                        self._renewing = threading.Thread(target=self._renew, name="diffexplore leases", daemon=True)
                        self._renewing.start()
                return True
        return False

    def release(self, path: Path) -> None:
        """Whoever wants the cell at `path` may have it."""
        with self._lock:
            if path not in self._mine:
                return
            self._mine.discard(path)
        claim = _claim(path)
        with suppress(OSError):
            owner = _read(claim)
            if owner is not None and owner.get("token") == self.token:
                claim.unlink()

    def _lives(self, claim: Path, owner: dict[str, Any]) -> bool:
        """Whether the owner of a claim is still there."""
        if owner.get("host") == _whoami()["host"]:
            return _alive(owner.get("process"))
        try:
            return time.time() + self._ahead - claim.stat().st_mtime < LEASE
        except OSError:
            return False

    def _renew(self) -> None:
        while not self._ended.wait(RENEW):
            with self._lock:
                held = list(self._mine)
            for path in held:
                with suppress(OSError):
                    os.utime(_claim(path))


def seen(path: str | os.PathLike[str], token: str) -> bool:
    """Whether the folder of a cell is, from here, the one where a sweep has claimed it: its claim is there."""
    owner = _read(_claim(Path(path))) if token else None
    return owner is not None and owner.get("token") == token


def _claim(path: Path) -> Path:
    return path.with_name(f".{path.stem}{SUFFIX}")


def _read(claim: Path) -> dict[str, Any] | None:
    """What is in a claim; None where there is none, or nothing to be read. One that was just made may be empty."""
    for _ in range(5):
        try:
            said = json.loads(claim.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            time.sleep(0.02)
        else:
            return said if isinstance(said, dict) else None
    return None


def _whoami() -> dict[str, Any]:
    return _who(os.getpid())


@functools.cache
def _who(number: int) -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": [number, _born(number)]}


def _alive(process: Any) -> bool:
    """Whether a process of this machine is there, and is the one that it was: numbers are given again."""
    try:
        number, born = process
        if sys.platform != "win32":
            os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError):
        return True
    return born is None or _born(number) == born


def _born(number: int) -> str | None:
    """When a process began, in ticks since the machine did; None where that cannot be known."""
    try:
        state, _, more = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].strip().partition(" ")
    except OSError:
        return None
    return "" if state == "Z" else more.split()[18]


def _clock(folder: Path) -> float:
    """What time it is where the folder is."""
    probe = folder / f".{secrets.token_hex(8)}{SUFFIX}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _sweep_up(folder: Path, now: float) -> None:
    """Take away what processes that were killed have left: files that were never finished, and dead claims."""
    for path in [*folder.glob(".*.part"), *folder.glob(f".*{SUFFIX}")]:
        with suppress(OSError):
            owner = (_read(path) or {}) if path.suffix == SUFFIX else {}
            dead = owner.get("host") == _whoami()["host"] and not _alive(owner.get("process"))
            if dead or now - path.stat().st_mtime > STALE:
                path.unlink()
