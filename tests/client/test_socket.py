"""One WebSocket: what was cut short is never written on, and what was not begun does no harm."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import MockClock

from broker.client import Disconnected
from broker.client.address import parse_address
from broker.client.options import Options
from broker.client.socket import GOODBYE_SECONDS, WRITE_TIMEOUT, Socket, open_socket
from tests.client.server import FakeBroker
from tests.client.using import URL


async def no_token() -> None:
    await trio.lowlevel.checkpoint()


def opened() -> AbstractAsyncContextManager[Socket]:
    return open_socket(parse_address(URL), no_token, Options())


async def test_behind_a_write_that_was_cut_short_nothing_is_written(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with opened() as socket:
        broker.connection.stuck = True
        with pytest.raises(Disconnected, match="within 30 seconds"):
            await socket.send(["hello"])
        assert trio.current_time() == WRITE_TIMEOUT
        broker.connection.stuck = False
        with pytest.raises(Disconnected):
            await socket.ping()
    assert broker.connection.closed_with is None
    assert broker.connection.closed


async def test_who_is_cancelled_before_it_has_written_leaves_the_socket_as_it_was(broker: FakeBroker) -> None:
    async with opened() as socket:
        with trio.CancelScope() as scope:
            scope.cancel()
            await socket.send(["hello"])
        await socket.ping()
    assert broker.connection.messages == []
    assert broker.connection.closed_with == (1000, "")


async def test_a_goodbye_that_is_not_answered_is_not_waited_for(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with opened():
        broker.connection.mute = True
    assert trio.current_time() == GOODBYE_SECONDS
    assert broker.connection.closed


async def test_two_may_send_at_a_time(broker: FakeBroker) -> None:
    async with opened() as socket:
        broker.connection.deaf = True

        async def send(text: str) -> None:
            await socket.send([text, text])

        async with trio.open_nursery() as nursery:
            for text in "abc":
                nursery.start_soon(send, text)
    assert sorted(broker.connection.messages) == list("aabbcc")


async def test_nothing_is_sent_when_the_other_side_has_said_goodbye(broker: FakeBroker) -> None:
    async with opened() as socket:
        broker.connection.close(1001, "later")
        with pytest.raises(Disconnected, match="1001 later"):
            await socket.receive()
        with pytest.raises(Disconnected):
            await socket.send(["hello"])
