"""The log on disk: what it knows when it is opened again, what it drops and when; and that reading delays nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import LogGap
from broker.core.relations import Learned
from broker.edge import sqlite_ids, sqlite_log
from broker.edge.retention import Retention
from broker.edge.sqlite_log import SqliteLog
from tests.contracts.log_model import APPEND, LEARN, LOCATE, READ, REOPEN, Model, play
from tests.edge.sqlite_house import PLENTY, Clock, append, events, put_back, saved


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids move from memory to the table after a few events, and not after thousands."""
    monkeypatch.setattr(sqlite_ids, "CYCLE_EVENTS", 8)


# Opened again.


async def test_what_was_taken_is_there_when_it_is_opened_again(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        taken = [*await append(log, None, "x"), *await append(log, None)]
        statistics = log.statistics()
    with closing(SqliteLog(path)) as log:
        assert await log.read(0, 100, PLENTY) == taken
        assert log.statistics() == statistics


async def test_ids_and_positions_count_on_when_it_is_opened_again(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        given_by_us, own = await append(log, None, "x")
        position = log.position()
        await append(log, None)
    with closing(SqliteLog(path)) as log:
        assert [await log.locate(each) for each in (given_by_us.id, own.id, position)] == [1, 2, 2]
        assert await log.append(events("x", given_by_us.id)) == ["x", given_by_us.id]


async def test_offsets_go_on_when_all_events_were_dropped(path: Path) -> None:
    clock = Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        await append(log, None, None)
        clock.now += 11
        await append(log)
        assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 3}
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 3}
        assert [record.offset for record in await append(log, None)] == [3]


async def test_what_nobody_remembers_of_so_many_openings_is_a_gap_and_nothing_worse(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MAX_OPENINGS", 2)
    positions = []
    for _ in range(4):
        with closing(SqliteLog(path)) as log:
            positions.append(log.position())
            located = [await log.locate(position) for position in positions]
    assert located == [None, None, 0, 0]


async def test_a_position_behind_events_that_were_lost_is_a_gap(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await append(log, None)
    backup = saved(path)
    with closing(SqliteLog(path)) as log:
        kept = log.position()
        (lost,) = await append(log, None)
        position = log.position()
    put_back(path, backup)
    with closing(SqliteLog(path)) as log:
        (other,) = await append(log, None)
        assert (lost.offset, lost.id) != (other.offset, other.id)
        assert [await log.locate(each) for each in (lost.id, position)] == [None, None]
        assert await log.locate(kept) is None  # that it still counted could be told by nobody


async def test_what_was_opened_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(SqliteLog(path)) as log:
        await append(log, None, None)
        log.learn(Learned(2, {("group", "1", "ada"): 1}))
    with caplog.at_level(logging.INFO), closing(SqliteLog(path)):
        pass
    [told] = [vars(record) for record in caplog.records if record.message == "log.opened"]
    assert (told["file"], told["events"], told["facts"]) == (str(path), 2, 1)
    assert told["seconds"] >= 0


@pytest.mark.usefixtures("quick_turns")
async def test_an_id_is_known_whether_it_has_moved_or_not(path: Path) -> None:
    ids = [f"id {number}" for number in range(100)]
    with closing(SqliteLog(path)) as log:
        for event_id in ids:
            await append(log, event_id)
            assert await log.append(events(*ids[: ids.index(event_id) + 1])) == ids[: ids.index(event_id) + 1]
            assert await log.locate(event_id) == ids.index(event_id) + 1
    with closing(SqliteLog(path)) as log:
        assert await log.append(events(*ids)) == ids


@pytest.mark.usefixtures("quick_turns")
async def test_ids_that_have_moved_leave_the_memory_and_those_that_are_forgotten_the_file(path: Path) -> None:
    with closing(SqliteLog(path, Retention(events=10))) as log:
        for number in range(200):
            await append(log, f"id {number}")
        assert sum(map(len, log._ids._recent.values())) <= 2 * 8
        ((rows,),) = log._file.read("SELECT count(*) FROM ids")
        assert rows <= 10 + 2 * 8


@pytest.mark.usefixtures("quick_turns")
async def test_equal_hashes_are_not_equal_ids(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_ids, "_hash", len)
    with closing(SqliteLog(path)) as log:
        for number, event_id in enumerate(("ab", "cd", "ef"), start=1):
            (record,) = await append(log, event_id)
            assert record.offset == number
            assert await log.locate(event_id) == number
        assert await append(log, "ef") == []


@given(
    st.lists(st.one_of(APPEND, APPEND, READ, LOCATE, LEARN, REOPEN), max_size=20),
    st.integers(1, 12),
    st.sampled_from([8, 512, 65_536]),
)
async def test_a_log_that_is_opened_again_and_again_is_like_a_list(
    steps: Sequence[tuple[Any, ...]], retain: int, cycle: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_ids, "CYCLE_EVENTS", cycle)

        def opened() -> SqliteLog:
            return SqliteLog(Path(folder) / "log.db", Retention(events=retain), recent_bytes=1500)

        def reopen(log: Any) -> SqliteLog:
            log.close()
            return opened()

        await play(opened(), Model(retain), steps, reopen)


# Reading and appending at once.


async def test_who_reads_keeps_nobody_from_appending(path: Path) -> None:
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        for _ in range(5):
            await append(log, None)
        with log._file.reading("SELECT last FROM segments ORDER BY last") as reading:
            assert next(reading) == (1,)
            await append(log, None)
            assert [last for (last,) in reading] == [2, 3, 4, 5]  # as it was when the reading began
        assert len(await log.read(0, 100, PLENTY)) == 6


async def test_all_who_read_while_events_come_see_every_event_in_order(path: Path) -> None:
    seen: dict[int, list[int]] = {number: [] for number in range(5)}

    async def follow(reader: int) -> None:
        while len(seen[reader]) < 200:
            after = seen[reader][-1] if seen[reader] else 0
            come, records = news, await log.read(after, reader + 1, PLENTY)
            seen[reader] += [record.offset for record in records]
            if not records:  # to ask again and again would take the interpreter away from the log's own threads
                await come.wait()

    news = trio.Event()
    with closing(SqliteLog(path, recent_bytes=2000)) as log:
        async with trio.open_nursery() as nursery:
            for reader in seen:
                nursery.start_soon(follow, reader)
            for _ in range(100):
                await append(log, None, None)
                told, news = news, trio.Event()
                told.set()
    assert all(offsets == list(range(1, 201)) for offsets in seen.values())


async def test_a_row_that_leaves_the_file_while_somebody_reads_is_a_gap(path: Path) -> None:
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        await append(log, None)
        await append(log, None)
        with log._file.transaction() as execute:
            execute("DELETE FROM segments WHERE last = 1", ())
        with pytest.raises(LogGap):
            await log.read(0, 10, PLENTY)


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
