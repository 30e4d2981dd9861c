"""The outbox: in which order things go out, what happens when there is no room, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.runtime.outbox import (
    MAX_CONTROL_FRAMES,
    WRITE_TIMEOUT,
    Fate,
    Outbox,
    OutboxStatistics,
    Overflow,
    QueueLimits,
)

EVERY_WAY = list(Overflow)
WITH_DROPS = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST]


def outbox(overflow: Overflow = Overflow.DISCONNECT, *, frames: int = 3, size: int = 1000) -> Outbox:
    return Outbox(QueueLimits(frames, size, overflow))


class Socket:
    """Where an outbox writes: keeps each write, and can be made to take none for a while."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.open = trio.Event()
        self.open.set()

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        self.writes.append(data)

    def block(self) -> None:
        self.open = trio.Event()

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)


@asynccontextmanager
async def writing(out: Outbox) -> AsyncIterator[Socket]:
    """A writer at work on `out`, as long as the block lasts."""
    socket = Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        await wait_all_tasks_blocked()
        yield socket
        nursery.cancel_scope.cancel()


async def written(out: Outbox) -> bytes:
    """All that comes out of it when it is written now."""
    out.finish(b"!", discard=False)
    writes: list[bytes] = []

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        writes.append(data)

    await out.run(write)
    return b"".join(writes)


# What waits, and in which order it goes.


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_frames_go_out_in_the_order_in_which_they_came(overflow: Overflow) -> None:
    out = outbox(overflow)
    assert [out.offer(b"a", "n1"), out.answer(b"b"), out.offer(b"c", "n2")] == [Fate.QUEUED] * 3
    assert await written(out) == b"abc!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_all_that_waits_goes_in_one_write(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "n1")
        await wait_all_tasks_blocked()
        out.offer(b"b", "n2")
        out.answer(b"c")
        out.control(b"p")
        socket.open.set()
        await wait_all_tasks_blocked()
    assert socket.writes == [b"a", b"pbc"]


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_frame_is_written_at_once_when_the_writer_has_nothing_to_do(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        for frame in (b"a", b"b"):
            out.offer(frame, "n")
            await wait_all_tasks_blocked()
    assert socket.writes == [b"a", b"b"]


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_pings_go_before_what_waits(overflow: Overflow) -> None:
    out = outbox(overflow)
    out.offer(b"a", "n")
    out.control(b"1")
    out.control(b"2")
    assert await written(out) == b"12a!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_ping_wakes_the_writer(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        out.control(b"p")
        await wait_all_tasks_blocked()
    assert socket.writes == [b"p"]


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_of_a_flood_of_pings_only_the_latest_are_kept(overflow: Overflow) -> None:
    out = outbox(overflow)
    for number in range(100):
        out.control(bytes([number]))
    assert await written(out) == bytes(range(100 - MAX_CONTROL_FRAMES, 100)) + b"!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_flood_of_pings_takes_no_room_from_events(overflow: Overflow) -> None:
    out = outbox(overflow, frames=2)
    for _ in range(100):
        out.control(b"p")
    assert [out.offer(b"a", "n1"), out.offer(b"b", "n2")] == [Fate.QUEUED] * 2
    assert await written(out) == b"p" * MAX_CONTROL_FRAMES + b"ab!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_pings_are_written_though_the_queue_is_full(overflow: Overflow) -> None:
    out = outbox(overflow, frames=1)
    out.offer(b"a", "n")
    out.control(b"p")
    async with writing(out) as socket:
        await wait_all_tasks_blocked()
    assert socket.writes == [b"pa"]


async def test_pings_are_written_though_events_are_dropped_behind_them() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=1)
    out.control(b"p")
    out.offer(b"a", "n")
    out.offer(b"b", "n")
    async with writing(out) as socket:
        await wait_all_tasks_blocked()
    assert socket.writes == [b"pb"]


# What happens when there is no room.


@pytest.mark.parametrize("frames", [1, 3])
async def test_disconnect_takes_as_many_as_may_be_and_overflows_at_the_next(frames: int) -> None:
    out = outbox(Overflow.DISCONNECT, frames=frames)
    assert [out.offer(b"a", "n") for _ in range(frames)] == [Fate.QUEUED] * frames
    assert out.offer(b"b", "n") is Fate.OVERFLOWED
    assert await written(out) == b"a" * frames + b"!"


