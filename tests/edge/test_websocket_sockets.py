"""WebSocket on real sockets: events go straight to them, and never to whoever has the descriptor's number later."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import pytest
import trio
from trio.socket import from_stdlib_socket as from_stdlib
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from broker.core.delivery import Delivery, Joined
from broker.core.errors import Close
from broker.core.event import Event, Record
from broker.core.forms import PLAIN
from broker.core.frames import PING
from broker.core.ports import Identity
from broker.edge.front import Front, FrontSettings
from broker.edge.websocket import Handshake, converse
from broker.runtime.connection import Connection
from broker.runtime.outbox import WRITE_TIMEOUT, QueueLimits
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits
from tests.edge.streams import client_frame, read_answer, read_frame, read_to_end
from tests.fakes import CLOSE, TEXT, services
from tests.runtime.sockets import memory, send_now
from tests.system.certificates import Certificates

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
) % KEY
GOODBYE = client_frame(CLOSE, (1000).to_bytes(2, "big"))


Pair = Callable[[], tuple[trio.SocketStream, trio.SocketStream]]


def delivery(data: bytes = b"1") -> Delivery:
    return Delivery(Record(Event("a", data), "1", 1))


def connection(queue: QueueLimits | None = None) -> Connection:
    limits = ConnectionLimits(queue=queue or QueueLimits())
    return Connection(Identity("ada"), services(Registry(max_per_user=1)), limits)


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    client, server = trio.socket.socketpair()
    return trio.SocketStream(client), trio.SocketStream(server)


def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return trio.SocketStream(from_stdlib(client)), trio.SocketStream(from_stdlib(server))


@asynccontextmanager
async def conversing(party: Connection, client: trio.abc.Stream, server: trio.abc.Stream) -> AsyncIterator[None]:
    """Between the answer to the handshake and the client's goodbye, with a writer that has nothing to do at first."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, Handshake(KEY), party, 1000, server)
        assert (await read_answer(client)).status == 101
        await wait_all_tasks_blocked()
        yield
        await client.send_all(GOODBYE)
    await client.aclose()
    await trio.aclose_forcefully(server)


# Which way events go.


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
async def test_on_a_socket_events_go_straight(pair: Pair, shared: bool) -> None:
    client, server = pair()
    party = connection()
    with memory(used=shared) as file:
        async with conversing(party, client, server):
            events = Joined([delivery(b"1"), delivery(b"2")], PLAIN)
            assert send_now(party.outbox, events, file) == 2
            assert os.read(client.socket.fileno(), 1000) == events.data  # there already, and nobody else has run


async def test_commands_are_answered_between_events_that_go_straight() -> None:
    client, server = socket_pair()
    party = connection()
    async with conversing(party, client, server):
        for number in range(3):
            send_now(party.outbox, Joined([delivery()], PLAIN))
            command = json.dumps({"event": "subscribe", "data": "a", "id": number}).encode()
            await client.send_all(client_frame(TEXT, command))
            assert await read_frame(client) == (TEXT, b'{"event":"a","data":1}')
            assert json.loads((await read_frame(client))[1])["reply"] == number


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("tls") / "certificates")
    made.make("client")
    return made


def tls_pair(certificates: Certificates) -> tuple[trio.SSLStream[trio.SocketStream], trio.SSLStream[trio.SocketStream]]:
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificates.server, certificates.server_key)
    of_client = ssl.create_default_context(cafile=certificates.ca)
    client, server = socket_pair()
    return (
        trio.SSLStream(client, of_client, server_hostname="localhost"),
        trio.SSLStream(server, of_server, server_side=True),
    )


async def test_over_tls_events_go_by_the_writer_and_no_byte_goes_beside_it(certificates: Certificates) -> None:
    client, server = tls_pair(certificates)
    party = connection()
    async with conversing(party, client, server):
        assert send_now(party.outbox, Joined([delivery()], PLAIN)) == 0
        with pytest.raises(BlockingIOError):
            os.read(client.transport_stream.socket.fileno(), 1000)
        party.offer(delivery())
        assert await read_frame(client) == (TEXT, b'{"event":"a","data":1}')


