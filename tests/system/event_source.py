"""A client for server-sent events that forgives nothing: chunks (RFC 9112 section 7.1), lines and fields (HTML, 9.2.6).

Independent of the broker's code; everything is parsed as it comes, however it is cut.
"""

from __future__ import annotations

import codecs
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import trio

from tests.system.harness import PATIENCE, Answer, Broker


@dataclass(frozen=True)
class Message:
    """What a page would get: an event called `message`, with `lastEventId`."""

    data: str
    id: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Place:
    """An id without an event: the page hears nothing, and the browser notes it."""

    id: str


@dataclass(frozen=True)
class Retry:
    """After how many milliseconds to come back."""

    milliseconds: int


@dataclass(frozen=True)
class Comment:
    """A line that says nothing."""

    text: str


Item = Message | Place | Retry | Comment


class Unchunked:
    """The body inside the chunks. What is no chunk fails the test; so do trailers and extensions."""

    def __init__(self) -> None:
        self._read = bytearray()
        self.ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The chunks that are whole now."""
        assert not (data and self.ended), f"after the end of the body there came {data!r}"
        self._read += data
        while (end := self._read.find(b"\r\n")) >= 0:
            size = bytes(self._read[:end])
            assert re.fullmatch(rb"0|[1-9a-f][0-9a-f]*", size), f"{size!r} is no chunk's size"
            whole = end + 2 + int(size, 16) + 2
            if len(self._read) < whole:
                break
            assert self._read[whole - 2 : whole] == b"\r\n", "a chunk has another length than it says"
            chunk = bytes(self._read[end + 2 : whole - 2])
            del self._read[:whole]
            if not chunk:
                self.ended = True
                assert not self._read, f"after the end of the body there came {bytes(self._read)!r}"
                return
            yield chunk
        assert len(self._read) < 20 or end >= 0, f"{bytes(self._read)!r} is no chunk's size"


class EventStream:
    """The text inside the body: fields, and what they amount to at each blank line."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
        self._line: list[str] = []
        self._after_cr = False
        self._data: list[str] = []
        self._id = ""  # the "last event ID buffer"
        self.last_event_id = ""

    def feed(self, data: bytes) -> Iterator[Item]:
        """What these bytes complete."""
        text = self._decoder.decode(data)
        if not text:
            return
        if self._after_cr:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        *ended, begun = re.split("\r\n|\r|\n", text)
        for part in ended:
            line = "".join([*self._line, part])
            self._line.clear()
            yield from self._interpret(line)
        self._line.append(begun)

    def _interpret(self, line: str) -> Iterator[Item]:
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "":
                yield Comment(value)
            case "data":
                self._data.append(value)
            case "id":
                if "\0" not in value:
                    self._id = value
            case "retry":
                assert re.fullmatch("[0-9]+", value)
                yield Retry(int(value))
            case _:
                raise AssertionError(f"nobody should send the field {field!r}")

    def _dispatch(self) -> Iterator[Item]:
        before, self.last_event_id = self.last_event_id, self._id
        data, self._data = self._data, []
        if data:
            yield Message("\n".join(data), self.last_event_id)
        elif before != self.last_event_id:
            yield Place(self.last_event_id)


