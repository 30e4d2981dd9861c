"""The log's file damaged: it is told, and nothing is taken for what it is not, neither events nor what was learned."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.errors import LogGap, LogUnavailable
from broker.core.event import Event, Record
from broker.core.leavers import Stay
from broker.core.relations import Learned
from broker.edge import sqlite_ids
from broker.edge.retention import Retention
from broker.edge.sqlite_file import LogFileError
from broker.edge.sqlite_log import SqliteLog
from tests.edge.sqlite_house import PLENTY, Clock, changed_by

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def replace(path: Path, text: bytes, other: bytes) -> None:
    """Change the file behind everybody's back."""
    path.write_bytes(path.read_bytes().replace(text, other))


async def test_events_that_were_damaged_can_t_be_read_and_the_others_can(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        taken = [*await log.append([Event("a", b'"first"')]), *await log.append([Event("a", b'"second"')])]
    replace(path, b'"first"', b'"FIRST"')
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        for _ in range(9):
            with pytest.raises(LogUnavailable, match="the log is damaged: events 1 to 1 can't be read"):
                await log.read(0, 10, PLENTY)
        assert await log.read(1, 10, PLENTY) == taken[1:]
    assert [record.message for record in caplog.records] == ["log.unreadable"]


async def test_events_that_are_missing_between_others_are_not_passed_over(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        for _ in range(5):
            await log.append([Event("a", b"1")])
    changed_by(path, "DELETE FROM segments WHERE last = 3")
    with closing(SqliteLog(path)) as log:
        with pytest.raises(LogUnavailable, match="there are no events between 2 and 4"):
            await log.read(0, 10, PLENTY)
        with pytest.raises(LogUnavailable, match="there are no events between 2 and 4"):
            await log.recall()


async def test_newest_events_that_are_gone_while_it_is_used_are_told(path: Path) -> None:
    clock = Clock()
    with closing(SqliteLog(path, Retention(seconds=10), clock=clock, ticks=clock)) as log:
        for _ in range(3):
            await log.append([Event("a", b"1")])
        changed_by(path, "DELETE FROM segments")
        clock.now += 11
        with pytest.raises(LogUnavailable, match="the newest events are gone"):
            await log.append([Event("a", b"1")])


async def test_events_of_another_program_between_ours_are_told(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await log.append([Event("a", b"1")])
        columns = "at, total, size, held, learned, indexed, checksum, ids, body"
        changed_by(path, f"INSERT INTO segments SELECT 2, 2, {columns} FROM segments")
        with pytest.raises(LogUnavailable, match="was changed by another program"):
            await log.append([Event("b", b"1")])


Damage = Callable[[random.Random, bytearray], None]


def flip(chance: random.Random, content: bytearray) -> None:
    for _ in range(chance.choice([1, 10, 1000])):
        content[chance.randrange(len(content))] = chance.randrange(256)


def overwrite(chance: random.Random, content: bytearray) -> None:
    at = chance.randrange(len(content) // PAGE) * PAGE
    content[at : at + PAGE] = chance.choice([bytes(PAGE), chance.randbytes(PAGE)])


def cut(chance: random.Random, content: bytearray) -> None:
    del content[chance.randrange(len(content)) :]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Sequence[Record]]:
    """A log's file with events, facts, and ids in their table; and what is in it."""
    path = tmp_path_factory.mktemp("good") / "log.db"

    async def fill() -> list[Record]:
        with pytest.MonkeyPatch.context() as patch, closing(SqliteLog(path)) as log:
            patch.setattr(sqlite_ids, "CYCLE_EVENTS", 1000)
            for number in range(20):
                await log.append([Event("a", b"1" * 300, id=f"{number} {place}") for place in range(100)])
                log.learn(Learned(100 * number + 100, {("group", str(number), str(user)): 1 for user in range(20)}))
            return list(await log.read(0, 2000, PLENTY))

    taken = trio.run(fill)
    return path.read_bytes(), taken


@given(st.sampled_from([flip, overwrite, cut]), st.integers(0, 2**32))
@settings(max_examples=60)
async def test_whatever_is_damaged_is_told_and_no_event_is_another_one(
    good: tuple[bytes, Sequence[Record]], damage: Damage, seed: int
) -> None:
    content = bytearray(good[0])
    damage(random.Random(seed), content)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        path.write_bytes(content)
        try:
            log = SqliteLog(path, recent_bytes=0)
        except LogFileError:
            return
        with closing(log), suppress(LogUnavailable, LogGap):
            await use(log, good[1])


async def use(log: SqliteLog, taken: Sequence[Record]) -> None:
    """Do what a broker does; what can be read must be what was taken."""
    for after in range(0, len(taken), 100):
        assert await log.read(after, 100, PLENTY) == taken[after : after + 100]
    for record in taken[::50]:
        assert await log.locate(record.id) in (record.offset, None)
    await log.recall()
    for number in range(20):
        await log.append([*(record.event for record in taken[:3]), Event("a", b"1" * 300, id=f"new {number}")])


# One value changed, in each table.

FACTS = Learned(6, {("group", "1", "ada"): 1}, {("group", "2"): True}, {("group", "1", "bob"): Stay(1, 2)})


async def fill(path: Path) -> Sequence[Record | str]:
    """A log with events, some of which were dropped, and something learned of each kind."""
    with closing(SqliteLog(path, Retention(events=2))) as log:
        for number in range(6):
            taken = await log.append([Event("a", b"1", id=f"id {number}")])
            log.learn(Learned(number + 1))
        log.learn(FACTS)
    with closing(SqliteLog(path, Retention(events=2))):
        pass  # takes over what was learned
    return taken


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE members SET user = 'adb'",
        "UPDATE members SET key = '2'",
        "UPDATE members SET since = 2",
        "UPDATE leavers SET until = 1",
        "UPDATE doubts SET key = '3'",
        "UPDATE members SET user = x'ff'",
    ],
)
async def test_what_was_learned_and_then_damaged_is_never_believed(path: Path, change: str) -> None:
    await fill(path)
    changed_by(path, change)
    with closing(SqliteLog(path)) as log, pytest.raises(LogUnavailable, match="damaged"):
        await log.recall()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE segments SET learned = 1000",
        "UPDATE segments SET learned = -1",
        "UPDATE segments SET indexed = 1000",
        "UPDATE segments SET held = 1000",
        "UPDATE segments SET at = 1e300",
        "UPDATE segments SET at = 'noon'",
        "UPDATE segments SET total = -5",
        "UPDATE segments SET first = first - 1",
        "UPDATE segments SET ids = x'c1'",
        "UPDATE keys SET value = x'00'",
    ],
)
async def test_a_log_that_contradicts_itself_is_refused(path: Path, change: str) -> None:
    await fill(path)
    changed_by(path, change)
    with pytest.raises(LogFileError, match="is damaged"):
        SqliteLog(path)


