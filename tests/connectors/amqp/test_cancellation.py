"""Whoever is cancelled, at whatever checkpoint: it ends, RabbitMQ hears whole frames, and others go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from pamqp.body import ContentBody
from trio.testing import MockClock

from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic
from connectors.amqp.connection import GOODBYE_SECONDS, open_connection
from connectors.amqp.url import Address
from tests.connectors.amqp.server import ADDRESS, Server, connected


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when all tasks together have made so many steps."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._left = steps
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@contextmanager
def cancelled_at(steps: int) -> Iterator[trio.CancelScope]:
    """Cancels the block at that step, if it takes so many."""
    with trio.CancelScope() as scope:
        cancellation = CancelAt(steps, scope)
        trio.lowlevel.add_instrument(cancellation)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(cancellation)


def confirming() -> Server:
    """A server that confirms what is published, and delivers two messages to whoever consumes."""
    server = Server()
    confirmed = 0

    def confirm(_: ContentBody) -> Basic.Ack:
        nonlocal confirmed
        confirmed += 1
        return Basic.Ack(confirmed)

    def deliver(asked: Basic.Consume) -> None:
        server.say(1, Basic.ConsumeOk(asked.consumer_tag))
        server.deliver(1, 2)

    server.answers[ContentBody] = confirm
    server.answers[Basic.Consume] = deliver
    return server


async def use(channel: Channel) -> None:
    """Everything that a channel is for."""
    await channel.declare_exchange("events", "topic")
    await channel.declare_queue("queue")
    await channel.bind("queue", "events", "#")
    consumer = await channel.consume("queue", prefetch=5)
    await channel.confirm(window=1)
    for delivery in await consumer.receive(10):
        publication = await channel.publish("events", "a.b", delivery.body or b"", Basic.Properties())
        channel.ack(delivery.tag)
        await publication.wait_confirmed()
    await channel.close()


async def session() -> None:
    async with connected() as connection:
        await use(await connection.open_channel())


@pytest.mark.parametrize("pieces", [None, 6])
async def test_a_session_cancelled_at_any_checkpoint_ends_in_good_order(
    pieces: int | None, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    cancelled = True
    while cancelled:
        steps += 1
        server = confirming()
        server.pieces = pieces
        monkeypatch.setattr("connectors.amqp.connection.open_stream", opening(server))
        began = trio.current_time()
        with cancelled_at(steps) as scope:
            await session()
        cancelled = scope.cancelled_caught
        assert trio.current_time() - began <= GOODBYE_SECONDS, f"cancelled at step {steps}"
        assert server.closed or not server.heard, f"cancelled at step {steps}"
        assert server.cut or not server.half_a_frame, f"cancelled at step {steps}"
    assert server.names()[-3:] == ["Basic.Ack", "Channel.Close", "Connection.Close"]
    assert steps > 40


def opening(server: Server) -> object:
    async def open_stream(_: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return server

    return open_stream


async def test_a_channel_whose_use_is_cancelled_at_any_checkpoint_takes_nobody_with_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    cancelled = True
    while cancelled:
        steps += 1
        server = confirming()
        monkeypatch.setattr("connectors.amqp.connection.open_stream", opening(server))
        async with open_connection(ADDRESS, name="test") as connection:
            with cancelled_at(steps) as scope:
                await use(await connection.open_channel())
            cancelled = scope.cancelled_caught
            other = await connection.open_channel()
            assert await other.declare_queue("queue") == 3, f"cancelled at step {steps}"
        assert server.names()[-1] == "Connection.Close"
        assert trio.current_time() == 0
    assert steps > 20
