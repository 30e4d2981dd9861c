"""One client's way out: a bounded queue, what happens when it is full, and the only hand that writes to the socket.

Everything that goes to a client goes through its outbox, in whole frames: events and answers through the queue,
pings and pongs past it, and one close frame at the very end. Offering never waits; fullness is an answer.

Where nothing waits and the writer is idle, events go straight to the socket, as many bytes as it takes without
waiting: no task is woken for them. A frame that the socket took only a part of is `_rest`, and goes before all else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import trio

from broker.core.delivery import Joined
from broker.runtime.waiting import BELL, Answer, Fifo, Latest

MAX_CONTROL_FRAMES = 16
WRITE_TIMEOUT = 30.0  # seconds that one write may take; a queue bound alone does not help when the writer is stuck

Write = Callable[[bytes], Awaitable[None]]


class Socket(Protocol):
    """Where bytes go without waiting: at least one, and as many as there is room for now; else OSError."""

    def send(self, data: bytes, /) -> int:
        """Send these; returns how many have gone."""
        ...

    def send_from(self, descriptor: int, place: int, size: int, /) -> int:
        """Send so many from that place of a file on; returns how many have gone."""
        ...


class _Nobody:
    """In the place of a socket to which nothing may go now."""

    def send(self, _data: bytes) -> int:
        return 0

    def send_from(self, _descriptor: int, _place: int, _size: int) -> int:
        return 0


_NOBODY: Final[Socket] = _Nobody()
_NOT_NOW: Final = _NOBODY.send, _NOBODY.send_from


class Overflow(Enum):
    """What to do with an event for a client whose queue is full."""

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    LATEST = "latest"


_DROPPING = frozenset((Overflow.DROP_OLDEST, Overflow.DROP_NEWEST))


class Fate(Enum):
    """What became of a frame that was offered."""

    QUEUED = "queued"
    REPLACED = "replaced"  # it is queued, and an older one of the same event name is not any more
    DROPPED_OLDEST = "dropped_oldest"  # it is queued, older ones are not any more
    DROPPED_NEWEST = "dropped_newest"  # it is not queued
    OVERFLOWED = "overflowed"  # it is not queued, and the client is to be disconnected
    CLOSED = "closed"  # the outbox takes nothing any more


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait for one client: `frames` and `bytes`, or one frame that is larger; and what happens beyond."""

    frames: int = 1024
    bytes: int = 1_048_576
    overflow: Overflow = Overflow.DISCONNECT


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """A look inside: what waits now, and what was dropped so far."""

    waiting_frames: int
    waiting_bytes: int
    dropped: int


