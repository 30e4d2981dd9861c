"""What was learned from the events, in the log's file: who is a member of what, who was, and where nobody knows.

Theory. Facts are as scattered as ids are: of a hundred that change at once each falls on a page of its own, and pages
are written whole. So what an append has to tell is written down as one row of changes, and taken over into the
tables of facts when there are FOLDED_CHANGES, sorted, and at each start.

A fact decides who sees what, so each has a checksum: a disk that mistakes a letter shows nothing to anybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar
from zlib import crc32

import msgspec

from broker.core.errors import LogUnavailable
from broker.core.leavers import Place, Stay
from broker.core.relations import Learned
from broker.edge.sqlite_file import Execute, LogFile, Row

FOLDED_CHANGES = 2048

_COLUMNS = {
    "members": "relation, key, user, since",
    "doubts": "relation, key",
    "leavers": "relation, key, user, since, until",
}
_ROWS_AT_ONCE = 200

T = TypeVar("T")
_Changes = tuple[dict[Place, int | None], dict[tuple[str, str], bool], dict[Place, Stay | None]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Changes).decode


def write(execute: Execute, learned: Learned) -> None:
    """Keep what has changed.

    Raises LogUnavailable if what was to be kept before is damaged.
    """
    number = len(learned.members) + len(learned.doubts) + len(learned.leavers)
    if number == 0:
        return
    body = _encode((learned.members, learned.doubts, learned.leavers))
    before = execute("SELECT total FROM changes ORDER BY place DESC LIMIT 1", ())
    total = number + (before[0][0] if before else 0)
    execute("INSERT INTO changes (total, checksum, body) VALUES (?, ?, ?)", (total, crc32(body), body))
    if total >= FOLDED_CHANGES:
        fold(execute)


def fold(execute: Execute) -> None:
    """Take the changes over into the tables of facts.

    Raises LogUnavailable if they are not what was written.
    """
    members: dict[Place, int | None] = {}
    doubts: dict[tuple[str, str], bool] = {}
    leavers: dict[Place, Stay | None] = {}
    for checksum, body in execute("SELECT checksum, body FROM changes ORDER BY place", ()):
        if crc32(body) != checksum:
            raise LogUnavailable(_DAMAGED)
        some = _decode(body)
        members.update(some[0])
        doubts.update(some[1])
        leavers.update(some[2])
    _write(execute, "members", {place: None if since is None else (since,) for place, since in members.items()})
    _write(execute, "leavers", leavers)
    for place, doubtful in doubts.items():
        if doubtful:
            execute("INSERT OR IGNORE INTO doubts VALUES (?, ?, ?)", (*place, _checksum(place)))
        else:
            execute("DELETE FROM doubts WHERE relation = ? AND key = ?", place)
    execute("DELETE FROM changes", ())


def read(file: LogFile, offset: int) -> Learned:
    """All that was folded. `offset`: of the event up to which it was learned.

    Raises LogUnavailable if it can't be read, or is not what was written.
    """
    members, doubts, leavers = (_sound(file.read(_all_of(table))) for table in _COLUMNS)
    return Learned(
        offset,
        {(relation, key, user): since for relation, key, user, since in members},
        dict.fromkeys(doubts, True),
        {(relation, key, user): Stay(since, until) for relation, key, user, since, until in leavers},
    )


def count(execute: Execute) -> int:
    """How many members there are."""
    ((number,),) = execute("SELECT count(*) FROM members", ())
    return int(number)


def _write(execute: Execute, table: str, facts: Mapping[Place, tuple[int, ...] | None]) -> None:
    gone: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (relation, key, user), fact in facts.items():
        if fact is None:
            gone[relation, key].append(user)
    for place, users in gone.items():
        for part in _parts(users):
            marks = ", ".join("?" * len(part))
            execute(f"DELETE FROM {table} WHERE relation = ? AND key = ? AND user IN ({marks})", (*place, *part))  # noqa: S608
    there = sorted((*place, *fact) for place, fact in facts.items() if fact is not None)
    for rows in _parts([(*row, _checksum(row)) for row in there]):
        marks = ", ".join([f"({', '.join('?' * len(rows[0]))})"] * len(rows))
        execute(f"INSERT OR REPLACE INTO {table} VALUES {marks}", [value for row in rows for value in row])  # noqa: S608


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[begin : begin + _ROWS_AT_ONCE]


def _all_of(table: str) -> str:
    return f"SELECT {_COLUMNS[table]}, checksum FROM {table}"  # noqa: S608


def _checksum(row: Row) -> int:
    return crc32(repr(row).encode(errors="surrogatepass"))


def _sound(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows without their checksums."""
    for *values, checksum in rows:
        row = tuple(values)
        if _checksum(row) != checksum:
            raise LogUnavailable(_DAMAGED)
        yield row


_DAMAGED = "the log is damaged: what was learned can't be read"
