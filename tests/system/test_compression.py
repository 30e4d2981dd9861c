"""permessage-deflate at a real socket: clients that offer it beside those that do not, and those that abuse it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from websockets.sync.client import ClientConnection, connect

from tests.system.client import connected, steady_flow
from tests.system.harness import PATIENCE, Broker, Brokers, unique
from tests.system.raw import BINARY, CONTINUATION, PING, TEXT, Raw, dial, frame, upgrade
from tests.system.test_hostile_clients import send_while_it_is_read

pytestmark = pytest.mark.system

MEBIBYTE = 1_048_576
MOST = 65_536  # bytes of a message, by default
OFFER = "permessage-deflate; client_max_window_bits"
EXTENSION = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
RSV1, RSV2 = 4, 2


def packed(payload: bytes, level: int = 9) -> bytes:
    packing = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (packing.compress(payload) + packing.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")


def document(size: int) -> dict[str, Any]:
    """Something that compresses about as well as most JSON does."""
    return {"entries": [{"id": os.urandom(6).hex(), "text": "this is entry number", "n": n} for n in range(size // 60)]}


@contextmanager
def client(
    broker: Broker, user: str, *patterns: str, compression: str | None = "deflate"
) -> Iterator[ClientConnection]:
    """A client by another library, subscribed to these patterns."""
    headers = {"Authorization": f"Bearer {broker.token(user)}"}
    with connect(f"ws://127.0.0.1:{broker.port}/ws", additional_headers=headers, compression=compression) as found:
        for pattern in patterns:
            found.send(json.dumps({"event": "subscribe", "data": pattern, "id": 1}))
            assert heard(found)["reply"] == 1
        yield found


def heard(connection: ClientConnection) -> Any:
    return json.loads(connection.recv(timeout=PATIENCE))


@asynccontextmanager
async def agreed(broker: Broker, *patterns: str) -> AsyncIterator[Raw]:
    """A WebSocket in our own hands that has agreed to compression."""
    async with dial(broker) as raw:
        token = broker.token("mallory")
        await raw.send(upgrade(Authorization=f"Bearer {token}", Sec_WebSocket_Extensions=OFFER))
        head = await raw.head()
        assert (head.status, head.headers["sec-websocket-extensions"]) == (101, EXTENSION)
        for pattern in patterns:
            await raw.send(frame(TEXT, b'{"event":"subscribe","data":"%b","id":1}' % pattern.encode()))
            assert b'"error"' not in await raw.text()
        yield raw


async def compressed_text(raw: Raw) -> bytes:
    """The payload of the server's next frame, which is a compressed text."""
    first, length = await raw.take(2)
    assert first == 0xC1
    if length >= 126:
        length = int.from_bytes(await raw.take(2 if length == 126 else 8), "big")
    return await raw.take(length)


# Those who keep to it.


def test_a_mixed_crowd_gets_the_same_events(open_broker: Broker) -> None:
    name = unique("mixed")
    events = [(name, document(size)) for size in (60, 2000, 900, 100_000, 1024)]
    with (
        client(open_broker, "ada", name) as offering,
        client(open_broker, "bob", name, compression=None) as plain,
        client(open_broker, "eve", name) as resuming,
    ):
        assert [each.protocol.extensions != [] for each in (offering, plain, resuming)] == [True, False, True]
        resuming.send('{"event":"resume","id":2}')
        assert "data" in heard(resuming)
        ids = open_broker.publish_all([(name, json.dumps(data).encode()) for name, data in events])
        expected = [{"event": name, "data": data} for name, data in events]
        for each in (offering, plain):
            assert [heard(each) for _ in events] == expected
        assert [heard(resuming) for _ in events] == [
            {**event, "id": event_id} for event, event_id in zip(expected, ids, strict=True)
        ]


