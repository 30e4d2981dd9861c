"""The log on disk: what it drops, and when."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from broker.core.errors import LogGap
from broker.core.event import Event, Record
from broker.core.relations import Learned
from broker.edge import sqlite_ids
from broker.edge.retention import Retention
from broker.edge.segments import SEGMENT_EVENTS
from broker.edge.sqlite_log import SqliteLog
from broker.edge.sqlite_segments import CLEANED_ROWS
from tests.edge.sqlite_house import PLENTY, Clock, append, events, lasts, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def test_events_are_dropped_when_their_time_is_over(path: Path) -> None:
    clock = Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        await append(log, "x")
        clock.now += 5
        await append(log, "y")
        clock.now += 5
        assert await append(log, "x", "y") == []
        clock.now += 1
        assert [record.id for record in await append(log, "x", "y")] == ["x"]
        with pytest.raises(LogGap):
            await log.read(0, 10, PLENTY)


async def test_time_goes_on_while_no_broker_runs(path: Path) -> None:
    clock = Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        for number in range(100):
            clock.now += 1
            await append(log, str(number))
    clock.now += 5
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        assert log.statistics()["events"] == 6
        assert await log.locate("94") == 95
        assert await log.locate("93") is None


async def test_events_are_dropped_when_they_take_too_much_room(path: Path) -> None:
    with closing(SqliteLog(path, Retention(bytes=100_000))) as log:
        for number in range(10):
            await log.append([Event("a", b"1" * 40_000, id=str(number))])
            log.learn(Learned(number + 1))
            assert log.statistics()["bytes"] <= 100_000
        assert log.statistics()["events"] == 2
        assert await log.locate("8") == 9


async def test_a_batch_larger_than_all_room_is_taken_and_dropped(path: Path) -> None:
    with closing(SqliteLog(path, Retention(bytes=1000))) as log:
        (record,) = await log.append([Event("a", b"1" * 5000)])
        assert isinstance(record, Record)
        assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 2}
        assert await log.read(1, 10, PLENTY) == []


async def test_bytes_are_counted_the_same_when_it_is_opened_again(path: Path) -> None:
    with closing(SqliteLog(path, Retention(events=3))) as log:
        for _ in range(10):
            await append(log, None)
        statistics = log.statistics()
    with closing(SqliteLog(path, Retention(events=3))) as log:
        assert log.statistics() == statistics


async def test_the_file_does_not_grow_for_ever(path: Path) -> None:
    with closing(SqliteLog(path, Retention(events=10))) as log:
        for _ in range(300):
            await append(log, None)
    assert rows(path) <= 10 + SEGMENT_EVENTS + 1


async def test_what_is_dropped_at_once_leaves_the_file_a_little_at_a_time(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        for _ in range(300):
            await append(log, None)
    with closing(SqliteLog(path, Retention(events=10))) as log:
        assert log.statistics()["events"] == 10
        await append(log, None)
        left = [len(await trio.to_thread.run_sync(lasts, log))]
        for _ in range(10):
            await append(log, None)
            left.append(len(await trio.to_thread.run_sync(lasts, log)))
    assert left[0] > 200
    assert all(before - after <= CLEANED_ROWS + 2 for before, after in pairwise(left))
    assert left[-1] <= 10 + SEGMENT_EVENTS + 1


async def test_large_rows_leave_the_file_more_slowly(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        for number in range(30):
            await log.append([Event("a", b"1" * 200_000)])
            log.learn(Learned(number + 1))
    with closing(SqliteLog(path, Retention(events=10))) as log:
        await append(log, None)
        assert len(lasts(log)) > 20


async def test_an_id_is_free_again_when_its_event_was_dropped_and_its_row_is_still_there(path: Path) -> None:
    with closing(SqliteLog(path, Retention(events=2))) as log:
        await log.append(events("x", "y", "z"))  # nobody learns, so nothing may leave the file
        assert [record.id for record in await log.append(events("x")) if isinstance(record, Record)] == ["x"]
        assert lasts(log) == [3, 4]
        assert await log.locate("x") == 4


# Clocks that are put right.


@pytest.mark.parametrize("jump", [-1_000_000.0, 1_000_000.0])
async def test_a_clock_that_is_put_right_neither_drops_events_nor_keeps_them(path: Path, jump: float) -> None:
    day, ticks = Clock(), Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=day, ticks=ticks)) as log:
        await append(log, "x")
        day.now += jump
        ticks.now += 5
        await append(log, "y")
        ticks.now += 5
        assert await append(log, "x", "y") == []
        ticks.now += 1
        assert [record.id for record in await append(log, "x", "y")] == ["x"]


async def test_a_clock_that_was_put_back_while_no_broker_ran_drops_nothing_and_stands_still_for_it(path: Path) -> None:
    day, ticks = Clock(), Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=day, ticks=ticks)) as log:
        await append(log, "x")
        ticks.now += 5
        await append(log, "y")
    day.now -= 1_000_000
    with closing(SqliteLog(path, Retention(seconds=10), clock=day, ticks=ticks)) as log:
        assert log.statistics()["events"] == 2
        ticks.now += 6
        assert [record.id for record in await append(log, "x", "y")] == ["x"]


async def test_a_clock_that_was_far_ahead_for_a_while_keeps_nothing_for_ever(path: Path) -> None:
    day, ticks = Clock(), Clock()
    day.now += 1_000_000
    with closing(SqliteLog(path, Retention(seconds=10), clock=day, ticks=ticks)) as log:
        await append(log, "x")
    day.now -= 1_000_000
    with closing(SqliteLog(path, Retention(seconds=10), clock=day, ticks=ticks)) as log:
        ticks.now += 11
        assert [record.id for record in await append(log, "x")] == ["x"]


# At the edges.


async def test_what_one_event_takes_may_be_all_the_room(path: Path) -> None:
    with closing(SqliteLog(path, Retention(bytes=1))) as log:
        for number in range(1, 4):
            (record,) = await append(log, "x")  # never held, so never known
            assert record.offset == number
        assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 4}
    with closing(SqliteLog(path, Retention(bytes=1))) as log:
        assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 4}


async def test_the_one_event_that_is_retained_may_be_any_of_a_segment(path: Path) -> None:
    with closing(SqliteLog(path, Retention(events=1))) as log:
        taken = await append(log, *map(str, range(100)))
        assert await log.read(99, 10, PLENTY) == taken[-1:]
        assert await log.locate("99") == 100
        assert await log.locate("98") is None
        with pytest.raises(LogGap):
            await log.read(98, 10, PLENTY)


async def test_time_may_be_over_for_all_but_the_newest(path: Path) -> None:
    clock = Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        for number in range(500):
            await append(log, str(number))
        clock.now += 10.5
        await append(log, "new")
        assert (log.statistics()["events"], await log.locate("new")) == (1, 501)


async def test_every_event_that_is_held_has_an_id_that_is_known_also_when_more_is_retained_from_now_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ids, "CYCLE_EVENTS", 8)  # ids that are forgotten leave the table soon
    with closing(SqliteLog(path, Retention(events=2))) as log:
        for number in range(30):
            await log.append(events(str(number)))  # nobody learns, so every row stays
        assert len(lasts(log)) == 30
    with closing(SqliteLog(path, Retention(events=100))) as log:
        held = log.statistics()
        ids = [record.id for record in await log.read(held["next_offset"] - held["events"] - 1, 100, PLENTY)]
        assert ids[-2:] == ["28", "29"]
        assert await log.append(events(*ids)) == ids
