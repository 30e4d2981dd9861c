"""The log's file: one SQLite database, of this program's schema, used by one broker at a time.

Theory. In WAL mode a transaction is appended to a second file, and moved into the first one now and then. So one
connection writes while another one reads, and neither waits for the other. Whoever is killed in the middle leaves a
transaction without an end, which the next one to open the file passes over. `synchronous = FULL` has each transaction
on the disk, and not only with the operating system, before it is answered: then a power cut takes nothing either.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from broker.core.errors import LogUnavailable, OperatorError

Row = tuple[Any, ...]
Execute = Callable[[str, Sequence[object]], list[Row]]

BUSY_SECONDS: Final = 2.0  # how long another program, such as the `sqlite3` shell, may keep the file to itself
KEPT_FREE: Final = 16_777_216  # bytes of the disk; to drop events, too, takes room in the second file, and then in both

CHECKPOINT_PAGES = 2000  # 8 MiB; fewer write each page more often, more make the append that moves them longer
WAL_BYTES = 67_108_864  # what the second file is cut to where one large transaction made it larger
CACHE_KIB = 32_768  # what a million ids take, so that looking one up need not read

_APPLICATION_ID = 0x45764272
_ROOM_BYTES, _LEAST_WRITTEN = 1_048_576, 8192

# What makes a file of one version one of the next. A step that was released never changes.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        "CREATE TABLE keys (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE openings (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, begin INTEGER NOT NULL)",
        # What is looked at more often stands before what is long.
        """CREATE TABLE segments (
            last INTEGER PRIMARY KEY,
            first INTEGER NOT NULL,
            at REAL NOT NULL,
            total INTEGER NOT NULL,
            size INTEGER NOT NULL,
            held INTEGER NOT NULL,
            learned INTEGER NOT NULL,
            indexed INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            ids BLOB,
            body BLOB NOT NULL
        )""",
        "CREATE TABLE ids (hash INTEGER PRIMARY KEY, offset INTEGER NOT NULL)",
        """CREATE TABLE members (
            relation TEXT NOT NULL, key TEXT NOT NULL, user TEXT NOT NULL,
            since INTEGER NOT NULL, checksum INTEGER NOT NULL,
            PRIMARY KEY (relation, key, user)
        ) WITHOUT ROWID""",
        """CREATE TABLE doubts (
            relation TEXT NOT NULL, key TEXT NOT NULL, checksum INTEGER NOT NULL,
            PRIMARY KEY (relation, key)
        ) WITHOUT ROWID""",
        """CREATE TABLE changes (
            place INTEGER PRIMARY KEY, total INTEGER NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL
        )""",
        """CREATE TABLE leavers (
            relation TEXT NOT NULL, key TEXT NOT NULL, user TEXT NOT NULL,
            since INTEGER NOT NULL, until INTEGER NOT NULL, checksum INTEGER NOT NULL,
            PRIMARY KEY (relation, key, user)
        ) WITHOUT ROWID""",
    ),
)


class LogFileError(OperatorError):
    """The log's file is not there for us: damaged, in use, out of reach, or of another kind."""

    def __init__(self, path: Path, message: str, remedy: str) -> None:
        super().__init__(f"log.path: {path} {message} ({remedy})")


class NoRoom(LogUnavailable):
    """The file can't grow: its disk is full, or it has come to a limit."""

    def __init__(self, complaint: str = f"has no room left on its disk, of which {KEPT_FREE} bytes stay free") -> None:
        super().__init__(f"the log {complaint}")


