"""Events in the form in which they lie on the disk: a few at a time, packed into one piece.

Theory. To a database a row costs about the same whether it is short or long, and so does each time that a thread of
Python hands over to it. A row for each event was measured to cost three to four times as much as the event's share of a
segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from broker.core.errors import LogUnavailable
from broker.core.event import Event

SEGMENT_EVENTS = 128
SEGMENT_BYTES = 65_536  # an event that is longer has a segment of its own

Ids = list[str | None]

_encode = msgspec.msgpack.Encoder().encode
_decode_ids = msgspec.msgpack.Decoder(Ids).decode
_decode_body = msgspec.msgpack.Decoder(list[tuple[str, bytes, str]]).decode


class Segment(NamedTuple):
    """Consecutive events. `ids`: those that publishers chose, None where nobody did; None if there are none at all."""

    first: int
    last: int
    ids: bytes | None
    body: bytes

    @property
    def checksum(self) -> int:
        """What tells that nothing of it has changed since."""
        return crc32(self.body, crc32(self.ids or b"", crc32(f"{self.first} {self.last}".encode())))


def pack(events: Sequence[Event], first: int) -> Iterator[Segment]:
    """The events as segments; the first event has the offset `first`."""
    for part in _cut(events):
        ids: Ids = [event.id for event in part]
        body = _encode([(event.name, event.data, event.source) for event in part])
        chosen = _encode(ids) if any(event_id is not None for event_id in ids) else None
        yield Segment(first, first + len(part) - 1, chosen, body)
        first += len(part)


def unpack(segment: Segment, checksum: int) -> list[tuple[int, Event]]:
    """The events with their offsets.

    Raises LogUnavailable if they are not what was packed.
    """
    if segment.checksum != checksum:
        raise LogUnavailable(f"the log is damaged: events {segment.first} to {segment.last} can't be read")
    events = _decode_body(segment.body)
    offsets = range(segment.first, segment.last + 1)
    ids = placed_ids(segment.first, segment.last, segment.ids) or [(offset, None) for offset in offsets]
    return [
        (offset, Event(name, data, event_id, source))
        for (offset, event_id), (name, data, source) in zip(ids, events, strict=True)
    ]


def placed_ids(first: int, last: int, ids: bytes | None) -> list[tuple[int, str | None]]:
    """The ids that publishers chose, with the offsets of their events; empty if there are none at all.

    Raises LogUnavailable if that is not what they are.
    """
    if ids is None:
        return []
    offsets = range(first, last + 1)
    try:
        return list(zip(offsets, _decode_ids(ids), strict=True))
    except (msgspec.MsgspecError, ValueError):
        raise LogUnavailable(f"the log is damaged: the ids of events {first} to {last} can't be read") from None


def _cut(events: Iterable[Event]) -> Iterator[list[Event]]:
    part: list[Event] = []
    room = SEGMENT_BYTES
    for event in events:
        if part and (len(part) == SEGMENT_EVENTS or room < len(event.data)):
            yield part
            part, room = [], SEGMENT_BYTES
        part.append(event)
        room -= len(event.data)
    if part:
        yield part
