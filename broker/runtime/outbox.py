"""One client's way out: a bounded queue, what happens when it is full, and the only hand that writes to the socket.

Everything that goes to a client goes through its outbox, in whole frames: events and answers through the queue,
pings and pongs past it, and one close frame at the very end. Offering never waits; fullness is an answer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import trio

MAX_CONTROL_FRAMES = 16
WRITE_TIMEOUT = 30.0  # seconds that one write may take; a queue bound alone does not help when the writer is stuck

Write = Callable[[bytes], Awaitable[None]]

_BELL = b""  # wakes the writer and adds nothing to what it writes


class _Answer(bytes):
    """A frame that is the answer to a command: it is never dropped."""

    __slots__ = ()


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
    """How much may wait for one client: `frames` and `bytes`, and what happens beyond."""

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
    """

    __slots__ = ("_close", "_control", "_dropped", "_limits", "_queue", "_waiting_bytes", "broken", "finished")

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._queue = _Latest(limits.frames) if limits.overflow is Overflow.LATEST else _Fifo(limits.frames)
        self._control: deque[bytes] = deque(maxlen=MAX_CONTROL_FRAMES)
        self._waiting_bytes = 0
        self._dropped = 0
        self._close: bytes | None = None
        self.finished = trio.Event()
        self.broken = False

    def offer(self, frame: bytes, name: str) -> Fate:
        """Queue the frame of an event called `name`, or do what is to be done when there is no room."""
        if self._close is not None:
            return Fate.CLOSED
        older = self._queue.replaced(name)
        if older is not None:
            self._forget(older)
        if self._put(frame, name):
            return Fate.QUEUED if older is None else Fate.REPLACED
        overflow = self._limits.overflow
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
        answer = _Answer(frame)
        if self._put(answer, ""):
            return Fate.QUEUED
        if self._limits.overflow in _DROPPING and self._make_room(answer, ""):
            return Fate.DROPPED_OLDEST
        return Fate.OVERFLOWED

    def control(self, frame: bytes) -> None:
        """Send a ping or a pong before what waits. Of a flood only the latest are kept (RFC 6455 section 5.5.3)."""
        if self._close is None:
            self._control.append(frame)
            self._queue.ring()

    def finish(self, close_frame: bytes, *, discard: bool) -> None:
        """Send this as the last frame, after what waits or, with `discard`, instead of it. The first call counts."""
        if self._close is not None:
            return
        self._close = close_frame
        while discard and (frame := self._queue.pop()) is not None:
            self._forget(frame)
        self._queue.ring()

    async def run(self, write: Write) -> None:
        """Write what waits, all of it in one call each time, until the close frame has gone or the socket fails.

        write: writes all the bytes that it is given, and raises `trio.BrokenResourceError` if it can't.
        """
        try:
            while not await self._write_what_waits(write):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken = True
        finally:
            if self._close is None:
                self._close = b""
            self.finished.set()

    def statistics(self) -> OutboxStatistics:
        """An immutable look inside."""
        return OutboxStatistics(self._queue.count, self._waiting_bytes, self._dropped)

    async def _write_what_waits(self, write: Write) -> bool:
        """Write once; True if that was the end."""
        first = await self._queue.wait()
        close = self._close
        data = self._join_what_waits(first)
        self.broken = True  # until the write is whole: half a frame is the end of a stream
        with trio.move_on_after(WRITE_TIMEOUT) as deadline:
            await write(data)
            self.broken = False
        return close is not None or deadline.cancelled_caught

    def _join_what_waits(self, first: bytes) -> bytes:
        frames = [*self._control, first]
        self._control.clear()
        while (frame := self._queue.pop()) is not None:
            frames.append(frame)
        self._nothing_waits()
        return b"".join(frames) + (self._close or b"")

    def _put(self, frame: bytes, name: str) -> bool:
        if self._waiting_bytes + len(frame) > self._limits.bytes or not self._queue.put(frame, name):
            return False
        self._waiting_bytes += len(frame)
        return True

    def _make_room(self, frame: bytes, name: str) -> bool:
        """Queue a frame in the place of the oldest events; False where even all of them do not make room enough."""
        if len(frame) > self._limits.bytes:
            return False
        while not self._put(frame, name):
            oldest = self._queue.drop()
            if oldest is None:  # only answers wait; what is counted beyond them is in the writer's hands already
                self._waiting_bytes = self._queue.recount()
                return self._put(frame, name)
            self._forget(oldest)
        return True

    def _forget(self, frame: bytes) -> None:
        self._waiting_bytes -= len(frame)
        self._dropped += frame != _BELL

    def _nothing_waits(self) -> None:
        self._waiting_bytes = 0
        self._queue.count = 0


class _Fifo:
    """What waits, in a memory channel with one place more than there may be frames: for the bell.

    Answers that stood in the way of an event to be dropped wait aside, and go before what is in the channel.
    """

    __slots__ = ("_aside", "_bound", "_receive", "_send", "count")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._send, self._receive = trio.open_memory_channel[bytes](bound + 1)
        self._aside: deque[bytes] = deque()
        self.count = 0

    def put(self, frame: bytes, _name: str) -> bool:
        """Queue a frame, or False where there is no room."""
        if self.count >= self._bound:
            return False
        self._send.send_nowait(frame)
        self.count += 1
        return True

    def replaced(self, _name: str) -> bytes | None:
        """The frame that one of this name takes the place of, taken out."""
        return None

    def pop(self) -> bytes | None:
        """The oldest frame, taken out."""
        if self._aside:
            frame = self._aside.popleft()
        else:
            try:
                frame = self._receive.receive_nowait()
            except trio.WouldBlock:
                return None
        self.count -= frame != _BELL
        return frame

    def drop(self) -> bytes | None:
        """The oldest event, taken out."""
        while True:
            try:
                frame = self._receive.receive_nowait()
            except trio.WouldBlock:
                return None
            if isinstance(frame, _Answer):
                self._aside.append(frame)
            elif frame != _BELL:
                self.count -= 1
                return frame

    def recount(self) -> int:
        """Count only what waits aside; returns its bytes."""
        self.count = len(self._aside)
        return sum(map(len, self._aside))

    def ring(self) -> None:
        """Wake the writer though there may be no frame."""
        if not self._receive.statistics().current_buffer_used:  # a second bell would take the place of a frame
            self._send.send_nowait(_BELL)

    async def wait(self) -> bytes:
        """Wait for something, and return the first of it."""
        if self._aside:
            frame = self._aside.popleft()
            self.count -= 1
            await trio.lowlevel.checkpoint()
            return frame
        return await self._receive.receive()


class _Latest(_Fifo):
    """What waits, one frame an event name, in the order of the newest; the channel carries only the bell."""

    __slots__ = ("_answers", "_frames")

    def __init__(self, bound: int) -> None:
        super().__init__(0)
        self._bound = bound
        self._frames: OrderedDict[str | int, bytes] = OrderedDict()
        self._answers = 0

    def put(self, frame: bytes, name: str) -> bool:
        if len(self._frames) >= self._bound:
            return False
        if not name:  # answers to commands are never conflated
            self._answers += 1
        self._frames[name or self._answers] = frame
        self.ring()
        self.count = len(self._frames)
        return True

    def replaced(self, name: str) -> bytes | None:
        frame = self._frames.pop(name, None)
        self.count = len(self._frames)
        return frame

    def pop(self) -> bytes | None:
        if not self._frames:
            return None
        frame = self._frames.popitem(last=False)[1]
        self.count = len(self._frames)
        return frame

    def ring(self) -> None:
        with suppress(trio.WouldBlock):
            self._send.send_nowait(_BELL)
