"""Streams that behave badly, and what a client reads off a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream

MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
Wrap = Callable[[MemoryStream], trio.abc.Stream]


def plain(stream: MemoryStream) -> trio.abc.Stream:
    """The stream as it is."""
    return stream


class Through(trio.abc.HalfCloseableStream):
    """Passes everything through, and counts the bytes that were read."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self.read = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self.read += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Dribble(Through):
    """Gives what comes one byte at a time."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await super().receive_some(1)


class Stuck(Through):
    """Takes `room` writes, and then none: the client has stopped reading."""

    def __init__(self, stream: MemoryStream, room: int = 0) -> None:
        super().__init__(stream)
        self._room = room

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._room -= 1
        if self._room < 0:
            await trio.sleep_forever()
        await super().send_all(data)


class Gone(Through):
    """The client has vanished: nothing can be written."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError


@dataclass(frozen=True)
class Answer:
    """One HTTP answer as the client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(stream: trio.abc.ReceiveStream, *, of_head: bool = False) -> Answer:
    """Read one answer off a stream, and not a byte more. `of_head`: the request was HEAD."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await _some(stream, 1)
    first, *lines = head.decode("ascii").split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = 0 if of_head else int(headers.get("content-length", "0"))
    body = b""
    while len(body) < length:
        body += await _some(stream, length - len(body))
    return Answer(int(first.split(" ")[1]), headers, body)


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything that still comes."""
    parts = b""
    while part := await stream.receive_some(65_536):
        parts += part
    return parts


async def _some(stream: trio.abc.ReceiveStream, most: int) -> bytes:
    data = bytes(await stream.receive_some(most))
    if not data:
        raise EOFError("the server has ended the connection")
    return data


def client_frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True) -> bytes:
    """A frame as a client sends it."""
    length, mask = len(payload), 0x80 if masked else 0
    if length < 126:
        head = bytes((opcode | (0x80 if final else 0), length | mask))
    else:
        head = bytes((opcode | (0x80 if final else 0), 126 | mask)) + length.to_bytes(2, "big")
    key = b"\x01\x02\x03\x04" if masked else b""
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)) if masked else head + payload


async def read_frame(stream: trio.abc.ReceiveStream) -> tuple[int, bytes]:
    """Opcode and payload of the server's next frame."""
    first, length = await _exactly(stream, 2)
    if length == 126:
        length = int.from_bytes(await _exactly(stream, 2), "big")
    return first & 0x0F, await _exactly(stream, length)


async def _exactly(stream: trio.abc.ReceiveStream, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += await _some(stream, length - len(data))
    return data
