"""Consumers: what is delivered, in order and no more of it than was agreed, and how it ends."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic, Delivery
from connectors.amqp.codec import Channel as Methods
from connectors.amqp.connection import Connection
from connectors.amqp.consuming import Consumer
from connectors.amqp.errors import ChannelAbandoned, ChannelClosed, ConnectionLost, ConsumerCancelled, ProtocolError
from tests.connectors.amqp.server import Server, connected, message, refusing


def tags(deliveries: list[Delivery]) -> list[int]:
    return [delivery.tag for delivery in deliveries]


async def consuming(connection: Connection, prefetch: int = 5) -> tuple[Channel, Consumer]:
    channel = await connection.open_channel()
    return channel, await channel.consume("queue", prefetch)


# --- Deliveries ------------------------------------------------------------------------------------------------------


async def test_rabbitmq_is_told_how_many_may_be_on_their_way(server: Server) -> None:
    async with connected() as connection:
        await consuming(connection, prefetch=7)
    assert server.names()[1:3] == ["Basic.Qos", "Basic.Consume"]
    assert server.heard_of(Basic.Qos)[0].prefetch_count == 7
    [consume] = server.heard_of(Basic.Consume)
    assert (consume.queue, consume.no_ack, consume.exclusive, consume.nowait) == ("queue", False, False, False)


async def test_deliveries_come_in_order_as_many_as_wait_or_as_are_wanted(server: Server) -> None:
    async with connected() as connection:
        _, consumer = await consuming(connection)
        server.deliver(1, 2, 3)
        await wait_all_tasks_blocked()
        server.deliver(4)
        await wait_all_tasks_blocked()
        assert tags(await consumer.receive(2)) == [1, 2]
        assert tags(await consumer.receive(10)) == [3, 4]


async def test_who_asks_early_waits_and_gets_what_comes(server: Server) -> None:
    found: list[int] = []

    async def receive(consumer: Consumer) -> None:
        for _ in range(2):
            found.extend(tags(await consumer.receive(10)))

    async with connected() as connection, trio.open_nursery() as nursery:
        _, consumer = await consuming(connection)
        nursery.start_soon(receive, consumer)
        for tag in (1, 2):
            await wait_all_tasks_blocked()
            assert found == list(range(1, tag))
            server.deliver(tag)
    assert found == [1, 2]


async def test_deliveries_may_come_together_with_the_answer(server: Server) -> None:
    def answer(asked: Basic.Consume) -> None:
        server.say(1, *message(Basic.Deliver(asked.consumer_tag, 1, False, "e", "r"), b"early"))
        server.say(1, Basic.ConsumeOk(asked.consumer_tag))

    server.answers[Basic.Consume] = answer
    async with connected() as connection:
        _, consumer = await consuming(connection)
        assert [delivery.body for delivery in await consumer.receive(1)] == [b"early"]


async def test_a_delivery_says_what_rabbitmq_said(server: Server) -> None:
    async with connected() as connection:
        _, consumer = await consuming(connection)
        properties = Basic.Properties(message_id="m", content_type="text/plain", headers={"n": 1})
        server.say(1, *message(Basic.Deliver("broker.1", 9, True, "events", "a.b"), b"body", properties))
        [delivery] = await consumer.receive(1)
    assert (delivery.tag, delivery.redelivered, delivery.exchange, delivery.routing_key) == (9, 1, b"events", b"a.b")
    assert (delivery.body, delivery.size) == (b"body", 4)
    assert (delivery.properties.message_id, delivery.properties.content_type) == ("m", "text/plain")
    assert delivery.properties.headers == {"n": 1}


async def test_settlements_are_written(server: Server) -> None:
    async with connected() as connection:
        channel, _ = await consuming(connection)
        channel.ack(3)
        channel.ack(5, multiple=True)
        channel.reject(6, requeue=False)
        channel.reject(7, requeue=True)
    assert [(ack.delivery_tag, ack.multiple) for ack in server.heard_of(Basic.Ack)] == [(3, False), (5, True)]
    assert [(each.delivery_tag, each.requeue) for each in server.heard_of(Basic.Reject)] == [(6, False), (7, True)]


async def test_a_delivery_of_as_many_as_agreed_is_taken_and_of_one_more_is_the_end(server: Server) -> None:
    async def session() -> None:
        async with connected() as connection:
            _, consumer = await consuming(connection, prefetch=3)
            server.deliver(1, 2, 3)
            await wait_all_tasks_blocked()
            assert tags(await consumer.receive(1)) == [1]
            server.deliver(4)
            await wait_all_tasks_blocked()
            server.deliver(5)
            await trio.sleep_forever()

    with pytest.raises(ProtocolError, match="RabbitMQ sent more than the 3 deliveries that it may"):
        await session()


async def test_each_consumer_of_a_channel_gets_its_own(server: Server) -> None:
    async with connected() as connection:
        channel, first = await consuming(connection)
        second = await channel.consume("another", 5)
        for tag, name in enumerate(["broker.2", "broker.1", "broker.2"]):
            server.say(1, *message(Basic.Deliver(name, tag, False, "", ""), b"x"))
        await wait_all_tasks_blocked()
        assert (tags(await first.receive(9)), tags(await second.receive(9))) == ([1], [0, 2])


# --- Ends ------------------------------------------------------------------------------------------------------------


async def test_a_consumer_that_rabbitmq_ends_is_told_and_the_channel_goes_on(server: Server) -> None:
    async with connected() as connection:
        channel, consumer = await consuming(connection)
        server.deliver(1)
        server.say(1, Basic.Cancel("broker.1", nowait=True))
        await wait_all_tasks_blocked()
        with pytest.raises(ConsumerCancelled, match="its queue was deleted, or has moved"):
            await consumer.receive(1)
        assert await channel.declare_queue("queue") == 3


async def test_a_consumer_after_one_that_has_ended_takes_nobody_s_name(server: Server) -> None:
    async with connected() as connection:
        channel, first = await consuming(connection)
        second = await channel.consume("another", 5)
        server.say(1, Basic.Cancel("broker.1", nowait=True))
        await wait_all_tasks_blocked()
        await channel.consume("a third", 5)
        names = [consume.consumer_tag for consume in server.heard_of(Basic.Consume)]
        assert len(set(names)) == 3
        server.say(1, *message(Basic.Deliver(names[1], 1, False, "", ""), b"x"))
        await wait_all_tasks_blocked()
        assert tags(await second.receive(1)) == [1]
    with pytest.raises(ConsumerCancelled):
        await first.receive(1)


async def test_the_end_of_a_consumer_that_nobody_knows_is_nothing(server: Server) -> None:
    async with connected() as connection:
        channel, _ = await consuming(connection)
        server.say(1, Basic.Cancel("nobody", nowait=True))
        await wait_all_tasks_blocked()
        assert await channel.declare_queue("queue") == 3


async def test_a_queue_that_can_not_be_consumed_from_is_told(server: Server) -> None:
    server.answers[Basic.Consume] = refusing(403, "ACCESS_REFUSED - queue 'queue' in exclusive use")
    async with connected() as connection:
        with pytest.raises(ChannelClosed, match="exclusive use"):
            await consuming(connection)


async def test_who_waits_is_told_of_the_end_and_what_waited_is_not_given_out(server: Server) -> None:
    async def receive_two(consumer: Consumer) -> None:
        assert tags(await consumer.receive(1)) == [1]
        await consumer.receive(1)

    async with connected() as connection:
        _, consumer = await consuming(connection)
        server.deliver(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_closed, receive_two, consumer)
            await wait_all_tasks_blocked()
            server.say(1, Methods.Close(406, "PRECONDITION_FAILED - unknown delivery tag", 0, 0))
        server_side = consumer
    with pytest.raises(ChannelClosed):
        await server_side.receive(1)


async def _expect_closed(receive: object, consumer: Consumer) -> None:
    with pytest.raises(ChannelClosed, match="unknown delivery tag"):
        await receive(consumer)  # type: ignore[operator]


async def test_what_waited_at_the_end_comes_again_and_is_not_given_out(server: Server) -> None:
    async with connected() as connection:
        _, consumer = await consuming(connection)
        server.deliver(1, 2)
        await wait_all_tasks_blocked()
    with pytest.raises(ConnectionLost):
        await consumer.receive(1)


async def test_deliveries_to_a_channel_that_was_given_up_are_no_fault(server: Server) -> None:
    del server.answers[Basic.Consume]
    del server.answers[Methods.Close]
    async with connected() as connection:
        channel = await connection.open_channel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.consume, "queue", 1)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        server.say(1, Basic.ConsumeOk("broker.1"))
        server.deliver(1, 2, 3)
        server.say(1, Methods.CloseOk())
        await wait_all_tasks_blocked()
        with pytest.raises(ChannelAbandoned):
            channel.ack(1)
        await connection.open_channel()
