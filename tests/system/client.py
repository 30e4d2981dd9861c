"""A well-behaved client, on trio-websocket, and a healthy subscriber that watches over the others' misbehaviour."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.system.harness import PATIENCE, Broker, unique

LATE = 8.0  # seconds after which an event counts as held up; ordinarily it takes milliseconds
_PACE = 0.005


class Client:
    """One WebSocket connection that keeps to the protocol."""

    def __init__(self, socket: WebSocketConnection, broker: Broker) -> None:
        self.socket = socket
        self._broker = broker
        self._kept: list[dict[str, Any]] = []

    async def send(self, message: str | bytes) -> None:
        await self.socket.send_message(message)

    async def command(self, event: str, data: object = None, **more: object) -> None:
        await self.send(json.dumps({"event": event, "data": data, **more}))

    async def ask(self, event: str, data: object = None) -> dict[str, Any]:
        """Send a command with an id, and return its answer; events that come before it are kept for later."""
        command_id = unique("ask")
        await self.command(event, data, id=command_id)
        while (frame := await self._receive()).get("reply") != command_id:
            self._kept.append(frame)
        return frame

    async def subscribe(self, *patterns: str) -> None:
        for pattern in patterns:
            answer = await self.ask("subscribe", pattern)
            assert "error" not in answer, answer

    async def unsubscribe(self, *patterns: str) -> None:
        for pattern in patterns:
            answer = await self.ask("unsubscribe", pattern)
            assert "error" not in answer, answer

    async def frame(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The next frame of any kind."""
        return self._kept.pop(0) if self._kept else await self._receive(patience)

    async def events(self) -> list[dict[str, Any]]:
        """All that came for what was published up to now: an event of our own, visible to everybody, marks the end."""
        mark = f"users.{unique('mark')}.online"
        await self.subscribe(mark)
        await trio.to_thread.run_sync(self._broker.publish, mark)
        received = []
        while (frame := await self.frame()).get("event") != mark:
            received.append(frame)
        await self.unsubscribe(mark)
        return received

    async def names(self) -> list[str]:
        """The names of `events()`."""
        return [event["event"] for event in await self.events()]

    async def closed(self) -> int:
        """Wait for the end of the connection; its code."""
        with pytest.raises(ConnectionClosed) as ended:
            await self._receive_all()
        reason = ended.value.reason
        assert reason is not None, "the connection ended without a close frame"
        return int(reason.code)

    async def _receive_all(self) -> None:
        while True:
            await self._receive()

    async def _receive(self, patience: float = PATIENCE) -> dict[str, Any]:
        with trio.fail_after(patience):
            message: dict[str, Any] = json.loads(await self.socket.get_message())
        return message


@asynccontextmanager
async def connected(
    broker: Broker,
    user: str | None = None,
    *,
    token: str | None = None,
    query: str = "",
    subprotocols: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
    **claims: object,
) -> AsyncIterator[Client]:
    """A client of the broker: with a token for `user`, with `token`, or with none. In the end it says goodbye."""
    if user is not None:
        token = broker.token(user, **claims)
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    plain = await trio.open_tcp_stream("127.0.0.1", broker.port)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = plain
    if tls is not None:
        stream = trio.SSLStream(plain, tls, server_hostname="127.0.0.1", https_compatible=True)
    # The library alone leaves the socket open where the server ends the connection.
    try:
        async with trio.open_nursery() as nursery:
            socket = await wrap_client_stream(
                nursery, stream, "127.0.0.1", f"/ws{query}", subprotocols=subprotocols, extra_headers=headers
            )
            yield Client(socket, broker)
            await socket.aclose()
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def steady_flow(broker: Broker) -> AsyncIterator[None]:
    """A healthy subscriber beside whatever happens in the block: it gets every event, in order, and none late."""
    name = f"users.{unique('flow')}.online"
    received: list[int] = []
    delays: list[float] = []
    stop = trio.Event()

    async def publish(task_status: trio.TaskStatus[None]) -> int:
        publisher = _Publisher(broker, name)
        number = 0
        while number < 20 or not stop.is_set():
            await trio.to_thread.run_sync(publisher.publish, number)
            number += 1
            if number == 5:
                task_status.started()
            await trio.sleep(_PACE)
        publisher.close()
        return number

    async def flow(client: Client, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, client, nursery.cancel_scope)
            published = await publish(task_status)
            with trio.fail_after(PATIENCE):
                while len(received) < published:
                    await trio.sleep(_PACE)
            nursery.cancel_scope.cancel()
        assert received == list(range(published)), f"of {published} events {len(received)} came: {received}"
        assert max(delays) < LATE, f"an event came after {max(delays):.1f} seconds"

    async def listen(client: Client, _scope: trio.CancelScope) -> None:
        while True:
            data = (await client.frame())["data"]
            received.append(data["number"])
            delays.append(time.monotonic() - data["at"])

    async with connected(broker, unique("healthy")) as client:
        await client.subscribe(name)
        async with trio.open_nursery() as nursery:
            await nursery.start(flow, client)
            yield
            stop.set()


class _Publisher:
    """Publishes on one connection that is kept alive."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=PATIENCE)
        self._headers = {
            "Authorization": f"Bearer {broker.token(publish=['**'])}",
            "Content-Type": "application/json",
        }
        self._name = name

    def publish(self, number: int) -> None:
        body = json.dumps({"event": self._name, "data": {"number": number, "at": time.monotonic()}})
        self._connection.request("POST", "/events", body, self._headers)
        response = self._connection.getresponse()
        assert response.status == 202, response.read()
        response.read()

    def close(self) -> None:
        self._connection.close()
