"""A channel: its questions and their answers, and that the end of one is the end of no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic, Exchange, Queue
from connectors.amqp.codec import Channel as Methods
from connectors.amqp.connection import Connection
from connectors.amqp.errors import AmqpError, ChannelAbandoned, ChannelClosed, ConnectionLost, ProtocolError
from tests.connectors.amqp.server import Server, connected, message, refusing


@asynccontextmanager
async def two_channels() -> AsyncIterator[tuple[Connection, Channel]]:
    """The first of two; the second must go on whatever happens to it."""
    async with connected() as connection:
        first, second = await connection.open_channel(), await connection.open_channel()
        yield connection, first
        await wait_all_tasks_blocked()
        assert await second.declare_queue("second") == 3


def said_on(server: Server, number: int) -> list[str]:
    """What the server heard on a channel since that was opened, by name."""
    return [frame.name for heard, frame in server.heard if heard == number][1:]


# --- Questions -------------------------------------------------------------------------------------------------------


async def test_a_question_carries_what_it_was_asked_with(server: Server) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        await channel.declare_exchange("events", "topic")
        await channel.declare_exchange("events", "", passive=True)
        assert await channel.declare_queue("q", arguments={"x-queue-type": "quorum"}) == 3
        await channel.declare_queue("q", passive=True, durable=False)
        await channel.bind("q", "events", "a.#", {"x-match": "all"})
    made, checked = server.heard_of(Exchange.Declare)
    assert (made.exchange, made.exchange_type, made.durable, made.passive) == ("events", "topic", True, False)
    assert (checked.exchange, checked.durable, checked.passive) == ("events", False, True)
    queue, checked_queue = server.heard_of(Queue.Declare)
    assert (queue.durable, queue.passive, queue.arguments) == (True, False, {"x-queue-type": "quorum"})
    assert (checked_queue.durable, checked_queue.passive, checked_queue.arguments) == (False, True, {})
    [bound] = server.heard_of(Queue.Bind)
    assert (bound.queue, bound.exchange, bound.routing_key, bound.arguments) == (
        "q",
        "events",
        "a.#",
        {"x-match": "all"},
    )


async def test_a_question_waits_until_the_one_before_is_answered(server: Server) -> None:
    del server.answers[Queue.Declare]
    found: list[int] = []

    async def ask(channel: Channel, name: str) -> None:
        found.append(await channel.declare_queue(name))

    async with connected() as connection, trio.open_nursery() as nursery:
        channel = await connection.open_channel()
        nursery.start_soon(ask, channel, "a")
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, channel, "b")
        await wait_all_tasks_blocked()
        assert said_on(server, 1) == ["Queue.Declare"]
        server.say(1, Queue.DeclareOk("a", 1, 0))
        await wait_all_tasks_blocked()
        assert (said_on(server, 1), found) == (["Queue.Declare"] * 2, [1])
        server.say(1, Queue.DeclareOk("b", 2, 0))
    assert found == [1, 2]


async def test_who_gives_up_before_its_turn_leaves_the_channel_as_it_is(server: Server) -> None:
    del server.answers[Queue.Declare]
    async with connected() as connection, trio.open_nursery() as nursery:
        channel = await connection.open_channel()
        nursery.start_soon(channel.declare_queue, "a")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as limit:
            nursery.start_soon(_cancel_when_blocked, limit)
            await channel.declare_queue("b")
        assert limit.cancelled_caught
        server.say(1, Queue.DeclareOk("a", 1, 0))
        await wait_all_tasks_blocked()
        await channel.declare_exchange("e", "topic")
    assert said_on(server, 1) == ["Queue.Declare", "Exchange.Declare"]


async def _cancel_when_blocked(limit: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    limit.cancel()


async def test_a_wrong_answer_is_told(server: Server) -> None:
    server.answers[Queue.Declare] = lambda _: Basic.QosOk()
    async with connected() as connection:
        channel = await connection.open_channel()
        with pytest.raises(ProtocolError, match=r"RabbitMQ answered Queue\.Declare with Basic\.QosOk"):
            await channel.declare_queue("q")


async def test_names_that_amqp_does_not_have_are_not_asked_about(server: Server) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        for question in (
            channel.declare_exchange("e" * 256, "topic"),
            channel.declare_queue("q" * 300),
            channel.declare_queue("q", arguments={"n": 2**64}),
            channel.bind("q", "e", "r" * 256),
            channel.consume("q" * 256, prefetch=1),
        ):
            with pytest.raises(AmqpError, match=r"this can't be said in AMQP 0-9-1"):
                await question
        assert await channel.declare_queue("q") == 3
    assert said_on(server, 1) == ["Basic.Qos", "Queue.Declare"]


@pytest.mark.parametrize("name", ["q (5)", "*", "schlüssel", "a\nb", "q" * 255])
async def test_any_text_is_a_name_to_rabbitmq(server: Server, name: str) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        await channel.declare_exchange(name, "topic")
        await channel.declare_queue(name)
        await channel.bind(name, name, name)
        await channel.consume(name, prefetch=1)
    assert said_on(server, 1) == ["Exchange.Declare", "Queue.Declare", "Queue.Bind", "Basic.Qos", "Basic.Consume"]


# --- Ends ------------------------------------------------------------------------------------------------------------


async def test_a_refusal_closes_the_channel_alone(server: Server) -> None:
    server.answers[Exchange.Declare] = refusing(404, "NOT_FOUND - no exchange 'e'")
    async with two_channels() as (connection, channel):
        with pytest.raises(
            ChannelClosed, match=r"RabbitMQ said \"NOT_FOUND .* \(404\); make what is missing"
        ) as caught:
            await channel.declare_exchange("e", "", passive=True)
        assert caught.value.reply_code == 404
        with pytest.raises(ChannelClosed):
            await channel.declare_queue("q")
        with pytest.raises(ChannelClosed):
            channel.ack(1)
        await wait_all_tasks_blocked()
        assert said_on(server, 1) == ["Exchange.Declare", "Channel.CloseOk"]
        await connection.open_channel()
        assert said_on(server, 1)[-1] == "Channel.Open"


async def test_closing_waits_until_rabbitmq_knows(server: Server) -> None:
    del server.answers[Methods.Close]
    async with two_channels() as (_, channel), trio.open_nursery() as nursery:
        nursery.start_soon(channel.close)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        server.say(1, Methods.CloseOk())
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0
        with pytest.raises(ChannelAbandoned, match="the channel is closed"):
            channel.ack(1)
        await channel.close()
    assert said_on(server, 1) == ["Channel.Close"]


async def give_up(asking: Callable[[], Awaitable[object]]) -> None:
    """Ask something that is not answered, and give up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_question_that_is_given_up_closes_its_channel_alone(server: Server) -> None:
    del server.answers[Exchange.Declare]
    async with two_channels() as (connection, channel):
        await give_up(partial(channel.declare_exchange, "e", "topic"))
        with pytest.raises(ChannelAbandoned, match="an operation on the channel was cancelled"):
            await channel.declare_queue("q")
        await wait_all_tasks_blocked()
        assert said_on(server, 1) == ["Exchange.Declare", "Channel.Close"]
        await connection.open_channel()
        assert said_on(server, 1)[-1] == "Channel.Open"


