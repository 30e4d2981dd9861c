"""The log on disk: what it knows when it is opened again, what it drops and when; and that reading delays nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import LogGap, LogUnavailable
from broker.core.event import Event, Record
from broker.core.relations import Learned
from broker.edge import sqlite_ids, sqlite_log, sqlite_segments
from broker.edge.retention import Retention
from broker.edge.sqlite_file import LogFile
from broker.edge.sqlite_log import SqliteLog
from tests.contracts.log_model import APPEND, LEARN, LOCATE, READ, REOPEN, Model, play

PLENTY = 1_000_000


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids move from memory to the table after a few events, and not after thousands."""
    monkeypatch.setattr(sqlite_ids, "CYCLE_EVENTS", 8)


def events(*ids: str | None) -> list[Event]:
    return [Event("a", b"1", id=event_id, source="test") for event_id in ids]


async def append(log: SqliteLog, *ids: str | None) -> list[Record]:
    """Append events of these ids, and learn from them; those that the log took for new."""
    taken = [record for record in await log.append(events(*ids)) if isinstance(record, Record)]
    log.learn(Learned(log.statistics()["next_offset"] - 1))
    return taken


def saved(path: Path) -> dict[Path, bytes]:
    """The log's files as they are now."""
    return {file: file.read_bytes() for file in (path, path.with_name("log.db-wal")) if file.exists()}


def put_back(path: Path, files: dict[Path, bytes]) -> None:
    path.with_name("log.db-wal").unlink(missing_ok=True)
    for file, content in files.items():
        file.write_bytes(content)


@contextmanager
def failing() -> Iterator[None]:
    """Whatever is appended fails when all is written, and not yet safe."""

    def fail(*_arguments: object) -> None:
        raise LogUnavailable("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_segments, "clean", fail)
        yield


def rows(path: Path) -> int:
    """How many segments lie in the file."""
    with closing(LogFile(path)) as file:
        ((number,),) = file.read("SELECT count(*) FROM segments")
    return int(number)


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
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock)) as log:
        await append(log, None, None)
        clock.now += 11
        await append(log)
        assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 3}
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock)) as log:
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


# Dropped.


async def test_events_are_dropped_when_their_time_is_over(path: Path) -> None:
    clock = Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock)) as log:
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
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock)) as log:
        for number in range(100):
            clock.now += 1
            await append(log, str(number))
    clock.now += 5
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock)) as log:
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
    assert rows(path) <= 11


async def test_what_is_dropped_at_once_leaves_the_file_a_little_at_a_time(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        for _ in range(300):
            await append(log, None)
    with closing(SqliteLog(path, Retention(events=10))) as log:
        assert log.statistics()["events"] == 10
        await append(log, None)
        left = [len(await trio.to_thread.run_sync(_offsets, log))]
        for _ in range(10):
            await append(log, None)
            left.append(len(await trio.to_thread.run_sync(_offsets, log)))
    assert left[0] > 200
    assert left == sorted(left, reverse=True)
    assert left[-1] <= 11


async def test_large_rows_leave_the_file_more_slowly(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        for number in range(30):
            await log.append([Event("a", b"1" * 200_000)])
            log.learn(Learned(number + 1))
    with closing(SqliteLog(path, Retention(events=10))) as log:
        await append(log, None)
        assert len(_offsets(log)) > 20


async def test_an_id_is_free_again_when_its_event_was_dropped_and_its_row_is_still_there(path: Path) -> None:
    with closing(SqliteLog(path, Retention(events=2))) as log:
        await log.append(events("x", "y", "z"))  # nobody learns, so nothing may leave the file
        assert [record.id for record in await log.append(events("x")) if isinstance(record, Record)] == ["x"]
        assert _offsets(log) == [3, 4]
        assert await log.locate("x") == 4


def _offsets(log: SqliteLog) -> list[int]:
    """The last offset of each row in the file of a log that is open."""
    return [last for (last,) in log._file.read("SELECT last FROM segments ORDER BY last")]


# What was learned.


async def test_what_was_learned_is_recalled(path: Path) -> None:
    learned = Learned(2, {("group", "1", "ada"): 1, ("group", "\0 é", ""): 2}, {("group", "2"): True})
    with closing(SqliteLog(path)) as log:
        await log.append(events(None, None))
        log.learn(learned)
    with closing(SqliteLog(path)) as log:
        assert await log.recall() == (learned, ())


async def test_changes_of_what_was_learned_are_recalled(path: Path) -> None:
    everybody = {("group", str(number % 3), f"user {number}"): 1 for number in range(1000)}
    with closing(SqliteLog(path)) as log:
        await log.append(events(None))
        log.learn(Learned(1, everybody, {("group", "1"): True, ("group", "2"): True}))
        await log.append(events(None))
        gone = {place: None for place in everybody if place[1] == "0"}
        log.learn(Learned(2, {**gone, ("group", "1", "user 1"): 2}, {("group", "1"): False}))
    left = {place: 1 for place in everybody if place[1] != "0"} | {("group", "1", "user 1"): 2}
    with closing(SqliteLog(path)) as log:
        assert await log.recall() == (Learned(2, left, {("group", "2"): True}), ())


async def test_events_from_which_nobody_has_learned_are_recalled_though_they_were_dropped(path: Path) -> None:
    learned = Learned(2, {("group", "1", "ada"): 1})
    with closing(SqliteLog(path, Retention(events=2))) as log:
        await log.append(events(None, None))
        log.learn(learned)
        behind = [*await log.append(events(*[None] * 1000)), *await log.append(events(None))]
        killed = saved(path)
    put_back(path, killed)
    with closing(SqliteLog(path, Retention(events=2))) as log:
        assert await log.recall() == (learned, behind)
        assert log.statistics()["events"] == 2


async def test_what_was_learned_is_kept_though_only_known_events_follow(path: Path) -> None:
    learned = Learned(1, {("group", "1", "ada"): 1})
    with closing(SqliteLog(path)) as log:
        await log.append(events("x"))
        log.learn(learned)
        assert await log.append(events("x")) == ["x"]
        assert log._file.read("SELECT count(*) FROM members") == [(1,)]
    with closing(SqliteLog(path)) as log:
        assert await log.recall() == (learned, ())


async def test_what_was_learned_is_not_lost_with_an_append_that_fails(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await log.append(events(None))
        log.learn(Learned(1, {("group", "1", "ada"): 1, ("group", "1", "bob"): 1}))
        with failing(), pytest.raises(LogUnavailable):
            await log.append(events(None))
        log.learn(Learned(1, {("group", "1", "bob"): None}))
        await log.append(events(None))
    with closing(SqliteLog(path)) as log:
        learned, behind = await log.recall()
        assert learned == Learned(1, {("group", "1", "ada"): 1})
        assert [record.offset for record in behind] == [2]


async def test_an_append_that_fails_leaves_nothing_behind(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await append(log, "x")
        before = log.statistics()
        with failing(), pytest.raises(LogUnavailable):
            await log.append(events("y", None))
        assert log.statistics() == before
        assert await log.locate("y") is None
        assert [record.offset for record in await append(log, "y")] == [2]


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
            seen[reader] += [record.offset for record in await log.read(after, reader + 1, PLENTY)]

    with closing(SqliteLog(path, recent_bytes=2000)) as log:
        async with trio.open_nursery() as nursery:
            for reader in seen:
                nursery.start_soon(follow, reader)
            for _ in range(100):
                await append(log, None, None)
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
