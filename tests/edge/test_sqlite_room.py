"""The log on disk without room: it takes nothing, loses nothing, drops what is due, and goes on when it can."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from broker.core.errors import LogUnavailable
from broker.core.event import Event, Record
from broker.core.relations import Learned
from broker.edge import sqlite_file
from broker.edge.retention import Retention
from broker.edge.sqlite_file import KEPT_FREE, LogFileError
from broker.edge.sqlite_log import SqliteLog
from tests.edge.sqlite_house import PLENTY, Clock

DISK = 40_000_000
FAILURES = 3  # in a row, until nobody tries again


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 40 megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def leave(folder: Path, size: int) -> Path:
    """Let another program fill the disk until so many bytes are left; its file."""
    other = folder / "other"
    other.write_bytes(bytes(_free(folder) - size))
    return other


def _free(folder: Path) -> int:
    left = os.statvfs(folder)
    return left.f_bavail * left.f_frsize


def batch(name: str) -> list[Event]:
    return [Event("a", b"1" * 1000, id=f"{name} {place}") for place in range(10)]


async def append_while_it_works(log: SqliteLog, name: str) -> tuple[list[Record], str]:
    """What was taken until it failed for good, and what was said."""
    taken: list[Record] = []
    failures = 0
    for number in range(10_000):
        try:
            taken += [record for record in await log.append(batch(f"{name} {number}")) if isinstance(record, Record)]
            failures = 0
        except LogUnavailable as error:
            failures += 1
            if failures == FAILURES:
                return taken, str(error)
    pytest.fail("it does not fail")


async def check(log: SqliteLog, taken: Sequence[Record]) -> None:
    """The log holds what was taken and no more, and takes it no second time."""
    assert log.statistics()["events"] == len(taken)
    read: list[Record] = []
    while more := await log.read(len(read), 100, PLENTY):
        read += more
    assert read == taken
    assert await log.append([record.event for record in taken[-15:]]) == [record.id for record in taken[-15:]]


async def test_a_file_that_may_not_grow_takes_nothing_and_then_goes_on(path: Path) -> None:
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        with no_file_larger_than(500_000):
            taken, said = await append_while_it_works(log, "first")
            assert said == "the log is on a disk that fails, or has come to a limit"
            await check(log, taken)
            assert len(taken) > 300  # more than the second of the two files may hold
            more, _ = await append_while_it_works(log, "second")
            taken += more
            await check(log, taken)
        taken += [record for record in await log.append(batch("third")) if isinstance(record, Record)]
        await check(log, taken)
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        await check(log, taken)


@pytest.mark.parametrize("kept_free", [KEPT_FREE, 0])
async def test_a_full_disk_takes_nothing_until_there_is_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, kept_free: int
) -> None:
    monkeypatch.setattr(sqlite_file, "KEPT_FREE", kept_free)
    other = leave(small_disk, kept_free + 2_000_000)
    with closing(SqliteLog(small_disk / "log.db", recent_bytes=0)) as log:
        taken, said = await append_while_it_works(log, "first")
        assert said.startswith("the log has no room left on its disk")
        assert taken
        await check(log, taken)
        other.unlink()
        for number in range(10):
            taken += [record for record in await log.append(batch(f"later {number}")) if isinstance(record, Record)]
        await check(log, taken)
    with closing(SqliteLog(small_disk / "log.db", recent_bytes=0)) as log:
        await check(log, taken)


async def test_a_disk_that_the_log_has_filled_has_room_again_when_events_are_due(small_disk: Path) -> None:
    clock = Clock()
    leave(small_disk, KEPT_FREE + 10_000_000)
    with closing(SqliteLog(small_disk / "log.db", Retention(seconds=10), clock=clock, ticks=clock)) as log:
        first, _ = await append_while_it_works(log, "first")
        log.learn(Learned(len(first)))
        clock.now += 11
        for _ in range(20):  # a little is dropped each time
            with suppress(LogUnavailable):
                await log.append(batch("second"))
        second, _ = await append_while_it_works(log, "third")
        assert len(second) > len(first) / 4


async def test_less_may_be_retained_when_the_disk_is_full(small_disk: Path) -> None:
    leave(small_disk, KEPT_FREE + 5_000_000)
    with closing(SqliteLog(small_disk / "log.db")) as log:
        taken, _ = await append_while_it_works(log, "first")
        log.learn(Learned(len(taken)))
    with closing(SqliteLog(small_disk / "log.db", Retention(bytes=1_000_000))) as log:
        await log.append(batch("second"))


async def test_a_large_batch_that_has_no_room_leaves_no_trace(small_disk: Path) -> None:
    with closing(SqliteLog(small_disk / "log.db")) as log:
        with pytest.raises(LogUnavailable, match="no room"):
            await log.append([Event("a", b"1" * 1_000_000, id=str(number)) for number in range(30)])
        assert await log.locate("0") is None
        (record,) = await log.append([Event("a", b"1", id="0")])
        assert isinstance(record, Record)
        assert record.offset == 1


async def test_a_disk_without_any_room_is_told_at_the_start(small_disk: Path) -> None:
    leave(small_disk, 0)
    with pytest.raises(LogFileError, match="has no room left on its disk"):
        SqliteLog(small_disk / "log.db")
    (small_disk / "other").unlink()
    with closing(SqliteLog(small_disk / "log.db")) as log:
        await log.append(batch("first"))


async def test_a_full_disk_is_no_fault_of_what_was_learned(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(SqliteLog(small_disk / "log.db")) as log:
        (record,) = await log.append([Event("a", b"1")])
        other = leave(small_disk, 0)
        log.learn(Learned(1, {("group", str(number), "x" * 200): 1 for number in range(5000)}))
    assert [entry.message for entry in caplog.records] == ["log.unfinished"]
    other.unlink()
    with closing(SqliteLog(small_disk / "log.db")) as log:
        assert await log.recall() == (Learned(), [record])
