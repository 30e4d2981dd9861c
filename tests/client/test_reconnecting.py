"""A connection ends, and the next one goes on where it was: nothing is lost, nothing comes twice, and gaps are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import BytesMessage, Ping

from broker.client import (
    Connected,
    Disconnected,
    Lost,
    Options,
    connect,
)
from broker.client.options import Change
from broker.client.socket import SILENCE
from tests.client.server import Connection, FakeBroker, Refusal
from tests.client.using import URL, names, out_of_the_block


def hang_up(connection: Connection) -> None:
    connection.hang_up()


def reset(connection: Connection) -> None:
    connection.reset()


def close_with(code: int) -> Callable[[Connection], None]:
    return lambda connection: connection.close(code, "for a reason")


# --- What is missed comes, and comes once -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end", [hang_up, reset, *(close_with(code) for code in (1001, 1011, 1012, 4008, 4009, 4321))]
)
async def test_what_happens_while_it_is_away_comes_when_it_is_back(
    end: Callable[[Connection], None], broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        broker.publish("a.1")
        assert await names(events, 1) == ["a.1"]
        end(broker.connection)
        broker.publish("a.2")
        assert await names(events, 1) == ["a.2"]
        broker.publish("a.3")
        assert await names(events, 1) == ["a.3"]
    assert [event for event, _ in broker.heard()[1][:2]] == ["subscribe", "resume"]
    assert broker.heard()[1][1][1] in ("e1", "p1")


@pytest.mark.parametrize("pieces", [1, 2, 7, 100])
async def test_it_may_come_in_whatever_pieces(pieces: int, broker: FakeBroker, autojump_clock: MockClock) -> None:
    broker.pieces = pieces
    async with connect(URL) as client, client.subscribe("**") as events:
        broker.publish("a.1", "größer." + "x" * 200)
        assert await names(events, 2) == ["a.1", "größer." + "x" * 200]
        broker.connection.say(Ping(payload=b"x" * 125))
        broker.connection.close(1012, "größer")
        broker.publish("a.2")
        assert await names(events, 1) == ["a.2"]
        assert await client.command("echo", "ä" * 1000) == "ä" * 1000
    assert len(broker.connections) == 2


async def test_what_was_in_the_buffer_stays_there(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        broker.publish("a.1", "a.2")
        await wait_all_tasks_blocked()
        broker.connection.reset()
        broker.publish("a.3")
        assert await names(events, 3) == ["a.1", "a.2", "a.3"]


async def test_what_waits_for_room_while_the_connection_ends_gets_it(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("**", buffer=1) as events:
        broker.publish("a.1", "a.2", "a.3")
        await wait_all_tasks_blocked()
        broker.connection.reset()
        await trio.sleep(100)
        broker.publish("a.4")
        assert await names(events, 4) == ["a.1", "a.2", "a.3", "a.4"]


async def test_subscriptions_begun_without_a_connection_begin_with_the_next(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("a.*"):
        broker.connection.reset()
        await wait_all_tasks_blocked()
        broker.publish("b.1")
        async with client.subscribe("b.*") as events:
            broker.publish("b.2")
            assert await names(events, 1) == ["b.2"]
    assert broker.heard()[1][:3] == [("subscribe", "a.*"), ("resume", "p0"), ("subscribe", "b.*")]


async def test_a_client_that_got_few_events_asks_every_30_seconds_where_the_log_is(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("a"):
        broker.publish("b", "b")
        await trio.sleep(29)
        assert broker.heard() == [[("resume", None), ("subscribe", "a"), ("resume", None)]]
        await trio.sleep(3)
        assert broker.heard()[0][3:] == [("resume", None)]
        broker.connection.reset()
        await trio.sleep(3)
    assert broker.heard()[1] == [("subscribe", "a"), ("resume", "p2")]


async def test_behind_new_subscriptions_it_asks_at_once_but_not_more_than_once_a_second(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("a.0"), client.subscribe("a.1"), client.subscribe("a.2"):
        assert [name for name, _ in broker.heard()[0]].count("resume") == 2
        await trio.sleep(2)
        assert [name for name, _ in broker.heard()[0]].count("resume") == 3


# --- How often it tries -----------------------------------------------------------------------------------------------


async def test_pauses_double_up_to_ten_seconds_and_begin_anew_after_a_connection_that_stood(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    changes: list[Change] = []
    async with connect(URL, on_change=changes.append) as client:
        broker.welcomes = [OSError("no network")] * 7
        broker.connection.reset()
        async with client.subscribe("a"):
            pass
        assert broker.times == [0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 25.75, 35.75]
        await trio.sleep(10)
        broker.connection.reset()
        await trio.sleep(1)
        assert broker.times[-1] == 35.75 + 10 + 0.25
        broker.connection.reset()  # this one did not stand
        await trio.sleep(10)
        assert broker.times[-1] - broker.times[-2] == pytest.approx(1.25)
    told = [(change.reason, change.pause) for change in changes[1:3] if isinstance(change, Lost)]
    unreachable = "no broker answers at http://broker.example: no network"
    assert told == [("1006 the connection broke", 0.25), (unreachable, 0.5)]
    assert (changes[0], changes[9]) == (Connected(again=False), Connected(again=True))


async def test_a_refusal_that_may_pass_is_waited_out(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client:
        broker.welcomes = [Refusal(503), Refusal(500), Refusal(502), Refusal(408)]
        broker.connection.hang_up()
        async with client.subscribe("a"):
            assert len(broker.times) == 6


async def test_a_token_that_expires_is_replaced_at_once(broker: FakeBroker, autojump_clock: MockClock) -> None:
    tokens = iter(["first", "second"])
    async with connect(URL, lambda: next(tokens)) as client:
        broker.connection.close(4003, "the token has expired")
        async with client.subscribe("a"):
            assert broker.times == [0, 0]
            assert broker.connection.headers[b"authorization"] == b"Bearer second"


async def test_a_log_that_can_t_be_read_for_a_while_is_waited_for(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        broker.model.readable = False
        broker.connection.reset()
        broker.publish("a.1")
        await trio.sleep(5)
        broker.model.readable = True
        assert await names(events, 1) == ["a.1"]


# --- When a connection is dead ----------------------------------------------------------------------------------------


async def test_silence_is_the_end_of_a_connection(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client, client.subscribe("a"):
        dead = broker.connection
        dead.mute = True
        await trio.sleep(SILENCE + 2)
        assert dead.closed
        assert broker.heard()[1] == [("subscribe", "a"), ("resume", "p0")]


async def test_a_broker_without_anything_to_say_is_asked_for_a_sign_of_life(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL):
        broker.connection.deaf = True  # an answer that takes its time
        await trio.sleep(10 * SILENCE)
        assert len(broker.connections) == 1
        assert broker.connection.pings > 10


async def test_pings_of_the_broker_are_answered(broker: FakeBroker) -> None:
    async with connect(URL):
        broker.connection.say(Ping())
        await wait_all_tasks_blocked()
        assert broker.connection.pongs == 1


async def test_a_write_that_does_not_end_is_the_end_of_a_connection(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client:
        stuck = broker.connection
        stuck.stuck = True
        async with client.subscribe("a"):
            assert trio.current_time() == pytest.approx(31.25)
            assert stuck.closed


async def test_a_close_frame_is_read_though_a_write_has_failed(broker: FakeBroker, autojump_clock: MockClock) -> None:
    with out_of_the_block(Disconnected, match="4004"):
        async with connect(URL) as client:
            broker.connection.say_bytes(b"\x89\x00")  # a ping, whose answer can't be sent any more
            broker.connection.close(4004)
            await client.command("echo")
    assert trio.current_time() < SILENCE


@pytest.mark.parametrize("nonsense", [b"\x8f\x00", b"\x81\x01\xff", b"\x81\x80abcd", b"\x00\x01a"])
async def test_a_broker_that_breaks_the_protocol_is_left(
    nonsense: bytes, broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        broker.connection.say_bytes(nonsense)
        broker.publish("a.1")
        assert await names(events, 1) == ["a.1"]
    assert len(broker.connections) == 2


async def test_what_no_broker_sends_is_passed_over(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        broker.connection.say(BytesMessage(data=b"\x00", message_finished=False))
        broker.connection.say(BytesMessage(data=b"\x00"))
        broker.connection.say_text("hello")
        broker.publish("a.1")
        assert await names(events, 1) == ["a.1"]
    assert len(broker.connections) == 1


async def test_a_message_in_fragments_is_one(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        for piece in ('{"event":"a.', "", '1","data":"ä', "", '","id":"e1"}'):
            broker.connection.say_text(piece, finished=piece.endswith("}"))
        event = await anext(events)
    assert (event.name, event.data) == ("a.1", "ä")


async def test_a_message_without_an_end_is_not_collected(broker: FakeBroker, autojump_clock: MockClock) -> None:
    options = Options(max_message_size=1000)
    with out_of_the_block(Disconnected) as ended:
        async with connect(URL, options=options) as client, client.subscribe("**") as events:
            for _ in range(11):
                broker.connection.say_text("x" * 100, finished=False)
            await anext(events)
    assert (ended.value.code, ended.value.reason) == (1009, "a message has more than 1000 characters")
    assert broker.connection.closed_with == (1009, "a message has more than 1000 characters")
