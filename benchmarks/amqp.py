"""RabbitMQ: our client and our source beside aio-pika, and many confirms on their way beside one at a time.

One RabbitMQ serves all of them in one run, in turns, so that whatever else the machine does concerns all alike; the
median of the rounds counts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import aio_pika
import trio

from benchmarks.report import Report
from broker.core.event import Event
from connectors.amqp.codec import Basic
from connectors.amqp.connection import open_connection
from connectors.amqp.reading import reader
from connectors.amqp.source import AmqpSource, SourceSettings
from connectors.amqp.topology import QueueSettings
from connectors.amqp.url import parse_url
from tests.system.rabbitmq import RabbitMQ, why_not

MESSAGES = 20_000
CONFIRMED = 2_000
ROUNDS = 5
PREFETCH = 256
WINDOW = 100
BODY = b'{"event":"games.42.created","data":{"text":"%s"}}' % (b"x" * 255)
QUEUE = "benchmark"

Measure = Callable[[str, int], float]  # URL, number of messages → seconds


def on_a_private_node(measure: Callable[[str], Report]) -> Report:
    """Measure on a RabbitMQ that is started for it."""
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory(prefix="rabbitmq-") as folder, RabbitMQ(Path(folder)) as node:
        return measure(node.url())


def consuming(url: str, messages: int = MESSAGES, rounds: int = ROUNDS) -> Report:
    """Messages of 300 bytes, prefetch 256: how many times as fast as aio-pika, which does nothing but acknowledge."""
    measures: Mapping[str, Measure] = {"aio-pika": _aio_pika, "our client": _client, "our source": _source}
    taken = _in_turns(url, measures, messages, rounds, fill=True)
    return Report(
        "amqp_consuming",
        f"messages a second, {len(BODY)} bytes, prefetch {PREFETCH}; our source reads and checks the events as well",
        ("who", "ratio"),
        [(name, taken["aio-pika"] / seconds) for name, seconds in taken.items()],
    )


def publishing(url: str, messages: int = CONFIRMED, rounds: int = ROUNDS) -> Report:
    """Persistent messages with confirms: how many times as fast as one at a time."""
    measures: Mapping[str, Measure] = {
        "one at a time": lambda url, number: trio.run(_publish, url, number, 1),
        f"window of {WINDOW}": lambda url, number: trio.run(_publish, url, number, WINDOW),
    }
    taken = _in_turns(url, measures, messages, rounds, fill=False)
    return Report(
        "amqp_publishing",
        f"persistent messages of {len(BODY)} bytes confirmed a second, as a ratio",
        ("who", "ratio"),
        [(name, taken["one at a time"] / seconds) for name, seconds in taken.items()],
    )


def _in_turns(url: str, measures: Mapping[str, Measure], messages: int, rounds: int, *, fill: bool) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            if fill:
                trio.run(_publish, url, messages, 1000)
            taken[name].append(measure(url, messages))
    return {name: median(seconds) for name, seconds in taken.items()}


async def _publish(url: str, messages: int, window: int) -> float:
    async with open_connection(parse_url(url), name="benchmark") as connection:
        channel = await connection.open_channel()
        await channel.declare_queue(QUEUE)
        await channel.confirm(window)
        begin = time.perf_counter()
        for number in range(messages):
            properties = Basic.Properties(message_id=str(number), delivery_mode=2)
            last = await channel.publish("", QUEUE, BODY, properties)
        await last.wait_confirmed()
        return time.perf_counter() - begin


def _client(url: str, messages: int) -> float:
    return trio.run(_consume, url, messages)


async def _consume(url: str, messages: int) -> float:
    async with open_connection(parse_url(url), name="benchmark") as connection:
        channel = await connection.open_channel()
        begin = time.perf_counter()
        consumer = await channel.consume(QUEUE, PREFETCH)
        while messages > 0:
            deliveries = await consumer.receive(PREFETCH)
            channel.ack(deliveries[-1].tag, multiple=True)
            messages -= len(deliveries)
        return time.perf_counter() - begin


class _Counting:
    """Takes events at once, and says when it has all of them."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self.done = trio.Event()

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self._expected -= len(events)
        if self._expected <= 0:
            self.done.set()
        return [event.id or "" for event in events]


def _source(url: str, messages: int) -> float:
    return trio.run(_run_source, url, messages)


async def _run_source(url: str, messages: int) -> float:
    settings = SourceSettings("benchmark", [parse_url(url)], QueueSettings(QUEUE), PREFETCH)
    counting = _Counting(messages)
    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(AmqpSource(settings, reader("envelope", "benchmark")).run, counting, lambda: None)
        await counting.done.wait()
        taken = time.perf_counter() - begin
        nursery.cancel_scope.cancel()
    return taken


def _aio_pika(url: str, messages: int) -> float:
    return asyncio.run(_consume_with_aio_pika(url, messages))


async def _consume_with_aio_pika(url: str, messages: int) -> float:
    done = asyncio.Event()
    left = messages

    async def acknowledge(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal left
        await message.ack()
        left -= 1
        if left == 0:
            done.set()

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(PREFETCH)
        queue = await channel.declare_queue(QUEUE, durable=True)
        begin = time.perf_counter()
        await queue.consume(acknowledge)
        await done.wait()
        return time.perf_counter() - begin
