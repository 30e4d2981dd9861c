"""What waits for a client: how its writer is woken, and that it is woken no more often than it need be."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.runtime.outbox import Outbox, Overflow, QueueLimits
from tests.runtime.sockets import Socket, is_writer
from tests.turns import counting_steps

every_way = pytest.mark.parametrize("overflow", list(Overflow))


@every_way
async def test_a_writer_that_waits_is_woken_once_for_all_that_comes(overflow: Overflow) -> None:
    out, socket = Outbox(QueueLimits(100, 1000, overflow)), Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        await wait_all_tasks_blocked()
        with counting_steps(is_writer) as steps:
            for number in range(50):
                out.offer(b"x", f"n{number}")
                out.control(b"p")
            await wait_all_tasks_blocked()
        assert len(socket.writes) == 1
        assert steps.taken <= 3
        nursery.cancel_scope.cancel()


@every_way
async def test_all_that_came_during_a_write_wakes_the_writer_once_more(overflow: Overflow) -> None:
    out, socket = Outbox(QueueLimits(100, 1000, overflow)), Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        socket.block()
        out.offer(b"first", "n")
        await wait_all_tasks_blocked()
        for number in range(50):
            out.offer(b"x", f"n{number}")
            out.control(b"p")
        with counting_steps(is_writer) as steps:
            socket.open.set()
            await wait_all_tasks_blocked()
        assert [len(write) for write in socket.writes] == [5, 16 + 50]
        assert steps.taken <= 6
        nursery.cancel_scope.cancel()


async def test_a_bell_that_rang_for_what_went_with_the_write_before_writes_nothing() -> None:
    out, socket = Outbox(QueueLimits(2, 2, Overflow.LATEST)), Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        socket.block()
        out.offer(b"1", "a")
        await wait_all_tasks_blocked()
        out.offer(b"2", "a")  # from here on there is a channel
        socket.open.set()
        await wait_all_tasks_blocked()
        out.offer(b"3", "a")
        out.offer(b"4", "b")  # the writer has a bell in its hands already, and this rings another
        await wait_all_tasks_blocked()
        assert socket.writes == [b"1", b"2", b"34"]
        nursery.cancel_scope.cancel()
