"""The beginning of a connection: handshake and subscription, step by step."""

from __future__ import annotations

import socket

from benchmarks.load.dialects import Subscriber
from benchmarks.load.frames import COMPRESSED, Inflater, next_frame

PATIENCE = 60.0


class Refused(Exception):
    """The server does not want this connection."""


def subscribed(port: int, subscriber: Subscriber) -> tuple[socket.socket, bytes, Inflater]:
    """A connection that has said all that it has to say, what came after the last answer, and what it remembers.

    Raises Refused.
    """
    connection = socket.socket()
    if subscriber.deaf:  # what it does not read shall wait in the server, not in the kernel
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(subscriber.handshake())
    data = b""
    while b"\r\n\r\n" not in data:
        data += more(connection)
    head, _, data = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        raise Refused(head.decode(errors="replace"))
    inflater = Inflater()
    for say, awaited in subscriber.steps:
        connection.sendall(say)
        said = b""
        while awaited not in said:
            said, data = _one_frame(connection, data, inflater)
    return connection, data, inflater


def _one_frame(connection: socket.socket, data: bytes, inflater: Inflater) -> tuple[bytes, bytes]:
    """The content of the next frame, and what has come after it."""
    while (frame := next_frame(data, 0)) is None:
        data += more(connection)
    _, begin, end = frame
    content = data[begin:end]
    return inflater.inflate(content) if data[0] & COMPRESSED else content, data[end:]


def more(connection: socket.socket) -> bytes:
    """What comes next.

    Raises Refused where nothing will.
    """
    data = connection.recv(65_536)
    if not data:
        raise Refused("the server ended the connection")
    return data
