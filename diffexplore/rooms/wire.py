"""The wire between a shared model and its learners: Dask's connections, with messages of plain values.

Listening, connecting, keep-alive and TLS are those of ``distributed.comm``. What is said over a connection is not
Dask's protocol: that unpickles what a peer marks as pickled, the handshake included and whatever ``deserialize`` says,
so that whoever may connect could run code. Here a message is its length (8 bytes, little endian) and one map in
msgpack, of text, bytes, numbers, truth values, None, lists and maps. Anything else ends the connection.

Nobody is let in without TLS, but on 127.0.0.1, where only this machine's own people are.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from diffexplore.words import sentence, shown

__all__ = [
    "FILES", "HERE", "MOST_IN", "MOST_OUT", "PORT", "VERSION", "ClosedError", "connected", "listening", "place_of",
    "security_of",
]  # fmt: skip

VERSION: Final = 2
"""Of what is said over the wire; both ends have to have the same."""
PORT: Final = 8790
HERE: Final = "127.0.0.1"
FILES: Final = ("ca.pem", "cert.pem", "key.pem")
"""What a folder of certificates holds: who is trusted, and one's own certificate and key."""
MOST_IN: Final = 64 * 2**20
"""Bytes of a message that a learner may send: settings, a picture, a run to branch."""
MOST_OUT: Final = 2**31
"""Bytes of a message that a learner takes: what a run made, all frames of a video at most."""
_FIRST: Final = 2**14  # bytes of a message of somebody who has not said hello yet
_LENGTH: Final = struct.Struct("<Q")
_LACKING: Final = "sharing a model needs Dask: pip install 'diffexplore[cluster]'"


class ClosedError(ConnectionError):
    """The other end is gone, or says what nobody understands."""


def place_of(address: str | None, security: Any) -> str:
    """An address as Dask writes it, "tcp://127.0.0.1:8790" or "tls://host:8790".

    Args:
        address: of a host, with a port or without, and with or without one of these schemes; None: 127.0.0.1.
        security: what :func:`security_of` gave: with it TLS is spoken, without it not.

    Raises:
        ValueError: one sentence, for what is no address, and for one elsewhere than 127.0.0.1 without TLS.
    """
    if address is not None and not isinstance(address, str):
        raise ValueError(f"an address is text such as 'tls://0.0.0.0:{PORT}', got {shown(address)}")
    scheme, _, rest = (address or HERE).rpartition("://")
    host, _, port = rest.rpartition(":") if rest.count(":") == 1 or rest.startswith("[") else (rest, "", "")
    host = HERE if host == "localhost" else host
    if scheme not in ("", "tcp", "tls") or not host or not (port or "0").isdecimal() or int(port or 0) > 65535:
        raise ValueError(f"an address is a host and a port such as 'tls://0.0.0.0:{PORT}', got {shown(address)}")
    if scheme == "tls" and security is None:
        raise ValueError(f"{shown(address)} speaks TLS, which needs security=: a folder with {', '.join(FILES)}")
    if security is None and host != HERE:
        raise ValueError(
            f"without TLS a model is shared on {HERE} alone, got {shown(address)}: give security=, a folder with "
            f"{', '.join(FILES)} or a distributed.Security"
        )
    return f"{'tcp' if security is None else 'tls'}://{host}:{int(port or PORT) if port != '0' else 0}"


def security_of(given: Any) -> Any:
    """What says who may connect, as a ``distributed.Security``; None for None.

    Args:
        given: one; or a folder with ca.pem, cert.pem and key.pem.

    Raises:
        ValueError: one sentence, for anything else, or where one of them is missing or cannot be read.
    """
    if given is None:
        return None
    made = given
    if isinstance(given, (str, os.PathLike)):
        folder = Path(os.path.expanduser(given))
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"the folder {shown(str(folder), 200)} has no {missing[0]}: it takes {', '.join(FILES)}")
        ca, cert, key = (str(folder / name) for name in FILES)
        made = _distributed().Security(
            require_encryption=True, tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key,
            tls_scheduler_cert=cert, tls_scheduler_key=key,
        )  # fmt: skip
    if not hasattr(made, "get_listen_args"):
        raise ValueError(f"security is a folder with {', '.join(FILES)} or a distributed.Security, got {shown(given)}")
    return made


