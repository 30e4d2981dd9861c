"""Messages that we publish: what is written, when it is held back, and what becomes of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from trio.testing import wait_all_tasks_blocked

from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic, Confirm
from connectors.amqp.codec import Channel as Methods
from connectors.amqp.codec import Connection as ConnectionMethods
from connectors.amqp.confirms import Publication
from connectors.amqp.errors import AmqpError, ChannelClosed, ConnectionLost, PublishRefused, Unroutable
from connectors.amqp.outgoing import HIGH_WATER_BYTES
from tests.connectors.amqp.server import Server, connected, message

NOTHING = Basic.Properties()
BLOCKED, UNBLOCKED = ConnectionMethods.Blocked("low on memory"), ConnectionMethods.Unblocked()
RETURN = Basic.Return(312, "NO_ROUTE", "events", "a.b")


@asynccontextmanager
async def publishing(window: int = 10) -> AsyncIterator[Channel]:
    """A channel with confirms."""
    async with connected() as connection:
        channel = await connection.open_channel()
        await channel.confirm(window)
        yield channel


async def publish(channel: Channel, body: bytes = b"{}", message_id: str | None = None) -> Publication:
    return await channel.publish("events", "a.b", body, Basic.Properties(message_id=message_id))


async def fate(publication: Publication) -> type[AmqpError] | None:
    """What has become of it, which must be known by now."""
    with trio.fail_after(0):
        try:
            await publication.wait_confirmed()
        except AmqpError as error:
            return type(error)
    return None


def published(server: Server) -> int:
    return len(server.heard_of(Basic.Publish))


# --- What is written -------------------------------------------------------------------------------------------------


async def test_a_message_is_written_with_its_properties_and_as_mandatory(server: Server) -> None:
    async with publishing() as channel:
        properties = Basic.Properties(message_id="m", delivery_mode=2)
        await channel.publish("events", "a.b", b"body", properties)
        await channel.publish("", "queue", b"", NOTHING, mandatory=False)
    first, second = server.heard_of(Basic.Publish)
    assert (first.exchange, first.routing_key, first.mandatory) == ("events", "a.b", True)
    assert (second.exchange, second.routing_key, second.mandatory) == ("", "queue", False)
    header, empty = server.heard_of(ContentHeader)
    assert (header.body_size, header.properties, empty.body_size) == (4, properties, 0)
    assert [body.value for body in server.heard_of(ContentBody)] == [b"body"]


async def test_no_frame_is_larger_than_rabbitmq_takes(server: Server) -> None:
    server.answers[ConnectionMethods.StartOk] = lambda _: ConnectionMethods.Tune(0, 4096, 0)
    async with publishing() as channel:
        await publish(channel, b"x" * 10_000)
    assert [len(body.value or b"") for body in server.heard_of(ContentBody)] == [4088, 4088, 1824]


async def test_nothing_is_published_where_nobody_would_know_of_its_fate(server: Server) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        with pytest.raises(AmqpError, match=r"publish\(\) needs confirm\(\) first"):
            await publish(channel)
    assert server.names() == ["Channel.Open", "Connection.Close"]


async def test_what_amqp_can_not_say_is_not_counted(server: Server) -> None:
    async with publishing(window=1) as channel:
        for exchange, properties in (("e" * 256, NOTHING), ("events", Basic.Properties(priority=300))):
            with pytest.raises(AmqpError, match="this can't be said"):
                await channel.publish(exchange, "r", b"", properties)
        publication = await publish(channel)
        server.say(1, Basic.Ack(1))
        await wait_all_tasks_blocked()
        assert await fate(publication) is None


async def test_who_is_cancelled_publishes_nothing(server: Server) -> None:
    async with publishing() as channel:
        with trio.CancelScope() as limit:
            limit.cancel()
            await publish(channel)
        assert limit.cancelled_caught
    assert published(server) == 0


# --- What becomes of it ----------------------------------------------------------------------------------------------


async def test_a_confirm_answers_for_one_or_for_all_up_to_it(server: Server) -> None:
    async with publishing() as channel:
        publications = [await publish(channel) for _ in range(5)]
        server.say(1, Basic.Ack(4), Basic.Ack(2, multiple=True))
        await wait_all_tasks_blocked()
        for number in (1, 2, 4):
            assert await fate(publications[number - 1]) is None
        for number in (3, 5):
            with pytest.raises(trio.TooSlowError):
                await fate(publications[number - 1])


async def test_who_waits_is_told_when_the_confirm_comes(server: Server) -> None:
    told: list[type[AmqpError] | None] = []

    async def wait(publication: Publication) -> None:
        try:
            await publication.wait_confirmed()
        except AmqpError as error:
            told.append(type(error))
        else:
            told.append(None)

    async with publishing() as channel, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(wait, await publish(channel))
        await wait_all_tasks_blocked()
        assert told == []
        server.say(1, Basic.Ack(1))
        await wait_all_tasks_blocked()
        assert told == [None]
        server.say(1, Basic.Nack(2))
    assert told == [None, PublishRefused]


async def test_a_message_that_rabbitmq_could_not_take_is_refused(server: Server) -> None:
    async with publishing() as channel:
        publications = [await publish(channel) for _ in range(3)]
        server.say(1, Basic.Nack(2, multiple=True), Basic.Ack(3))
        await wait_all_tasks_blocked()
        assert [await fate(each) for each in publications] == [PublishRefused, PublishRefused, None]
        with pytest.raises(PublishRefused, match=r"basic\.nack"):
            await publications[0].wait_confirmed()


async def test_a_message_that_no_queue_wants_is_unroutable(server: Server) -> None:
    async with publishing() as channel:
        publications = [await publish(channel, message_id=name) for name in ("a", "b", "c")]
        server.say(1, *message(RETURN, b"{}", Basic.Properties(message_id="b")), Basic.Ack(3, multiple=True))
        await wait_all_tasks_blocked()
        assert [await fate(each) for each in publications] == [None, Unroutable, None]
        with pytest.raises(Unroutable, match=r"no queue is bound for it: RabbitMQ said NO_ROUTE \(312\)"):
            await publications[1].wait_confirmed()


@pytest.mark.parametrize("message_id", [None, ""])
async def test_of_messages_without_an_id_the_first_is_returned_first(server: Server, message_id: str | None) -> None:
    async with publishing() as channel:
        publications = [await publish(channel, message_id=message_id) for _ in range(3)]
        server.say(1, *message(RETURN, b"{}"), *message(RETURN, b"{}"), Basic.Ack(3, multiple=True))
        await wait_all_tasks_blocked()
        assert [await fate(each) for each in publications] == [Unroutable, Unroutable, None]


async def test_a_return_of_what_nobody_published_is_nothing(server: Server) -> None:
    async with publishing() as channel:
        publication = await publish(channel, message_id="mine")
        server.say(1, *message(RETURN, b"{}", Basic.Properties(message_id="not mine")), Basic.Ack(1), Basic.Ack(77))
        await wait_all_tasks_blocked()
        assert await fate(publication) is None


async def test_answers_on_a_channel_without_confirms_are_nothing(server: Server) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        server.say(1, Basic.Ack(1), *message(RETURN, b"{}"))
        await wait_all_tasks_blocked()
        assert await channel.declare_queue("q") == 3


async def test_the_end_of_the_channel_is_the_fate_of_all_that_are_open(server: Server) -> None:
    async with publishing() as channel:
        publications = [await publish(channel) for _ in range(3)]
        server.say(1, Basic.Ack(1), Methods.Close(404, "NOT_FOUND - no exchange 'events'", 60, 40))
        await wait_all_tasks_blocked()
        assert [await fate(each) for each in publications] == [None, ChannelClosed, ChannelClosed]


async def test_the_end_of_the_connection_is_the_fate_of_all_that_are_open(server: Server) -> None:
    async with publishing() as channel:
        publication = await publish(channel)
    with pytest.raises(ConnectionLost):
        await publication.wait_confirmed()


# --- When it is held back --------------------------------------------------------------------------------------------


async def test_publishing_waits_while_rabbitmq_is_blocked(server: Server) -> None:
    async with connected() as connection, trio.open_nursery() as nursery:
        channel = await connection.open_channel()
        await channel.confirm(10)
        server.say(0, BLOCKED)
        await wait_all_tasks_blocked()
        assert connection.blocked
        nursery.start_soon(publish, channel)
        server.say(0, BLOCKED)
        await wait_all_tasks_blocked()
        assert published(server) == 0
        server.say(0, UNBLOCKED)
        await wait_all_tasks_blocked()
        assert published(server) == 1
        assert not connection.blocked
        await publish(channel)


async def test_a_channel_that_is_opened_while_rabbitmq_is_blocked_waits_as_well(server: Server) -> None:
    async with connected() as connection, trio.open_nursery() as nursery:
        server.say(0, BLOCKED)
        await wait_all_tasks_blocked()
        channel = await connection.open_channel()
        await channel.confirm(10)
        nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        assert published(server) == 0
        server.say(0, UNBLOCKED)
    assert published(server) == 1


async def test_publishing_waits_while_the_channel_s_flow_is_stopped(server: Server) -> None:
    async with publishing() as channel, trio.open_nursery() as nursery:
        server.say(1, Methods.Flow(False))
        await wait_all_tasks_blocked()
        nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        assert published(server) == 0
        server.say(1, Methods.Flow(True))
    assert published(server) == 1


async def test_publishing_waits_while_the_window_is_full(server: Server) -> None:
    async with publishing(window=2) as channel, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(publish, channel)
        for answered in range(3):
            await wait_all_tasks_blocked()
            assert published(server) == 2 + answered
            server.say(1, Basic.Ack(answered + 1))
    assert published(server) == 4


async def test_the_window_holds_also_for_those_who_waited_for_something_else(server: Server) -> None:
    async with connected() as connection, trio.open_nursery() as nursery:
        channel, busy = await connection.open_channel(), await connection.open_channel()
        await channel.confirm(2)
        await busy.confirm(10)
        server.room = 0
        for _ in range(2):
            await publish(busy, b"x" * (HIGH_WATER_BYTES // 2))
        for _ in range(5):
            nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        server.make_room()
        await wait_all_tasks_blocked()
        assert published(server) == 2 + 2
        nursery.cancel_scope.cancel()


async def test_publishing_waits_while_very_much_waits_to_be_written(server: Server) -> None:
    async with publishing(window=1000) as channel, trio.open_nursery() as nursery:
        server.room = 0
        channel.ack(1)
        await wait_all_tasks_blocked()
        for _ in range(2):
            await publish(channel, b"x" * (HIGH_WATER_BYTES // 2))
        for _ in range(2):
            nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        server.make_room()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0
        assert published(server) == 4


@pytest.mark.parametrize("held_back_by", ["the window", "the server"])
async def test_who_is_held_back_is_told_of_the_end(server: Server, held_back_by: str) -> None:
    async def expect_the_end(channel: Channel) -> None:
        with pytest.raises(ChannelClosed):
            await publish(channel)

    async with publishing(window=1) as channel, trio.open_nursery() as nursery:
        if held_back_by == "the window":
            await publish(channel)
        else:
            server.say(0, BLOCKED)
        await wait_all_tasks_blocked()
        nursery.start_soon(expect_the_end, channel)
        await wait_all_tasks_blocked()
        server.say(1, Methods.Close(404, "NOT_FOUND", 0, 0))


async def test_confirms_are_asked_for_once(server: Server) -> None:
    async with publishing():
        pass
    assert len(server.heard_of(Confirm.Select)) == 1
