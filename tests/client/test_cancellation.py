"""Whoever is cancelled, at whatever step, leaves nothing behind: no connection, no subscription."""

from __future__ import annotations

import trio

from broker.client import connect
from tests.client.server import FakeBroker
from tests.client.using import URL
from tests.connectors.amqp.test_cancellation import cancelled_at


async def use(broker: FakeBroker) -> None:
    """Everything that a client does over its WebSocket, over two connections."""
    async with connect(URL, lambda: "t") as client:
        async with client.subscribe("a.*") as events:
            broker.publish("a.1", "a.2")
            async for event in events:
                if event.name == "a.2":
                    break
            broker.connection.close(4003)
            broker.publish("a.3")
            assert (await anext(events)).name == "a.3"
            assert await client.command("echo", 1) == 1
        async with client.messages(buffer=1) as messages:
            for text in ("1", "2", "3"):
                broker.connection.say_text(text)
            assert await anext(messages) == 1
        async for _ in client.subscribe("**", buffer=1):
            break


async def test_whoever_is_cancelled_leaves_nothing_behind(broker: FakeBroker) -> None:
    async def publish_forever() -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            broker.publish("b")

    steps, finished = 0, False
    while not finished:
        steps += 1
        with cancelled_at(steps) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_forever)
                await use(broker)
                nursery.cancel_scope.cancel()
        finished = not scope.cancelled_caught
        assert all(connection.closed for connection in broker.connections)
        assert broker.model.connections == []
    assert steps > 50
