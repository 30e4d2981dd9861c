"""Which ids of publishers the log holds, by index, without a scan at the start.

Theory. Such ids are random, so in a table of a million each new one falls on a page of its own, and a page is written
whole, twice: with the plain index that everybody would make, an event with an id was measured to cost about four times
as much. So the newest ids wait in memory, sorted into buckets by their hash. Now and then an append moves the next
bucket into the table, where its rows lie side by side: a page is written once for many ids. On the same way the rows of
ids that are forgotten leave. What waits in memory stands in the segments, from where it is read at the start; a full
turn of all buckets takes CYCLE_EVENTS events, so that is never much.

Hashes may be equal by chance: what is found is compared with the id itself before it counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from broker.edge.segments import placed_ids
from broker.edge.sqlite_file import Execute

CYCLE_EVENTS = 65_536
BUCKETS = 64

_SHIFT = 64 - 6  # a hash, 64 bits with a sign, without these is its bucket: -32 to 31
_LOWEST, _END = -BUCKETS // 2, BUCKETS // 2


@dataclass(frozen=True, slots=True)
class Turn:
    """What one append has moved into the table: these buckets; and what part of the next one is due already."""

    buckets: range
    due: float


class SqliteIds:
    """The ids that are held, each with its offset.

    recent: those that may not be in the table yet. indexed: all before this offset are.
    next_offset: of the event that comes next.
    """

    def __init__(self, recent: Iterable[tuple[int, str]], indexed: int, next_offset: int) -> None:
        self.indexed = indexed
        self._recent: dict[int, dict[int, int]] = {bucket: {} for bucket in range(_LOWEST, _END)}
        self._next_bucket = _LOWEST
        self._due = 0.0
        self._next_indexed = next_offset  # what can be said of the table when all buckets have had their turn
        self._add(recent)

    def find(self, execute: Execute, ids: Iterable[str]) -> dict[str, int]:
        """The offsets of those of the ids that are held, or were until lately."""
        hashes = {_hash(event_id): event_id for event_id in ids}
        places = [(number, self._recent[number >> _SHIFT].get(number)) for number in hashes]
        # In this order: what moves in between is found twice, and not never.
        places += execute(_FIND, (str([number for number, offset in places if offset is None]),)) if hashes else []
        return {
            hashes[number]: offset
            for number, offset in places
            if offset is not None and _stands(execute, hashes[number], offset)
        }

    def recent(self, event_id: str) -> int | None:
        """The offset of an id that is still in memory, or of another one with the same hash."""
        number = _hash(event_id)
        return self._recent[number >> _SHIFT].get(number)

    def move(self, execute: Execute, events: int, first_offset: int) -> Turn:
        """Move what is due when so many events are added. Ids before `first_offset` are forgotten on the way.

        When all that is safe on the disk, `moved` is to be called; until then nothing has happened.
        """
        due = min(self._due + events * BUCKETS / CYCLE_EVENTS, BUCKETS)
        buckets = range(self._next_bucket, min(self._next_bucket + int(due), _END))
        for bucket in buckets:
            lowest, highest = bucket << _SHIFT, (bucket + 1 << _SHIFT) - 1
            execute("DELETE FROM ids WHERE hash BETWEEN ? AND ? AND offset < ?", (lowest, highest, first_offset))
            if self._recent[bucket]:
                execute(_MOVE, (json.dumps(self._recent[bucket]),))
        return Turn(buckets, due - len(buckets))

    def moved(self, turn: Turn, added: Iterable[tuple[int, str]], next_offset: int) -> None:
        """What `move` did is safe, and so are the events with the ids that are added."""
        for bucket in turn.buckets:
            self._recent[bucket] = {}
        self._next_bucket += len(turn.buckets)
        self._due = turn.due
        self._add(added)
        if self._next_bucket == _END:
            self._next_bucket = _LOWEST
            self.indexed, self._next_indexed = self._next_indexed, next_offset

    def _add(self, ids: Iterable[tuple[int, str]]) -> None:
        for offset, event_id in ids:
            number = _hash(event_id)
            self._recent[number >> _SHIFT][number] = offset


def _hash(event_id: str) -> int:
    return int.from_bytes(blake2b(event_id.encode(errors="surrogatepass"), digest_size=8).digest(), "big", signed=True)


def _stands(execute: Execute, event_id: str, offset: int) -> bool:
    """Whether the event at `offset` has this id, and not only one with the same hash."""
    rows = execute("SELECT first, last, ids FROM segments WHERE last >= ? ORDER BY last LIMIT 1", (offset,))
    return any((offset, event_id) in placed_ids(first, last, ids) for first, last, ids in rows)


_FIND = "SELECT ids.hash, ids.offset FROM json_each(?) AS each CROSS JOIN ids ON ids.hash = each.value"
_MOVE = "INSERT OR REPLACE INTO ids SELECT CAST(key AS INTEGER), value FROM json_each(?)"
