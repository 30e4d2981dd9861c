"""The newest records, kept in memory: most who resume are only a little behind, and often very many are at once."""

from __future__ import annotations

from collections.abc import Iterable

from broker.core.event import Record

RECENT_BYTES = 16_777_216

_OVERHEAD = 400  # bytes that a record takes beyond its texts and its payload


class Recent:
    """Records with consecutive offsets, as many of the newest as have room in so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._records: dict[int, Record] = {}
        self._first = 0
        self._room = max_bytes

    def add(self, records: Iterable[Record], first: int) -> None:
        """Add the records that follow the last; let go of those before the offset `first`."""
        for record in records:
            if not self._records:
                self._first = record.offset
            self._records[record.offset] = record
            self._room -= _size(record)
        while self._records and (self._room < 0 or self._first < first):
            self._room += _size(self._records.pop(self._first))
            self._first += 1

    def has(self, offset: int, event_id: str) -> bool:
        """Whether the record at this offset is here, and has this id."""
        record = self._records.get(offset)
        return record is not None and record.id == event_id

    def read(self, after: int, most: int, max_bytes: int) -> list[Record] | None:
        """As `Log.read`; None: that is further back than what is here."""
        if after + 1 not in self._records:
            return None
        found: list[Record] = []
        for offset in range(after + 1, after + 1 + most):
            record = self._records.get(offset)
            max_bytes -= 0 if record is None else len(record.event.data)
            if record is None or (max_bytes < 0 and found):
                break
            found.append(record)
        return found


def _size(record: Record) -> int:
    return _OVERHEAD + len(record.event.name) + len(record.id) + len(record.event.data)
