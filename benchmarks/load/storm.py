"""Clients that all come back in one moment: `python -m benchmarks.load.storm`, told by its standard input what to do.

They have missed the same, so what each one gets is compared with what one got before them, byte by byte.
"""

from __future__ import annotations

import pickle
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.frames import next_frame
from benchmarks.processes import allow_many_files

_BUFFER_BYTES = 1_048_576
_PATIENCE = 120.0
_PAUSE = 0.3  # seconds in which those who stayed get going


@dataclass(frozen=True)
class Storm:
    """openings: all that each client says. missed: the frames that each one is to get, before the answer."""

    port: int
    openings: Sequence[bytes]
    missed: bytes


class _Client:
    """One of them."""

    def __init__(self, port: int, opening: bytes, missed: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(opening)
        self.socket.setblocking(False)
        self._missed = missed
        self._at = -1  # in what was missed; -1: the handshake is not answered yet
        self._rest = b""

    def take(self, data: bytes) -> bool:
        """Take what has come; whether that was all."""
        if not data:
            raise RuntimeError("the server ended a connection")
        if self._at < 0:
            head, end, data = (self._rest + data).partition(b"\r\n\r\n")
            self._rest = head
            if not end:
                return False
            self._at, self._rest = 0, b""
        part = data[: len(self._missed) - self._at]
        if not self._missed.startswith(part, self._at):
            raise RuntimeError(f"something else came at byte {self._at}: {part[:200]!r}")
        self._at += len(part)
        self._rest += data[len(part) :]
        answer = next_frame(self._rest, 0) if self._at == len(self._missed) else None
        if answer is not None and b'"data"' not in self._rest[: answer[2]]:
            raise RuntimeError(f"a client could not resume: {self._rest!r}")
        return answer is not None


def seconds_to_catch_up(storm: Storm) -> float:
    """Let all of them come at once, and wait until each one has what it missed."""
    begin = time.monotonic()
    clients = {}
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with select.epoll() as poll:
        for opening in storm.openings:
            client = _Client(storm.port, opening, storm.missed)
            clients[client.socket.fileno()] = client
            poll.register(client.socket, select.EPOLLIN)
        left = len(clients)
        while left:
            if time.monotonic() - begin > _PATIENCE:
                raise RuntimeError(f"{left} of {len(clients)} clients still wait")
            for descriptor, _ in poll.poll(1.0):
                client = clients[descriptor]
                if client.take(bytes(buffer[: client.socket.recv_into(buffer)])):
                    poll.unregister(client.socket)
                    left -= 1
    return time.monotonic() - begin


def main() -> None:
    """Come when told to."""
    allow_many_files()
    storm = pickle.load(sys.stdin.buffer)
    print("ready", flush=True)
    sys.stdin.buffer.readline()
    time.sleep(_PAUSE)
    print(seconds_to_catch_up(storm), flush=True)


if __name__ == "__main__":
    main()
