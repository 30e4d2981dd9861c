"""HTTP on real sockets, on which nothing comes for a while: who is waited for how long, and who is not at all."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.http import Request, Response, Route
from broker.edge.front import Front, FrontSettings
from broker.edge.http import HEAD_TIMEOUT, IDLE_TIMEOUT
from broker.runtime.registry import Registry
from tests.fakes import Tokens, services

GET = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: b\r\n\r\n"
LONG = 10 * IDLE_TIMEOUT


class Client:
    """The client's end of a connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def hear(self) -> bytes:
        """The next that comes; nothing: the end."""
        return await self._stream.receive_some()

    async def asked(self, request: bytes = GET) -> bytes:
        await self.send(request)
        return await self.hear()


class House:
    """A front, and those who connect to it."""

    def __init__(self, nursery: trio.Nursery, ends: ExitStack) -> None:
        self._nursery = nursery
        self._ends = ends
        routes = [Route("GET", "/a", self._answer), Route("GET", "/slow", self._answer_late)]
        self.front = Front(FrontSettings(), services(Registry(max_per_user=1), Tokens({})), routes)
        nursery.start_soon(self.front.watch)

    def connect(self) -> Client:
        ours, theirs = trio.socket.socketpair()
        self._nursery.start_soon(self.front.serve, trio.SocketStream(ours))
        self._ends.callback(theirs.close)
        return Client(trio.SocketStream(theirs))

    async def _answer(self, _request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200, b"1")

    async def _answer_late(self, _request: Request) -> Response:
        await trio.sleep(LONG)
        return Response(200, b"1")


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    with ExitStack() as ends:
        async with trio.open_nursery() as nursery:
            yield House(nursery, ends)
            nursery.cancel_scope.cancel()


async def test_who_says_nothing_at_all_is_told_that_it_took_too_long(autojump_clock: MockClock) -> None:
    async with house() as home:
        begin = trio.current_time()
        client = home.connect()
        assert (await client.hear()).startswith(b"HTTP/1.1 408 ")
        assert HEAD_TIMEOUT <= trio.current_time() - begin <= HEAD_TIMEOUT + 2


async def test_who_asks_nothing_more_is_let_go_without_a_word(autojump_clock: MockClock) -> None:
    async with house() as home:
        client = home.connect()
        assert (await client.asked()).startswith(b"HTTP/1.1 200 ")
        begin = trio.current_time()
        assert await client.hear() == b""
        assert IDLE_TIMEOUT <= trio.current_time() - begin <= IDLE_TIMEOUT + 2


async def test_who_asks_now_and_then_is_never_let_go(autojump_clock: MockClock) -> None:
    async with house() as home:
        client = home.connect()
        for _ in range(10):
            assert (await client.asked()).startswith(b"HTTP/1.1 200 ")
            await trio.sleep(IDLE_TIMEOUT - 1)


async def test_an_answer_may_take_longer_than_the_silence_of_a_client(autojump_clock: MockClock) -> None:
    async with house() as home:
        client = home.connect()
        assert (await client.asked(SLOW)).startswith(b"HTTP/1.1 200 ")
        assert (await client.asked()).startswith(b"HTTP/1.1 200 ")


async def test_a_head_has_its_own_time_however_long_nothing_came_before_it(autojump_clock: MockClock) -> None:
    async with house() as home:
        client = home.connect()
        await client.asked()
        await trio.sleep(IDLE_TIMEOUT - 1)
        await client.send(GET[:-2])
        await trio.sleep(HEAD_TIMEOUT - 1)
        assert (await client.asked(GET[-2:])).startswith(b"HTTP/1.1 200 ")
        await client.send(GET[:-2])
        assert (await client.hear()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("before", [False, True], ids=["at once", "after an answer"])
async def test_at_the_stop_nobody_is_waited_for(before: bool, autojump_clock: MockClock) -> None:
    async with house() as home:
        client = home.connect()
        if before:
            await client.asked()
        await wait_all_tasks_blocked()
        begin = trio.current_time()
        home.front.stop()
        assert await client.hear() == b""
        assert math.isclose(trio.current_time(), begin)


async def test_at_the_stop_who_is_being_answered_gets_the_answer_first(autojump_clock: MockClock) -> None:
    async with house() as home:
        client = home.connect()
        await client.send(SLOW)
        await wait_all_tasks_blocked()
        home.front.stop()
        assert (await client.hear()).startswith(b"HTTP/1.1 200 ")
        assert await client.hear() == b""
