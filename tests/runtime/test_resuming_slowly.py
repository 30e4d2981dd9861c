"""Resume by clients that read slowly, or not at all: their queues do not overflow, and nobody else waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.errors import Close
from broker.core.event import Record
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.runtime.connection import Connection
from broker.runtime.outbox import WRITE_TIMEOUT, Overflow, QueueLimits
from broker.runtime.resuming import LAST_EVENTS, READERS
from tests.runtime.house import house
from tests.runtime.resumes import RESUMED, heard, numbers, resume, slow_reader

MISSED = LAST_EVENTS + 50
every_way = pytest.mark.parametrize("overflow", list(Overflow))


@every_way
@pytest.mark.parametrize("frames", [1, 2, 10])
async def test_a_replay_does_not_overflow_a_queue_of_few_frames(overflow: Overflow, frames: int) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(frames=frames, overflow=overflow))
        await resume(ada, first)
        assert await ada.reads_all() == [*range(1, MISSED), RESUMED]


@every_way
@pytest.mark.parametrize("size", [20, 500, 1000, 4000])
async def test_a_replay_does_not_overflow_a_queue_of_few_bytes(overflow: Overflow, size: int) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(bytes=size, overflow=overflow))
        await resume(ada, first)
        assert await ada.reads_all() == [*range(1, MISSED), RESUMED]


@every_way
async def test_answers_to_commands_meanwhile_do_not_make_a_replay_overflow(overflow: Overflow) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(bytes=1000, overflow=overflow))
        await resume(ada, first)
        read = []
        for number in range(20):
            await ada.say({"event": "subscribe", "data": f"x.{number}", "id": "also"})
            read += await ada.reads()
        read += await ada.reads_all()
        assert [each for each in read if each != "also"] == [*range(1, MISSED), RESUMED]


class FarLog(MemoryLog):
    """A log of which nothing is at hand, and which reads when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = trio.Semaphore(0)

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        await self.let.acquire()
        return await super().read(after, most, max_bytes)


@pytest.mark.parametrize("queue", [QueueLimits(frames=2), QueueLimits(bytes=1500)])
async def test_answers_to_commands_while_the_log_is_read_do_not_make_a_replay_overflow(queue: QueueLimits) -> None:
    log = FarLog()
    async with house(log=log) as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a", queue=queue)
        await resume(ada, first)
        for number in range(3):  # one is being written, two wait
            await ada.say({"event": "subscribe", "data": f"x.{number}", "id": "also"})
        log.let.release()
        await wait_all_tasks_blocked()
        for _ in range(100):
            log.let.release()
        assert await ada.reads_all() == [*["also"] * 3, *range(1, MISSED), RESUMED]


async def test_what_waits_is_one_part_of_a_replay_at_the_most() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 2000))
        ada = await slow_reader(home, "ada", "a")
        await resume(ada, first)
        assert ada.connection.outbox.statistics().waiting_frames <= 1


@every_way
@pytest.mark.parametrize("size", [900, 2000])
async def test_an_event_as_large_as_the_queue_or_larger_comes_alone(overflow: Overflow, size: int) -> None:
    text = "x" * size
    async with house() as home:
        first, *_ = await home.publish(("a", 0), ("a", 1), ("a", text), ("a", text), ("a", 4))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(bytes=1000, overflow=overflow))
        await resume(ada, first)
        assert [await ada.reads() for _ in range(4)] == [[1], [text], [text], [4, RESUMED]]
        await home.publish(("a", text))
        assert await ada.reads_all() == [text]


@every_way
async def test_while_an_event_larger_than_the_queue_is_being_written_there_is_room_for_answers(
    overflow: Overflow,
) -> None:
    text = "x" * 2000
    async with house() as home:
        first, *_ = await home.publish(("a", 0), ("a", text), ("a", 2))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(bytes=1000, overflow=overflow))
        await resume(ada, first)
        for number in range(3):
            await ada.say({"event": "subscribe", "data": f"x.{number}", "id": "also"})
        assert await ada.reads_all() == [text, *["also"] * 3, 2, RESUMED]


