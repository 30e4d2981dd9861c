"""Connections to a broker that may be killed at any moment, also in the midst of a handshake or of an answer."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from urllib.parse import urlencode

import h11
import trio
import wsproto
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage

CUT = 1006  # RFC 6455: there was no close frame
TOO_SLOW = 4008
_CODES = {"too_slow": TOO_SLOW}
_CHUNK = 16_384


class Gone(Exception):
    """The connection has ended, with this close code."""

    def __init__(self, code: int = CUT) -> None:
        super().__init__(code)
        self.code = code


class HttpLine:
    """A connection for requests, kept alive, and made anew when it has broken; `async with` ends it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hang_up()

    async def send(self, body: bytes, content_type: str, token: str) -> None:
        """Send off a `POST /events`.

        Raises Gone.
        """
        headers = {"Host": "broker", "Content-Type": content_type, "Content-Length": f"{len(body)}"}
        head = h11.Request(
            method="POST", target="/events", headers=[*headers.items(), ("Authorization", f"Bearer {token}")]
        )
        async with self._breaking():
            if self._stream is None:
                self._stream = await dial(self._port)
                self._http = h11.Connection(h11.CLIENT)
            parts = (head, h11.Data(data=body), h11.EndOfMessage())
            await self._stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))

    async def ids(self) -> Sequence[str]:
        """The answer.

        Raises Gone if it does not come as a whole.
        """
        status, body = 0, b""
        async with self._breaking():
            while not isinstance(event := await self._event(), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
        assert status == 202, (status, body)
        self._http.start_next_cycle()
        ids: Sequence[str] = json.loads(body)["ids"]
        return ids

    async def _event(self) -> object:
        assert self._stream is not None, "nothing was sent"
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._stream.receive_some(_CHUNK))
        if isinstance(event, h11.ConnectionClosed):
            raise Gone
        return event

    @asynccontextmanager
    async def _breaking(self) -> AsyncIterator[None]:
        try:
            with broken_is_gone():
                yield
        except Gone:
            await self._hang_up()
            raise

    async def _hang_up(self) -> None:
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
            self._stream = None


class WebSocketLine:
    """A WebSocket; `websocket()` opens one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._text = ""
        self._messages: deque[str] = deque()
        self._code: int | None = None

    async def greet(self, token: str) -> None:
        """Open it.

        Raises Gone.
        """
        headers = [(b"authorization", f"Bearer {token}".encode())]
        await self._send(Request(host="127.0.0.1", target="/ws", extra_headers=headers))
        assert isinstance(event := await self._first_event(), AcceptConnection), event

    async def command(self, event: str, data: object = None, **more: object) -> None:
        """Raises Gone."""
        await self._send(TextMessage(json.dumps({"event": event, "data": data, **more})))

    async def frame(self) -> dict[str, Any]:
        """Wait for the next frame.

        Raises Gone.
        """
        while not self._messages:
            if self._code is not None:
                raise Gone(self._code)
            await self._take(await self._events())
        frame: dict[str, Any] = json.loads(self._messages.popleft())
        return frame

    async def _first_event(self) -> Event:
        while not (events := await self._events()):
            pass
        await self._take(events[1:])
        return events[0]

    async def _events(self) -> list[Event]:
        with broken_is_gone():
            data = await self._stream.receive_some(_CHUNK)
        if not data:
            raise Gone
        self._protocol.receive_data(data)
        return [*self._protocol.events()]

    async def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    self._messages.append(self._text)
                    self._text = ""
            elif isinstance(event, Ping):
                await self._send(event.response())
            else:
                assert isinstance(event, CloseConnection), event
                self._code = event.code

    async def _send(self, event: Event) -> None:
        with broken_is_gone():
            await self._stream.send_all(self._protocol.send(event))


@asynccontextmanager
async def websocket(port: int, token: str, *, receive_buffer: int | None = None) -> AsyncIterator[WebSocketLine]:
    """A WebSocket that is cut in the end, without a goodbye.

    Raises Gone.
    """
    stream = await dial(port, receive_buffer)
    try:
        line = WebSocketLine(stream)
        await line.greet(token)
        yield line
    finally:
        await trio.aclose_forcefully(stream)


class ServerSentLine:
    """A response that does not end; `server_sent()` asks for one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._text = b""

    async def ask(self, target: str, **headers: str) -> None:
        """Raises Gone."""
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        request = h11.Request(method="GET", target=target, headers=[("Host", "broker"), *named])
        with broken_is_gone():
            await self._stream.send_all(self._http.send(request) or b"")
            self._http.send(h11.EndOfMessage())
        response = await self._event()
        assert isinstance(response, h11.Response), response
        assert response.status_code == 200, response

    async def frame(self) -> dict[str, Any]:
        """Wait for what comes next, in the form that it has over a WebSocket.

        Raises Gone.
        """
        while True:
            while b"\n\n" not in self._text:
                await self._more()
            block, _, self._text = self._text.partition(b"\n\n")
            fields = dict(line.decode().split(": ", 1) for line in block.splitlines() if not line.startswith(b":"))
            event_id, data = fields.get("id"), json.loads(fields.get("data", "null"))
            if data is None and event_id is not None:
                return {"data": {"id": event_id}}
            if data is not None and "code" in data:
                raise Gone(_CODES.get(data["code"], data["code"]))
            if data is not None:
                return {**data, "id": event_id}

    async def _more(self) -> None:
        event = await self._event()
        if not isinstance(event, h11.Data):
            raise Gone
        self._text += event.data

    async def _event(self) -> object:
        with broken_is_gone():
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some(_CHUNK))
        return event


@asynccontextmanager
async def server_sent(
    port: int, token: str, patterns: Sequence[str], place: str | None
) -> AsyncIterator[ServerSentLine]:
    """Server-sent events after `place`; cut in the end.

    Raises Gone.
    """
    stream = await dial(port)
    try:
        line = ServerSentLine(stream)
        back = {} if place is None else {"Last_Event_ID": place}
        query = urlencode([("pattern", pattern) for pattern in patterns])
        await line.ask(f"/events?{query}", Authorization=f"Bearer {token}", **back)
        yield line
    finally:
        await trio.aclose_forcefully(stream)


async def dial(port: int, receive_buffer: int | None = None) -> trio.SocketStream:
    """Connect; `receive_buffer` bounds what waits unread in the kernel.

    Raises Gone.
    """
    plain = trio.socket.socket()
    try:
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        with broken_is_gone():
            await plain.connect(("127.0.0.1", port))
    except BaseException:
        plain.close()
        raise
    return trio.SocketStream(plain)


@contextmanager
def broken_is_gone() -> Iterator[None]:
    """Whatever tells that the other end is no more comes out as Gone."""
    try:
        yield
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise Gone from error