async def test_disconnect_overflows_for_an_answer_as_well() -> None:
    out = outbox(Overflow.DISCONNECT, frames=1)
    out.offer(b"a", "n")
    assert out.answer(b"b") is Fate.OVERFLOWED


async def test_drop_newest_keeps_what_waits() -> None:
    out = outbox(Overflow.DROP_NEWEST, frames=2)
    fates = [out.offer(frame, "n") for frame in (b"a", b"b", b"c", b"d")]
    assert fates == [Fate.QUEUED, Fate.QUEUED, Fate.DROPPED_NEWEST, Fate.DROPPED_NEWEST]
    assert out.statistics() == OutboxStatistics(waiting_frames=2, waiting_bytes=2, dropped=2)
    assert await written(out) == b"ab!"


async def test_drop_oldest_keeps_the_latest() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=2)
    fates = [out.offer(frame, "n") for frame in (b"a", b"b", b"c", b"d")]
    assert fates == [Fate.QUEUED, Fate.QUEUED, Fate.DROPPED_OLDEST, Fate.DROPPED_OLDEST]
    assert out.statistics() == OutboxStatistics(waiting_frames=2, waiting_bytes=2, dropped=2)
    assert await written(out) == b"cd!"


async def test_drop_oldest_drops_as_many_as_a_long_frame_needs() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=5, size=5)
    for frame in (b"a", b"b", b"c"):
        out.offer(frame, "n")
    assert out.offer(b"dddd", "n") is Fate.DROPPED_OLDEST
    assert out.statistics() == OutboxStatistics(waiting_frames=2, waiting_bytes=5, dropped=2)
    assert await written(out) == b"cdddd!"


async def test_latest_keeps_only_the_newest_of_each_name_in_the_order_of_the_newest() -> None:
    out = outbox(Overflow.LATEST, frames=3)
    fates = [out.offer(frame, name) for frame, name in ((b"a1", "a"), (b"b1", "b"), (b"a2", "a"), (b"c1", "c"))]
    assert fates == [Fate.QUEUED, Fate.QUEUED, Fate.REPLACED, Fate.QUEUED]
    assert out.statistics() == OutboxStatistics(waiting_frames=3, waiting_bytes=6, dropped=1)
    assert await written(out) == b"b1a2c1!"


async def test_latest_makes_room_by_the_very_frame_that_is_replaced() -> None:
    out = outbox(Overflow.LATEST, frames=1, size=4)
    out.offer(b"aaaa", "a")
    assert out.offer(b"bbbb", "a") is Fate.REPLACED
    assert await written(out) == b"bbbb!"


async def test_latest_counts_right_when_a_frame_was_replaced_by_one_that_does_not_fit() -> None:
    out = outbox(Overflow.LATEST, size=4)
    out.offer(b"b", "b")
    out.offer(b"aaa", "a")
    assert out.offer(b"too long", "a") is Fate.OVERFLOWED
    assert out.statistics() == OutboxStatistics(waiting_frames=1, waiting_bytes=1, dropped=1)


async def test_latest_overflows_where_there_are_too_many_names() -> None:
    out = outbox(Overflow.LATEST, frames=2)
    assert [out.offer(b"x", name) for name in "abc"] == [Fate.QUEUED, Fate.QUEUED, Fate.OVERFLOWED]


async def test_latest_never_replaces_an_answer() -> None:
    out = outbox(Overflow.LATEST, frames=3)
    for frame in (b"1", b"2", b"3"):
        assert out.answer(frame) is Fate.QUEUED
    assert out.answer(b"4") is Fate.OVERFLOWED
    assert await written(out) == b"123!"


