"""The handshake with a RabbitMQ: how it goes, and each way in which it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from pamqp.frame import FrameTypes
from pamqp.header import ProtocolHeader
from trio.testing import MockClock

from connectors.amqp.codec import Channel, Connection
from connectors.amqp.errors import ConnectionClosed, ConnectionFailed
from connectors.amqp.url import Address
from tests.connectors.amqp.server import ADDRESS, Nodes, Server, connected

WHERE = r"amqp://mq:5672 \(user 'ada', vhost 'games'\): "
STEPS: list[type[FrameTypes]] = [ProtocolHeader, Connection.StartOk, Connection.Open]


async def refusal(address: Address = ADDRESS) -> str:
    """Why there is no connection; nobody has to wait to hear it."""
    began = trio.current_time()
    with pytest.raises(ConnectionFailed, match=WHERE) as caught:
        async with connected(address):
            pytest.fail("there is a connection")
    assert trio.current_time() == began
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


# --- How it goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [None, 1])
async def test_each_side_says_its_part_in_turn(server: Server, pieces: int | None) -> None:
    server.pieces = pieces
    async with connected():
        assert [frame.name for _, frame in server.heard] == [
            "ProtocolHeader",
            "Connection.StartOk",
            "Connection.TuneOk",
            "Connection.Open",
        ]
        assert {number for number, _ in server.heard} == {0}
        [opened] = server.heard_of(Connection.Open)
        assert opened.virtual_host == "games"


async def test_what_rabbitmq_says_together_with_its_last_word_is_not_lost(server: Server) -> None:
    server.answers[Connection.Open] = lambda _: server.say(0, Connection.OpenOk(), Connection.Blocked("low on disk"))
    async with connected() as connection:
        await trio.testing.wait_all_tasks_blocked()
        assert connection.blocked


async def test_a_close_together_with_its_last_word_is_told_as_such(server: Server) -> None:
    close = Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0)
    server.answers[Connection.Open] = lambda _: server.say(0, Connection.OpenOk(), close)
    with pytest.raises(ConnectionClosed, match="CONNECTION_FORCED"):
        async with connected():
            await trio.sleep_forever()
    assert server.names() == ["Connection.CloseOk"]


# --- How it does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code", "text", "remedy"),
    [
        (Connection.StartOk, 403, "ACCESS_REFUSED - Login was refused", "check user and password in the URL"),
        (Connection.Open, 530, "NOT_ALLOWED - vhost games not found", "check the vhost in the URL"),
    ],
)
async def test_a_refusal_says_what_rabbitmq_said_and_what_to_check(
    server: Server, autojump_clock: MockClock, step: type[FrameTypes], code: int, text: str, remedy: str
) -> None:
    server.answers[step] = lambda _: Connection.Close(code, text, 0, 0)
    assert f": RabbitMQ said '{text}' ({code}); {remedy}" in await refusal()
    assert server.heard[-1][1].name == "Connection.CloseOk"
    assert server.heard_of(Connection.Close) == []
    assert server.closed


async def test_a_refusal_is_told_also_where_nobody_waits_for_its_answer(
    server: Server, autojump_clock: MockClock
) -> None:
    def refuse(_: object) -> FrameTypes:
        server.deaf = True
        return Connection.Close(403, "ACCESS_REFUSED", 0, 0)

    server.answers[Connection.StartOk] = refuse
    assert "ACCESS_REFUSED" in await refusal()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("end", [Server.hang_up, Server.reset])
async def test_an_end_at_any_step_is_told(
    server: Server, autojump_clock: MockClock, step: type[FrameTypes], end: Callable[[Server], None]
) -> None:
    server.answers[step] = lambda _: end(server)
    assert "it ended the connection during the handshake: " in await refusal()
    assert isinstance(server.heard[-1][1], step)
    assert server.closed


@pytest.mark.parametrize("step", STEPS)
async def test_an_answer_that_does_not_come_is_waited_for_so_long_and_no_longer(
    server: Server, autojump_clock: MockClock, step: type[FrameTypes]
) -> None:
    del server.answers[step]
    began = trio.current_time()
    with pytest.raises(ConnectionFailed, match=WHERE + "no connection within 10 seconds"):
        async with connected():
            pytest.fail("there is a connection")
    assert trio.current_time() - began == 10
    assert isinstance(server.heard[-1][1], step)
    assert server.closed


async def test_a_peer_that_takes_nothing_is_waited_for_no_longer(server: Server, autojump_clock: MockClock) -> None:
    server.room = 5
    began = trio.current_time()
    with pytest.raises(ConnectionFailed, match="no connection within 10 seconds"):
        async with connected():
            pytest.fail("there is a connection")
    assert trio.current_time() - began == 10
    assert (server.half_a_frame, server.closed) == (b"AMQP\0", True)


async def test_the_way_there_and_the_handshake_share_one_time(
    server: Server, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def far_away(_: Address) -> trio.abc.Stream:
        await trio.sleep(7)
        return server

    monkeypatch.setattr("connectors.amqp.connection.open_stream", far_away)
    del server.answers[Connection.Open]
    began = trio.current_time()
    with pytest.raises(ConnectionFailed, match="no connection within 8 seconds"):
        async with connected(replace(ADDRESS, connection_timeout=8.0)):
            pytest.fail("there is a connection")
    assert trio.current_time() - began == 8


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP"),
        (b"AMQP\x00\x01\x00\x00", "speaks another AMQP than 0-9-1"),
        (b"\x15\x03\x03\x00\x02\x02\x0a", "does not speak AMQP"),
    ],
)
async def test_another_protocol_is_told(server: Server, autojump_clock: MockClock, said: bytes, message: str) -> None:
    server.answers[ProtocolHeader] = lambda _: server.say_bytes(said)
    assert message in await refusal()
    assert len(server.heard) == 1
    assert server.closed


async def test_a_mechanism_that_is_not_offered_is_told(server: Server, autojump_clock: MockClock) -> None:
    assert "not EXTERNAL" in await refusal(replace(ADDRESS, mechanism="EXTERNAL"))
    assert len(server.heard) == 1
    assert server.closed


@pytest.mark.parametrize(
    ("step", "answer", "message"),
    [
        (ProtocolHeader, Connection.OpenOk(), "instead of connection.start"),
        (Connection.StartOk, Channel.OpenOk(), "instead of connection.tune"),
        (Connection.StartOk, Connection.Secure("?"), "a challenge"),
        (Connection.Open, Connection.Tune(1, 4096, 1), "instead of connection.open-ok"),
    ],
)
async def test_a_wrong_answer_is_told(
    server: Server, autojump_clock: MockClock, step: type[FrameTypes], answer: FrameTypes, message: str
) -> None:
    server.answers[step] = lambda _: answer
    assert message in await refusal()
    assert isinstance(server.heard[-1][1], step)


async def test_a_vhost_that_amqp_can_not_say_is_told(server: Server, autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionFailed, match=r"this can't be said in AMQP"):
        async with connected(replace(ADDRESS, vhost="v" * 256)):
            pytest.fail("there is a connection")
    assert server.closed


async def test_who_can_not_be_reached_is_told_as_such(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes({"mq": [ConnectionFailed(f"{ADDRESS}: Connection refused")]})
    monkeypatch.setattr("connectors.amqp.connection.open_stream", nodes.open_stream)
    assert "Connection refused" in await refusal()


async def test_a_handshake_that_is_cancelled_is_left_at_once(server: Server, autojump_clock: MockClock) -> None:
    del server.answers[Connection.Open]
    began = trio.current_time()
    with trio.move_on_after(3) as limit:
        async with connected():
            pytest.fail("there is a connection")
    assert limit.cancelled_caught
    assert trio.current_time() - began == 3
    assert server.closed