async def test_the_first_reason_for_an_end_counts(server: Server) -> None:
    del server.answers[Exchange.Declare]
    del server.answers[Methods.Close]
    async with connected() as connection:
        channel = await connection.open_channel()
        await give_up(partial(channel.declare_exchange, "e", "topic"))
    with pytest.raises(ChannelAbandoned):
        channel.ack(1)


async def test_a_number_is_free_only_when_both_sides_know_that_the_channel_is_closed(server: Server) -> None:
    del server.answers[Exchange.Declare]
    del server.answers[Methods.Close]
    async with two_channels() as (connection, channel):
        await give_up(partial(channel.declare_exchange, "e", "topic"))
        await connection.open_channel()
        assert server.heard[-1][0] == 3
        server.say(1, Exchange.DeclareOk(), *message(Basic.Deliver("c", 1, False, "", "r"), b"late"))
        server.say(1, Methods.CloseOk())
        await wait_all_tasks_blocked()
        await connection.open_channel()
        assert server.heard[-1][0] == 1


async def test_a_refusal_may_cross_with_the_goodbye_of_who_gave_up(server: Server) -> None:
    del server.answers[Exchange.Declare]
    del server.answers[Methods.Close]
    async with two_channels() as (connection, channel):
        await give_up(partial(channel.declare_exchange, "e", "topic"))
        server.say(1, Methods.Close(404, "NOT_FOUND", 0, 0))
        await wait_all_tasks_blocked()
        assert said_on(server, 1) == ["Exchange.Declare", "Channel.Close", "Channel.CloseOk"]
        await connection.open_channel()
        assert server.heard[-1][0] == 3
        server.say(1, Methods.CloseOk())
        await wait_all_tasks_blocked()
        await connection.open_channel()
        assert server.heard[-1][0] == 1


