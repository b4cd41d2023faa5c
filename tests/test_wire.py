"""rooms/wire.py: who is let in where, and what a message may be."""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

pytest.importorskip("distributed")

from diffexplore.rooms import wire

CERTIFICATES = Path(__file__).parent / "certificates"


class Bomb:
    """Unpickled anywhere, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_addresses_are_completed() -> None:
    security = wire.security_of(CERTIFICATES / "room")
    assert wire.place_of(None, None) == "tcp://127.0.0.1:8790"
    assert wire.place_of("localhost:0", None) == "tcp://127.0.0.1:0"
    assert wire.place_of("tcp://127.0.0.1", None) == "tcp://127.0.0.1:8790"
    assert wire.place_of("0.0.0.0", security) == "tls://0.0.0.0:8790"
    assert wire.place_of("tls://lab-3:99", security) == "tls://lab-3:99"


@pytest.mark.parametrize("address", ["0.0.0.0:8790", "10.0.0.7", "lab-3", "tcp://192.168.1.2:1", "[::]:1"])
def test_elsewhere_than_here_tls_is_needed(address: str) -> None:
    with pytest.raises(
        ValueError, match=r"without TLS a model is shared on 127\.0\.0\.1 alone.*give security="
    ) as error:
        wire.place_of(address, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", [3, "", "http://127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "tcp://", ":8790"])
def test_what_is_no_address_is_refused(address: Any) -> None:
    if address == "":
        assert wire.place_of(address, None) == wire.place_of(None, None)
        return
    with pytest.raises(ValueError, match="an address is"):
        wire.place_of(address, None)


def test_certificates_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    with pytest.raises(ValueError, match=r"has no cert\.pem: it takes ca\.pem, cert\.pem, key\.pem"):
        wire.security_of(tmp_path)
    with pytest.raises(ValueError, match=r"a folder with .* or a distributed\.Security, got 3"):
        wire.security_of(3)
    with pytest.raises(ValueError, match="speaks TLS, which needs security="):
        wire.place_of("tls://127.0.0.1", None)


async def _answered(message: Any, *, raw: bytes | None = None, dask: bool = False) -> Any:
    """What a listener, which answers each message with itself, says to one; the text of an error where it hangs up."""

    async def echo(comm: Any) -> None:
        try:
            while True:
                await comm.write({"got": await comm.read()})
        except wire.ClosedError:
            comm.abort()

    listener = wire.listening("tcp://127.0.0.1:0", None, echo)
    await listener.start()
    try:
        if dask:
            from distributed.comm import connect

            made = connect(listener.listen_address, timeout=PATIENCE, handshake_overrides=message)
            comm = await asyncio.wait_for(made, PATIENCE)
            return await comm.read()
        comm = await wire.connected(listener.listen_address, None)
        if raw is None:
            await comm.write(message)
        else:
            await comm.stream.write(raw)
        try:
            return await asyncio.wait_for(comm.read(), PATIENCE)
        finally:
            comm.abort()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        listener.stop()


def run(made: Any) -> Any:
    """What it comes to, on a thread that has no loop: Playwright leaves one running on that of the tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, made).result()


def test_plain_values_arrive_as_they_were_sent() -> None:
    plain = {"text": "é", "bytes": b"\x80\x04", "number": 2**60, "list": [1.5, None, True], "map": {"a": {"b": []}}}
    assert run(_answered(plain)) == {"got": plain}


def test_nothing_is_unpickled_whatever_it_is_marked_as(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "went off"))
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it works")))
    assert (tmp_path / "it works").is_dir()
    # As Dask's own protocol marks it: its listeners unpickle this in the handshake, whatever they were told.
    run(_answered({"bomb": Bomb(tmp_path / "went off")}, dask=True))
    marked = {"__Pickled__": 1, "__Serialized__": 1, "bomb": bomb}
    assert run(_answered(marked)) == {"got": marked}  # bytes, as any
    for raw in (bomb, struct.pack("<Q", len(bomb)) + bomb):
        assert "ClosedError" in run(_answered(None, raw=raw))
    assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<Q", 2**62),  # longer than anybody may say
        struct.pack("<Q", 1) + b"\xc1",  # no msgpack
        struct.pack("<Q", 1) + b"\x05",  # no map
        struct.pack("<Q", 4) + b"\x81\xa1a\xd4",  # cut short
        struct.pack("<Q", 6) + b"\x81\xa1a\xd4\x05\x00",  # a type of somebody else
        struct.pack("<Q", 2000) + b"\x91" * 2000,  # lists within lists
    ],
)
def test_what_is_no_message_ends_the_connection(raw: bytes) -> None:
    assert "ClosedError" in run(_answered(None, raw=raw))
