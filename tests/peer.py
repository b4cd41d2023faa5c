"""Somebody who speaks a room's protocol, and nothing else: no torch, no package of ours. As a script, a learner who
submits one long run, says "running" once it is, and waits to be killed."""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Any

import msgpack


class Peer:
    def __init__(self, address: str, name: str = "a peer") -> None:
        host, port = address.rpartition("://")[2].split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.say(hello=2, name=name)
        assert "facts" in self.hear()

    def say(self, **message: Any) -> None:
        data = msgpack.packb(message)
        self.socket.sendall(struct.pack("<Q", len(data)) + data)

    def hear(self) -> Any:
        (length,) = struct.unpack("<Q", self._exactly(8))
        return msgpack.unpackb(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            assert part, "it was hung up"
            data += part
        return data


if __name__ == "__main__":
    _, address, settings = sys.argv
    peer = Peer(address)
    peer.say(id=1, ask="submit", lane=1, runs=[{"settings": settings}])
    while "steps" not in peer.hear():
        pass
    print("running", flush=True)
    time.sleep(600)