async def test_latest_forgets_names_once_they_are_written() -> None:
    out = outbox(Overflow.LATEST)
    async with writing(out) as socket:
        for frame in (b"a", b"b"):
            assert out.offer(frame, "n") is Fate.QUEUED
            await wait_all_tasks_blocked()
    assert socket.writes == [b"a", b"b"]


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_bytes_are_bounded_before_a_frame_is_taken(overflow: Overflow) -> None:
    out = outbox(overflow, frames=100, size=10)
    for number in range(20):
        out.offer(b"xxxx", f"n{number}")
        assert out.statistics().waiting_bytes <= 10
        assert out.statistics().waiting_frames <= 2


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_frame_of_exactly_the_bytes_that_may_wait_is_taken(overflow: Overflow) -> None:
    out = outbox(overflow, size=10)
    assert out.offer(b"x" * 10, "n") is Fate.QUEUED


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_what_was_written_makes_room_again(overflow: Overflow) -> None:
    out = outbox(overflow, frames=2, size=4)
    async with writing(out) as socket:
        for _ in range(5):
            assert [out.offer(b"aa", "n1"), out.offer(b"bb", "n2")] == [Fate.QUEUED] * 2
            await wait_all_tasks_blocked()
            assert out.statistics() == OutboxStatistics(0, 0, 0)
    assert socket.written == b"aabb" * 5


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_what_waits_behind_a_stuck_write_is_bounded(overflow: Overflow) -> None:
    out = outbox(overflow, frames=2)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "a")
        await wait_all_tasks_blocked()
        fates = [out.offer(name.encode(), name) for name in "bcd"]
        assert fates[:2] == [Fate.QUEUED] * 2
        assert fates[2] is not Fate.QUEUED
        assert out.statistics().waiting_frames == 2


# A frame that is larger than the queue.


@pytest.mark.parametrize("overflow", EVERY_WAY)
@pytest.mark.parametrize("say", [lambda out: out.offer(b"large", "n"), lambda out: out.answer(b"large")])
async def test_one_frame_fits_where_nothing_waits_however_large_it_is(
    overflow: Overflow, say: Callable[[Outbox], Fate]
) -> None:
    out = outbox(overflow, size=3)
    assert say(out) is Fate.QUEUED
    assert out.statistics() == OutboxStatistics(waiting_frames=1, waiting_bytes=5, dropped=0)
    assert await written(out) == b"large!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_behind_a_large_frame_that_is_being_written_one_more_waits(overflow: Overflow) -> None:
    out = outbox(overflow, size=3)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"large1", "a")
        await wait_all_tasks_blocked()
        assert out.offer(b"large2", "b") is Fate.QUEUED
        assert out.offer(b"large3", "c") is not Fate.QUEUED
        assert out.statistics().waiting_bytes == 6


@pytest.mark.parametrize(
    ("overflow", "fate", "expected"),
    [
        (Overflow.DISCONNECT, Fate.OVERFLOWED, b"ab!"),
        (Overflow.DROP_OLDEST, Fate.DROPPED_OLDEST, b"large!"),
        (Overflow.DROP_NEWEST, Fate.DROPPED_NEWEST, b"ab!"),
        (Overflow.LATEST, Fate.OVERFLOWED, b"ab!"),
    ],
)
async def test_a_large_event_fits_behind_nothing_that_waits(overflow: Overflow, fate: Fate, expected: bytes) -> None:
    out = outbox(overflow, size=3)
    out.offer(b"a", "n1")
    out.offer(b"b", "n2")
    assert out.offer(b"large", "n3") is fate
    assert await written(out) == expected


@pytest.mark.parametrize(
    ("overflow", "fate", "expected"),
    [
        (Overflow.DISCONNECT, Fate.OVERFLOWED, b"large!"),
        (Overflow.DROP_OLDEST, Fate.DROPPED_OLDEST, b"a!"),
        (Overflow.DROP_NEWEST, Fate.DROPPED_NEWEST, b"large!"),
        (Overflow.LATEST, Fate.OVERFLOWED, b"large!"),
    ],
)
async def test_nothing_fits_behind_a_large_event_that_waits(overflow: Overflow, fate: Fate, expected: bytes) -> None:
    out = outbox(overflow, size=3)
    out.offer(b"large", "n1")
    assert out.offer(b"a", "n2") is fate
    assert await written(out) == expected


async def test_latest_replaces_a_large_event_by_another() -> None:
    out = outbox(Overflow.LATEST, size=3)
    out.offer(b"large", "n")
    assert out.offer(b"larger", "n") is Fate.REPLACED
    assert out.statistics() == OutboxStatistics(waiting_frames=1, waiting_bytes=6, dropped=1)
    assert await written(out) == b"larger!"


