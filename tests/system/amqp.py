"""What the tests of RabbitMQ share: sources to configure, publishers that do not give up, a look into queues."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic
from connectors.amqp.confirms import Publication
from connectors.amqp.connection import open_connection
from connectors.amqp.errors import AmqpError
from connectors.amqp.url import parse_url
from tests.system.harness import PATIENCE, Broker, eventually
from tests.system.rabbitmq import RabbitMQ

PERSISTENT = 2


def source(name: str, url: str | Sequence[str], queue: str, **more: object) -> str:
    """A `[[connectors.amqp]]` for a configuration."""
    values = {"name": name, "url": url, "queue": queue, **more}
    return "\n[[connectors.amqp]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def envelope(name: str, data: object = None) -> bytes:
    return json.dumps({"event": name, "data": data}).encode()


@asynccontextmanager
async def publishing(url: str, window: int = 200) -> AsyncIterator[Channel]:
    """A channel that publishes with confirms."""
    async with open_connection(parse_url(url), name="test") as connection:
        channel = await connection.open_channel()
        await channel.confirm(window)
        yield channel


async def publish(url: str, queue: str, *bodies: bytes, **properties: Any) -> None:
    """Put messages into a queue, and wait until RabbitMQ has them."""
    async with publishing(url) as channel:
        for publication in [await channel.publish("", queue, body, Basic.Properties(**properties)) for body in bodies]:
            await publication.wait_confirmed()


async def declare(url: str, queue: str, **more: Any) -> None:
    async with open_connection(parse_url(url), name="test") as connection:
        channel = await connection.open_channel()
        await channel.declare_queue(queue, **more)


async def ready(url: str, queue: str) -> int:
    """How many messages of a queue have been delivered to nobody."""
    async with open_connection(parse_url(url), name="test") as connection:
        channel = await connection.open_channel()
        return await channel.declare_queue(queue, passive=True)


async def take(url: str, queue: str, number: int) -> list[Any]:
    """Take so many messages out of a queue."""
    taken: list[Any] = []
    async with open_connection(parse_url(url), name="test", max_body=32 << 20) as connection:
        channel = await connection.open_channel()
        consumer = await channel.consume(queue, 100)
        with trio.fail_after(PATIENCE):
            while len(taken) < number:
                deliveries = await consumer.receive(100)
                taken += deliveries
                channel.ack(deliveries[-1].tag, multiple=True)
    return taken


def counts(node: RabbitMQ, queue: str) -> tuple[int, int]:
    """How many messages a queue holds in all, and how many of them are unacknowledged."""
    listed = json.loads(node.ctl("list_queues", "name", "messages", "messages_unacknowledged", "--formatter", "json"))
    row = next(row for row in listed if row["name"] == queue)
    return row["messages"], row["messages_unacknowledged"]


def sources(broker: Broker) -> dict[str, str]:
    """How `/readyz` says that each source is."""
    states: dict[str, str] = broker.request("GET", "/readyz").json["connectors"]
    return states


def wait_state(broker: Broker, name: str, state: str) -> None:
    eventually(lambda: sources(broker)[f"amqp_{name}"] == state, f"source {name} that is {state}")


async def wait_running(broker: Broker, *names: str) -> None:
    for name in names:
        await trio.to_thread.run_sync(wait_state, broker, name, "running")


class Numbers:
    """Publishes events `numbers.<n>` from 0 on, each until RabbitMQ has confirmed it, whatever becomes of RabbitMQ."""

    def __init__(self, url: str, queue: str, number: int) -> None:
        self.confirmed = 0
        self._url = url
        self._queue = queue
        self._open = list(range(number))

    async def publish(self) -> None:
        """Go on until all are confirmed; what is sent again may be there twice."""
        while self._open:
            try:
                async with publishing(self._url) as channel:
                    await self._publish(channel)
            except AmqpError:
                await trio.sleep(0.1)

    async def _publish(self, channel: Channel) -> None:
        while self._open:
            some = self._open[:200]
            publications = [await self._one(channel, number) for number in some]
            for publication in publications:
                await publication.wait_confirmed()
            self.confirmed += len(some)
            del self._open[:200]

    async def _one(self, channel: Channel, number: int) -> Publication:
        properties = Basic.Properties(message_id=f"number-{number}", delivery_mode=PERSISTENT)
        return await channel.publish("", self._queue, envelope(f"numbers.{number}", number), properties)
