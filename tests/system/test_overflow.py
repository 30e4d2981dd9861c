"""A full queue where events give way to others: the same for a WebSocket and for an event stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from tests.system.floods import QUEUE, NextEvent, config, heard_late_by_stream, heard_late_by_websocket
from tests.system.harness import Broker, Brokers

pytestmark = pytest.mark.system

HeardLate = Callable[[Broker], AbstractAsyncContextManager[NextEvent]]

either_way = pytest.mark.parametrize("heard_late", [heard_late_by_websocket, heard_late_by_stream])


async def numbers(next_event: NextEvent, last: str) -> list[tuple[str, int]]:
    """Names and numbers of what comes, without what filled the socket, up to an event called `last`."""
    received = []
    while (event := await next_event())["event"] != last:
        if event["event"] != "flood.fill":
            received.append((event["event"], event["data"]))
    return received


@either_way
async def test_a_full_queue_drops_the_oldest(brokers: Brokers, heard_late: HeardLate) -> None:
    broker = brokers.start(config("drop_oldest"))
    async with heard_late(broker) as next_event:
        for number in range(20):
            broker.publish("flood.number", number)
        broker.publish("flood.end")
        expected = [("flood.number", number) for number in range(20 - QUEUE + 1, 20)]
        assert await numbers(next_event, "flood.end") == expected


@either_way
async def test_a_full_queue_drops_the_newest(brokers: Brokers, heard_late: HeardLate) -> None:
    broker = brokers.start(config("drop_newest"))
    async with heard_late(broker) as next_event:
        for number in range(20):
            broker.publish("flood.number", number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_until_it_is_delivered, broker, "flood.end")
            assert await numbers(next_event, "flood.end") == []


async def publish_until_it_is_delivered(broker: Broker, name: str) -> None:
    delivered = broker.metric("broker_deliveries_total")
    while broker.metric("broker_deliveries_total") == delivered:
        await trio.to_thread.run_sync(broker.publish, name)


@either_way
async def test_of_each_event_only_the_newest_waits(brokers: Brokers, heard_late: HeardLate) -> None:
    broker = brokers.start(config("latest"))
    async with heard_late(broker) as next_event:
        for number in range(20):
            for name in ("flood.a", "flood.b", "flood.c"):
                broker.publish(name, number)
        broker.publish("flood.a", 20)
        broker.publish("flood.end")
        assert await numbers(next_event, "flood.end") == [("flood.b", 19), ("flood.c", 19), ("flood.a", 20)]
