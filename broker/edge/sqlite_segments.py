"""The events in the log's file: which of them are held, how they are added, dropped and read.

Theory. What is held is said by two numbers, and is exact at once. The rows of what is dropped are deleted a few at a
time with the appends that follow, so that no append pays for many. The newest row always stays, since it says which
offset comes next, and so do rows from whose events nobody has learned yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from broker.core.errors import LogGap
from broker.core.event import Event
from broker.edge.retention import Retention
from broker.edge.segments import SEGMENT_EVENTS, Segment, pack, unpack
from broker.edge.sqlite_file import Execute, LogFile

_OVERHEAD = 60  # bytes that a segment takes beyond its ids and body
_ROWS_AT_ONCE = 64
_CLEANED_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Held:
    """Which events are held: from `first` up to, not including, `end`.

    total: bytes of all that were ever taken. dropped: bytes of those that are held no more.
    """

    first: int = 1
    end: int = 1
    total: int = 0
    dropped: int = 0


class _Edge(NamedTuple):
    """What decides whether a segment is still held."""

    first: int
    last: int
    at: float
    total: int
    size: int


class Marks(NamedTuple):
    """How far others have come, as the newest row has it: what was learned, which ids are in their table."""

    learned: int = 0
    indexed: int = 1


def held_at_start(execute: Execute, retention: Retention, now: float) -> Held:
    """What is held when the file is opened."""
    newest = execute("SELECT last, total FROM segments ORDER BY last DESC LIMIT 1", ())
    if not newest:
        return Held()
    ((first,),) = execute("SELECT first FROM segments ORDER BY last LIMIT 1", ())
    ((last, total),) = newest
    return drop(execute, Held(first, last + 1, total), retention, now)


def marks(execute: Execute) -> Marks:
    """How far others had come."""
    rows = execute("SELECT learned, indexed FROM segments ORDER BY last DESC LIMIT 1", ())
    return Marks(*rows[0]) if rows else Marks()


def mark_learned(execute: Execute, learned: int) -> None:
    """Say how far others have come, without a new row."""
    execute("UPDATE segments SET learned = ? WHERE last = (SELECT max(last) FROM segments)", (learned,))


def add(execute: Execute, held: Held, events: Sequence[Event], now: float, marks: Marks) -> Held:
    """Add events behind those that are there."""
    total = held.total
    rows: list[tuple[object, ...]] = []
    for segment in pack(events, held.end):
        size = _OVERHEAD + len(segment.body) + len(segment.ids or b"")
        total += size
        head = (segment.last, segment.first, now, total, size)
        rows.append((*head, *marks, segment.checksum, segment.ids, segment.body))
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[begin : begin + _ROWS_AT_ONCE]
        places = ", ".join([f"({', '.join('?' * len(part[0]))})"] * len(part))
        execute(f"INSERT INTO segments VALUES {places}", [value for row in part for value in row])  # noqa: S608
    return replace(held, end=held.end + len(events), total=total)


def drop(execute: Execute, held: Held, retention: Retention, now: float) -> Held:
    """Let go of what is beyond the bounds: exact to the event by number, to the segment by time and bytes."""

    def edge_at(offset: int) -> _Edge:
        (row,) = execute(
            "SELECT first, last, at, total, size FROM segments WHERE last >= ? ORDER BY last LIMIT 1", (offset,)
        )
        return _Edge(*row)

    def fits(edge: _Edge) -> bool:
        return edge.at >= now - retention.seconds and held.total - edge.total + edge.size <= retention.bytes

    first = max(held.first, held.end - retention.events)
    if first == held.end:
        return replace(held, first=first, dropped=held.total)
    edge = edge_at(first)
    if not fits(edge):
        later = range(edge.last + 1, held.end)
        near = 1  # mostly the next one fits, and there may be a million
        while near < len(later) and not fits(edge_at(later[near])):
            near *= 2
        at = bisect_left(later[: near + 1], True, key=lambda offset: fits(edge_at(offset)))
        if at == len(later):
            return replace(held, first=held.end, dropped=held.total)
        edge = edge_at(later[at])
        first = edge.first
    return replace(held, first=first, dropped=edge.total - edge.size)


def clean(execute: Execute, before: Held, held: Held, learned: int) -> None:
    """Delete rows of what is held no more: as many as it takes to keep up with those that are added, and some."""
    below = min(held.first, learned + 1, held.end - 1)
    rows = 2 * (held.end - before.end) + _ROWS_AT_ONCE
    room = 2 * (held.total - before.total) + _CLEANED_BYTES
    execute(_CLEAN, (below, rows, room))


def read(file: LogFile, wanted: range, most: int, max_bytes: int) -> list[tuple[int, Event]]:
    """The first of the events that are wanted.

    Raises LogGap if they are not there any more.
    """
    events: list[tuple[int, Event]] = []
    room = max_bytes
    with file.reading(_READ, (wanted.start, min(wanted.stop, wanted.start + most + SEGMENT_EVENTS))) as rows:
        for first, last, checksum, ids, body in rows:
            for offset, event in unpack(Segment(first, last, ids, body), checksum):
                if offset < wanted.start:
                    continue
                room -= len(event.data)
                if len(events) == most or (room < 0 and events):
                    return events
                events.append((offset, event))
            if events[0][0] != wanted.start:
                break
    if not events or events[0][0] != wanted.start:
        raise LogGap("the log no longer reaches back to there")
    return events


_READ = "SELECT first, last, checksum, ids, body FROM segments WHERE last >= ? AND last < ? ORDER BY last"
_CLEAN = """
    DELETE FROM segments WHERE last IN (
        SELECT last FROM (SELECT last, total FROM segments WHERE last < ? ORDER BY last LIMIT ?)
        WHERE total <= (SELECT total FROM segments ORDER BY last LIMIT 1) + ?
    )
"""