async def test_changes_of_what_was_learned_that_are_damaged_are_never_believed(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await log.append([Event("a", b"1")])
        log.learn(Learned(1, {("group", "1", "ada"): 1}))
    replace(path, b"ada", b"adb")
    with pytest.raises(LogFileError, match="is damaged: what was learned can't be read"):
        SqliteLog(path)


async def test_events_that_are_gone_and_were_not_learned_from_are_missed(path: Path) -> None:
    await fill(path)
    changed_by(path, "UPDATE segments SET learned = 1", "DELETE FROM segments WHERE last < 4")
    with closing(SqliteLog(path)) as log, pytest.raises(LogUnavailable, match="still to be learned"):
        await log.recall()


async def test_an_id_that_is_damaged_is_of_no_other_event(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_ids, "CYCLE_EVENTS", 1)
        await fill(path)
    changed_by(path, "UPDATE ids SET offset = offset - 1")
    with closing(SqliteLog(path)) as log:
        assert await log.locate("id 4") in (5, None)
        assert await log.locate("id 5") in (6, None)


# The second file.


@given(st.sampled_from([flip, overwrite, cut]), st.integers(0, 2**32))
@settings(max_examples=30)
async def test_a_damaged_second_file_costs_the_newest_events_and_nothing_else(
    unfinished: tuple[dict[str, bytes], Sequence[Record]], damage: Damage, seed: int
) -> None:
    files, taken = unfinished
    second = bytearray(files["log.db-wal"])
    damage(random.Random(seed), second)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        path.write_bytes(files["log.db"])
        path.with_name("log.db-wal").write_bytes(second)
        with closing(SqliteLog(path, recent_bytes=0)) as log:
            left = log.statistics()["events"]
            assert await log.read(0, 2000, PLENTY) == taken[:left]
            learned, behind = await log.recall()
            assert [*taken[: learned.offset], *behind] == taken[:left]
            assert len(learned.members) == learned.offset // 100 * 20
            assert [await log.locate(record.id) for record in taken[left:]] == [None] * (len(taken) - left)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Sequence[Record]]:
    """The two files of a log that was killed, and what was taken."""
    path = tmp_path_factory.mktemp("killed") / "log.db"

    async def fill() -> tuple[dict[str, bytes], list[Record]]:
        with closing(SqliteLog(path)) as log:
            taken: list[Record] = []
            for number in range(10):
                taken += [
                    record for record in await log.append([Event("a", b"1" * 300)] * 100) if isinstance(record, Record)
                ]
                log.learn(Learned(len(taken), {("group", str(number), str(user)): 1 for user in range(20)}))
            return {file.name: file.read_bytes() for file in path.parent.glob("log.db*")}, taken

    return trio.run(fill)
