"""A publisher to RabbitMQ that waits for nothing: frames by pamqp over a plain socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pamqp import base, frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.header import ContentHeader, ProtocolHeader

from benchmarks.load.publishers import Named

_CHANNEL = 1
Answer = TypeVar("Answer", bound=base.Frame)


class AmqpPublisher:
    """Publishes to one queue, which it declares, by the default exchange."""

    def __init__(self, url: str, queue: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672))
        self._queue = queue
        self.ready = True
        self._socket.sendall(frame.marshal(ProtocolHeader(0, 9, 1), 0))
        self._answer(Connection.Start)
        self._say(0, Connection.StartOk({}, "PLAIN", f"\0{parts.username}\0{parts.password}"))
        tune = self._answer(Connection.Tune)
        self._say(0, Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
        self._say(0, Connection.Open(unquote(parts.path[1:]) or "/"))
        self._answer(Connection.OpenOk)
        self._say(_CHANNEL, Channel.Open())
        self._answer(Channel.OpenOk)
        self._say(_CHANNEL, Queue.Declare(queue=queue, durable=True))
        self._answer(Queue.DeclareOk)

    def fileno(self) -> int:
        """See `Publisher`."""
        return self._socket.fileno()

    def publish(self, events: Sequence[Named]) -> None:
        """See `Publisher`."""
        self._socket.sendall(b"".join(self._message(name, payload) for name, payload in events))

    def hear(self) -> None:
        """RabbitMQ has nothing to say to what needs no confirmation."""
        raise RuntimeError(f"RabbitMQ ends the conversation: {self._socket.recv(65_536)!r}")

    def close(self) -> None:
        """See `Publisher`."""
        self._socket.close()

    def _message(self, name: str, payload: bytes) -> bytes:
        body = b'{"event":"%b","data":%b}' % (name.encode(), payload)
        parts = (
            Basic.Publish(routing_key=self._queue),
            ContentHeader(body_size=len(body), properties=Basic.Properties()),
            ContentBody(body),
        )
        return b"".join(frame.marshal(part, _CHANNEL) for part in parts)

    def _say(self, channel: int, method: base.Frame) -> None:
        self._socket.sendall(frame.marshal(method, channel))

    def _answer(self, kind: type[Answer]) -> Answer:
        head = self._socket.recv(7, socket.MSG_WAITALL)
        rest = self._socket.recv(int.from_bytes(head[3:7], "big") + 1, socket.MSG_WAITALL)
        _, _, answer = frame.unmarshal(head + rest)
        if not isinstance(answer, kind):
            raise TypeError(f"RabbitMQ answered {answer!r} where {kind.__name__} was to come")
        return answer
