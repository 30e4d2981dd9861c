"""A broker that says only what a test tells it to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

Frame = dict[str, Any]


class Visit:
    """One connection of the client's, as the broker sees it."""

    def __init__(self, stream: trio.SocketStream, socket: WebSocketConnection, target: str) -> None:
        self._stream = stream
        self._socket = socket
        self.path = urlsplit(target).path
        self.query = parse_qs(urlsplit(target).query)

    async def receive(self) -> Frame:
        frame: Frame = json.loads(await self._socket.get_message())
        return frame

    async def expect(self, event: str, data: object) -> int:
        """Wait for a command, which has to be this one; its id."""
        frame = await self.receive()
        number: int = frame.pop("id")
        assert frame == {"event": event, "data": data}
        return number

    async def ended(self) -> int:
        """Wait for the client to end the connection; nothing may come before. The close code."""
        with pytest.raises(ConnectionClosed) as ended:
            raise AssertionError(f"the client says {await self._socket.get_message()!r}")
        assert ended.value.reason is not None
        return int(ended.value.reason.code)

    async def say(self, message: str | bytes) -> None:
        await self._socket.send_message(message)

    async def reply(self, number: int, data: object) -> None:
        await self.say(json.dumps({"reply": number, "data": data}))

    async def refuse(self, number: int, code: str) -> None:
        await self.say(json.dumps({"reply": number, "error": f"there is {code}", "code": code}))

    async def event(self, name: str, place: str | None, data: object = None) -> None:
        placed = {} if place is None else {"id": place}
        await self.say(json.dumps({"event": name, "data": data, **placed}))

    async def welcome(self, position: str, since: str | None = None) -> None:
        """Answer the client's `resume`, which has to be from this place."""
        await self.reply(await self.expect("resume", since), {"id": position})

    async def confirm(self, *patterns: str) -> None:
        """Answer the client's `subscribe`s, which have to be these."""
        for pattern in patterns:
            await self.reply(await self.expect("subscribe", pattern), {"pattern": pattern})

    async def close(self, code: int, reason: str = "") -> None:
        with trio.move_on_after(5):
            await self._socket.aclose(code, reason)
        await trio.aclose_forcefully(self._stream)

    async def vanish(self) -> None:
        """End without a word, as a broken network would."""
        await trio.aclose_forcefully(self._stream)


class FakeBroker:
    """Takes connections; each waits until the test asks for it."""

    def __init__(self, nursery: trio.Nursery, listener: trio.SocketListener) -> None:
        self._nursery = nursery
        self._streams: list[trio.SocketStream] = []
        self._coming, self._waiting = trio.open_memory_channel[trio.SocketStream](100)
        host, port = listener.socket.getsockname()
        self.url = f"http://{host}:{port}"
        nursery.start_soon(self._accept, listener)

    async def stream(self) -> trio.SocketStream:
        """The next connection, with nothing said on it yet."""
        return await self._waiting.receive()

    async def visit(self) -> Visit:
        """The next connection, when the client has its WebSocket."""
        stream = await self.stream()
        request = await wrap_server_stream(self._nursery, stream)
        return Visit(stream, await request.accept(), request.path)

    async def reject(self, status: int) -> None:
        """Answer the next handshake with an HTTP status."""
        stream = await self.stream()
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 %d Some Reason\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        await stream.aclose()

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener:
            while True:
                stream = await listener.accept()
                self._streams.append(stream)
                await self._coming.send(stream)

    def close(self) -> None:
        """Close every connection there was, at once."""
        for stream in self._streams:
            stream.socket.close()


@asynccontextmanager
async def open_fake_broker() -> AsyncIterator[FakeBroker]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with AsyncExitStack() as after, trio.open_nursery() as nursery:
        broker = FakeBroker(nursery, listener)
        after.callback(broker.close)  # when nobody accepts any more: else the last one is missed
        yield broker
        nursery.cancel_scope.cancel()