async def test_a_close_may_cross_with_one_of_rabbitmq_s(server: Server) -> None:
    crossing = Methods.Close(406, "PRECONDITION_FAILED", 0, 0)
    server.answers[Methods.Close] = lambda _: server.say(1, crossing, Methods.CloseOk())
    async with two_channels() as (connection, channel):
        with pytest.raises(ChannelClosed, match="PRECONDITION_FAILED"):
            await channel.close()
        await wait_all_tasks_blocked()
        assert said_on(server, 1) == ["Channel.Close", "Channel.CloseOk"]
        await connection.open_channel()
        assert server.heard[-1][0] == 1


async def test_a_close_that_is_given_up_is_said_only_once(server: Server) -> None:
    del server.answers[Methods.Close]
    async with two_channels() as (connection, channel):
        await give_up(channel.close)
        await wait_all_tasks_blocked()
        assert said_on(server, 1) == ["Channel.Close"]
        server.say(1, Methods.CloseOk())
        await wait_all_tasks_blocked()
        await connection.open_channel()
        assert server.heard[-1][0] == 1


async def test_who_gives_up_what_is_refused_in_the_same_moment_says_no_goodbye(server: Server) -> None:
    del server.answers[Exchange.Declare]
    async with two_channels() as (_, channel), trio.open_nursery() as nursery:
        nursery.start_soon(channel.declare_exchange, "e", "topic")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        channel.handle(Methods.Close(404, "NOT_FOUND", 0, 0))
    assert said_on(server, 1) == ["Exchange.Declare", "Channel.CloseOk"]


async def test_an_opening_that_is_given_up_leaves_no_trace(server: Server) -> None:
    del server.answers[Methods.Open]
    del server.answers[Methods.Close]
    async with connected() as connection:
        await give_up(connection.open_channel)
        server.say(1, Methods.OpenOk(), Methods.CloseOk())
        await wait_all_tasks_blocked()
        server.answers[Methods.Open] = lambda _: Methods.OpenOk()
        await connection.open_channel()
        assert server.heard[-1][0] == 1


async def test_the_end_of_the_connection_is_the_answer_to_every_question(server: Server) -> None:
    del server.answers[Queue.Declare]
    told: list[BaseException] = []

    async def ask(channel: Channel) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await channel.declare_queue("q")
        told.append(caught.value)

    async def session(outside: trio.Nursery) -> None:
        async with connected() as connection:
            for _ in range(2):
                outside.start_soon(ask, await connection.open_channel())
            await wait_all_tasks_blocked()
            server.hang_up()
            await trio.sleep_forever()

    async with trio.open_nursery() as outside:
        with pytest.raises(ConnectionLost) as caught:
            await session(outside)
    assert told == [caught.value] * 2


async def test_a_heartbeat_on_a_channel_is_nothing(server: Server) -> None:
    async with two_channels():
        server.say_bytes(b"\x08\0\x01\0\0\0\0\xce")


@pytest.mark.parametrize("active", [False, True])
async def test_flow_is_answered(server: Server, active: bool) -> None:
    async with two_channels():
        server.say(1, Methods.Flow(active))
        await wait_all_tasks_blocked()
        [answer] = server.heard_of(Methods.FlowOk)
        assert answer.active is active
