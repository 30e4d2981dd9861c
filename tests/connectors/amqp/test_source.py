"""The source: what is acknowledged when, what is rejected, and which node is asked next."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from pamqp.header import ProtocolHeader
from trio.testing import wait_all_tasks_blocked

from broker.core.errors import BrokerError, LogUnavailable, Stopping
from broker.core.event import Event
from connectors.amqp.codec import Basic, Queue
from connectors.amqp.errors import ConnectionFailed, ConnectionLost, NotPrepared
from connectors.amqp.reading import reader
from connectors.amqp.source import MAX_BATCH_EVENTS, AmqpSource, SourceSettings
from connectors.amqp.topology import QueueSettings
from tests.connectors.amqp.server import ADDRESS, Nodes, Server, message, refusing

GOOD = b'{"event":"games.1.created"}'
BAD = b"nonsense"


class Door:
    """Takes events while it is open, or refuses them all."""

    def __init__(self, error: BrokerError | None = None) -> None:
        self.batches: list[Sequence[Event]] = []
        self.opened = trio.Event()
        self._error = error

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        assert timeout is None
        self.batches.append(events)
        await self.opened.wait()
        if self._error is not None:
            raise self._error
        return ["id"] * len(events)


def never_ready() -> None:
    pytest.fail("it said that events can come")


@pytest.fixture
def door() -> Door:
    door = Door()
    door.opened.set()
    return door


def source(*hosts: str, prefetch: int = 100) -> AmqpSource:
    addresses = [replace(ADDRESS, host=host) for host in hosts or ["mq"]]
    settings = SourceSettings("amqp_main", addresses, QueueSettings("queue"), prefetch)
    return AmqpSource(settings, reader("envelope", "amqp_main"))


@asynccontextmanager
async def running(running_source: AmqpSource, door: Door) -> AsyncIterator[None]:
    """Until the end of the block, which begins when events can come."""
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running_source.run, door, ready.set)
        await ready.wait()
        yield
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def deliver(server: Server, *bodies: bytes, first: int = 1, redelivered: bool = False) -> None:
    for tag, body in enumerate(bodies, start=first):
        server.say(1, *message(Basic.Deliver("broker.1", tag, redelivered, "events", "a.b"), body))


def acks(server: Server) -> list[tuple[int, bool]]:
    return [(ack.delivery_tag or 0, ack.multiple) for ack in server.heard_of(Basic.Ack)]


def rejects(server: Server) -> list[tuple[int, bool]]:
    return [(reject.delivery_tag or 0, reject.requeue) for reject in server.heard_of(Basic.Reject)]


# --- Deliveries ------------------------------------------------------------------------------------------------------


async def test_it_consumes_when_the_queue_is_prepared_and_then_says_that_it_is_ready(
    server: Server, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    main = source(prefetch=7)
    with caplog.at_level(logging.INFO, "connectors.amqp"):
        async with running(main, door):
            assert server.names()[:5] == [
                "Channel.Open",
                "Queue.Declare",
                "Channel.Close",
                "Channel.Open",
                "Basic.Qos",
            ]
            assert server.heard_of(Basic.Qos)[0].prefetch_count == 7
    assert main.name == "amqp_main"
    assert main.counters["connections"] == 1
    told: dict[str, Any] = vars(caplog.records[0])
    assert (told["msg"], told["connector"], told["queue"]) == ("amqp.consuming", "amqp_main", "queue")
    assert "hunter2" not in told["node"]


async def test_a_delivery_is_acknowledged_when_the_log_has_it_and_not_before(server: Server) -> None:
    door = Door()
    main = source()
    async with running(main, door):
        deliver(server, GOOD)
        await wait_all_tasks_blocked()
        assert (len(door.batches), acks(server), main.counters["published"]) == (1, [], 0)
        door.opened.set()
        await wait_all_tasks_blocked()
        assert (acks(server), main.counters["published"]) == ([(1, True)], 1)


async def test_what_comes_while_the_log_takes_a_batch_is_the_next_batch(server: Server) -> None:
    door = Door()
    async with running(source(), door):
        deliver(server, GOOD, GOOD)
        await wait_all_tasks_blocked()
        deliver(server, GOOD, GOOD, GOOD, first=3)
        await wait_all_tasks_blocked()
        assert list(map(len, door.batches)) == [2]
        door.opened.set()
        await wait_all_tasks_blocked()
    assert list(map(len, door.batches)) == [2, 3]
    assert acks(server) == [(2, True), (5, True)]


async def test_a_batch_has_a_largest_size(server: Server, door: Door) -> None:
    async with running(source(prefetch=5000), door):
        deliver(server, *[GOOD] * (MAX_BATCH_EVENTS + 1))
    assert list(map(len, door.batches)) == [MAX_BATCH_EVENTS, 1]
    assert acks(server) == [(MAX_BATCH_EVENTS, True), (MAX_BATCH_EVENTS + 1, True)]


async def test_events_come_in_order_and_with_the_source_s_name(server: Server, door: Door) -> None:
    async with running(source(), door):
        deliver(server, *[b'{"event":"e%d","data":%d}' % (number, number) for number in range(3)])
    assert [event for batch in door.batches for event in batch] == [
        Event(f"e{number}", str(number).encode(), None, "amqp_main") for number in range(3)
    ]


async def test_redeliveries_are_counted(server: Server, door: Door) -> None:
    main = source()
    async with running(main, door):
        deliver(server, GOOD, BAD, redelivered=True)
        deliver(server, GOOD, first=3)
    assert (main.counters["redelivered"], main.counters["published"]) == (2, 2)


# --- Bad ones --------------------------------------------------------------------------------------------------------


async def test_what_is_no_event_is_rejected_and_not_to_come_again(server: Server, door: Door) -> None:
    main = source()
    async with running(main, door):
        deliver(server, BAD, b'{"event":"a b"}', b"[]")
    assert rejects(server) == [(1, False), (2, False), (3, False)]
    assert (acks(server), door.batches) == ([], [])
    refused = {name: count for name, count in main.counters.items() if name.startswith("refused")}
    assert refused == {"refused_too_large": 0, "refused_not_json": 1, "refused_bad_name": 1, "refused_bad_event": 1}


async def test_of_a_mixed_batch_the_last_good_one_is_acknowledged_with_all_before_it(
    server: Server, door: Door
) -> None:
    async with running(source(), door):
        deliver(server, BAD, GOOD, BAD, GOOD, BAD)
    assert [len(batch) for batch in door.batches] == [2]
    assert (rejects(server), acks(server)) == ([(1, False), (3, False), (5, False)], [(4, True)])


async def test_what_is_rejected_is_so_before_those_around_it_are_acknowledged(server: Server) -> None:
    """An acknowledgement of all up to a later one would take the bad one with it, past the dead letters."""
    door = Door()
    async with running(source(), door):
        deliver(server, GOOD, BAD, GOOD)
        await wait_all_tasks_blocked()
        assert (rejects(server), acks(server)) == ([(2, False)], [])
        door.opened.set()
    assert [name for name in server.names() if name in {"Basic.Ack", "Basic.Reject"}] == ["Basic.Reject", "Basic.Ack"]


async def test_the_log_is_told_of_the_1st_the_10th_and_the_100th(
    server: Server, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    main = source(prefetch=1000)
    with caplog.at_level(logging.WARNING, "connectors.amqp"):
        async with running(main, door):
            deliver(server, *[BAD] * 120, b"[]")
    told = [vars(record) for record in caplog.records]
    assert [(each["msg"], each["so_far"]) for each in told] == [("amqp.refused", so_far) for so_far in (1, 10, 100, 1)]
    assert (told[0]["connector"], told[0]["routing_key"]) == ("amqp_main", "a.b")
    assert "no JSON" in told[0]["reason"]


# --- Ends ------------------------------------------------------------------------------------------------------------


async def test_what_could_not_be_published_is_not_acknowledged(server: Server) -> None:
    door = Door(LogUnavailable("the disk is full"))
    door.opened.set()
    main = source()
    server.answers[Basic.Consume] = delivering(server, GOOD, GOOD)
    with pytest.raises(LogUnavailable):
        await main.run(door, lambda: None)
    assert (acks(server), main.counters["published"], len(door.batches)) == ([], 0, 1)
    assert server.names()[-1] == "Connection.Close"


def delivering(server: Server, *bodies: bytes) -> Callable[[Basic.Consume], None]:
    """Who consumes is answered by deliveries at once."""

    def answer(asked: Basic.Consume) -> None:
        server.say(1, Basic.ConsumeOk(asked.consumer_tag))
        deliver(server, *bodies)

    return answer


async def test_a_broker_that_stops_ends_it_quietly(server: Server) -> None:
    door = Door(Stopping())
    door.opened.set()
    server.answers[Basic.Consume] = delivering(server, GOOD)
    await source().run(door, lambda: None)
    assert acks(server) == []
    assert server.names()[-1] == "Connection.Close"


async def test_a_cancellation_while_the_log_takes_a_batch_leaves_it_to_come_again(server: Server) -> None:
    async with running(source(), Door()):
        deliver(server, GOOD, BAD)
    assert (acks(server), rejects(server)) == ([], [(2, False)])


async def test_a_queue_that_can_not_be_had_is_told_and_it_is_not_ready(server: Server, door: Door) -> None:
    server.answers[Queue.Declare] = refusing(403, "ACCESS_REFUSED")
    with pytest.raises(NotPrepared, match="queue 'queue'"):
        await source().run(door, never_ready)


# --- Nodes -----------------------------------------------------------------------------------------------------------


def down(host: str) -> ConnectionFailed:
    return ConnectionFailed(f"{replace(ADDRESS, host=host)}: Connection refused")


def asking(monkeypatch: pytest.MonkeyPatch, **hosts: Server | Exception) -> Nodes:
    nodes = Nodes({host: [answer] for host, answer in hosts.items()})
    monkeypatch.setattr("connectors.amqp.connection.open_stream", nodes.open_stream)
    return nodes


async def test_all_nodes_are_asked_in_turn_and_all_that_they_said_is_told(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = asking(monkeypatch, a=down("a"), b=down("b"), c=down("c"))
    with pytest.raises(ConnectionFailed, match=r"amqp://a:5672 .* refused; amqp://b:5672 .*; amqp://c:5672 .* refused"):
        await source("a", "b", "c").run(door, never_ready)
    assert nodes.asked == ["a", "b", "c"]


async def test_the_first_node_that_answers_is_consumed_from(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    nodes = asking(monkeypatch, a=down("a"), b=server, c=down("c"))
    async with running(source("a", "b", "c"), door):
        deliver(server, GOOD)
    assert nodes.asked == ["a", "b"]
    assert acks(server) == [(1, True)]


async def test_a_node_that_speaks_another_protocol_is_one_that_is_down(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = Server()
    web.answers[ProtocolHeader] = lambda _: web.say_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    nodes = asking(monkeypatch, a=web, b=Server())
    async with running(source("a", "b"), door):
        pass
    assert nodes.asked == ["a", "b"]


async def test_when_a_node_is_lost_the_next_one_is_asked_first(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = Server()
    leaving.answers[Basic.Consume] = lambda _: leaving.hang_up()
    nodes = asking(monkeypatch, a=down("a"), b=leaving, c=down("c"))
    main = source("a", "b", "c")
    with pytest.raises(ConnectionLost):
        await main.run(door, never_ready)
    with pytest.raises(ConnectionLost):
        await main.run(door, never_ready)
    assert nodes.asked == ["a", "b", "c", "a", "b"]
