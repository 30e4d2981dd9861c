"""The log in memory: offsets, ids and the latest events, for as long as the process lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from secrets import token_bytes

import trio

from broker.core.errors import LogGap
from broker.core.event import AT_ONCE, Event, Record
from broker.core.relations import Learned
from broker.edge.positions import KEY_BYTES, Positions, opening
from broker.edge.retention import Retention
from broker.runtime.locking import acquire

_OVERHEAD = 400  # bytes that a held event takes beyond its texts: measured on CPython 3.11, rounded up

# Name, payload, id of its own, source, size, time. A bare tuple, of which there may be a million: unlike objects of a
# class it costs the garbage collector nothing, since it is seen once to hold nothing that could lead back to it.
_Held = tuple[str, bytes, str | None, str, int, float]


class MemoryLog:
    """Holds events until one of the bounds is reached, the oldest going first. `retention.bytes` is memory.

    clock: seconds, running forward.
    """

    def __init__(self, retention: Retention | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._retention = retention or Retention()
        self._clock = clock
        self._held: dict[int, _Held] = {}
        self._own_ids: dict[str, int] = {}  # those that publishers chose; ours can be read back
        self._bytes = 0
        self._next_offset = 1
        self._one_append = trio.Semaphore(1, max_value=1)
        self._positions = Positions(token_bytes(KEY_BYTES), [opening(1)])

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        """See `Log` in `core/ports.py`."""
        await trio.lowlevel.checkpoint_if_cancelled()  # mostly it does not wait, and who calls it has just waited
        await acquire(self._one_append)
        try:
            return await self._append(events)
        finally:
            self._one_append.release()

    async def _append(self, events: Sequence[Event]) -> list[Record | str]:
        now = self._clock()
        self._forget(now)  # before, for the time that has passed, and after, for what has come
        answers = self._append_part(events[:AT_ONCE], now)
        for begin in range(AT_ONCE, len(events), AT_ONCE):
            await trio.lowlevel.cancel_shielded_checkpoint()
            answers += self._append_part(events[begin : begin + AT_ONCE], now)
        return answers

    def learn(self, learned: Learned) -> None:
        """See `Log` in `core/ports.py`. Who learned it lives as long as this log does, so nothing need be kept."""

    async def recall(self) -> tuple[Learned, Sequence[Record]]:
        """See `Log` in `core/ports.py`."""
        await trio.lowlevel.checkpoint()
        return Learned(), ()

    def position(self, after: int | None = None) -> str:
        """See `Log` in `core/ports.py`."""
        return self._positions.position(self._next_offset - 1 if after is None else after)

    async def locate(self, place: str) -> int | None:
        """See `Log` in `core/ports.py`."""
        await trio.lowlevel.checkpoint()
        given = self._positions.read(place)
        if given is not None and self._first_offset - 1 <= given.offset < self._next_offset:
            return given.offset
        return self._own_ids.get(place) if given is None or given.is_event else None

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        """See `Log` in `core/ports.py`."""
        await trio.lowlevel.checkpoint()
        return self.recent(after, most, max_bytes)

    def recent(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        """See `Log` in `core/ports.py`. All of it is in memory.

        Raises LogGap.
        """
        if after < self._first_offset - 1:
            raise LogGap("the log no longer reaches back to there")
        events: list[tuple[int, Event]] = []
        room = max_bytes
        for offset in range(after + 1, min(after + 1 + most, self._next_offset)):
            name, data, own_id, source, _, _ = self._held[offset]
            room -= len(data)
            if room < 0 and events:
                break
            events.append((offset, Event(name, data, own_id, source)))
        return self._positions.records(events)

    def statistics(self) -> Mapping[str, int]:
        """See `Log` in `core/ports.py`."""
        return {"events": len(self._held), "bytes": self._bytes, "next_offset": self._next_offset}

    def close(self) -> None:
        """See `Log` in `core/ports.py`."""

    @property
    def _first_offset(self) -> int:
        return self._next_offset - len(self._held)

    def _append_part(self, events: Sequence[Event], now: float) -> list[Record | str]:
        offsets = self._take(events, now)
        self._forget(now)
        return self._positions.answers(events, offsets)

    def _take(self, events: Sequence[Event], now: float) -> list[int | None]:
        offsets: list[int | None] = []
        held, offset = self._held, self._next_offset
        for name, data, own_id, source in events:
            size = _OVERHEAD + len(name) + len(data)
            if own_id is not None:
                if self._knows(own_id):
                    offsets.append(None)
                    continue
                self._own_ids[own_id] = offset
                size += len(own_id)
            held[offset] = (name, data, own_id, source, size, now)
            self._bytes += size
            offsets.append(offset)
            offset += 1
        self._next_offset = offset
        return offsets

    def _knows(self, event_id: str) -> bool:
        if event_id in self._own_ids:
            return True
        place = self._positions.read(event_id)
        return place is not None and place.is_event and place.offset in self._held

    def _forget(self, now: float) -> None:
        held, bounds = self._held, self._retention
        first, oldest = self._first_offset, now - bounds.seconds
        while held and (len(held) > bounds.events or self._bytes > bounds.bytes or held[first][-1] < oldest):
            _, _, own_id, _, size, _ = held.pop(first)
            first += 1
            self._bytes -= size
            if own_id is not None:
                del self._own_ids[own_id]
