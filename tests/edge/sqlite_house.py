"""What the tests of the log on disk share: events to append, a clock that stands still, files that are put back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from broker.core.errors import LogUnavailable
from broker.core.event import Event, Record
from broker.core.relations import Learned
from broker.edge import sqlite_segments
from broker.edge.sqlite_file import LogFile
from broker.edge.sqlite_log import SqliteLog

PLENTY = 1_000_000


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


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


def changed_by(path: Path, *statements: str) -> None:
    """Let another program change the file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def failing() -> Iterator[None]:
    """Whatever is appended fails when all is written, and not yet safe."""

    def fail(*_arguments: object) -> None:
        raise LogUnavailable("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_segments, "add", fail)
        yield


def rows(path: Path) -> int:
    """How many segments lie in the file."""
    with closing(LogFile(path)) as file:
        ((number,),) = file.read("SELECT count(*) FROM segments")
    return int(number)


def lasts(log: SqliteLog) -> list[int]:
    """The last offset of each row in the file of a log that is open."""
    return [last for (last,) in log._file.read("SELECT last FROM segments ORDER BY last")]
