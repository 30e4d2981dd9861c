"""A client's stream, on real sockets: what may wait and what never does."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    assert_no_checkpoints,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from broker.edge.line import Line

MUCH = bytes(range(256)) * 20_000  # more than the kernel takes at once


@pytest.fixture
async def ends() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of one TCP connection: the client's and ours."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        ours = await listener.accept()
        async with client, ours:
            yield client, ours


Ends = tuple[trio.SocketStream, trio.SocketStream]


async def everything(stream: trio.abc.ReceiveStream, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += await stream.receive_some(65_536)
    return data


async def test_what_comes_is_received(ends: Ends) -> None:
    client, ours = ends
    await client.send_all(b"hello")
    assert await Line(ours).receive() == b"hello"


async def test_receiving_lets_others_run(ends: Ends) -> None:
    client, ours = ends
    await client.send_all(b"hello")
    with assert_checkpoints():
        await Line(ours).receive()


async def test_a_client_that_ends_its_side_says_nothing_more(ends: Ends) -> None:
    client, ours = ends
    await client.send_eof()
    assert await Line(ours).receive() == b""


async def test_a_client_that_resets_says_nothing_more(ends: Ends) -> None:
    client, ours = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.aclose()
    assert await Line(ours).receive() == b""


async def test_a_stream_that_we_close_meanwhile_says_nothing_more(ends: Ends) -> None:
    _, ours = ends
    line = Line(ours)

    async def expect_nothing() -> None:
        assert await line.receive() == b""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_nothing)
        await wait_all_tasks_blocked()
        await ours.aclose()


async def test_a_false_alarm_is_waited_over(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    client, ours = ends
    read, alarms = os.read, iter([True])

    def false_alarm(descriptor: int, length: int) -> bytes:
        if next(alarms, False):
            raise BlockingIOError
        return read(descriptor, length)

    await client.send_all(b"hello")
    monkeypatch.setattr(os, "read", false_alarm)
    assert await Line(ours).receive() == b"hello"


async def test_what_the_kernel_takes_at_once_is_sent_without_a_turn_of_the_loop(ends: Ends) -> None:
    client, ours = ends
    with assert_no_checkpoints():
        await Line(ours).send(b"hello")
    assert await client.receive_some() == b"hello"


async def test_what_it_does_not_take_follows_in_order(ends: Ends) -> None:
    client, ours = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Line(ours).send, MUCH)
        assert await everything(client, len(MUCH)) == MUCH


async def test_a_client_that_does_not_read_is_given_up(ends: Ends, autojump_clock: MockClock) -> None:
    _, ours = ends
    with pytest.raises(trio.BrokenResourceError):
        await Line(ours).send(MUCH)


async def test_to_a_client_that_is_gone_nothing_can_be_sent(ends: Ends) -> None:
    client, ours = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.aclose()
    line = Line(ours)
    assert await line.receive() == b""
    with pytest.raises(trio.BrokenResourceError):
        await line.send(b"hello")


async def test_a_stream_that_is_no_socket_is_read_and_written_as_it_is() -> None:
    client, ours = memory_stream_pair()
    line = Line(ours)
    await client.send_all(b"hello")
    assert await line.receive() == b"hello"
    await line.send(b"you too")
    assert await client.receive_some() == b"you too"
    await client.aclose()
    assert await line.receive() == b""
