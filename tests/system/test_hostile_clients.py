"""One client can't hurt another: whatever one does, a healthy subscriber gets every event, in order and in time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress

import pytest
import trio

from tests.system.client import steady_flow
from tests.system.harness import Broker, Brokers, eventually, unique
from tests.system.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Raw,
    dial,
    frame,
    raw_websocket,
    upgrade,
)

pytestmark = pytest.mark.system

MEBIBYTE = 1_048_576


async def send_while_it_is_read(raw: Raw, chunks: Iterable[bytes]) -> None:
    """Send until the broker takes no more or ends the connection."""
    with suppress(trio.BrokenResourceError, trio.TooSlowError):
        for chunk in chunks:
            with trio.fail_after(2):
                await raw.send(chunk)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(0x3), 1002),
        (frame(0xB), 1002),
        (frame(TEXT, b"{}", reserved=4), 1002),
        (frame(TEXT, b"{}", reserved=1), 1002),
        (frame(PING, final=False), 1002),
        (frame(CLOSE, final=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CONTINUATION, b"{}"), 1002),
        (frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (2000).to_bytes(2, "big")), 1002),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
        (bytes(200), 1002),
        (b"\xff" * 200, 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, "é".encode()[:1]), 1007),
        (frame(TEXT, "é".encode()[:1], final=False) + frame(CONTINUATION, b"x"), 1007),
        (frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (frame(BINARY, b"{}"), 1003),
        (frame(TEXT, b" " * 65_537), 1009),
        (frame(TEXT, "€".encode() * 22_000), 1009),  # 22,000 characters, 66,000 bytes
        (frame(TEXT, final=False) + frame(CONTINUATION, b" " * 100, final=False) * 656, 1009),
        (b"\x81\xff" + (2**62).to_bytes(8, "big") + bytes(4), 1009),
        (frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 5000, 1008),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else str(value),
)
async def test_a_fault_in_the_protocol_is_answered_with_a_close_frame(
    open_broker: Broker, sent: bytes, code: int
) -> None:
    async with steady_flow(open_broker), raw_websocket(open_broker, "mallory", "noise") as raw:
        await raw.send(sent)
        assert await raw.close_code() == code


async def test_a_message_of_as_many_bytes_as_there_may_be_is_read(open_broker: Broker) -> None:
    command = json.dumps({"event": "subscribe", "data": "a", "id": 1}).encode()
    async with raw_websocket(open_broker) as raw:
        await raw.send(frame(TEXT, command.ljust(65_536)))
        assert b'"reply":1' in await raw.text()


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1011, 3000, 4999])
async def test_a_close_frame_is_answered_with_its_own_code(open_broker: Broker, code: int) -> None:
    async with raw_websocket(open_broker) as raw:
        await raw.send(frame(CLOSE, code.to_bytes(2, "big") + b"bye"))
        answered, _ = await raw.until_close()
        assert answered == code
        assert await raw.rest() == b""


async def test_an_empty_close_frame_is_answered(open_broker: Broker) -> None:
    async with raw_websocket(open_broker) as raw:
        await raw.send(frame(CLOSE))
        opcode, _ = await raw.frame()
        assert opcode == CLOSE
        assert await raw.rest() == b""


async def test_whoever_never_reads_is_ended_and_told_so(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 64\n")
    async with (
        steady_flow(broker),
        raw_websocket(broker, "mallory", "flood", receive_buffer=4096) as raw,
    ):
        flood = [("flood", b'"%b"' % (b"x" * 50_000))] * 10
        while not broker.metric("broker_deliveries_overflowed_total"):
            await trio.to_thread.run_sync(broker.publish_all, flood)
        eventually(lambda: broker.metric("broker_connections") <= 2, "end of the slow client's subscriptions")
        code, texts = await raw.until_close()
        assert code == 4008
        assert {len(text) for text in texts} == {len(b'{"event":"flood","data":""}') + 50_000}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),  # a TLS ClientHello
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /ws HTTP/9.9\r\n\r\n",
        b"\r\n" * 1000,
        upgrade(X_Name="ünïcödé"),
        upgrade("/ws?token=\xff\xfe"),
        upgrade("/ws%ff%fe"),
        upgrade("/ws?%ff=%00"),
        upgrade("/ws?" + "&".join(f"a{n}=1" for n in range(500))),
        upgrade("/ws").replace(b"/ws", b"http://[::1/ws"),
        upgrade(host="\xe9vil.example"),
        upgrade(host="a b"),
        upgrade(host="[::1"),
        upgrade(host="x:99999999", Origin="http://x:99999999"),
        upgrade(host="x, y", Origin="http://[x"),
        upgrade(Host_="twice").replace(b"Host-", b"Host"),
        upgrade(Authorization="Bearer \xff\xfe\xfd"),
        upgrade(Sec_WebSocket_Key="\xff" * 24),
        upgrade(Sec_WebSocket_Protocol="\xff,,;"),
        upgrade(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits=99999, \xff"),
        upgrade(Connection="Upgrade, " * 500 + "x"),
        upgrade().replace(b"\r\n", b"\n"),
        upgrade().replace(b": ", b" : "),
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
async def test_garbage_instead_of_a_request_harms_nobody(open_broker: Broker, garbage: bytes) -> None:
    async with steady_flow(open_broker):
        async with dial(open_broker) as raw:
            await send_while_it_is_read(raw, [garbage])
            await raw.stream.send_eof()
            said = await raw.rest()
            assert said == b"" or said.startswith(b"HTTP/1.1 ")
        async with dial(open_broker) as raw:
            await send_while_it_is_read(raw, [garbage])
            raw.reset()


async def test_a_handshake_that_comes_in_two_parts_of_garbage_is_closed_once(open_broker: Broker) -> None:
    async with steady_flow(open_broker), dial(open_broker) as raw:
        await raw.send(upgrade(Authorization=f"Bearer {open_broker.token('mallory')}") + b"\xff" * 5000)
        assert (await raw.head()).status == 101
        assert await raw.close_code() == 1002


async def test_pings_after_the_servers_close_frame_are_ignored(open_broker: Broker) -> None:
    async with steady_flow(open_broker):
        for late in (frame(PING, b"late"), frame(TEXT, b"{}"), frame(BINARY, b"x"), b"\xff\xff\xff"):
            async with raw_websocket(open_broker) as raw:
                await raw.send(frame(BINARY, b"x"))
                assert (await raw.until_close())[0] == 1003
                await send_while_it_is_read(raw, [late, late])
                await raw.stream.send_eof()
                assert await raw.rest() == b""


async def test_pings_after_its_own_close_frame_are_ignored(open_broker: Broker) -> None:
    async with steady_flow(open_broker), raw_websocket(open_broker) as raw:
        await raw.send(frame(CLOSE, b"\x03\xe8") + frame(PING, b"late") * 100 + frame(TEXT, b"{}"))
        assert await raw.close_code() == 1000


async def test_a_flood_of_commands_ends_with_1008(open_broker: Broker) -> None:
    flood = frame(TEXT, b'{"event":"unsubscribe","data":"a","id":1}') * 1000
    async with steady_flow(open_broker), raw_websocket(open_broker) as raw:
        await send_while_it_is_read(raw, [flood])
        assert await raw.close_code() == 1008


async def test_commands_at_a_bearable_pace_go_on(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\ncommands_per_second = 50\n")
    async with raw_websocket(broker) as raw:
        for _ in range(60):
            await raw.send(frame(TEXT, b'{"event":"unsubscribe","data":"a","id":1}'))
            assert b'"reply":1' in await raw.text()
            await trio.sleep(0.02)


async def test_a_flood_of_pings_by_one_who_never_reads_takes_no_memory(open_broker: Broker) -> None:
    # 20 MiB of pings: if their pongs were kept, the broker would grow by more than that; it keeps the latest few.
    flood = frame(PING, b"x" * 125) * 8000
    async with steady_flow(open_broker), raw_websocket(open_broker, receive_buffer=4096) as raw:
        before = open_broker.resident_bytes()
        await send_while_it_is_read(raw, [flood] * 20)
        assert open_broker.resident_bytes() - before < 8 * MEBIBYTE
        opcode, payload = await raw.frame()
        assert (opcode, payload) == (PONG, b"x" * 125)


async def test_a_message_without_end_takes_no_memory(open_broker: Broker) -> None:
    async with steady_flow(open_broker), raw_websocket(open_broker) as raw:
        before = open_broker.resident_bytes()
        await raw.send(frame(TEXT, b'"', final=False))
        await send_while_it_is_read(raw, [frame(CONTINUATION, b"x" * 60_000, final=False)] * 200)
        assert await raw.close_code() == 1009
        assert open_broker.resident_bytes() - before < 8 * MEBIBYTE


async def test_five_hundred_connections_that_come_and_go_leave_nothing(open_broker: Broker) -> None:
    handshake = upgrade(Authorization=f"Bearer {open_broker.token('mallory')}")
    subscribed = handshake + frame(TEXT, b'{"event":"subscribe","data":"**"}')
    async with steady_flow(open_broker):
        files = open_broker.open_files()
        for number in range(500):
            async with dial(open_broker) as raw:
                await raw.send(handshake[: len(handshake) // 2] if number % 2 else subscribed)
                if number % 4 < 2:
                    raw.reset()
        eventually(lambda: open_broker.metric("broker_connections") <= 1, "end of the connections")
        eventually(lambda: open_broker.open_files() <= files + 2, "end of the sockets")


async def test_a_head_that_comes_byte_by_byte_gets_ten_seconds(open_broker: Broker) -> None:
    head = upgrade(Authorization=f"Bearer {open_broker.token('mallory')}")

    async def dribble(raw: Raw) -> None:
        with suppress(trio.BrokenResourceError):
            for at in range(len(head)):
                await raw.send(head[at : at + 1])
                await trio.sleep(0.2)

    async with steady_flow(open_broker), dial(open_broker) as raw, dial(open_broker) as silent:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble, raw)
            assert (await raw.head()).status == 408
            assert 9 < trio.current_time() - started < 13
            nursery.cancel_scope.cancel()
        assert (await silent.head()).status == 408


async def test_a_thousand_subscriptions_of_one_delay_nobody(open_broker: Broker) -> None:
    async with steady_flow(open_broker), raw_websocket(open_broker) as raw:
        wild = [".".join(["**"] * (1 + n % 8) + [f"x{n}"] * (1 + n // 500)) for n in range(999)]
        for pattern in (*wild, "users.*.online"):
            await raw.send(frame(TEXT, json.dumps({"event": "subscribe", "data": pattern, "id": 1}).encode()))
        replies = 0
        while replies < 1000:
            replies += b'"reply"' in await raw.text()
        await raw.send(frame(TEXT, b'{"event":"subscribe","data":"one.more","id":2}'))
        while b'"reply":2' not in (answer := await raw.text()):
            pass
        assert json.loads(answer)["code"] == "too_many_subscriptions"
        name = f"users.{unique('still')}.online"
        open_broker.publish(name)
        while name.encode() not in await raw.text():
            pass
