"""The log's file: whose it is, who may read it, and what is said when it is in use, damaged, full or not ours."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.errors import LogGap, LogUnavailable, OperatorError
from broker.core.event import Event, Record
from broker.core.relations import Learned
from broker.edge import sqlite_file, sqlite_ids
from broker.edge.sqlite_file import LogFile, LogFileError
from broker.edge.sqlite_log import SqliteLog

PLENTY = 1_000_000
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def events(number: int, data: bytes = b"1") -> list[Event]:
    return [Event("a", data, id=f"id {place}") for place in range(number)]


def changed_by(path: Path, *statements: str) -> None:
    """Let another program change the file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def replace(path: Path, text: bytes, other: bytes) -> None:
    """Change the file behind everybody's back."""
    path.write_bytes(path.read_bytes().replace(text, other))


def refused(path: Path) -> str:
    """What is said when the log can't be opened."""
    with pytest.raises(LogFileError) as error:
        SqliteLog(path)
    assert isinstance(error.value, OperatorError)
    assert str(error.value).startswith(f"log.path: {path} ")
    return str(error.value)


# Whose it is.


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "log.db"
    with closing(SqliteLog(path)):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert files == dict.fromkeys(("log.db", "log.db-wal", "log.db-shm", "log.db.lock"), 0o600)


def test_it_is_one_file_when_it_is_closed(path: Path) -> None:
    with closing(SqliteLog(path)):
        pass
    assert {file.name for file in path.parent.iterdir()} == {"log.db", "log.db.lock"}


def test_a_second_broker_is_told_who_has_it(path: Path) -> None:
    holding = "import sys; from pathlib import Path; from broker.edge.sqlite_log import SqliteLog; "
    holding += "log = SqliteLog(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holding, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        assert f"is in use by another broker, process {other.pid} (stop it" in refused(path)
        other.kill()
    with closing(SqliteLog(path)):
        pass


def test_it_is_free_when_it_is_closed(path: Path) -> None:
    with closing(SqliteLog(path)):
        assert "in use" in refused(path)
    with closing(SqliteLog(path)):
        pass


def test_it_is_free_when_it_could_not_be_opened(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    refused(path)
    path.unlink()
    with closing(SqliteLog(path)):
        pass


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.0)


@contextmanager
def held_by_another_program(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.usefixtures("impatient")
def test_a_file_that_another_program_holds_is_refused(path: Path) -> None:
    with closing(SqliteLog(path)):
        pass
    with held_by_another_program(path):
        assert "is locked by another program" in refused(path)


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_another_program_holds_takes_nothing_until_it_lets_go(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        with held_by_another_program(path), pytest.raises(LogUnavailable, match="is locked by another program"):
            await log.append(events(3))
        assert len(await log.append(events(3))) == 3
        assert log.statistics()["events"] == 3


async def test_what_is_answered_is_on_the_disk_and_not_only_with_the_system(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        assert log._file._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert log._file._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# What it is.


def test_another_program_s_database_is_left_alone(path: Path) -> None:
    changed_by(path, "CREATE TABLE invoices (number INTEGER)")
    assert "is a database, but no log of a broker" in refused(path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_another_file_is_left_alone(path: Path) -> None:
    path.write_text("a letter\n" * 1000)
    assert "is damaged, or no log at all" in refused(path)
    assert path.read_text() == "a letter\n" * 1000


def test_a_folder_is_no_file(path: Path) -> None:
    path.mkdir()
    assert "can't be opened: Is a directory" in refused(path)


def test_what_can_t_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can't be opened: " in refused(tmp_path / "file" / "log.db")


def test_a_disk_without_wal_mode_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as without, pytest.raises(LogFileError, match="has no WAL mode"):
        sqlite_file._prepare(without, path)


async def test_a_file_that_was_begun_and_not_finished_is_begun_again(path: Path) -> None:
    changed_by(path, "PRAGMA journal_mode = WAL")
    with closing(SqliteLog(path)) as log:
        assert len(await log.append(events(1))) == 1


# Versions.


async def test_a_file_of_an_earlier_version_is_changed_and_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteLog(path)) as log:
        taken = await log.append(events(3))
    later = ("ALTER TABLE openings ADD COLUMN host TEXT", "CREATE TABLE notes (text TEXT)")
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, later))
    with closing(SqliteLog(path)) as log:
        assert await log.read(0, 10, PLENTY) == taken
    with closing(LogFile(path)) as file:
        assert file.read("PRAGMA user_version") == [(2,)]
        assert file.read("SELECT host FROM openings LIMIT 1") == [(None,)]
        assert file.read("SELECT * FROM notes") == []


async def test_a_change_of_version_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteLog(path)) as log:
        taken = await log.append(events(3))
    with monkeypatch.context() as patch:
        broken = ("CREATE TABLE notes (text TEXT)", "CREATE TABLE keys (name TEXT)")
        patch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, broken))
        assert "table keys already exists" in refused(path)
    with closing(SqliteLog(path)) as log:
        assert await log.read(0, 10, PLENTY) == taken
        assert log._file.read("PRAGMA user_version") == [(1,)]