class EventSource:
    """One request for events, and what comes of it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._head = bytearray()
        self._chunks = Unchunked()
        self._events = EventStream()
        self._items: list[Item] = []
        self.retry = 0
        self.comments = 0

    @property
    def last_event_id(self) -> str:
        return self._events.last_event_id

    @property
    def ended(self) -> bool:
        """Whether the body has come to its proper end."""
        return self._chunks.ended

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> Answer:
        """The head of the answer; with the body, where that is no stream."""
        while (end := self._head.find(b"\r\n\r\n")) < 0:
            self._head += await self._receive()
        first, *lines = self._head[:end].decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        rest = bytes(self._head[end + 4 :])
        assert re.fullmatch(r"HTTP/1\.1 [0-9]{3} [A-Za-z ]+", first), first
        status = int(first.split(" ")[1])
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            self.feed(rest)
            return Answer(status, headers, b"")
        while len(rest) < int(headers.get("content-length", "0")):
            rest += await self._receive()
        return Answer(status, headers, rest)

    def taken(self) -> list[Item]:
        """What has been read and not been looked at."""
        taken, self._items = self._items, []
        return taken

    async def read(self, most: int) -> int:
        """Read at most so many bytes of the body, and return how many there were."""
        data = await self._receive(most)
        self.feed(data)
        return len(data)

    def feed(self, data: bytes) -> None:
        """Take these bytes of the body."""
        for chunk in self._chunks.feed(data):
            for item in self._events.feed(chunk):
                if isinstance(item, Retry):
                    self.retry = item.milliseconds
                elif isinstance(item, Comment):
                    self.comments += 1
                self._items.append(item)

    async def item(self) -> Item:
        """Whatever comes next. Raises EOFError at the proper end, and BrokenResourceError if there is none."""
        while not self._items:
            if self.ended:
                raise EOFError
            self.feed(await self._receive())
        return self._items.pop(0)

    async def message(self) -> Message:
        """The next message."""
        while not isinstance(item := await self.item(), Message):
            pass
        return item

    async def messages(self, number: int) -> list[Message]:
        return [await self.message() for _ in range(number)]

    async def data(self, number: int) -> list[Any]:
        """The payloads of the next events."""
        return [message.json["data"] for message in await self.messages(number)]

    async def place(self) -> str:
        """The next id that comes without an event."""
        while not isinstance(item := await self.item(), Place):
            pass
        return item.id

    async def rest(self) -> list[Message]:
        """All messages up to the proper end."""
        found = []
        try:
            while True:
                found.append(await self.message())
        except EOFError:
            return found

    def reset(self) -> None:
        """End the connection as a crashed machine does."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def _receive(self, most: int = 65_536) -> bytes:
        with trio.fail_after(PATIENCE):
            data = bytes(await self.stream.receive_some(most))
        if not data:
            raise trio.BrokenResourceError("the stream was cut")
        return data


def request(
    *patterns: str, method: str = "GET", version: str = "1.1", headers: Sequence[tuple[str, str]] = (), **query: str
) -> bytes:
    """A request for events; values of headers are sent as UTF-8, which browsers do with ids."""
    target = "/events?" + urlencode([*(("pattern", pattern) for pattern in patterns), *query.items()])
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def dialled(
    broker: Broker, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> AsyncIterator[EventSource]:
    """A connection to the broker, on which nothing has been said yet."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    with sock:
        await sock.connect(("127.0.0.1", broker.port))
        plain = trio.SocketStream(sock)
        if tls is None:
            yield EventSource(plain)
        else:
            yield EventSource(trio.SSLStream(plain, tls, server_hostname="127.0.0.1", https_compatible=True))


@asynccontextmanager
async def listening(
    broker: Broker,
    user: str,
    *patterns: str,
    after: str | None = None,
    tls: ssl.SSLContext | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[EventSource]:
    """Somebody who hears `patterns`, from now on or what came after the id `after`."""
    headers = [("Authorization", f"Bearer {broker.token(user)}")]
    if after is not None:
        headers.append(("Last-Event-ID", after))
    async with dialled(broker, tls=tls, receive_buffer=receive_buffer) as source:
        await source.send(request(*patterns, headers=headers))
        answer = await source.answer()
        assert answer.status == 200, answer
        yield source


@asynccontextmanager
async def hearing(
    broker: Broker, user: str, *patterns: str, receive_buffer: int | None = None
) -> AsyncIterator[EventSource]:
    """The same, from now on for certain: the first position has come."""
    async with listening(broker, user, *patterns, receive_buffer=receive_buffer) as source:
        await source.place()
        yield source


async def ask(broker: Broker, sent: bytes) -> Answer:
    """The answer to one request on a connection of its own."""
    async with dialled(broker) as source:
        await source.send(sent)
        return await source.answer()