async def test_an_event_larger_than_the_queue_comes_where_the_socket_takes_it_at_once() -> None:
    async with house() as home:
        first, *_ = await home.publish(("a", 0), ("a", "x" * 2000), ("a", 2))
        ada = await home.join_by_wire("ada", "a", queue=QueueLimits(bytes=1000))
        assert await resume(ada, first) == ["x" * 2000, 2, RESUMED]


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST])
async def test_of_what_happens_after_a_replay_is_dropped_what_has_no_room_and_of_the_replay_nothing(
    overflow: Overflow,
) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 10))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(frames=3, overflow=overflow))
        await resume(ada, first)
        await home.publish(*numbers(10, 100))
        read = await ada.reads_all()
        assert read[:10] == [*range(1, 10), RESUMED]
        assert 0 < len(read[10:]) < 90


# Nobody waits for those who do not read.


async def test_whoever_does_not_read_keeps_nobody_else_from_resuming() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 2000))
        for _ in range(2 * READERS):
            await resume(await slow_reader(home, None, "a"), first)
        ada = await home.join("ada", "a")
        assert await resume(ada, first) == [*range(1, 2000), RESUMED]


async def test_whoever_does_not_read_keeps_nobody_else_from_what_happens() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 2000))
        ada = await home.join("ada", "a")
        await resume(ada, None)
        await resume(await slow_reader(home, None, "a"), first)
        await home.publish(*numbers(2000, 2100))
        assert heard(ada) == [RESUMED, *range(2000, 2100)]


async def end_when_stuck(connection: Connection) -> None:
    """What whoever runs the writer does."""
    await connection.outbox.finished.wait()
    connection.close(Close.TOO_SLOW)


async def test_whoever_does_not_read_a_replay_is_ended_by_the_time_that_a_write_may_take(
    autojump_clock: MockClock,
) -> None:
    async with house() as home, trio.open_nursery() as nursery:
        first, *_ = await home.publish(*numbers(0, 2000))
        ada = await slow_reader(home, "ada", "a")
        nursery.start_soon(end_when_stuck, ada.connection)
        await ada.say({"event": "resume", "data": first})
        begin = trio.current_time()
        while len(home.registry):
            await trio.sleep(1)
        assert trio.current_time() - begin <= WRITE_TIMEOUT + 1
        assert (len(home.registry.held), ada.ending) == (0, (Close.TOO_SLOW, ""))


# The log goes on.


async def test_a_reader_whom_retention_overtakes_is_told_so_and_gets_what_happens_then() -> None:
    async with house(log=MemoryLog(Retention(events=1000))) as home:
        first, *_ = await home.publish(*numbers(0, 1000))
        ada = await slow_reader(home, "ada", "a")
        await resume(ada, first)
        await home.publish(*numbers(1000, 2500))
        read = await ada.reads_all()
        await home.publish(("a", 2500))
        read += await ada.reads_all()
        gap = read.index("resume_gap")
        assert (read[:gap], read[gap + 1 :]) == ([*range(1, gap + 1)], [2500])


async def test_who_resumes_once_more_after_being_overtaken_begins_at_the_new_place() -> None:
    async with house(log=MemoryLog(Retention(events=1000))) as home:
        first, *_ = await home.publish(*numbers(0, 1000))
        ada = await slow_reader(home, "ada", "a")
        await resume(ada, first)
        *_, last = await home.publish(*numbers(1000, 2500))
        await ada.reads_all()
        await home.publish(("a", 2500))
        await ada.reads_all()
        await resume(ada, last)
        assert await ada.reads_all() == [2500, RESUMED]


async def test_what_happens_behind_a_replay_in_progress_is_never_sent_before_it() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 1000))
        ada = await slow_reader(home, "ada", "a", queue=QueueLimits(bytes=2000))
        await resume(ada, first)
        read: list[Any] = []
        number = 1000
        while RESUMED not in read:
            await home.publish(("a", number))
            number += 1
            read += await ada.reads()
        read += await ada.reads_all()
        await wait_all_tasks_blocked()
        read.remove(RESUMED)
        assert read == [*range(1, number)]
