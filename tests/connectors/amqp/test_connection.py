"""A connection that stands: heartbeats, how it is left, and each way in which it ends by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, wait_all_tasks_blocked

from connectors.amqp.codec import Basic, Channel, Connection
from connectors.amqp.connection import GOODBYE_SECONDS
from connectors.amqp.errors import AmqpError, ConnectionClosed, ConnectionLost, ProtocolError
from tests.connectors.amqp.server import ADDRESS, Server, connected, message

FORCED = Connection.Close(320, "CONNECTION_FORCED - broker forced connection closure", 0, 0)
GOODBYE = "Connection.Close"


async def held(*happenings: Callable[[], object]) -> None:
    """A connection with which nothing is done until it ends; meanwhile this happens."""
    async with connected():
        for happen in happenings:
            happen()
        await trio.sleep_forever()


# --- Heartbeats ------------------------------------------------------------------------------------------------------


async def alive(server: Server) -> None:
    """RabbitMQ says that it is, more often than it must."""
    while True:
        await trio.sleep(7)
        server.say(0, Heartbeat())


async def test_a_heartbeat_is_sent_where_nothing_was_for_half_of_its_time(
    server: Server, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery, connected() as connection:
        nursery.start_soon(alive, server)
        await trio.sleep(9.9)
        assert server.names() == []
        await trio.sleep(0.2)
        assert server.names() == ["Heartbeat"]
        await trio.sleep(7)
        await connection.open_channel()
        await trio.sleep(9.8)
        assert server.names() == ["Heartbeat", "Channel.Open"]
        await trio.sleep(0.3)
        assert server.names() == ["Heartbeat", "Channel.Open", "Heartbeat"]
        nursery.cancel_scope.cancel()


async def test_the_silence_of_two_heartbeats_is_the_end(server: Server, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match="nothing was heard of RabbitMQ for 40 seconds, two heartbeats"):
        await held()
    assert trio.current_time() - began == 40
    assert GOODBYE not in server.names()
    assert server.closed


async def test_any_byte_is_a_sign_of_life(server: Server, autojump_clock: MockClock) -> None:
    async def say_half_a_frame() -> None:
        await trio.sleep(39)
        server.say_bytes(b"\x08")
        await trio.sleep(39)
        server.say_bytes(b"\x00")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_half_a_frame)
        with pytest.raises(ConnectionLost, match="two heartbeats"):
            await held()
    assert trio.current_time() == 39 + 39 + 40


async def test_without_a_heartbeat_there_is_silence_for_as_long_as_one_likes(
    server: Server, autojump_clock: MockClock
) -> None:
    async with connected(replace(ADDRESS, heartbeat=0.0)):
        await trio.sleep(80_000)
        assert server.names() == []


async def test_a_peer_that_takes_nothing_is_noticed_by_its_silence(server: Server, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match="two heartbeats"):
        await held(lambda: setattr(server, "room", 3))
    assert trio.current_time() - began == 40
    assert server.half_a_frame == b"\x08\0\0"


# --- Leaving ---------------------------------------------------------------------------------------------------------


async def test_leaving_says_goodbye_and_waits_for_the_answer(server: Server, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with connected():
        pass
    assert server.names() == [GOODBYE]
    assert server.heard_of(Connection.Close)[0].reply_code == 200
    assert server.closed
    assert trio.current_time() == began


async def test_the_answer_to_a_goodbye_is_not_waited_for_without_end(server: Server, autojump_clock: MockClock) -> None:
    del server.answers[Connection.Close]
    began = trio.current_time()
    async with connected():
        pass
    assert trio.current_time() - began == GOODBYE_SECONDS
    assert server.closed


async def test_the_answer_to_a_goodbye_comes_after_all_that_was_on_its_way(
    server: Server, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    async with connected() as connection:
        channel = await connection.open_channel()
        await channel.consume("queue", prefetch=5)
        server.answers[Connection.Close] = lambda _: server.say(0, Heartbeat(), Connection.CloseOk())
        server.deliver(1, 2)
    assert trio.current_time() == began
    assert server.closed


@pytest.mark.parametrize("end", [Server.hang_up, Server.reset])
async def test_a_peer_that_is_gone_is_not_waited_for(
    server: Server, autojump_clock: MockClock, end: Callable[[Server], None]
) -> None:
    began = trio.current_time()
    server.answers[Connection.Close] = lambda _: end(server)
    async with connected():
        pass
    assert trio.current_time() == began


async def test_goodbye_to_a_peer_that_can_not_hear_is_no_error(server: Server, autojump_clock: MockClock) -> None:
    async with connected():
        server.deaf = True
    assert server.closed


async def test_what_was_put_just_before_is_written_first(server: Server) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        channel.ack(7)
        channel.reject(8, requeue=False)
    assert server.names() == ["Channel.Open", "Basic.Ack", "Basic.Reject", GOODBYE]


@pytest.mark.parametrize("turns", range(4))
async def test_what_was_put_some_turns_before_is_written_first(server: Server, turns: int) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
        channel.ack(7)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
    assert server.names() == ["Channel.Open", "Basic.Ack", GOODBYE]


async def test_a_write_that_was_cut_short_is_followed_by_nothing(server: Server, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with connected() as connection:
        channel = await connection.open_channel()
        server.room = 9
        channel.ack(7)
        await wait_all_tasks_blocked()
        channel.ack(8)
    server.room = 1000
    assert server.names() == ["Channel.Open"]
    assert len(server.half_a_frame) == 9
    assert server.closed
    assert trio.current_time() == began


async def test_what_the_block_raises_comes_out_as_it_is(server: Server) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with connected():
            raise error
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert server.names() == [GOODBYE]


async def test_a_cancellation_from_outside_is_one_and_says_goodbye(server: Server, autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as limit:
        await held()
    assert limit.cancelled_caught
    assert trio.current_time() == 5
    assert server.names() == [GOODBYE]


async def test_a_cancellation_from_outside_is_delayed_by_the_goodbye_at_most(
    server: Server, autojump_clock: MockClock
) -> None:
    del server.answers[Connection.Close]
    with trio.move_on_after(5) as limit:
        await held()
    assert limit.cancelled_caught
    assert trio.current_time() == 5 + GOODBYE_SECONDS


async def test_after_the_end_there_are_no_more_channels(server: Server) -> None:
    async with connected() as connection:
        channel = await connection.open_channel()
    for late in (connection.open_channel(), channel.declare_queue("q"), channel.consume("q", 1), channel.confirm(1)):
        with pytest.raises(ConnectionLost, match="the connection is closed"):
            await late
    with pytest.raises(ConnectionLost, match="the connection is closed"):
        channel.ack(1)


# --- Ends by themselves ----------------------------------------------------------------------------------------------


async def test_a_close_is_answered_and_told(server: Server, autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionClosed, match=r"RabbitMQ said 'CONNECTION_FORCED - .*' \(320\); .*ends") as caught:
        await held(lambda: server.say(0, FORCED))
    assert caught.value.reply_code == 320
    assert server.names() == ["Connection.CloseOk"]
    assert server.closed
    assert trio.current_time() == 0


async def test_a_close_that_can_not_be_answered_is_told(server: Server, autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionClosed):
        await held(lambda: setattr(server, "deaf", True), lambda: server.say(0, FORCED))


@pytest.mark.parametrize(
    ("end", "message"),
    [(Server.hang_up, "RabbitMQ closed the connection without a word"), (Server.reset, "the connection to .* broke")],
)
async def test_an_end_without_a_word_is_told(
    server: Server, autojump_clock: MockClock, end: Callable[[Server], None], message: str
) -> None:
    with pytest.raises(ConnectionLost, match=message):
        await held(lambda: end(server))
    assert server.names() == []
    assert server.closed
    assert trio.current_time() == 0


async def test_an_end_that_only_writing_tells_is_told(server: Server, autojump_clock: MockClock) -> None:
    async def speak_to_the_deaf() -> None:
        async with connected() as connection:
            server.deaf = True
            await connection.open_channel()

    with pytest.raises(ConnectionLost, match="broke while writing"):
        await speak_to_the_deaf()
    assert server.closed
    assert trio.current_time() == 1


async def test_what_rabbitmq_said_before_says_more_than_a_write_that_failed(
    server: Server, autojump_clock: MockClock
) -> None:
    async def speak_to_who_is_leaving() -> None:
        async with connected() as connection, trio.open_nursery() as nursery:
            server.deaf = True
            nursery.start_soon(connection.open_channel)
            await trio.sleep(0.5)
            server.say(0, FORCED)

    with pytest.raises(ConnectionClosed):
        await speak_to_who_is_leaving()


HEADERLESS: list[FrameTypes] = [Basic.Deliver("c", 1, False, "", "r"), ContentBody(b"x")]
NOT_THERE: dict[str, tuple[int, list[FrameTypes]]] = {
    "a channel that is not open": (3, [Channel.OpenOk()]),
    "a message to no channel": (0, message(Basic.Deliver("c", 1, False, "", "r"), b"x")),
    "a method out of turn": (0, [Connection.OpenOk()]),
    "another method out of turn": (0, [Connection.CloseOk()]),
    "a body out of turn": (0, [ContentBody(b"x")]),
    "a message to nobody": (1, message(Basic.Deliver("nobody", 1, False, "", "r"), b"x")),
    "half a message": (1, HEADERLESS),
}


@pytest.mark.parametrize(("number", "frames"), NOT_THERE.values(), ids=NOT_THERE)
async def test_what_has_no_place_in_amqp_is_the_end(
    server: Server, autojump_clock: MockClock, number: int, frames: list[FrameTypes]
) -> None:
    async def hear() -> None:
        async with connected() as connection:
            await connection.open_channel()
            server.say(number, *frames)
            await trio.sleep_forever()

    with pytest.raises(ProtocolError, match="RabbitMQ"):
        await hear()
    assert server.names() == ["Channel.Open"]
    assert server.closed
    assert trio.current_time() == 0


async def test_an_error_of_the_block_at_the_end_is_its_cause(server: Server) -> None:
    async def stumble() -> None:
        async with connected():
            try:
                server.hang_up()
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")

    with pytest.raises(ConnectionLost) as caught:
        await stumble()
    assert isinstance(caught.value.__cause__, KeyError)


async def test_the_end_comes_out_once_also_where_the_block_has_heard_of_it(server: Server) -> None:
    async def hear_of_it() -> None:
        async with connected() as connection:
            channel = await connection.open_channel()
            consumer = await channel.consume("queue", prefetch=1)
            server.hang_up()
            await consumer.receive(1)

    with pytest.raises(ConnectionLost) as caught:
        await hear_of_it()
    assert caught.value.__cause__ is not caught.value


# --- Channels --------------------------------------------------------------------------------------------------------


async def test_channels_are_numbered_from_1_and_numbers_come_again(server: Server) -> None:
    async with connected() as connection:
        first, _, _ = [await connection.open_channel() for _ in range(3)]
        await first.close()
        await connection.open_channel()
        opened = [number for number, frame in server.heard if isinstance(frame, Channel.Open)]
        assert opened == [1, 2, 3, 1]


async def test_there_are_as_many_channels_as_rabbitmq_allows(server: Server) -> None:
    server.answers[Connection.StartOk] = lambda _: Connection.Tune(2, 131_072, 60)
    async with connected() as connection:
        first = await connection.open_channel()
        await connection.open_channel()
        with pytest.raises(AmqpError, match="there are 2 channels open, and RabbitMQ allows no more"):
            await connection.open_channel()
        await first.close()
        await connection.open_channel()
    assert server.names()[-1] == GOODBYE
