"""The outbox: waiting until nothing waits any more, for those who send a little at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from broker.runtime.outbox import WRITE_TIMEOUT, Outbox, Overflow, QueueLimits
from tests.runtime.sockets import Socket

EVERY_WAY = list(Overflow)
every_way = pytest.mark.parametrize("overflow", EVERY_WAY)


def outbox(overflow: Overflow = Overflow.DISCONNECT) -> Outbox:
    return Outbox(QueueLimits(3, 1000, overflow))


@asynccontextmanager
async def writing(out: Outbox, *, straight: bool = False) -> AsyncIterator[Socket]:
    """A writer at work on `out`, as long as the block lasts."""
    socket = Socket()
    async with trio.open_nursery() as nursery:
        if straight:
            nursery.start_soon(out.run, socket.write, socket)
        else:
            nursery.start_soon(out.run, socket.write)
        await wait_all_tasks_blocked()
        yield socket
        nursery.cancel_scope.cancel()


class Waiter:
    """Somebody who waits until the outbox is drained."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self.told: bool | None = None

    async def run(self) -> None:
        self.told = await self._out.drained()


@asynccontextmanager
async def waiting(out: Outbox, number: int = 1) -> AsyncIterator[list[Waiter]]:
    waiters = [Waiter(out) for _ in range(number)]
    async with trio.open_nursery() as nursery:
        for waiter in waiters:
            nursery.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        yield waiters
        nursery.cancel_scope.cancel()


@every_way
async def test_an_outbox_with_nothing_to_write_is_drained(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out):
        with assert_checkpoints():
            assert await out.drained() is True


@every_way
@pytest.mark.parametrize(
    "say",
    [lambda out: out.offer(b"a", "n"), lambda out: out.answer(b"a"), lambda out: out.control(b"a")],
    ids=["event", "answer", "ping"],
)
async def test_it_is_not_drained_while_something_is_being_written(
    overflow: Overflow, say: Callable[[Outbox], object]
) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.block()
        say(out)
        async with waiting(out) as [waiter]:
            before = waiter.told
            socket.open.set()
            await wait_all_tasks_blocked()
            assert (before, waiter.told) == (None, True)


async def test_it_is_not_drained_while_the_socket_has_only_a_part_of_a_frame() -> None:
    out = outbox()
    async with writing(out, straight=True) as socket:
        socket.block()
        socket.room = 1
        out.answer(b"abc")
        async with waiting(out) as [waiter]:
            before = waiter.told
            socket.open.set()
            await wait_all_tasks_blocked()
            assert (before, waiter.told, socket.got) == (None, True, b"abc")


@every_way
async def test_what_came_during_a_write_is_written_before_it_is_drained(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.block()
        out.answer(b"a")
        async with waiting(out) as [waiter]:
            out.answer(b"b")
            socket.open.set()
            await wait_all_tasks_blocked()
            assert (waiter.told, socket.got) == (True, b"ab")


async def test_before_there_is_a_writer_it_is_not_drained() -> None:
    out = outbox()
    async with waiting(out) as [waiter]:
        before = waiter.told
        async with writing(out):
            assert (before, waiter.told) == (None, True)


async def test_all_who_wait_are_told() -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.answer(b"a")
        async with waiting(out, 3) as waiters:
            socket.open.set()
            await wait_all_tasks_blocked()
            assert [waiter.told for waiter in waiters] == [True] * 3


async def test_who_waits_again_is_told_again() -> None:
    out = outbox()
    async with writing(out) as socket:
        for frame in (b"a", b"b"):
            socket.block()
            out.answer(frame)
            async with waiting(out) as [waiter]:
                socket.open.set()
                await wait_all_tasks_blocked()
                assert waiter.told is True


async def test_who_is_cancelled_while_waiting_keeps_nobody_else_from_being_told() -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.answer(b"a")
        async with waiting(out) as [waiter]:
            async with waiting(out):
                pass
            socket.open.set()
            await wait_all_tasks_blocked()
            assert waiter.told is True


@pytest.mark.parametrize("discard", [True, False])
async def test_who_waits_is_told_at_once_that_nothing_is_taken_any_more(discard: bool) -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.answer(b"a")
        async with waiting(out) as [waiter]:
            out.finish(b"!", discard=discard)
            await wait_all_tasks_blocked()
            assert waiter.told is False


async def test_once_it_is_finished_nobody_waits() -> None:
    out = outbox()
    out.finish(b"!", discard=False)
    with assert_checkpoints():
        assert await out.drained() is False


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_who_waits_is_told_when_the_socket_fails(error: type[Exception]) -> None:
    out = outbox()

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with waiting(out) as [waiter]:
        out.answer(b"a")
        await out.run(write)
        await wait_all_tasks_blocked()
        assert waiter.told is False


async def test_who_waits_is_told_when_a_write_takes_too_long(autojump_clock: MockClock) -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.answer(b"a")
        begin = trio.current_time()
        assert await out.drained() is False
        assert trio.current_time() - begin == WRITE_TIMEOUT


async def test_who_waits_is_told_when_the_writer_is_cancelled() -> None:
    out = outbox()
    waiter = Waiter(out)
    async with trio.open_nursery() as nursery, writing(out) as socket:
        socket.block()
        out.answer(b"a")
        nursery.start_soon(waiter.run)
        await wait_all_tasks_blocked()
    assert waiter.told is False
