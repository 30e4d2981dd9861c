"""The events in the log's file: which of them are held, how they are added, dropped and read.

Theory. What is held is said by two numbers, and is exact at once. The rows of what is dropped are deleted later, when
it is worth asking for them, and a few at a time, so that no append pays for many. The newest row always stays, since it
says which offset comes next, and so do rows from whose events nobody has learned yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from broker.core.errors import LogGap, LogUnavailable
from broker.core.event import Event
from broker.edge.retention import Retention
from broker.edge.segments import SEGMENT_EVENTS, Segment, pack, unpack
from broker.edge.sqlite_file import Execute, LogFile

_NO_OFFSET, _NO_TIME = 1 << 62, 1e11  # none is so large
_OVERHEAD = 60  # bytes that a segment takes beyond its ids and body
CLEANED_ROWS = 64  # and bytes, that leave the file with an append beside twice what it adds
CLEANED_BYTES = 1_048_576

_ROWS_AT_ONCE = 64


class _Edge(NamedTuple):
    """What decides whether a segment is still held."""

    first: int
    last: int
    at: float
    total: int
    size: int

    @property
    def before(self) -> int:
        """Bytes of all that were taken before it."""
        return self.total - self.size


class Held(NamedTuple):
    """Which events are held: from `first` up to, not including, `end`.

    total: bytes of all that were ever taken. dropped: bytes of those that are held no more.
    edge: the segment of `first`, if that is known. oldest, deleted: the first event that is still in the file, and the
    bytes of those before it.
    """

    first: int = 1
    end: int = 1
    total: int = 0
    dropped: int = 0
    edge: _Edge | None = None
    oldest: int = 1
    deleted: int = 0


class Marks(NamedTuple):
    """How far others have come, as the newest row has it.

    held: the first event that was held; what was dropped stays so, also if more is to be retained some day.
    learned: the last event from which was learned. indexed: the first whose id may not be in the table.
    """

    held: int = 1
    learned: int = 0
    indexed: int = 1


class Newest(NamedTuple):
    """What the newest row says."""

    held: Held = Held()
    at: float = 0.0
    marks: Marks = Marks()


def newest(execute: Execute) -> Newest:
    """What there was when the file was last written, and when that was; nothing is dropped yet.

    Raises LogUnavailable if it can't be so.
    """
    rows = execute("SELECT last, total, size, at, held, learned, indexed FROM segments ORDER BY last DESC LIMIT 1", ())
    if not rows:
        return Newest()
    ((last, total, size, at, *rest),) = rows
    oldest = _segment(execute, 0)
    first, marks = oldest.first, Marks(*rest)
    possible = 0 < first <= last < _NO_OFFSET and 0 < size <= total and 0 <= at < _NO_TIME
    if not (possible and 0 < marks.held <= last + 1 and 0 <= marks.learned <= last and 0 < marks.indexed <= last + 1):
        raise LogUnavailable("the log is damaged")
    held = Held(max(first, marks.held), last + 1, total, oldest=first, deleted=oldest.before)
    return Newest(held, float(at), marks)


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
    return held._replace(end=held.end + len(events), total=total)


def drop(execute: Execute, held: Held, retention: Retention, now: float) -> Held:
    """Let go of what is beyond the bounds: exact to the event by number, to the segment by time and bytes."""

    def fits(edge: _Edge) -> bool:
        return edge.at >= now - retention.seconds and held.total - edge.total + edge.size <= retention.bytes

    first = max(held.first, held.end - retention.events)
    if first == held.end:
        return held._replace(first=first, dropped=held.total)
    edge = held.edge
    if edge is None or not edge.first <= first <= edge.last:
        edge = _segment(execute, first)
    if not fits(edge):
        later = range(edge.last + 1, held.end)
        near = 1  # mostly the next one fits, and there may be a million
        while near < len(later) and not fits(_segment(execute, later[near])):
            near *= 2
        at = bisect_left(later[: near + 1], True, key=lambda offset: fits(_segment(execute, offset)))
        if at == len(later):
            return held._replace(first=held.end, dropped=held.total)
        edge = _segment(execute, later[at])
        first = edge.first
    return held._replace(first=first, dropped=edge.before, edge=edge)


def clean(execute: Execute, held: Held, learned: int, added: Sequence[Event]) -> Held:
    """Delete rows of what is held no more: as many as it takes to keep up with those that are added, and some."""
    below = min(held.first, learned + 1, held.end - 1)
    if below - held.oldest < SEGMENT_EVENTS and held.dropped - held.deleted < CLEANED_BYTES:
        return held
    rows = 2 * len(added) + CLEANED_ROWS
    room = 2 * sum(len(event.data) for event in added) + CLEANED_BYTES
    execute(_CLEAN, (below, rows, room))
    oldest = _segment(execute, 0)
    return held._replace(oldest=oldest.first, deleted=oldest.before)


def _segment(execute: Execute, offset: int) -> _Edge:
    """The segment of the event at this offset, or, if it is not there, the next one.

    Raises LogUnavailable if there is none, though the newest one always stays.
    """
    rows = execute(_SEGMENT, (offset,))
    if not rows:
        raise LogUnavailable("the log is damaged: the newest events are gone")
    return _Edge(*rows[0])


def read(file: LogFile, wanted: range, most: int, max_bytes: int) -> list[tuple[int, Event]]:
    """The first of the events that are wanted.

    Raises LogGap if they are not there any more, LogUnavailable if some are missing between others.
    """
    events: list[tuple[int, Event]] = []
    room = max_bytes
    with file.reading(_READ, (wanted.start, min(wanted.stop, wanted.start + most + SEGMENT_EVENTS))) as rows:
        for first, last, checksum, ids, body in rows:
            if events and first != events[-1][0] + 1:
                raise LogUnavailable(f"the log is damaged: there are no events between {events[-1][0]} and {first}")
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


_SEGMENT = "SELECT first, last, at, total, size FROM segments WHERE last >= ? ORDER BY last LIMIT 1"
_READ = "SELECT first, last, checksum, ids, body FROM segments WHERE last >= ? AND last < ? ORDER BY last"
_CLEAN = """
    DELETE FROM segments WHERE last IN (
        SELECT last FROM (SELECT last, total FROM segments WHERE last < ? ORDER BY last LIMIT ?)
        WHERE total <= (SELECT total FROM segments ORDER BY last LIMIT 1) + ?
    )
"""
