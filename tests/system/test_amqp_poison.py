"""Messages that are no events go to the dead-letter queue, each once, and what is good behind them arrives."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import trio
from pamqp import decode

from connectors.amqp.codec import Basic, Delivery
from tests.system.amqp import counts, envelope, publishing, source, take, wait_running
from tests.system.client import connected
from tests.system.harness import Brokers, eventually, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(60)]

# Every type of field that a client of AMQP 0-9-1 can send, nested in tables and lists as well.
FIELDS: dict[str, Any] = {
    "boolean": True,
    "small": -1,
    "short": -300,
    "long": 70_000,
    "longlong": -(1 << 60),
    "double": 1.5,
    "decimal": Decimal("1.25"),
    "text": "\u2603",
    "bytes": bytearray(b"\x00\xff"),
    "time": datetime(2026, 1, 1, tzinfo=UTC),
    "nothing": None,
}
HEADERS = {**FIELDS, "table": {"inner": {**FIELDS}}, "list": [*FIELDS.values(), [{"deep": [1, bytearray(b"\xfe")]}]]}

POISON: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no JSON": (b"no JSON", {}),
    "an empty body": (b"", {}),
    "no UTF-8": (b'{"event":"a.b","data":"\xff"}', {}),
    "a list": (b"[]", {}),
    "no event": (b'{"data":1}', {}),
    "an unknown key": (b'{"event":"a.b","date":1}', {}),
    "a bad name": (envelope("a..b"), {}),
    "a name of the broker's own": (envelope("broker.up"), {}),
    "nested too deep": (b'{"event":"a.b","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}),
    "a bad id": (envelope("a.b"), {"message_id": "a\nb"}),
    "compressed": (b"\x1f\x8b\x08\x00", {"content_encoding": "gzip"}),
    "16 MiB": (envelope("a.b", "x" * (16 << 20)), {}),
    "headers of every type": (b"no JSON either", {"headers": HEADERS}),
}


def deaths(delivery: Delivery) -> list[int]:
    """How many times each queue has rejected it, by RabbitMQ's own header; our reader steps over lists."""
    encoded = delivery.properties.encoded_headers
    headers: Any = decode.field_table(len(encoded).to_bytes(4) + encoded)[1]
    return [death["count"] for death in headers["x-death"]]


async def test_each_poison_message_is_rejected_once_and_what_follows_arrives(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue, exchange = unique("poison"), unique("rejected")
    broker = brokers.start(source("main", rabbitmq.url(), queue, dead_letter_exchange=exchange, prefetch=10))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as client, publishing(rabbitmq.url()) as channel:
        await client.subscribe("**")
        for name, (body, properties) in POISON.items():
            await channel.publish("", queue, body, Basic.Properties(**properties, correlation_id=name))
            await channel.publish("", queue, envelope("good.one", name), Basic.Properties(headers=HEADERS))
        assert [(await client.frame())["data"] for _ in POISON] == list(POISON)
    dead = await take(rabbitmq.url(), f"{queue}.dead", len(POISON))
    assert [delivery.size for delivery in dead] == [len(body) for body, _ in POISON.values()]
    assert [deaths(delivery) for delivery in dead] == [[1]] * len(POISON)
    assert await trio.to_thread.run_sync(eventually, lambda: counts(rabbitmq, queue) == (0, 0), "empty queue")
    refused = {name: value for name, value in broker.metrics().items() if "_main_refused_" in name}
    assert sum(refused.values()) == len(POISON)
    assert refused["broker_amqp_main_refused_too_large_total"] == 1
    assert refused["broker_amqp_main_refused_bad_name_total"] == 2
    assert broker.metric("broker_amqp_main_connections_total") == 1


async def test_headers_that_nobody_can_decode_are_left_out_and_the_message_counts(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue = unique("odd")
    broker = brokers.start(source("main", rabbitmq.url(), queue))
    await wait_running(broker, "main")
    single = struct.pack(">f", 1.5)

    class Odd(Basic.Properties):
        """Fields that the codec never writes itself: a float, unsigned numbers, a name that is no UTF-8."""

        def marshal(self) -> bytes:
            table = (
                b"\x01ff" + single + b"\x01uu\xff\xff" + b"\x01ii\xff\xff\xff\xff" + b"\x01BB\xff" + b"\x02\xff\xfeV"
            )
            return struct.pack(">HI", 1 << 13 | 1 << 7, len(table)) + table + b"\x03odd"

    async with connected(broker, "ada") as client, publishing(rabbitmq.url()) as channel:
        await client.subscribe("**")
        for _ in range(2):  # the second has the same id, which is read behind the headers
            await channel.publish("", queue, envelope("good.one", 1), Odd())
        await channel.publish("", queue, envelope("good.two", 2), Basic.Properties())
        assert [(await client.frame())["event"] for _ in range(2)] == ["good.one", "good.two"]
