"""The log in memory: offsets, ids and the latest events, for as long as the process lives."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import trio

from broker.core.event import Event, Record

_OVERHEAD = 400  # bytes that a held event takes beyond its texts: measured on CPython 3.11, rounded up
_ID_BYTES = 12


class _Held(NamedTuple):
    id: str
    size: int
    at: float


class MemoryLog:
    """Holds events until one of the bounds is reached, the oldest going first.

    Until there is a way to read events back, only what gives and recognises ids is held, not the payloads.

    retain_events: how many. retain_seconds: how long. retain_bytes: how much memory in all.
    clock: seconds, running forward.
    """

    def __init__(
        self,
        *,
        retain_events: int = 1_000_000,
        retain_seconds: float = 86_400,
        retain_bytes: int = 268_435_456,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retain_events = retain_events
        self._retain_seconds = retain_seconds
        self._retain_bytes = retain_bytes
        self._clock = clock
        self._held: deque[_Held] = deque()
        self._ids: set[str] = set()
        self._bytes = 0
        self._next_offset = 1

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        """See `Log` in `core/ports.py`."""
        await trio.lowlevel.checkpoint_if_cancelled()  # it never waits, and who calls it has just waited
        now = self._clock()
        self._forget_older_than(now - self._retain_seconds)
        random = iter(_random_ids(sum(event.id is None for event in events)))
        return [self._take(event, next(random) if event.id is None else event.id, now) for event in events]

    def statistics(self) -> Mapping[str, int]:
        """See `Log` in `core/ports.py`."""
        return {"events": len(self._held), "bytes": self._bytes, "next_offset": self._next_offset}

    def _take(self, event: Event, event_id: str, now: float) -> Record | str:
        if event_id in self._ids:
            return event_id
        size = _OVERHEAD + len(event_id)
        self._held.append(_Held(event_id, size, now))
        self._ids.add(event_id)
        self._bytes += size
        while len(self._held) > self._retain_events or self._bytes > self._retain_bytes:
            self._forget_oldest()
        record = Record(event, event_id, self._next_offset)
        self._next_offset += 1
        return record

    def _forget_older_than(self, moment: float) -> None:
        while self._held and self._held[0].at < moment:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._held.popleft()
        self._ids.discard(oldest.id)
        self._bytes -= oldest.size


def _random_ids(number: int) -> list[str]:
    """Ids that tell nothing: neither how many events there are, nor which."""
    random = os.urandom(number * _ID_BYTES).hex()
    return [random[at : at + 2 * _ID_BYTES] for at in range(0, len(random), 2 * _ID_BYTES)]
