"""What has come for one iterator and was not taken yet: a bounded buffer that the connection fills."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

import trio

from broker.client.errors import ResumeGap
from broker.client.frames import Event, Message

T = TypeVar("T", bound=Event | Message)


class Inbox(Generic[T]):
    """The items that have come and were not taken yet, with the gaps between them.

    size: items that it holds. size_bytes: of their `raw` together; one item always fits.
    """

    def __init__(self, size: int, size_bytes: int) -> None:
        self._size = size
        self._size_bytes = size_bytes
        self._items: deque[T | ResumeGap] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._closed = False
        self._started = trio.Event()
        self._arrived = trio.lowlevel.ParkingLot()
        self._has_room = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the next item has to wait."""
        return len(self._items) >= self._size or self._bytes >= self._size_bytes

    # -- for the connection

    async def put(self, item: T) -> None:
        """Add an item; waits for room. Where nobody will take it, it is dropped."""
        while self.full and not self._closed:
            await self._has_room.park()
        if not self._closed:
            self.add(item)

    def add(self, item: T) -> None:
        """Add an item, be there room for it or not."""
        self._bytes += len(item.raw)
        self._add(item)

    def put_gap(self, gap: ResumeGap) -> None:
        """Note that events are missing here; two gaps in a row are one."""
        if not (self._items and isinstance(self._items[-1], ResumeGap)):
            self._add(gap)

    def start(self) -> None:
        """From here on items come."""
        self._started.set()

    def end(self, error: Exception) -> None:
        """Nothing more will come, because of `error`, which is told when all else is taken. The first one counts."""
        self._error = self._error or error
        self._started.set()
        self._arrived.unpark_all()

    # -- for the user

    async def wait_started(self) -> None:
        """Wait until items come; raises what ended it before that."""
        await self._started.wait()
        if self._error is not None and not self._items:
            raise self._error

    async def take(self) -> T:
        """The next item.

        Raises ResumeGap, or what ended the inbox; StopAsyncIteration where that was the user.
        """
        await trio.lowlevel.checkpoint()
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            await self._arrived.park()
        item = self._items.popleft()
        if isinstance(item, ResumeGap):
            raise item
        self._bytes -= len(item.raw)
        self._has_room.unpark()
        return item

    def close(self) -> None:
        """The user wants no more: what is there is dropped, and who waits is woken."""
        self._closed = True
        self._items.clear()
        self._bytes = 0
        self._started.set()
        self._arrived.unpark_all()
        self._has_room.unpark_all()

    def _add(self, item: T | ResumeGap) -> None:
        self._items.append(item)
        self._arrived.unpark()


class Handle(Generic[T]):
    """What a user holds of an inbox: whoever lets go of it ends it."""

    def __init__(self, inbox: Inbox[T], end: Callable[[Inbox[T]], None]) -> None:
        self._inbox = inbox
        self._end = end
        self._ended = False
        self._token = trio.lowlevel.current_trio_token()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it; what was not taken is dropped. More than once is no error."""
        self._leave()
        await trio.lowlevel.checkpoint()

    def _leave(self) -> None:
        self._ended = True
        self._end(self._inbox)

    def __del__(self) -> None:
        """Who lets go of it, by leaving a loop over it, does not read it any more, and would hold up all others."""
        if not self._ended:
            # Which thread, and whether Trio still runs, is up to Python.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._end, self._inbox)