class LogFile:
    """The open file. One thread at a time may write, one may read.

    Raises LogFileError where it can't be had.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._room = 0  # bytes that may be written before the disk is asked again
        with ExitStack() as opened, self._reporting():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened.callback(os.close, _lock(_lock_of(path), path))
            self._file = _lock(path, path)
            opened.callback(os.close, self._file)
            _sign(_lock_of(path))
            self._writer = opened.enter_context(closing(self._connect()))
            _check_kind(self._writer, path)
            _prepare(self._writer, path)
            self._reader = opened.enter_context(closing(self._connect()))
            self._reader.execute("PRAGMA query_only = ON")
            self._opened = opened.pop_all()

    @contextmanager
    def starting(self) -> Iterator[Execute]:
        """A transaction for the start: if it fails, the file is closed, and it is the operator's fault.

        Raises LogFileError.
        """
        with ExitStack() as opened:
            opened.callback(self.close)
            with self._reporting(), self.transaction() as execute:
                yield execute
            opened.pop_all()

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """Write: all of it or, if anything is raised, nothing.

        Raises LogUnavailable where the file does not take it.
        """
        with self._translating():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._execute
                self._writer.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):  # some failures have ended it already
                    self._writer.execute("ROLLBACK")
                if _lacks_room(error):
                    self.tidy()
                raise

    def has_room(self, size: int) -> bool:
        """Whether so many bytes have room, and leave what it takes to drop others. In the writer's thread."""
        self._room -= 2 * size + _LEAST_WRITTEN  # twice: in the one file and then in the other
        if self._room >= 0:
            return True
        disk = os.fstatvfs(self._file)
        left = disk.f_bavail * disk.f_frsize - 2 * size - KEPT_FREE
        if left >= 0 or disk.f_blocks == 0:  # 0: a disk that does not tell
            self._room = min(left, _ROOM_BYTES)
            return True
        ((pages,),) = self._execute("PRAGMA freelist_count", ())
        ((page_bytes,),) = self._execute("PRAGMA page_size", ())
        return left + int(pages) * int(page_bytes) >= 0

    def tidy(self) -> None:
        """Move what is in the second file into the first, and give its room back, if both can be done."""
        with suppress(sqlite3.Error):
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)", ())

    @contextmanager
    def reading(self, sql: str, values: Sequence[object] = ()) -> Iterator[Iterator[Row]]:
        """The rows, one after the other, for the length of the block.

        Raises LogUnavailable where they can't be read.
        """
        with self._translating(), closing(self._reader.execute(sql, values)) as rows:
            yield rows

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """All the rows; as `reading`."""
        with self.reading(sql, values) as rows:
            return list(rows)

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):  # what could not be moved from the one file into the other stays where it is
            self._opened.close()

    def _execute(self, sql: str, values: Sequence[object]) -> list[Row]:
        return self._writer.execute(sql, values).fetchall()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if _lacks_room(error):
                raise NoRoom(_complaint(error)) from error
            raise LogUnavailable(f"the log {_complaint(error)}") from error

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, *_NOT_AS_WRITTEN) as error:
            raise LogFileError(self._path, _complaint(error), _REMEDY) from error
        except LogUnavailable as error:
            message = str(error).removeprefix("the log ")
            raise LogFileError(self._path, message, _REMEDY) from error
        except OSError as error:
            remedy = "the broker's user must be able to write there; or name another file"
            raise LogFileError(self._path, f"can't be opened: {error.strerror}", remedy) from None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _lock(file: Path, path: Path) -> int:
    """A file, locked for as long as it is open; SQLite's own locks are of another kind, and gone between transactions.

    Not only the database itself, since a process that opens and closes it gives up SQLite's locks on it; and not only
    a file beside it, which somebody may delete.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise
        owner = _lock_of(path).read_text(errors="replace").strip()
        message = f"is in use by another broker{owner and f', process {owner}'}"
        raise LogFileError(path, message, "stop it, or give this one a log of its own") from None
    return lock


def _sign(lock: Path) -> None:
    """Write down who has it."""
    with suppress(OSError):  # a disk may be full, and it is only for the message
        lock.write_text(f"{os.getpid()}\n")


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    """Leave other people's databases alone, and those of later releases."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != _APPLICATION_ID:
        raise LogFileError(path, "is a database, but no log of a broker", "name another file")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise LogFileError(path, f"was written by a later release, in version {version}", "run that release")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogFileError(
            path, "is where SQLite has no WAL mode, as on a network's disk", "name a file on a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, steps in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for step in steps:
            connection.execute(step)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")


def _lacks_room(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorname", "") in _NO_ROOM


def _complaint(error: Exception) -> str:
    if isinstance(error, _NOT_AS_WRITTEN):
        return "is damaged"
    name = getattr(error, "sqlite_errorname", "")
    for beginning, complaint in _COMPLAINTS.items():
        if name.startswith(beginning):
            return complaint
    return f"failed: {error}"


_NOT_AS_WRITTEN: Final = (ValueError, TypeError, IndexError)  # what comes of reading something else; also by sqlite3
_NO_ROOM: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
_REMEDY: Final = "docs/operations.md, the log's file, says what to do"
_COMPLAINTS: Final = {
    "SQLITE_FULL": "has no room left on its disk",
    "SQLITE_IOERR_SHMSIZE": "has no room left on its disk",
    "SQLITE_IOERR": "is on a disk that fails, or has come to a limit",
    "SQLITE_CORRUPT": "is damaged",
    "SQLITE_NOTADB": "is damaged, or no log at all",
    "SQLITE_BUSY": "is locked by another program",
    "SQLITE_READONLY": "can't be written",
    "SQLITE_CANTOPEN": "can't be opened",
    "SQLITE_CONSTRAINT": "was changed by another program",
}