def test_a_file_of_a_later_version_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        later = ("CREATE TABLE notes (text TEXT)",)
        patch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, later))
        with closing(SqliteLog(path)):
            pass
    assert "was written by a later release, in version 2 (run that release)" in refused(path)


# Damage.


async def test_events_that_were_damaged_can_t_be_read_and_the_others_can(path: Path) -> None:
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        taken = [*await log.append([Event("a", b'"first"')]), *await log.append([Event("a", b'"second"')])]
    replace(path, b'"first"', b'"FIRST"')
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        with pytest.raises(LogUnavailable, match="the log is damaged: events 1 to 1 can't be read"):
            await log.read(0, 10, PLENTY)
        assert await log.read(1, 10, PLENTY) == taken[1:]


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


# No room.


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def append_until_it_fails(log: SqliteLog, data: bytes) -> tuple[list[Record], str]:
    """What was taken until then, and what was said."""
    taken: list[Record] = []
    for number in range(10_000):
        batch = [Event("a", data, id=f"{len(data)} {number} {place}") for place in range(10)]
        try:
            taken += [record for record in await log.append(batch) if isinstance(record, Record)]
        except LogUnavailable as error:
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
            taken, said = await append_until_it_fails(log, b"1" * 1000)
            assert "has come to a limit" in said
            await check(log, taken)
            assert taken
            assert await append_until_it_fails(log, b"1" * 2000) == ([], said)
        taken += [record for record in await log.append(events(1)) if isinstance(record, Record)]
        await check(log, taken)
    with closing(SqliteLog(path, recent_bytes=0)) as log:
        await check(log, taken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_disk_takes_nothing_until_there_is_room(small_disk: Path) -> None:
    other = small_disk / "other"
    other.write_bytes(bytes(2_500_000))
    with closing(SqliteLog(small_disk / "log.db", recent_bytes=0)) as log:
        taken, said = await append_until_it_fails(log, b"1" * 1000)
        assert said == "the log has no room left on its disk"
        await check(log, taken)
        other.unlink()
        for number in range(10):
            taken += [record for record in await log.append(events_of(number)) if isinstance(record, Record)]
        await check(log, taken)
    with closing(SqliteLog(small_disk / "log.db", recent_bytes=0)) as log:
        await check(log, taken)


async def test_a_full_disk_is_no_fault_of_what_was_learned(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(SqliteLog(small_disk / "log.db")) as log:
        (record,) = await log.append([Event("a", b"1")])
        (small_disk / "other").write_bytes(bytes(_free(small_disk)))
        log.learn(Learned(1, {("group", str(number), "x" * 200): 1 for number in range(5000)}))
    assert [entry.message for entry in caplog.records] == ["log.unfinished"]
    (small_disk / "other").unlink()
    with closing(SqliteLog(small_disk / "log.db")) as log:
        assert await log.recall() == (Learned(), [record])


def events_of(number: int) -> list[Event]:
    return [Event("b", b"1" * 1000, id=f"later {number} {place}") for place in range(10)]


def _free(folder: Path) -> int:
    left = os.statvfs(folder)
    return left.f_bavail * left.f_frsize
