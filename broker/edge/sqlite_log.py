"""The log on disk: what is answered is there after a kill and after a power cut, in one file.

One thread at a time writes, another one reads, and Trio's own thread does neither. What a thread needs is handed to it
and what it found is handed back, so that all state is changed in Trio's thread, after the transaction. Who is
cancelled meanwhile waits for the thread all the same: what is known here is never behind what is in the file.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from broker.core.errors import LogGap, LogUnavailable
from broker.core.event import AT_ONCE, Event, Record
from broker.core.relations import Learned
from broker.core.telling import is_telling
from broker.edge import sqlite_facts, sqlite_segments
from broker.edge.positions import KEY_BYTES, Opening, Positions, opening
from broker.edge.recent import RECENT_BYTES, Recent
from broker.edge.retention import Clock, Retention, steady
from broker.edge.segments import placed_ids
from broker.edge.sqlite_file import Execute, LogFile, NoRoom
from broker.edge.sqlite_ids import SqliteIds, Turn
from broker.edge.sqlite_segments import Held, Marks
from broker.runtime.locking import acquire

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger(__name__)

MAX_OPENINGS = 1000  # so many starts of the broker ago, what clients have to resume from still counts


@dataclass(frozen=True, slots=True)
class _Written:
    """What a transaction has done: an offset for each event or None where it was known, what is held now.

    room: if there was none, nothing was added, but what is due was dropped.
    """

    room: bool
    offsets: Sequence[int | None]
    added_ids: Sequence[tuple[int, str]]
    held: Held
    turn: Turn


class SqliteLog:
    """Holds events until one of the bounds is reached, the oldest going first. `retention.bytes` is room in the file.

    clock, ticks: seconds, of the day and of the machine. The first goes on while no broker runs, the second is never
    put right.
    recent_bytes: how much memory the newest events may take, to be read from there.

    Raises OperatorError where the file can't be used.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention | None = None,
        *,
        clock: Clock = time.time,
        ticks: Clock = time.monotonic,
        recent_bytes: int = RECENT_BYTES,
    ) -> None:
        begin = time.perf_counter()
        self._retention = retention or Retention()
        self._one_append = trio.Lock()
        self._writing, self._reading = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._recent = Recent(recent_bytes)
        self._unreadable = 0
        self._file = LogFile(path)
        with self._file.starting() as execute:
            held, at, marks = sqlite_segments.newest(execute)
            self._now = steady(at, clock, ticks)
            self._held = sqlite_segments.drop(execute, held, self._retention, self._now())
            self._learned = Learned(marks.learned)  # what waits for the next append
            self._safely_learned = marks.learned
            self._ids = SqliteIds(_recent_ids(execute, marks.indexed), marks.indexed, self._held.end)
            self._positions = _positions(execute, self._held.end)
            sqlite_facts.fold(execute)
            facts = sqlite_facts.count(execute)
        seconds = round(time.perf_counter() - begin, 3)
        told = {"file": str(path), "events": self._held.end - self._held.first, "facts": facts, "seconds": seconds}
        logger.info("log.opened", extra=told)

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        """See `Log` in `core/ports.py`."""
        await acquire(self._one_append)
        try:
            return await self._append(events)
        finally:
            self._one_append.release()

    def learn(self, learned: Learned) -> None:
        """See `Log` in `core/ports.py`."""
        self._learned = self._learned.followed_by(learned)

    async def recall(self) -> tuple[Learned, Sequence[Record]]:
        """See `Log` in `core/ports.py`."""
        learned = await self._in_reader(sqlite_facts.read, self._file, self._safely_learned)
        behind = range(learned.offset + 1, self._held.end)
        if not behind:
            return learned, ()
        try:
            events = await self._in_reader(sqlite_segments.read, self._file, behind, len(behind), sys.maxsize)
        except LogGap as error:
            raise LogUnavailable("the log is damaged: events from which was still to be learned are gone") from error
        return learned, self._positions.records(events)

    def position(self, after: int | None = None) -> str:
        """See `Log` in `core/ports.py`."""
        return self._positions.position(self._held.end - 1 if after is None else after)

    async def locate(self, place: str) -> int | None:
        """See `Log` in `core/ports.py`."""
        given = self._positions.read(place)
        if given is not None and (self._reaches(given.offset) or not given.is_event):
            await trio.lowlevel.checkpoint()
            return given.offset if self._reaches(given.offset) else None
        recent = self._ids.recent(place)
        if recent is not None and self._recent.has(recent, place):
            await trio.lowlevel.checkpoint()
            return recent
        offset = (await self._in_reader(self._ids.find, self._file.read, [place])).get(place)
        return offset if offset is not None and offset >= self._held.first else None

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        """See `Log` in `core/ports.py`."""
        if after < self._held.first - 1:
            raise LogGap("the log no longer reaches back to there")
        recent = self.recent(after, most, max_bytes)
        if recent is not None:
            await trio.lowlevel.checkpoint()
            return recent
        wanted = range(after + 1, self._held.end)
        events = await self._in_reader(sqlite_segments.read, self._file, wanted, most, max_bytes)
        return self._positions.records(events)

    def recent(self, after: int, most: int, max_bytes: int) -> Sequence[Record] | None:
        """See `Log` in `core/ports.py`."""
        return self._recent.read(after, most, max_bytes) if after + 1 < self._held.end else []

    def statistics(self) -> Mapping[str, int]:
        """See `Log` in `core/ports.py`."""
        held = self._held
        return {"events": held.end - held.first, "bytes": held.total - held.dropped, "next_offset": held.end}

    def close(self) -> None:
        """See `Log` in `core/ports.py`."""
        try:
            if self._learned != Learned(self._safely_learned):
                with self._file.transaction() as execute:
                    sqlite_facts.write(execute, self._learned)
                    sqlite_segments.mark_learned(execute, self._learned.offset)
        except LogUnavailable:
            logger.exception("log.unfinished")  # no harm: at the next start it is learned again, from the events
        finally:
            self._file.close()

    async def _append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        known = {event.id for event in events if event.id is not None and self._gave(event.id)}
        learned, self._learned = self._learned, Learned(self._learned.offset)
        try:
            written = await trio.to_thread.run_sync(self._write, events, known, learned, limiter=self._writing)
        except BaseException:
            self._learned = learned.followed_by(self._learned)
            raise
        self._held = written.held
        self._safely_learned = learned.offset
        self._ids.moved(written.turn, written.added_ids, written.held.end)
        if not written.room:
            self._recent.add((), self._held.first)
            raise NoRoom
        answers: list[Record | str] = []
        for begin in range(0, len(events), AT_ONCE):
            if begin:
                await trio.lowlevel.cancel_shielded_checkpoint()
            part = self._positions.answers(events[begin : begin + AT_ONCE], written.offsets[begin : begin + AT_ONCE])
            self._recent.add((each for each in part if isinstance(each, Record)), self._held.first)
            answers += part
        return answers

    async def _in_reader(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        try:
            return await trio.to_thread.run_sync(function, *args, limiter=self._reading)
        except LogUnavailable as error:
            # Who reads is told, but that is a client far away. Of many who come by, the log is told at 1, 10, 100, …
            self._unreadable += 1
            if is_telling(self._unreadable):
                logger.error("log.unreadable", extra={"reason": str(error), "so_far": self._unreadable})  # noqa: TRY400
            raise

    def _reaches(self, offset: int) -> bool:
        return self._held.first - 1 <= offset < self._held.end

    def _gave(self, event_id: str) -> bool:
        """Whether the event that was given this id by us is held."""
        given = self._positions.read(event_id)
        return given is not None and given.is_event and self._held.first <= given.offset < self._held.end

    # In the writer's thread: nothing here changes what Trio's thread sees.

    def _write(self, events: Sequence[Event], known: set[str], learned: Learned) -> _Written:
        now = self._now()
        with self._file.transaction() as execute:
            sqlite_facts.write(execute, learned)
            # Before, for the time that has passed, and after, for what has come.
            held = sqlite_segments.drop(execute, self._held, self._retention, now)
            held = sqlite_segments.clean(execute, held, learned.offset, events)
            ids = {event.id for event in events if event.id is not None} - known
            known = known | {each for each, offset in self._ids.find(execute, ids).items() if offset >= held.first}
            offsets = _number(events, known, held.end)
            fresh = [event for event, offset in zip(events, offsets, strict=True) if offset is not None]
            room = not fresh or self._file.has_room(sum(len(event.data) for event in fresh))
            turn = self._ids.move(execute, len(fresh) if room else 0, held.first)
            if fresh and room:
                marks = Marks(held.first, learned.offset, self._ids.indexed)
                held = sqlite_segments.add(execute, held, fresh, now, marks)
                held = sqlite_segments.drop(execute, held, self._retention, now)
            elif learned.offset > self._safely_learned:
                sqlite_segments.mark_learned(execute, learned.offset)
        if not room:
            self._file.tidy()
        added = [(offset, event.id) for event, offset in zip(events, offsets, strict=True) if offset and event.id]
        return _Written(room, offsets, added if room else [], held, turn)


def _number(events: Sequence[Event], known: Set[str], begin: int) -> list[int | None]:
    """An offset for each event, from `begin` on; None for those whose id is known, or has just come."""
    offsets: list[int | None] = []
    seen = set(known)
    for event in events:
        if event.id is not None and event.id in seen:
            offsets.append(None)
            continue
        if event.id is not None:
            seen.add(event.id)
        offsets.append(begin)
        begin += 1
    return offsets


def _recent_ids(execute: Execute, indexed: int) -> Iterator[tuple[int, str]]:
    rows = execute("SELECT first, last, ids FROM segments WHERE last >= ? AND ids IS NOT NULL", (indexed,))
    for first, last, ids in rows:
        yield from ((offset, each) for offset, each in placed_ids(first, last, ids) if each is not None)


def _positions(execute: Execute, next_offset: int) -> Positions:
    """What gives and reads positions, with one more opening from `next_offset` on."""
    execute("INSERT OR IGNORE INTO keys VALUES ('positions', ?)", (token_bytes(KEY_BYTES),))
    ((key,),) = execute("SELECT value FROM keys WHERE name = 'positions'", ())
    execute("INSERT INTO openings (number, begin) VALUES (?, ?)", opening(next_offset))
    execute("DELETE FROM openings WHERE place <= (SELECT max(place) FROM openings) - ?", (MAX_OPENINGS,))
    rows = execute("SELECT number, begin FROM openings ORDER BY place", ())
    return Positions(key, [Opening(*row) for row in rows])
