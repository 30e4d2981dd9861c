"""What was learned from the events, in the log's file: who is a member of what, and where nobody knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

from broker.core.relations import Learned
from broker.edge.sqlite_file import Execute, LogFile

_ROWS_AT_ONCE = 200

T = TypeVar("T")


def write(execute: Execute, learned: Learned) -> None:
    """Take over what has changed."""
    gone: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (relation, key, user), since in learned.members.items():
        if since is None:
            gone[relation, key].append(user)
    for place, users in gone.items():
        for part in _parts(users):
            marks = ", ".join("?" * len(part))
            execute(f"DELETE FROM members WHERE relation = ? AND key = ? AND user IN ({marks})", (*place, *part))  # noqa: S608
    there = [(*place, since) for place, since in learned.members.items() if since is not None]
    for rows in _parts(there):
        marks = ", ".join(["(?, ?, ?, ?)"] * len(rows))
        execute(f"INSERT OR REPLACE INTO members VALUES {marks}", [value for row in rows for value in row])  # noqa: S608
    for place, doubtful in learned.doubts.items():
        execute("INSERT OR IGNORE INTO doubts VALUES (?, ?)" if doubtful else _TRUST, place)


def read(file: LogFile, offset: int) -> Learned:
    """All of it. `offset`: of the event up to which it was learned."""
    members = file.read("SELECT relation, key, user, since FROM members")
    doubts = file.read("SELECT relation, key FROM doubts")
    return Learned(
        offset,
        {(relation, key, user): since for relation, key, user, since in members},
        dict.fromkeys(doubts, True),
    )


def count(execute: Execute) -> int:
    """How many members there are."""
    ((number,),) = execute("SELECT count(*) FROM members", ())
    return int(number)


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[begin : begin + _ROWS_AT_ONCE]


_TRUST = "DELETE FROM doubts WHERE relation = ? AND key = ?"