async def test_a_large_event_never_takes_the_place_of_an_answer() -> None:
    out = outbox(Overflow.DROP_OLDEST, size=3)
    out.answer(b"1")
    out.offer(b"a", "n")
    assert out.offer(b"large", "n") is Fate.DROPPED_NEWEST
    assert out.statistics() == OutboxStatistics(waiting_frames=1, waiting_bytes=1, dropped=2)
    assert await written(out) == b"1!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_large_answer_fits_behind_no_other(overflow: Overflow) -> None:
    out = outbox(overflow, size=3)
    out.answer(b"1")
    assert out.answer(b"large") is Fate.OVERFLOWED
    assert await written(out) == b"1!"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_large_answer_stays_whatever_comes_behind_it(overflow: Overflow) -> None:
    out = outbox(overflow, size=3)
    out.answer(b"large")
    assert out.offer(b"a", "n") in (Fate.OVERFLOWED, Fate.DROPPED_NEWEST)
    assert out.answer(b"1") is Fate.OVERFLOWED
    assert await written(out) == b"large!"


# Answers are never dropped.


@pytest.mark.parametrize("overflow", WITH_DROPS)
async def test_an_answer_takes_the_place_of_the_oldest_event(overflow: Overflow) -> None:
    out = outbox(overflow, frames=2)
    out.offer(b"a", "n")
    out.offer(b"b", "n")
    assert out.answer(b"1") is Fate.DROPPED_OLDEST
    assert out.statistics() == OutboxStatistics(waiting_frames=2, waiting_bytes=2, dropped=1)
    assert await written(out) == b"b1!"


@pytest.mark.parametrize("overflow", WITH_DROPS)
async def test_an_answer_never_takes_the_place_of_another(overflow: Overflow) -> None:
    out = outbox(overflow, frames=3)
    out.answer(b"1")
    out.offer(b"a", "n")
    out.answer(b"2")
    assert out.answer(b"3") is Fate.DROPPED_OLDEST
    assert out.answer(b"4") is Fate.OVERFLOWED
    assert await written(out) == b"123!"


async def test_an_event_never_takes_the_place_of_an_answer() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=3)
    out.answer(b"1")
    out.offer(b"a", "n")
    out.answer(b"2")
    assert out.offer(b"b", "n") is Fate.DROPPED_OLDEST
    assert out.offer(b"c", "n") is Fate.DROPPED_OLDEST
    assert await written(out) == b"12c!"


async def test_an_event_is_dropped_itself_where_only_answers_wait() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=2)
    out.answer(b"1")
    out.answer(b"2")
    assert out.offer(b"a", "n") is Fate.DROPPED_NEWEST
    assert out.statistics() == OutboxStatistics(waiting_frames=2, waiting_bytes=2, dropped=1)
    assert await written(out) == b"12!"


@pytest.mark.parametrize("overflow", WITH_DROPS)
async def test_a_large_answer_takes_the_place_of_all_events(overflow: Overflow) -> None:
    out = outbox(overflow, size=3)
    out.offer(b"a", "n")
    out.offer(b"b", "n")
    assert out.answer(b"large") is Fate.DROPPED_OLDEST
    assert out.statistics() == OutboxStatistics(waiting_frames=1, waiting_bytes=5, dropped=2)
    assert await written(out) == b"large!"


async def test_answers_keep_their_place_before_a_writer_that_was_stuck() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=2)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "n")
        await wait_all_tasks_blocked()
        out.answer(b"1")
        for frame in (b"b", b"c", b"d"):
            out.offer(frame, "n")
        socket.open.set()
        await wait_all_tasks_blocked()
    assert socket.writes == [b"a", b"1d"]


async def test_an_answer_that_is_left_alone_needs_nobody_to_wake_the_writer() -> None:
    out = outbox(Overflow.DROP_OLDEST, frames=5, size=4)
    out.answer(b"11")
    out.offer(b"a", "n")
    assert out.answer(b"333") is Fate.OVERFLOWED  # by then the event has gone, and the answer waits alone
    async with writing(out) as socket:
        await wait_all_tasks_blocked()
    assert socket.writes == [b"11"]


# The writer has taken a frame, and has not run yet.