def _arguments(security: Any, listens: bool) -> dict[str, Any]:
    """What a listener or a connector of Dask takes of TLS."""
    if security is None:
        return {}
    try:
        found = security.get_listen_args("scheduler") if listens else security.get_connection_args("client")
    except (OSError, ValueError) as error:
        raise ValueError(f"the certificates cannot be read: {sentence(error)}") from None
    if found.get("ssl_context") is None:
        raise ValueError("security has no certificates: it takes who is trusted, a certificate and its key")
    return {name: found[name] for name in ("ssl_context", "require_encryption")}


def listening(address: str, security: Any, arrived: Callable[[Any], Awaitable[None]]) -> Any:
    """A listener of Dask, not started; ``await arrived(comm)`` is called for each that connects.

    Args:
        address: what :func:`place_of` gave.
        security: what :func:`security_of` gave.
        arrived: reads and writes the comm, and closes it.
    """
    scheme, _, where = address.partition("://")
    kind = _engine()[f"{scheme} listens"]
    return kind(where, arrived, deserialize=False, allow_offload=False, **_arguments(security, listens=True))


async def connected(address: str, security: Any) -> Any:
    """A comm of Dask to who listens there.

    Raises:
        OSError: nobody does, or does not take these certificates.
    """
    scheme, _, where = address.partition("://")
    comm = await _engine()[f"{scheme} connects"]().connect(
        where, deserialize=False, **_arguments(security, listens=False)
    )
    comm.most = MOST_OUT
    return comm


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise ImportError(_LACKING) from None
    return distributed


@functools.cache
def _engine() -> dict[str, Any]:
    """Dask's listeners and connectors, with comms that read and write plain messages."""
    _distributed()
    import msgpack
    from distributed.comm import tcp

    def no_more(code: int, data: bytes) -> Any:
        raise ValueError("a message is of plain values")

    class Plain:
        """In place of Dask's way to read and write."""

        stream: Any
        abort: Any
        most = _FIRST

        async def read(self, deserializers: Any = None) -> dict[str, Any]:
            """The next message.

            Raises:
                ClosedError: there is none any more, or it is none of ours.
            """
            if self.stream is None:
                raise ClosedError("the connection is closed")
            try:
                (length,) = _LENGTH.unpack(await self.stream.read_bytes(_LENGTH.size))
                if length > self.most:
                    raise ValueError(f"a message of {length:,} bytes, at most {self.most:,} are read")
                data = await self.stream.read_bytes(length)
                message = msgpack.unpackb(data, ext_hook=no_more)
                if not isinstance(message, dict):
                    raise ValueError("a message is a map")
            except Exception as error:
                self.abort()
                raise ClosedError(sentence(error)) from None
            except BaseException:  # cancelled: what was half read cannot be gone on with
                self.abort()
                raise
            return message

        async def write(self, message: dict[str, Any], serializers: Any = None, on_error: Any = None) -> None:
            """Send a message; returns when the system has taken all of it.

            Raises:
                ClosedError: the other end is gone.
            """
            if self.stream is None:
                raise ClosedError("the connection is closed")
            data = msgpack.packb(message)
            try:
                await self.stream.write(_LENGTH.pack(len(data)) + data)
            except Exception as error:
                self.abort()
                raise ClosedError(sentence(error)) from None

    class Quiet:
        """Exchanges nothing before the handler is called: Dask's own handshake may bring a pickle."""

        async def on_connection(self, comm: Any, handshake_overrides: Any = None) -> None:
            return None

    class TCP(Plain, tcp.TCP):  # type: ignore[misc]
        pass

    class TLS(Plain, tcp.TLS):  # type: ignore[misc]
        pass

    class TCPListener(Quiet, tcp.TCPListener):
        comm_class = TCP

    class TLSListener(Quiet, tcp.TLSListener):
        comm_class = TLS

    class TCPConnector(tcp.TCPConnector):
        comm_class = TCP

    class TLSConnector(tcp.TLSConnector):
        comm_class = TLS

    return {
        "tcp listens": TCPListener, "tls listens": TLSListener,
        "tcp connects": TCPConnector, "tls connects": TLSConnector,
    }  # fmt: skip