async def test_on_any_other_stream_events_go_by_the_writer() -> None:
    client, server = memory_stream_pair()
    party = connection()
    async with conversing(party, client, server):
        assert send_now(party.outbox, Joined([delivery()], PLAIN)) == 0
        party.offer(delivery())
        assert await read_frame(client) == (TEXT, b'{"event":"a","data":1}')


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@pytest.mark.parametrize("size", [10, 1_000, 10_000, 100_000])
async def test_frames_are_whole_and_in_order_however_little_the_socket_takes(
    size: int, pair: Pair, shared: bool
) -> None:
    client, server = pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    party = connection(QueueLimits(frames=1_000, bytes=10_000_000))
    taken = []
    with memory(used=shared) as file:
        async with conversing(party, client, server):
            events = [delivery(b'[%d, "%b"]' % (number, b"x" * size)) for number in range(60)]
            for begin in range(0, len(events), 3):
                part = Joined(events[begin : begin + 3], PLAIN)
                taken.append(send_now(party.outbox, part, file))
                for event in part.deliveries[taken[-1] :]:
                    party.offer(event)
                await trio.lowlevel.checkpoint()
            expected = b"".join(event.encoded() for event in events)
            got = bytearray()
            while len(got) < len(expected):
                got += await client.receive_some()
            assert got == expected
    assert taken[0] > 0
    assert size < 1_000 or min(taken) == 0


# The descriptor's number, when it is somebody else's.


class Anybody:
    """Serves without users."""

    def identify(self, token: str | None) -> Identity:
        return Identity()

    def publisher(self, token: str | None) -> Identity:
        raise NotImplementedError


class Served:
    """A front end's WebSocket; once it has closed its socket, the descriptor's number is another socket's at once."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.client, self._server = socket_pair()
        self._other, self._other_end = socket.socketpair()
        self._descriptor = self._server.socket.fileno()
        self._registry: Registry[Connection] = Registry(max_per_user=1)
        self._front = Front(FrontSettings(), services(self._registry, Anybody()), [])
        self.scope = trio.CancelScope()

    async def serve(self) -> None:
        setattr(self._server, "aclose", self._close)  # noqa: B010 - its class is final, and mypy knows methods
        with self.scope:
            await self._front.serve(self._server)

    async def open(self) -> Connection:
        await self.client.send_all(UPGRADE)
        assert (await read_answer(self.client)).status == 101
        await wait_all_tasks_blocked()
        return next(iter(self._registry))

    def what_the_other_got(self) -> bytes:
        assert os.fstat(self._descriptor).st_ino == os.fstat(self._other.fileno()).st_ino
        os.close(self._descriptor)
        self._other.close()
        with closing(self._other_end):
            return b"".join(iter(lambda: self._other_end.recv(1000), b""))

    async def _close(self) -> None:
        self._server.socket.close()
        os.dup2(self._other.fileno(), self._descriptor)
        await trio.lowlevel.checkpoint()


async def goodbye(served: Served, party: Connection) -> None:
    await served.client.send_all(GOODBYE)
    await read_to_end(served.client)


async def vanish(served: Served, party: Connection) -> None:
    await served.client.aclose()


async def be_sent_away(served: Served, party: Connection) -> None:
    party.close(Close.DISCONNECTED)
    await served.client.send_all(client_frame(CLOSE, (4004).to_bytes(2, "big")))
    await read_to_end(served.client)


async def be_cancelled(served: Served, party: Connection) -> None:
    await trio.lowlevel.checkpoint()
    served.scope.cancel()


async def get_stuck(served: Served, party: Connection) -> None:
    party.offer(delivery(b"1" * 1_000_000))
    while not party.outbox.broken:  # until that is written, which will not be
        await trio.lowlevel.checkpoint()
    served.clock.jump(WRITE_TIMEOUT + 1)


async def fail_to_speak(served: Served, party: Connection) -> None:
    await served.client.send_all(b"\xff" * 20)
    await read_to_end(served.client)


WAYS_TO_END: list[Callable[[Served, Connection], Awaitable[None]]] = [
    goodbye,
    vanish,
    be_sent_away,
    be_cancelled,
    get_stuck,
    fail_to_speak,
]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("end", WAYS_TO_END)
async def test_nothing_is_written_to_a_descriptor_whose_connection_has_ended(
    end: Callable[[Served, Connection], Awaitable[None]], shared: bool, mock_clock: MockClock
) -> None:
    served = Served(mock_clock)
    straight: list[int] = []

    async def insist(party: Connection, ended: trio.Event) -> None:
        """Say something whenever there is a turn, and for a while after the end."""
        turns = 10
        while turns:
            straight.append(send_now(party.outbox, Joined([delivery()], PLAIN), file))
            party.outbox.control(PING)
            party.outbox.answer(b"\x81\x00")
            turns -= ended.is_set()
            await trio.lowlevel.checkpoint()

    ended = trio.Event()
    with memory(used=shared) as file:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await served.serve()
                ended.set()

            nursery.start_soon(serve)
            party = await served.open()
            nursery.start_soon(insist, party, ended)
            while not straight:
                await trio.lowlevel.checkpoint()
            await end(served, party)
            await served.client.aclose()
    assert sum(straight) > 0
    assert served.what_the_other_got() == b""
