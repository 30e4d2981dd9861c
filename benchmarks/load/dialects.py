"""How each kind of server is spoken to over its WebSocket."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.load.frames import BINARY, COMPRESSED, TEXT, client_frame, next_frame

SUBJECT = "bench"  # what events are called where the server has no name for each

Unit = tuple[int, bytes, int]  # of which kind, what it says, and where it ends


@dataclass(frozen=True)
class Dialect:
    """What is particular to a kind of server.

    publish: the frame that publishes an event by its name and payload.
    next_unit: the smallest whole thing that begins at a place of a connection's stream; None if it is not all there.
    answer: what a text that is no event asks for, if anything.
    wrapped: the stream is what the frames hold, which begin and end anywhere in it.
    """

    publish: Callable[[str, bytes], bytes]
    next_unit: Callable[[bytes, int], Unit | None]
    answer: Callable[[bytes], bytes]
    wrapped: bool = False


@dataclass(frozen=True)
class Subscriber:
    """One connection to be: its handshake, then what it says and which text it waits for each time.

    It must get the events first, first + stride, first + 2 * stride and so on. deaf: once subscribed it reads nothing.
    """

    path: str
    steps: tuple[tuple[bytes, bytes], ...] = ()
    headers: str = ""
    first: int = 0
    stride: int = 1
    deaf: bool = False

    def handshake(self) -> bytes:
        """The request that opens the WebSocket."""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiByYW5kb20gYg==\r\n{self.headers}\r\n"
        ).encode()


def command(name: str, data: object, number: int) -> bytes:
    """A command of our protocol, as a frame."""
    return client_frame(json.dumps({"event": name, "data": data, "id": number}).encode())


def _frame(stream: bytes, at: int) -> Unit | None:
    found = next_frame(stream, at)
    return found and (found[0] | stream[at] & COMPRESSED, stream[found[1] : found[2]], found[2])


def _line(stream: bytes, at: int) -> Unit | None:
    """A line of NATS' protocol, with the message that it announces, if it does."""
    end = stream.find(b"\r\n", at) + 2
    if end < 2:
        return None
    if stream.startswith(b"MSG ", at):
        end += int(stream[stream.rindex(b" ", at, end) : end]) + 2
    return None if end > len(stream) else (TEXT, stream[at:end], end)


def _no_answer(_text: bytes) -> bytes:
    return b""


def _no_publishing(_name: str, _payload: bytes) -> bytes:
    raise NotImplementedError("clients of the broker publish by other ways")


def _publish_to_naive(name: str, payload: bytes) -> bytes:
    return client_frame(b'{"event":"publish","data":[{"event":"%b","data":%b}],"id":0}' % (name.encode(), payload))


def _publish_plain(_name: str, payload: bytes) -> bytes:
    return client_frame(payload)


def _publish_to_socketio(_name: str, payload: bytes) -> bytes:
    return client_frame(b'42["publish",%b]' % payload)


def _answer_socketio(text: bytes) -> bytes:
    return client_frame(b"3") if text == b"2" else b""


def _publish_to_nats(_name: str, payload: bytes) -> bytes:
    return client_frame(b"PUB %b %d\r\n%b\r\n" % (SUBJECT.encode(), len(payload), payload), BINARY)


def _answer_nats(text: bytes) -> bytes:
    return client_frame(b"PONG\r\n", BINARY) if text == b"PING\r\n" else b""


DIALECTS: Mapping[str, Dialect] = {
    "ours": Dialect(_no_publishing, _frame, _no_answer),
    "naive": Dialect(_publish_to_naive, _frame, _no_answer),
    "plain": Dialect(_publish_plain, _frame, _no_answer),
    "socketio": Dialect(_publish_to_socketio, _frame, _answer_socketio),
    "nats": Dialect(_publish_to_nats, _line, _answer_nats, wrapped=True),
}