@pytest.mark.parametrize("size", [0, 1000, 60_000])
def test_commands_are_read_in_as_many_compressed_fragments_as_one_likes(open_broker: Broker, size: int) -> None:
    command = json.dumps({"event": "subscribe", "data": "a", "id": 7}) + " " * size
    with client(open_broker, "ada") as offering:
        offering.send(command)
        assert heard(offering)["reply"] == 7
        offering.send(command[at : at + 1 + size // 20] for at in range(0, len(command), 1 + size // 20))
        assert heard(offering)["reply"] == 7


async def test_an_event_is_sent_in_few_bytes_that_say_the_very_same(open_broker: Broker) -> None:
    data = json.dumps(document(5000), indent=1).encode()
    async with agreed(open_broker, "message.created") as raw:
        open_broker.publish_text("message.created", data)
        payload = await compressed_text(raw)
        assert len(payload) < len(data) / 2
        assert inflated(payload) == b'{"event":"message.created","data":%b}' % data


async def test_the_threshold_is_that_of_the_configuration(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\ncompression = { threshold = 50 }\n")
    async with agreed(broker, "a") as raw:
        broker.publish_all([("a", b'"%b"' % (b"x" * size)) for size in (26, 27)])
        assert len(await raw.text()) == 49
        assert len(inflated(await compressed_text(raw))) == 50


async def test_compression_can_be_switched_off(brokers: Brokers) -> None:
    broker = brokers.start("[websocket.compression]\nenabled = false\n")
    async with dial(broker) as raw:
        await raw.send(upgrade(Authorization=f"Bearer {broker.token('ada')}", Sec_WebSocket_Extensions=OFFER))
        assert "sec-websocket-extensions" not in (await raw.head()).headers
        await raw.send(frame(TEXT, packed(b"{}"), reserved=RSV1))
        assert await raw.close_code() == 1002


async def test_an_offer_that_can_t_be_read_is_refused(open_broker: Broker) -> None:
    async with dial(open_broker) as raw:
        await raw.send(upgrade(Sec_WebSocket_Extensions="permessage-deflate; ="))
        head, body = await raw.answer()
        assert (head.status, json.loads(body)["code"]) == (400, "bad_request")


# Those who do not.


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, packed(b"{}"), reserved=RSV1 | RSV2), 1002),
        (frame(TEXT, packed(b"{}"), reserved=RSV2), 1002),
        (frame(TEXT, packed(b"{}"), reserved=RSV1, masked=False), 1002),
        (frame(PING, reserved=RSV1), 1002),
        (frame(0x3, packed(b"{}"), reserved=RSV1), 1002),
        (frame(CONTINUATION, packed(b"{}"), reserved=RSV1), 1002),
        (frame(TEXT, packed(b"{}"), reserved=RSV1, final=False) + frame(CONTINUATION, reserved=RSV1), 1002),
        (frame(TEXT, b"", reserved=RSV1, final=False) + frame(TEXT, b"{}"), 1002),
        (frame(TEXT, b"", final=False) + frame(TEXT, packed(b"{}"), reserved=RSV1), 1002),
        (frame(BINARY, packed(b"{}"), reserved=RSV1), 1003),
        (frame(TEXT, b"\xff" * 100, reserved=RSV1), 1007),
        (frame(TEXT, packed(b"{" * 50)[:-3], reserved=RSV1), 1007),
        (frame(TEXT, packed(b"\xff"), reserved=RSV1), 1007),
        (frame(TEXT, packed("é".encode()[:1]), reserved=RSV1), 1007),
        (frame(TEXT, reserved=RSV1, final=False) + frame(CONTINUATION, final=False) * 5000, 1008),
        (frame(TEXT, packed(b" " * (MOST + 1)), reserved=RSV1), 1009),
        (frame(TEXT, packed(bytes(100 * MEBIBYTE)), reserved=RSV1), 1009),
        (b"\xc1\xff" + (2**62).to_bytes(8, "big") + bytes(4), 1009),
        (frame(TEXT, b"\x00\x00\x00\xff\xff" * 40_000, reserved=RSV1), 1009),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else str(value),
)
async def test_a_fault_is_answered_with_its_close_frame(open_broker: Broker, sent: bytes, code: int) -> None:
    async with steady_flow(open_broker), agreed(open_broker) as raw:
        await raw.send(sent)
        assert await raw.close_code() == code


async def test_a_compressed_message_of_as_many_bytes_as_there_may_be_is_read(open_broker: Broker) -> None:
    command = json.dumps({"event": "subscribe", "data": "a", "id": 1}).encode()
    async with agreed(open_broker) as raw:
        for level in (0, 9):  # 0: it is longer than what it says
            await raw.send(frame(TEXT, packed(command.ljust(MOST), level), reserved=RSV1))
            assert b'"reply":1' in await raw.text()


def bomb(gibibytes: int) -> bytes:
    """A message that inflates to so much; it takes about a MiB for each GiB."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(16 * MEBIBYTE)
    return b"".join(packing.compress(zeros) for _ in range(64 * gibibytes)) + packing.flush(zlib.Z_SYNC_FLUSH)[:-4]


async def test_bombs_take_no_memory_whether_they_come_whole_or_in_parts(open_broker: Broker) -> None:
    data = bomb(1)
    parts = [data[at : at + 10_000] for at in range(0, len(data), 10_000)]
    in_parts = frame(TEXT, parts[0], reserved=RSV1, final=False)
    in_parts += b"".join(frame(CONTINUATION, part, final=False) for part in parts[1:])
    async with steady_flow(open_broker):
        before = open_broker.resident_bytes()
        for sent in (frame(TEXT, data, reserved=RSV1), in_parts):
            for _ in range(5):
                async with agreed(open_broker) as raw:
                    await send_while_it_is_read(raw, [sent])
                    assert await raw.close_code() == 1009
        assert open_broker.resident_bytes() - before < 8 * MEBIBYTE


async def test_many_small_bombs_at_once_are_taken_one_at_a_time(open_broker: Broker) -> None:
    # Each is as large as it may be: together 625 MiB, in 800 KB.
    small = frame(TEXT, packed(b" " * MOST), reserved=RSV1)
    async with steady_flow(open_broker), trio.open_nursery() as nursery:
        before = open_broker.resident_bytes()

        async def throw() -> None:
            async with agreed(open_broker) as raw:
                await send_while_it_is_read(raw, [small * 1000])
                assert await raw.close_code() == 1008

        for _ in range(10):
            nursery.start_soon(throw)
        while len(nursery.child_tasks):
            assert open_broker.resident_bytes() - before < 16 * MEBIBYTE
            await trio.sleep(0.01)


async def test_a_compressed_message_without_end_takes_no_memory(open_broker: Broker) -> None:
    nothing = b"\x00\x00\x00\xff\xff" * 12_000
    async with steady_flow(open_broker), agreed(open_broker) as raw:
        before = open_broker.resident_bytes()
        await raw.send(frame(TEXT, nothing, reserved=RSV1, final=False))
        await send_while_it_is_read(raw, [frame(CONTINUATION, nothing, final=False)] * 200)
        assert await raw.close_code() == 1009
        assert open_broker.resident_bytes() - before < 8 * MEBIBYTE


async def test_a_client_without_offers_is_served_as_ever(open_broker: Broker) -> None:
    name = unique("plain")
    async with connected(open_broker, "ada") as plain:
        await plain.subscribe(name)
        open_broker.publish(name, "x" * 5000)
        assert await plain.events() == [{"event": name, "data": "x" * 5000}]