@pytest.mark.parametrize("overflow", WITH_DROPS)
async def test_a_frame_in_the_writers_hands_is_not_dropped(overflow: Overflow) -> None:
    out = outbox(overflow, frames=1)
    async with writing(out) as socket:
        assert out.offer(b"a", "n") is Fate.QUEUED
        out.answer(b"1")
        out.control(b"p")
        await wait_all_tasks_blocked()
    assert socket.writes == [b"pa1"]


# The end.


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_the_close_frame_goes_after_what_waits(overflow: Overflow) -> None:
    out = outbox(overflow)
    out.offer(b"a", "n")
    out.finish(b"END", discard=False)
    async with writing(out) as socket:
        await out.finished.wait()
    assert socket.written == b"aEND"
    assert not out.broken


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_the_close_frame_goes_instead_of_what_waits(overflow: Overflow) -> None:
    out = outbox(overflow)
    out.offer(b"a", "n1")
    out.answer(b"b")
    out.control(b"p")
    out.finish(b"END", discard=True)
    async with writing(out) as socket:
        await out.finished.wait()
    assert socket.written == b"pEND"
    assert out.statistics() == OutboxStatistics(waiting_frames=0, waiting_bytes=0, dropped=2)


@pytest.mark.parametrize("overflow", EVERY_WAY)
@pytest.mark.parametrize("discard", [True, False])
async def test_nothing_goes_after_the_close_frame(overflow: Overflow, discard: bool) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        out.finish(b"END", discard=discard)
        assert out.offer(b"a", "n") is Fate.CLOSED
        assert out.answer(b"b") is Fate.CLOSED
        out.control(b"p")
        await wait_all_tasks_blocked()
        assert out.finished.is_set()
        assert out.offer(b"a", "n") is Fate.CLOSED
    assert socket.writes == [b"END"]


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_the_first_close_frame_counts(overflow: Overflow) -> None:
    out = outbox(overflow)
    out.offer(b"a", "n")
    out.finish(b"END", discard=False)
    out.finish(b"NEVER", discard=True)
    async with writing(out) as socket:
        await out.finished.wait()
    assert socket.written == b"aEND"


@pytest.mark.parametrize("overflow", EVERY_WAY)
async def test_a_close_frame_waits_for_the_write_in_progress(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "n")
        await wait_all_tasks_blocked()
        out.offer(b"b", "n")
        out.finish(b"END", discard=True)
        await wait_all_tasks_blocked()
        assert not out.finished.is_set()
        socket.open.set()
        await out.finished.wait()
    assert socket.writes == [b"a", b"END"]


async def test_an_end_without_a_frame_ends_the_writer() -> None:
    out = outbox()
    async with writing(out) as socket:
        out.finish(b"", discard=True)
        await out.finished.wait()
    assert socket.written == b""


# When the socket fails.


@pytest.mark.parametrize("failure", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_a_write_that_fails_breaks_the_outbox(failure: type[Exception]) -> None:
    out = outbox()
    out.offer(b"a", "n")

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise failure

    await out.run(write)
    assert out.broken
    assert out.finished.is_set()
    assert out.offer(b"b", "n") is Fate.CLOSED


async def test_a_write_that_takes_too_long_breaks_the_outbox(autojump_clock: MockClock) -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "n")
        began = trio.current_time()
        await out.finished.wait()
        assert trio.current_time() - began == WRITE_TIMEOUT
    assert out.broken
    assert socket.writes == []
    assert out.offer(b"b", "n") is Fate.CLOSED


async def test_waiting_for_something_to_write_takes_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    out = outbox()
    async with writing(out) as socket:
        await trio.sleep(100 * WRITE_TIMEOUT)
        out.offer(b"a", "n")
        await wait_all_tasks_blocked()
    assert socket.writes == [b"a"]


async def test_a_writer_cancelled_in_the_middle_leaves_the_outbox_broken() -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "n")
        await wait_all_tasks_blocked()
    assert out.broken
    assert out.finished.is_set()


async def test_a_writer_cancelled_while_nothing_goes_out_leaves_it_whole() -> None:
    out = outbox()
    async with writing(out):
        out.offer(b"a", "n")
        await wait_all_tasks_blocked()
    assert not out.broken
    assert out.finished.is_set()
    assert out.offer(b"b", "n") is Fate.CLOSED
