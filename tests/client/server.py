"""A broker at the other end of a stream in memory: it has answered before the client waits. No task, no socket.

It speaks WebSocket by wsproto's server side, and does what the model of the broker does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import trio
from trio.testing import MemoryReceiveStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

from broker.client.address import Address
from tests.client.model import ModelBroker, ModelConnection


class Refusal:
    """Another answer to the handshake than a WebSocket."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        self.status = status
        self.body = body


class Closing:
    """A WebSocket that is closed as soon as it is open."""

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason


Welcome: TypeAlias = Refusal | Closing | bytes | Exception | None


class FakeBroker:
    """Whoever connects, connects to this.

    welcomes: for each connection in turn what becomes of it: an error instead of a stream, bytes instead of HTTP (and
    none for a server that says nothing), a refusal, a close frame; None and the end of the list: it is served.
    pieces: bytes that the client reads at a time, at most.
    """

    def __init__(self) -> None:
        self.pieces = 1_000_000
        self.model = ModelBroker()
        self.welcomes: list[Welcome] = []
        self.connections: list[Connection] = []
        self.times: list[float] = []  # of the attempts

    async def open_stream(self, address: Address, tls: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        welcome = self.welcomes.pop(0) if self.welcomes else None
        if isinstance(welcome, Exception):
            raise welcome
        connection = Connection(self.model, welcome, self.pieces)
        self.connections.append(connection)
        return connection

    @property
    def connection(self) -> Connection:
        """The latest one."""
        return self.connections[-1]

    def publish(self, *names: str) -> None:
        for name in names:
            self.model.publish(name)
        for connection in self.connections:
            connection.flush()

    def heard(self) -> list[Sequence[tuple[str, object]]]:
        """What each connection that was served has heard, but for ids."""
        return [
            [(command["event"], command["data"]) for command in connection.model.heard]
            for connection in self.connections
            if connection.model is not None
        ]


class Connection(trio.abc.Stream):
    """The client's stream.

    deaf: commands are taken and not carried out. mute: nothing is said any more. stuck: writes to it never end.
    """

    def __init__(self, model: ModelBroker, welcome: Welcome, pieces: int) -> None:
        self._pieces = pieces
        self.model: ModelConnection | None = None
        self.request: Request | None = None
        self.closed_with: tuple[int, str] | None = None  # by the client
        self.closed = False
        self.deaf = False
        self.mute = False
        self.stuck = False
        self.messages: list[str] = []
        self.read = 0  # bytes that the client took
        self.pings = 0
        self.pongs = 0
        self._broker = model
        self._welcome = welcome
        self._websocket = WSConnection(ConnectionType.SERVER)
        self._said = MemoryReceiveStream()
        self._broken = False
        self._cut = False

    # -- what the broker does

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        assert self.request is not None
        return {name.lower(): value for name, value in self.request.extra_headers}

    def say(self, event: Event) -> None:
        data = self._websocket.send(event)
        self.say_bytes(data)

    def say_text(self, text: str, *, finished: bool = True) -> None:
        self.say(TextMessage(data=text, message_finished=finished))

    def say_binary(self, data: bytes, *, finished: bool = True) -> None:
        self.say(BytesMessage(data=data, message_finished=finished))

    def say_bytes(self, data: bytes) -> None:
        if not (self.closed or self.mute):
            self._said.put_data(data)

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, and go."""
        self.say(CloseConnection(code=code, reason=reason))
        self._go()

    def hang_up(self) -> None:
        """Go without a word."""
        self._said.put_eof()
        self._go()

    def reset(self) -> None:
        """The connection breaks."""
        self._broken = True
        self.hang_up()

    def flush(self) -> None:
        """Send what the model has said."""
        while self.model is not None and (self.model.sent or self.model.go_on()):
            if self.model.sent:
                self.say_text(self.model.sent.pop(0))

    # -- the client's stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # As for a socket: the first bytes go before anybody else has a turn, and a cancellation can't undo that.
        await trio.lowlevel.checkpoint_if_cancelled()
        assert not self._cut, "something is written behind a write that was cut short"
        self._cut = True
        if self.stuck:
            await trio.sleep_forever()
        if self._broken or self.closed:
            raise trio.BrokenResourceError
        self._hear(bytes(data))
        self._cut = False
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.closed:
            raise trio.ClosedResourceError
        data = await self._said.receive_some(min(max_bytes or self._pieces, self._pieces))
        if self._broken:
            raise trio.BrokenResourceError
        self.read += len(data)
        return data

    async def aclose(self) -> None:
        self.closed = True
        self._said.close()
        self._go()
        await trio.lowlevel.checkpoint()

    # -- inside

    def _go(self) -> None:
        if self.model is not None and self.model in self._broker.connections:
            self.model.close()

    def _hear(self, data: bytes) -> None:
        if isinstance(self._welcome, bytes):
            if self._welcome:
                self.say_bytes(self._welcome)
                self._said.put_eof()
            return
        self._websocket.receive_data(data)
        for event in self._websocket.events():
            self._handle(event)
        self.flush()

    def _handle(self, event: Event) -> None:
        match event:
            case Request():
                self.request = event
                self._answer_handshake()
            case Message(data=data) if self.model is not None:
                self.messages.append(str(data))
                if not self.deaf:
                    self.model.hear(str(data))
            case Ping():
                self.pings += 1
                self.say(event.response())
            case Pong():
                self.pongs += 1
            case CloseConnection(code=code, reason=reason):
                self.closed_with = (code, reason or "")
                with suppress(LocalProtocolError):  # where it was the answer to ours
                    self.say(event.response())
                if not self.mute:
                    self._said.put_eof()
                self._go()

    def _answer_handshake(self) -> None:
        if isinstance(self._welcome, Refusal):
            headers = [(b"content-length", str(len(self._welcome.body)).encode())]
            self.say(RejectConnection(status_code=self._welcome.status, headers=headers, has_body=True))
            self.say(RejectData(data=self._welcome.body))
            return
        self.say(AcceptConnection())
        if isinstance(self._welcome, Closing):
            self.close(self._welcome.code, self._welcome.reason)
        else:
            self.model = self._broker.open()
