"""A client that keeps to no rules: bytes on a TCP connection, and what comes back, read frame by frame."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from tests.system.harness import PATIENCE, Broker

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """One frame of a client. The mask is zeros: a mask all the same, and the payload stays readable."""
    first = (0x80 if final else 0) | reserved << 4 | opcode
    mask = 0x80 if masked else 0
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, mask | length)
    elif length < 65_536:
        head = struct.pack("!BBH", first, mask | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask | 127, length)
    return head + (bytes(4) if masked else b"") + payload


def upgrade(path: str = "/ws", *, version: str = "1.1", host: str = "localhost", **headers: str) -> bytes:
    """The head of an opening handshake; header names with `_` for `-`, None-like empty values leave a header out."""
    named = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"GET {path} HTTP/{version}", *(f"{name}: {value}" for name, value in named.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True)
class Head:
    """The head of an HTTP answer, its header names in lower case."""

    status: int
    headers: dict[str, str]


class Raw:
    """One TCP connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._read = bytearray()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> Head:
        """The next head of an answer."""
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            await self._more()
        first, *lines = (await self.take(end + 4)).decode().strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return Head(int(first.split()[1]), {name.lower(): value for name, value in pairs})

    async def answer(self) -> tuple[Head, bytes]:
        """The next answer, body and all."""
        head = await self.head()
        return head, await self.take(int(head.headers.get("content-length", "0")))

    async def frame(self) -> tuple[int, bytes]:
        """The server's next frame: opcode and payload. Servers' frames are whole and unmasked."""
        first, length = await self.take(2)
        assert first & 0xF0 == 0x80
        assert not length & 0x80
        if length >= 126:
            length = int.from_bytes(await self.take(2 if length == 126 else 8), "big")
        return first & 0x0F, await self.take(length)

    async def text(self) -> bytes:
        """The payload of the server's next frame, which is text."""
        opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload

    async def until_close(self) -> tuple[int, list[bytes]]:
        """Read until the server's close frame: its code, and the texts that came before it."""
        texts: list[bytes] = []
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), texts
            if opcode == TEXT:
                texts.append(payload)

    async def close_code(self) -> int:
        """The code of the server's close frame, which we answer, and after which it ends the connection."""
        code, _ = await self.until_close()
        with suppress(trio.BrokenResourceError):
            await self.send(frame(CLOSE, code.to_bytes(2, "big")))
        assert await self.rest() == b""
        return code

    async def rest(self) -> bytes:
        """Everything until the server ends the connection; a reset is an end, too."""
        try:
            while True:
                await self._more()
        except (EOFError, trio.BrokenResourceError):
            return bytes(self._read)

    async def take(self, length: int) -> bytes:
        while len(self._read) < length:
            await self._more()
        taken = bytes(self._read[:length])
        del self._read[:length]
        return taken

    def reset(self) -> None:
        """End the connection by a reset, as a crashed machine does."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def _more(self) -> None:
        with trio.fail_after(PATIENCE):
            data = await self.stream.receive_some(262_144)
        if not data:
            raise EOFError("the server has ended the connection")
        self._read += data


@asynccontextmanager
async def dial(broker: Broker, *, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    """A TCP connection to the broker; with a small `receive_buffer` less of what is not read hides in the kernel."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    with sock:
        await sock.connect(("127.0.0.1", broker.port))
        yield Raw(trio.SocketStream(sock))


@asynccontextmanager
async def raw_websocket(
    broker: Broker, user: str = "mallory", *patterns: str, receive_buffer: int | None = None
) -> AsyncIterator[Raw]:
    """A WebSocket in our own hands, handshake done, subscribed to `patterns`."""
    async with dial(broker, receive_buffer=receive_buffer) as raw:
        await raw.send(upgrade(Authorization=f"Bearer {broker.token(user)}"))
        assert (await raw.head()).status == 101
        for pattern in patterns:
            await raw.send(frame(TEXT, b'{"event":"subscribe","data":"%b","id":1}' % pattern.encode()))
            assert b'"error"' not in await raw.text()
        yield raw
