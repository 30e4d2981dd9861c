"""RabbitMQ as a table of answers, at the other end of a stream in memory: it has answered before the client waits.

Whatever is not in the table is heard and not answered, so that a test says when and what the answer is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import trio
from pamqp import frame as pamqp_frame
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes
from pamqp.header import ContentHeader, ProtocolHeader
from trio.testing import MemoryReceiveStream

from connectors.amqp.codec import Basic, Confirm, Connection, Exchange, Method, Queue
from connectors.amqp.codec import Channel as ChannelMethods
from connectors.amqp.connection import Connection as Client
from connectors.amqp.connection import open_connection
from connectors.amqp.url import Address, parse_url

Answer = Callable[[Any], FrameTypes | None]
M = TypeVar("M")

ADDRESS = parse_url("amqp://ada:hunter2@mq/games")

GOOD_MANNERS: dict[type[FrameTypes], Answer] = {
    ProtocolHeader: lambda _: Connection.Start(mechanisms="PLAIN AMQPLAIN"),
    Connection.StartOk: lambda _: Connection.Tune(2047, 131_072, 60),
    Connection.Open: lambda _: Connection.OpenOk(),
    Connection.Close: lambda _: Connection.CloseOk(),
    ChannelMethods.Open: lambda _: ChannelMethods.OpenOk(),
    ChannelMethods.Close: lambda _: ChannelMethods.CloseOk(),
    Exchange.Declare: lambda _: Exchange.DeclareOk(),
    Queue.Declare: lambda _asked: Queue.DeclareOk("q", 3, 0),
    Queue.Bind: lambda _: Queue.BindOk(),
    Basic.Qos: lambda _: Basic.QosOk(),
    Basic.Consume: lambda asked: Basic.ConsumeOk(asked.consumer_tag),
    Confirm.Select: lambda _: Confirm.SelectOk(),
}


def refusing(code: int, text: str) -> Answer:
    """The channel is closed in answer."""
    return lambda _: ChannelMethods.Close(code, text, 0, 0)


class Server(trio.abc.Stream):
    """The client's stream; what it writes, RabbitMQ hears, and what RabbitMQ says, it reads.

    answers: what is said at once to which method. room: how many more bytes are taken before a write blocks, as that of
    a socket does whose peer does not read. deaf: writing fails. pieces: bytes that are taken or given
    at a time.
    """

    def __init__(self) -> None:
        self.answers = dict(GOOD_MANNERS)
        self.heard: list[tuple[int, FrameTypes]] = []
        self.half_a_frame = b""
        self.room = math.inf
        self.deaf = False
        self.pieces: int | None = None
        self.cut = False
        self.closed = False
        self._broken = False
        self._has_room = trio.Event()
        self._said = MemoryReceiveStream()

    # -- what RabbitMQ does

    def say(self, number: int, *frames: FrameTypes) -> None:
        """Frames on one channel, in one go."""
        self.say_bytes(b"".join(pamqp_frame.marshal(frame, number) for frame in frames))

    def say_bytes(self, data: bytes) -> None:
        if not self.closed:
            self._said.put_data(data)

    def deliver(self, *tags: int, body: bytes = b"{}", properties: Basic.Properties | None = None) -> None:
        """Messages to the first consumer of channel 1."""
        for tag in tags:
            self.say(1, *message(Basic.Deliver("broker.1", tag, False, "events", "a.b"), body, properties))

    def hang_up(self) -> None:
        """The end of what it says."""
        self._said.put_eof()

    def reset(self) -> None:
        """The connection breaks, in both directions."""
        self._broken = True
        self._said.put_eof()

    def make_room(self) -> None:
        """From now on it takes all that comes."""
        self.room = math.inf
        self._has_room.set()

    def heard_of(self, kind: type[M]) -> list[M]:
        """All methods of one kind that it heard."""
        return [frame for _, frame in self.heard if isinstance(frame, kind)]

    def names(self) -> list[str]:
        """What it heard since the connection was open, by name."""
        names = [frame.name for _, frame in self.heard]
        return names[names.index("Connection.Open") + 1 :] if "Connection.Open" in names else names

    # -- the client's stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # As for a socket: the first bytes go before anybody else has a turn, and a cancellation can't undo that.
        await trio.lowlevel.checkpoint_if_cancelled()
        assert not self.cut, "something is written behind a write that was cut short"
        self.cut = True
        length = self.pieces or max(len(data), 1)
        for piece in [data[at : at + length] for at in range(0, len(data), length)]:
            if self._broken or self.deaf:
                raise trio.BrokenResourceError
            taken = bytes(piece) if len(piece) <= self.room else bytes(piece[: int(self.room)])
            self.room -= len(taken)
            self._hear(taken)
            if len(taken) < len(piece):
                self._has_room = trio.Event()
                await self._has_room.wait()
                self._hear(bytes(piece[len(taken) :]))
            if self.pieces:
                await trio.lowlevel.checkpoint()
        self.cut = False
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._said.receive_some(self.pieces or max_bytes)
        if self._broken:
            raise trio.BrokenResourceError
        return data

    async def aclose(self) -> None:
        self.closed = True
        self._said = MemoryReceiveStream()  # for the next connection, if there is one
        await trio.lowlevel.checkpoint()

    def _hear(self, data: bytes) -> None:
        """Pamqp raises for what is no frame."""
        self.half_a_frame += data
        while frame := _first_frame(self.half_a_frame):
            length, number, said = pamqp_frame.unmarshal(frame)
            assert length == len(frame)
            self.half_a_frame = self.half_a_frame[length:]
            self.heard.append((number, said))
            answer = self.answers.get(type(said), lambda _: None)(said)
            if answer is not None:
                self.say(number, answer)


def _first_frame(data: bytes) -> bytes:
    if data[:4] == b"AMQP":
        return data[:8] if len(data) >= 8 else b""
    length = 8 + int.from_bytes(data[3:7], "big")
    return data[:length] if len(data) >= max(length, 8) else b""


def message(method: Method, body: bytes, properties: Basic.Properties | None = None) -> list[FrameTypes]:
    """The frames of one message."""
    bodies = [ContentBody(body)] if body else []
    return [method, ContentHeader(body_size=len(body), properties=properties), *bodies]


class Nodes:
    """Who answers at which host: for each connection in turn a server, or an error; the last does for all others."""

    def __init__(self, hosts: dict[str, Iterable[Server | Exception]]) -> None:
        self._hosts = {host: list(servers) for host, servers in hosts.items()}
        self.asked: list[str] = []

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.asked.append(address.host)
        servers = self._hosts[address.host]
        found = servers.pop(0) if len(servers) > 1 else servers[0]
        if isinstance(found, Exception):
            raise found
        found.closed = False
        return found


def connected(address: Address = ADDRESS) -> AbstractAsyncContextManager[Client]:
    """A client's connection to whoever is at that address."""
    return open_connection(address, name="test")
