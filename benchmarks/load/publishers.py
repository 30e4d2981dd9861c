"""Who brings the events in: one connection that never waits for more than room in the kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Protocol

from benchmarks.load.dialects import DIALECTS, Subscriber
from benchmarks.load.opening import subscribed

Named = tuple[str, bytes]  # an event's name and payload


def ndjson(events: Sequence[Named]) -> bytes:
    """Events, one a line."""
    return b"\n".join(b'{"event":"%b","data":%b}' % (name.encode(), payload) for name, payload in events)


class Publisher(Protocol):
    """ready: it may be given events."""

    ready: bool

    def fileno(self) -> int:
        """Its socket, to wait for."""
        ...

    def publish(self, events: Sequence[Named]) -> None:
        """Send them."""
        ...

    def hear(self) -> None:
        """Take what has come on its socket; there is something."""
        ...

    def close(self) -> None:
        """End its connection."""
        ...


class WebSocketPublisher:
    """One client of the server, which publishes; what the server says to that is not looked at."""

    def __init__(self, port: int, dialect: str, subscriber: Subscriber) -> None:
        self._socket, *_ = subscribed(port, subscriber)
        self._dialect = DIALECTS[dialect]
        self.ready = True

    def fileno(self) -> int:
        """See `Publisher`."""
        return self._socket.fileno()

    def publish(self, events: Sequence[Named]) -> None:
        """See `Publisher`."""
        self._socket.sendall(b"".join(self._dialect.publish(name, payload) for name, payload in events))

    def hear(self) -> None:
        """See `Publisher`."""
        if not self._socket.recv(65_536):
            raise RuntimeError("the server ended the publisher's connection")

    def close(self) -> None:
        """See `Publisher`."""
        self._socket.close()


class PipePublisher:
    """Writes NDJSON to a pipe that a server reads. descriptor: of the pipe's end, which stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self.ready = True

    def fileno(self) -> int:
        """See `Publisher`."""
        return self._descriptor

    def publish(self, events: Sequence[Named]) -> None:
        """See `Publisher`."""
        text = ndjson(events) + b"\n"
        while text:
            text = text[os.write(self._descriptor, text) :]

    def hear(self) -> None:
        """See `Publisher`."""
        raise RuntimeError("the server reads no more")

    def close(self) -> None:
        """See `Publisher`."""
        os.close(self._descriptor)


class WebhookPublisher:
    """POSTs what there is as NDJSON, one request after the other on one connection."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: "
        ).encode()
        self._answer = b""
        self.ready = True

    def fileno(self) -> int:
        """See `Publisher`."""
        return self._socket.fileno()

    def publish(self, events: Sequence[Named]) -> None:
        """See `Publisher`."""
        body = ndjson(events)
        self._socket.sendall(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        self.ready = False

    def hear(self) -> None:
        """See `Publisher`."""
        data = self._socket.recv(65_536)
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not data or (end and not head.startswith(b"HTTP/1.1 202")):
            raise RuntimeError(f"the events were not taken: {self._answer.decode(errors='replace')}")
        _, _, length = head.lower().partition(b"content-length:")
        if end and len(body) >= int(length.partition(b"\r\n")[0]):
            self._answer = b""
            self.ready = True

    def close(self) -> None:
        """See `Publisher`."""
        self._socket.close()
