"""Compression on one connection: what is agreed on, that nothing is lost or changed, and how a fault ends it."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from broker.core.errors import AuthenticationError, Close, InvalidToken
from broker.core.forms import PLAIN, DeflatedForm
from broker.core.frames import MAX_FRAGMENTS, close_frame
from broker.core.ports import Identity
from broker.edge.front import Front, FrontSettings
from broker.edge.http import BadRequest
from broker.edge.websocket import Handshake, choose_extension, converse
from broker.runtime.connection import Connection
from broker.runtime.outbox import Outbox, QueueLimits
from broker.runtime.party import Ending, PeerGone, Receive
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits
from tests.edge.streams import Dribble, MemoryStream, Wrap, plain, read_answer, read_to_end
from tests.edge.test_websocket import upgrade
from tests.fakes import Tokens, services

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2 = 4, 2
MAX_MESSAGE = 65_536
EXTENSION = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

both_ways = pytest.mark.parametrize("wrap", [plain, Dribble], ids=["whole", "byte by byte"])


def packed(payload: bytes) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packing.compress(payload) + packing.flush(zlib.Z_SYNC_FLUSH))[:-4]


def client_frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0) -> bytes:
    """A frame as a client sends it, masked with zeros."""
    length = len(payload)
    said = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([(0x80 if final else 0) | reserved << 4 | opcode]) + said + bytes(4) + payload


def command(number: int = 1, pattern: str = "a") -> bytes:
    return json.dumps({"event": "subscribe", "data": pattern, "id": number}).encode()


# What is agreed on.


def test_a_client_without_offers_is_answered_without_them() -> None:
    assert choose_extension(upgrade()) is None


def test_an_offer_of_compression_is_found_among_others() -> None:
    offers = upgrade((b"sec-websocket-extensions", b"permessage-bzip2, permessage-deflate"))
    assert choose_extension(offers) == EXTENSION


def test_what_is_no_list_of_extensions_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        choose_extension(upgrade((b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits=\xff")))
    assert caught.value.status == 400


def request(*headers: str, token: str = "ada") -> bytes:
    lines = [
        f"GET /ws?token={token} HTTP/1.1",
        "Host: broker",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def front(threshold: int | None = 100) -> AsyncIterator[MemoryStream]:
    """A connection to a front end that knows `ada`."""
    known: dict[str, Identity | AuthenticationError] = {"ada": Identity("ada"), "eve": InvalidToken("no")}
    house = services(Registry(max_per_user=5), Tokens(known))
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Front(FrontSettings(compression_threshold=threshold), house, []).serve, server)
        yield client
        await client.aclose()


async def raw_frame(stream: trio.abc.ReceiveStream) -> tuple[int, bytes]:
    """First byte and payload of the next frame."""
    first, length = await stream.receive_some(1), (await stream.receive_some(1))[0]
    if length == 126:
        length = int.from_bytes(await stream.receive_some(1) + await stream.receive_some(1), "big")
    payload = b""
    while len(payload) < length:
        payload += await stream.receive_some(length - len(payload))
    return first[0], payload


async def test_an_offer_is_answered_and_what_is_long_comes_compressed() -> None:
    async with front() as client:
        await client.send_all(request(OFFER))
        assert (await read_answer(client)).headers["sec-websocket-extensions"] == EXTENSION
        for pattern, first in (("a", 0x81), ("a" * 200, 0xC1)):
            await client.send_all(client_frame(TEXT, packed(command(7, pattern)), reserved=RSV1))
            opcode, payload = await raw_frame(client)
            assert opcode == first
            said = zlib.decompressobj(-12).decompress(payload + b"\0\0\xff\xff") if first == 0xC1 else payload
            assert json.loads(said) == {"reply": 7, "data": {"pattern": pattern}}


async def test_offers_in_several_header_lines_are_read_in_order() -> None:
    async with front() as client:
        await client.send_all(
            request(
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9",
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=14",
                OFFER,
            )
        )
        answer = await read_answer(client)
        assert answer.headers["sec-websocket-extensions"] == f"{EXTENSION}; server_max_window_bits=12"


@pytest.mark.parametrize(
    ("threshold", "headers"),
    [(None, [OFFER]), (0, []), (0, ["Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9"])],
    ids=["compression is off", "nothing is offered", "the offer is declined"],
)
async def test_without_an_agreement_nothing_is_compressed(threshold: int | None, headers: list[str]) -> None:
    async with front(threshold) as client:
        await client.send_all(request(*headers))
        assert "sec-websocket-extensions" not in (await read_answer(client)).headers
        await client.send_all(client_frame(TEXT, command(1, "a" * 200)))
        first, payload = await raw_frame(client)
        assert (first, json.loads(payload)["reply"]) == (0x81, 1)
        await client.send_all(client_frame(TEXT, packed(command()), reserved=RSV1))
        first, payload = await raw_frame(client)
        assert (first, int.from_bytes(payload[:2], "big")) == (0x88, Close.PROTOCOL_ERROR)


async def test_an_offer_that_can_t_be_read_is_refused_where_there_is_compression_and_else_passed_over() -> None:
    for threshold, status in ((100, 400), (None, 101)):
        async with front(threshold) as client:
            await client.send_all(request("Sec-WebSocket-Extensions: permessage-deflate; =9"))
            assert (await read_answer(client)).status == status


async def test_who_is_refused_agrees_on_nothing() -> None:
    async with front() as client:
        await client.send_all(request(OFFER, token="eve"))
        assert "sec-websocket-extensions" not in (await read_answer(client)).headers
        assert (await raw_frame(client))[1][:2] == Close.INVALID_TOKEN.to_bytes(2, "big")


# Nothing is lost or changed.


class Echo:
    """A party that sends back what it gets."""

    id = 0

    def __init__(self, form: DeflatedForm) -> None:
        self.outbox = Outbox(QueueLimits(bytes=10_000_000))
        self._form = form

    def heard(self) -> None: ...

    def close(self, code: int, reason: str = "") -> None: ...

    async def run(self, receive: Receive) -> Ending:
        try:
            while True:
                message = await receive()
                opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
                self.outbox.answer(self._form.frame(payload, opcode))
        except PeerGone as gone:
            self.outbox.finish(close_frame(gone.code, gone.reason), discard=False)
            return gone.code, gone.reason


class Judge:
    """A client by another library."""

    def __init__(self, stream: MemoryStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self.protocol = protocol

    async def flush(self) -> None:
        await self._stream.send_all(b"".join(self.protocol.data_to_send()))

    async def say(self, payload: bytes, parts: list[int], *, binary: bool, compressed: bool) -> None:
        """Send a message, cut at these places."""
        begin = self.protocol.send_binary if binary else self.protocol.send_text
        cuts = [0, *sorted(cut % (len(payload) + 1) for cut in parts), len(payload)]
        extensions = self.protocol.extensions
        self.protocol.extensions = extensions if compressed else []
        for number, (at, end) in enumerate(pairwise(cuts)):
            last = number == len(cuts) - 2
            (self.protocol.send_continuation if number else begin)(payload[at:end], fin=last)
            if not last:
                self.protocol.send_ping(b"between")
        self.protocol.extensions = extensions
        await self.flush()

    async def hear(self) -> tuple[bool, bytes]:
        """The next message: whether it is binary, and what it says."""
        while True:
            for event in self.protocol.events_received():
                assert isinstance(event, Frame)
                if event.opcode in (TEXT, BINARY):
                    return event.opcode == BINARY, bytes(event.data)
            self.protocol.receive_data(await self._stream.receive_some(65_536))
            assert self.protocol.parser_exc is None


@asynccontextmanager
async def judged(threshold: int, wrap: Wrap = plain, **wishes: int | bool | None) -> AsyncIterator[Judge]:
    """An echo, and a client of another library that has agreed to compression with it."""
    factory = ClientPerMessageDeflateFactory(**wishes)  # type: ignore[arg-type]
    protocol = ClientProtocol(parse_uri("ws://broker/ws"), extensions=[factory], max_size=None)
    opening = protocol.connect()
    protocol.send_request(opening)
    protocol.data_to_send()
    headers = opening.headers
    extension = choose_extension(upgrade((b"sec-websocket-extensions", headers["Sec-WebSocket-Extensions"].encode())))
    handshake = Handshake(headers["Sec-WebSocket-Key"].encode(), extension=extension)
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, handshake, Echo(DeflatedForm(threshold)), MAX_MESSAGE, wrap(server))
        judge = Judge(client, protocol)
        while protocol.state.name == "CONNECTING":
            protocol.receive_data(await client.receive_some(1000))
        answer = protocol.events_received()[0]
        assert isinstance(answer, Response)
        assert protocol.handshake_exc is None
        yield judge
        protocol.send_close(1000)
        await judge.flush()
        while protocol.close_rcvd is None:
            protocol.receive_data(await client.receive_some(65_536))
        assert protocol.close_rcvd.code == 1000


def contents(size: int) -> Iterator[bytes]:
    yield b"x" * size
    yield random.Random(size).randbytes(size)
    yield (json.dumps([{"id": number, "text": "hello"} for number in range(size // 25)]).encode() + b" " * size)[:size]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1023, 1024, 4096, 65_535, 65_536])
async def test_an_echo_is_exact_for_messages_of_every_size(size: int) -> None:
    async with judged(threshold=1024) as judge:
        for payload in contents(size):
            for parts in ([], [size // 2], [0, 1, size - 1]):
                for compressed in (True, False):
                    await judge.say(payload, parts, binary=True, compressed=compressed)
                    assert await judge.hear() == (True, payload)
                    if payload.isascii():
                        await judge.say(payload, parts, binary=False, compressed=compressed)
                        assert await judge.hear() == (False, payload)


wishes = st.fixed_dictionaries(
    {},
    optional={
        "server_no_context_takeover": st.booleans(),
        "client_no_context_takeover": st.booleans(),
        "server_max_window_bits": st.integers(12, 15),
        "client_max_window_bits": st.just(True) | st.none() | st.integers(9, 15),
    },
)
texts = st.text(max_size=200).map(str.encode) | st.integers(0, 3000).map(lambda size: b"[1,2]" * (size // 5))
said = st.tuples(texts, st.lists(st.integers(0, 3000), max_size=4), st.booleans(), st.booleans())


@given(wishes, st.sampled_from([0, 50, 1024]), st.lists(said, max_size=5), st.sampled_from([plain, Dribble]))
async def test_an_echo_is_exact_whatever_is_agreed_on(
    wishes: Mapping[str, int | bool | None],
    threshold: int,
    messages: list[tuple[bytes, list[int], bool, bool]],
    wrap: Wrap,
) -> None:
    async with judged(threshold, wrap, **wishes) as judge:
        for payload, parts, binary, compressed in messages:
            await judge.say(payload, parts, binary=binary, compressed=compressed)
            assert await judge.hear() == (binary, payload)


# How a fault ends it.


LIMIT = 300
FAULTS = {
    "RSV1 on a continuation": (
        client_frame(TEXT, packed(b"{}"), reserved=RSV1, final=False) + client_frame(CONTINUATION, reserved=RSV1),
        Close.PROTOCOL_ERROR,
    ),
    "RSV1 on a ping": (client_frame(PING, reserved=RSV1), Close.PROTOCOL_ERROR),
    "RSV2": (client_frame(TEXT, packed(b"{}"), reserved=RSV2), Close.PROTOCOL_ERROR),
    "a message within a compressed one": (
        client_frame(TEXT, b"", reserved=RSV1, final=False) + client_frame(TEXT, b"{}"),
        Close.PROTOCOL_ERROR,
    ),
    "a compressed message within one": (
        client_frame(TEXT, b"", final=False) + client_frame(TEXT, packed(b"{}"), reserved=RSV1),
        Close.PROTOCOL_ERROR,
    ),
    "no mask": (b"\xc1\x04" + packed(b"{}"), Close.PROTOCOL_ERROR),
    "a compressed binary message": (client_frame(BINARY, packed(b"{}"), reserved=RSV1), Close.UNSUPPORTED_DATA),
    "data that can't be inflated": (client_frame(TEXT, b"\xff" * 20, reserved=RSV1), Close.INVALID_PAYLOAD),
    "half the data": (client_frame(TEXT, packed(b"{" * 9)[:-2], reserved=RSV1), Close.INVALID_PAYLOAD),
    "text that is not UTF-8": (client_frame(TEXT, packed(b"\xff"), reserved=RSV1), Close.INVALID_PAYLOAD),
    "a message that inflates to too much": (
        client_frame(TEXT, packed(b" " * (LIMIT + 1)), reserved=RSV1),
        Close.MESSAGE_TOO_BIG,
    ),
    "a bomb": (client_frame(TEXT, packed(bytes(10_000_000)), reserved=RSV1), Close.MESSAGE_TOO_BIG),
    "a bomb in parts": (
        client_frame(TEXT, b"", reserved=RSV1, final=False)
        + b"".join(client_frame(CONTINUATION, packed(b" " * 200) + b"\0\0\xff\xff", final=False) for _ in range(2)),
        Close.MESSAGE_TOO_BIG,
    ),
    "a flood of fragments": (
        client_frame(TEXT, reserved=RSV1, final=False) + client_frame(CONTINUATION, final=False) * MAX_FRAGMENTS,
        Close.POLICY_VIOLATION,
    ),
    "a long message that is not compressed": (client_frame(TEXT, b" " * (LIMIT + 1)), Close.MESSAGE_TOO_BIG),
}


@asynccontextmanager
async def conversing(
    party: Connection, wrap: Wrap = plain, early: bytes = b""
) -> AsyncIterator[tuple[MemoryStream, list[Ending]]]:
    """A client that has agreed to compression with `party`, and how that ended."""
    client, server = memory_stream_pair()
    endings: list[Ending] = []

    async def run() -> None:
        handshake = Handshake(b"dGhlIHNhbXBsZSBub25jZQ==", extension=EXTENSION, early=early)
        endings.append(await converse(handshake, party, LIMIT, wrap(server)))
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        assert (await read_answer(client)).headers["sec-websocket-extensions"] == EXTENSION
        yield client, endings


def connection() -> Connection:
    return Connection(Identity("ada"), services(Registry(max_per_user=1)), ConnectionLimits())


@both_ways
@pytest.mark.parametrize(("sent", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault_is_answered_with_its_close_frame(
    sent: bytes, code: Close, wrap: Wrap, autojump_clock: MockClock
) -> None:
    async with conversing(connection(), wrap) as (client, endings):
        await client.send_all(sent)
        first, payload = await raw_frame(client)
        assert (first, int.from_bytes(payload[:2], "big")) == (0x88, code)
        assert await read_to_end(client) == b""
    assert endings[0][0] == code


async def test_commands_before_the_handshake_was_answered_may_be_compressed() -> None:
    early = client_frame(TEXT, packed(command(1)), reserved=RSV1) * 2
    async with conversing(connection(), early=early[:20]) as (client, _):
        await client.send_all(early[20:])
        for _ in range(2):
            assert json.loads((await raw_frame(client))[1])["reply"] == 1
        await client.send_all(client_frame(CLOSE, b"\x03\xe8"))


@both_ways
async def test_pings_and_commands_of_both_kinds_are_answered_in_order(wrap: Wrap) -> None:
    data = packed(command(1))
    async with conversing(connection(), wrap) as (client, _):
        await client.send_all(
            client_frame(TEXT, data[:9], reserved=RSV1, final=False)
            + client_frame(PING, b"there?")
            + client_frame(CONTINUATION, data[9:])
            + client_frame(TEXT, command(2))
            + client_frame(TEXT, packed(command(3)), reserved=RSV1)
        )
        assert await raw_frame(client) == (0x80 | PONG, b"there?")
        for number in (1, 2, 3):
            assert json.loads((await raw_frame(client))[1])["reply"] == number
        await client.send_all(client_frame(CLOSE, b"\x03\xe8"))


async def test_a_client_that_vanishes_within_a_compressed_message_is_noted() -> None:
    async with conversing(connection()) as (client, endings):
        await client.send_all(client_frame(TEXT, packed(command())[:9], reserved=RSV1, final=False))
        await wait_all_tasks_blocked()
        await client.aclose()
    assert endings == [(1006, "")]


async def test_after_our_close_frame_nothing_is_inflated(autojump_clock: MockClock) -> None:
    party = connection()
    async with conversing(party) as (client, endings):
        await wait_all_tasks_blocked()
        party.close(Close.DISCONNECTED, "enough")
        assert (await raw_frame(client))[0] == 0x88
        garbage = client_frame(TEXT, b"\xff" * 20, reserved=RSV1)
        await client.send_all(garbage * 3 + client_frame(CLOSE, b"\x0f\xa4"))
        assert await read_to_end(client) == b""
    assert endings == [(Close.DISCONNECTED, "enough")]


def test_what_is_not_compressed_is_framed_as_ever() -> None:
    assert DeflatedForm(100).frame(b"short") == PLAIN.frame(b"short")