class Outbox:
    """The queue and the writer of one client.

    `finished` is set when the writer has ended; `broken` tells that half a frame may have gone out, after which
    nothing may be written to that socket any more.

    `straight` and `straight_from` are the socket's `send` and `send_from`, for whole events; they send nothing where
    something is before these. Whoever calls them tells by `went` if that was not all.
    """

    __slots__ = (
        "_close",
        "_control",
        "_drained",
        "_dropped",
        "_idle",
        "_queue",
        "_rest",
        "_socket",
        "_waiting_bytes",
        "broken",
        "finished",
        "limits",
        "straight",
        "straight_from",
    )

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._queue = Latest(limits.frames) if limits.overflow is Overflow.LATEST else Fifo(limits.frames)
        self._control: list[bytes] = []
        self._waiting_bytes = 0
        self._dropped = 0
        self._close: bytes | None = None
        self._rest = b""
        self._idle = False  # nothing waits, nothing is being written, and it may be written without waiting
        self._socket: Socket = _NOBODY
        self.straight, self.straight_from = _NOT_NOW
        self._drained: trio.Event | None = None
        self.finished = trio.Event()
        self.broken = False

    def went(self, events: Joined, sent: int) -> int:
        """So many bytes of `events` went straight, and no more; returns how many of them need no offer any more."""
        if not sent:
            return 0
        begun, self._rest = events.cut(sent)
        self._wake()
        return begun

    def offer(self, frame: bytes, name: str) -> Fate:
        """Queue the frame of an event called `name`, or do what is to be done when there is no room."""
        if self._close is not None:
            return Fate.CLOSED
        older = self._queue.replaced(name)
        if older is not None:
            self._forget(older)
        if self._put(frame, name):
            return Fate.QUEUED if older is None else Fate.REPLACED
        overflow = self.limits.overflow
        if overflow is Overflow.DROP_OLDEST and self._make_room(frame, name):
            return Fate.DROPPED_OLDEST
        if overflow not in _DROPPING:
            return Fate.OVERFLOWED
        self._dropped += 1
        return Fate.DROPPED_NEWEST

    def answer(self, frame: bytes) -> Fate:
        """Queue the answer to a command. It is never dropped: where events may be, they make room for it."""
        if self._close is not None:
            return Fate.CLOSED
        if self._straight(frame):
            return Fate.QUEUED
        answer = Answer(frame)
        if self._put(answer, ""):
            return Fate.QUEUED
        if self.limits.overflow in _DROPPING and self._make_room(answer, ""):
            return Fate.DROPPED_OLDEST
        return Fate.OVERFLOWED

    def control(self, frame: bytes) -> None:
        """Send a ping or a pong before what waits. Of a flood only the latest are kept (RFC 6455 section 5.5.3)."""
        if self._close is None and not self._straight(frame):
            self._control = [*self._control, frame][-MAX_CONTROL_FRAMES:]
            self._wake()

    def finish(self, close_frame: bytes, *, discard: bool) -> None:
        """Send this as the last frame, after what waits or, with `discard`, instead of it. The first call counts."""
        if self._close is not None:
            return
        self._close = close_frame
        while discard and (frame := self._queue.pop()) is not None:
            self._forget(frame)
        self._tell_drained()
        self._wake()

    async def drained(self) -> bool:
        """Wait until nothing waits any more; False: the outbox takes nothing any more."""
        if self._idle or self._close is not None:
            await trio.lowlevel.checkpoint()
        else:
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()
        return self._close is None

    async def run(self, write: Write, socket: Socket = _NOBODY) -> None:
        """Write what waits, all of it in one call each time, until the close frame has gone or the socket fails.

        write: writes all the bytes that it is given, and raises `trio.BrokenResourceError` if it can't.
        socket: by which the same can be done without waiting, where it can.
        """
        self._socket = socket
        try:
            while not await self._write_what_waits(write):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken = True
        finally:
            self._busy()
            self._socket = _NOBODY
            self.broken = self.broken or bool(self._rest)
            if self._close is None:
                self._close = b""
            self._tell_drained()
            self.finished.set()

    def statistics(self) -> OutboxStatistics:
        """An immutable look inside."""
        return OutboxStatistics(self._queue.count, self._waiting_bytes, self._dropped)

    async def _write_what_waits(self, write: Write) -> bool:
        """Write once; True if that was the end."""
        self._idle = not (self._queue.count or self._control or self._rest or self._close is not None)
        if self._idle:
            self.straight, self.straight_from = self._socket.send, self._socket.send_from
            self._tell_drained()
        first = await self._queue.wait()
        self._busy()
        close = self._close
        data = self._join_what_waits(first)
        if not data and close is None:  # a bell that was rung for what went with the write before
            return False
        self.broken = True  # until the write is whole: half a frame is the end of a stream
        with trio.move_on_after(WRITE_TIMEOUT) as deadline:
            await write(data)
            self.broken = False
        return close is not None or deadline.cancelled_caught

    def _join_what_waits(self, first: bytes) -> bytes:
        frames = [self._rest, *self._control, first]
        self._rest = b""
        self._control.clear()
        while (frame := self._queue.pop()) is not None:
            frames.append(frame)
        self._nothing_waits()
        return b"".join(frames) + (self._close or b"")

    def _put(self, frame: bytes, name: str) -> bool:
        # Where nothing waits, one frame fits however large it is: else it would end whoever gets it, each time anew.
        full = self._waiting_bytes and self._waiting_bytes + len(frame) > self.limits.bytes
        if full or not self._queue.put(frame, name):
            return False
        self._busy()
        self._waiting_bytes += len(frame)
        return True

    def _make_room(self, frame: bytes, name: str) -> bool:
        """Queue a frame in the place of the oldest events; False where even all of them do not make room enough."""
        while not self._put(frame, name):
            oldest = self._queue.drop()
            if oldest is None:  # only answers wait; what is counted beyond them is in the writer's hands already
                self._waiting_bytes = self._queue.recount()
                return self._put(frame, name)
            self._forget(oldest)
        return True

    def _straight(self, frame: bytes) -> bool:
        """Write a frame to the socket if nothing is before it; whether it has begun, and needs no queue any more."""
        try:
            sent = self.straight(frame)
        except OSError:  # full; or broken, which shows when the writer tries
            return False
        if not sent:
            return False
        if sent < len(frame):
            self._rest = frame[sent:]
            self._wake()
        return True

    def _wake(self) -> None:
        self._busy()
        self._queue.ring()

    def _busy(self) -> None:
        self._idle = False
        self.straight, self.straight_from = _NOT_NOW

    def _forget(self, frame: bytes) -> None:
        self._waiting_bytes -= len(frame)
        self._dropped += frame != BELL

    def _tell_drained(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _nothing_waits(self) -> None:
        self._waiting_bytes = 0
        self._queue.count = 0
