"""The log's file: whose it is, who may read it, and what is said when it is in use or not ours."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from broker.core.errors import LogUnavailable, OperatorError
from broker.core.event import Event
from broker.edge import sqlite_file
from broker.edge.sqlite_file import LogFile, LogFileError
from broker.edge.sqlite_log import SqliteLog
from tests.edge.sqlite_house import changed_by

PLENTY = 1_000_000
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def events(number: int, data: bytes = b"1") -> list[Event]:
    return [Event("a", data, id=f"id {place}") for place in range(number)]


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


@contextmanager
def held_by_another_broker(path: Path) -> Iterator[int]:
    """Another process has the log open; which one."""
    holding = "import sys; from pathlib import Path; from broker.edge.sqlite_log import SqliteLog; "
    holding += "log = SqliteLog(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holding, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        yield other.pid
        other.kill()


def test_a_second_broker_is_told_who_has_it(path: Path) -> None:
    with held_by_another_broker(path) as other:
        assert f"is in use by another broker, process {other} (stop it" in refused(path)
    with closing(SqliteLog(path)):
        pass


def test_who_deletes_the_lock_gives_the_log_to_nobody(path: Path) -> None:
    with held_by_another_broker(path):
        path.with_name("log.db.lock").unlink()
        assert "is in use by another broker (stop it" in refused(path)


def test_a_log_by_another_name_is_the_same_log(path: Path) -> None:
    with held_by_another_broker(path):
        other = path.with_name("other.db")
        other.symlink_to(path)
        assert "is in use by another broker (stop it" in refused(other)


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
