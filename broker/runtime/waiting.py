"""What waits for one client: in order, or of each event name only the newest. Bounded in frames, before insertion.

Both carry a bell, which wakes the writer and adds nothing to what it writes.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

BELL = b""

_Channel = tuple[trio.MemorySendChannel[bytes], trio.MemoryReceiveChannel[bytes]]


class Answer(bytes):
    """A frame that is the answer to a command: it is never dropped."""

    __slots__ = ()


class Fifo:
    """What waits, in a memory channel with one place more than there may be frames: for the bell.

    The channel is opened when something first has to wait behind something else: what comes for most clients goes
    straight to their sockets or into the hands of a writer who waits, and ten thousand channels that nobody uses are
    twenty megabytes.

    Answers that stood in the way of an event to be dropped wait aside, and go before what is in the channel.
    """

    __slots__ = ("_aside", "_bound", "_channel", "_handed", "_handing", "count")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._channel: _Channel | None = None
        self._handed: bytes | None = None
        self._handing: trio.Event | None = None  # there while a writer waits, and no channel is open
        self._aside: list[bytes] = []
        self.count = 0

    def put(self, frame: bytes, _name: str) -> bool:
        """Queue a frame, or False where there is no room."""
        if self.count >= self._bound:
            return False
        self._give(frame)
        self.count += 1
        return True

    def replaced(self, _name: str) -> bytes | None:
        """The frame that one of this name takes the place of, taken out."""
        return None

    def pop(self) -> bytes | None:
        """The oldest frame, taken out."""
        frame = self._aside.pop(0) if self._aside else self._next()
        if frame:
            self.count -= 1
        return frame

    def drop(self) -> bytes | None:
        """The oldest event, taken out."""
        while True:
            frame = self._next()
            if frame is None:
                return None
            if isinstance(frame, Answer):
                self._aside.append(frame)
            elif frame != BELL:
                self.count -= 1
                return frame

    def recount(self) -> int:
        """Count only what waits aside; returns its bytes."""
        self.count = len(self._aside)
        return sum(map(len, self._aside))

    def ring(self) -> None:
        """Wake the writer though there may be no frame."""
        # A second bell would take the place of a frame.
        if self._handed is None and not (self._channel and self._channel[1].statistics().current_buffer_used):
            self._give(BELL)

    async def wait(self) -> bytes:
        """Wait for something, and return the first of it."""
        if self._aside:
            frame = self._aside.pop(0)
            self.count -= 1
            await trio.lowlevel.checkpoint()
            return frame
        if self._channel is not None:
            return await self._channel[1].receive()
        self._handing = trio.Event()
        await self._handing.wait()
        frame, self._handed = self._handed or BELL, None
        return frame

    def _give(self, frame: bytes) -> None:
        if self._handing is not None:
            self._handed = frame
            self._handing.set()
            self._handing = None
            return
        if self._channel is None:
            self._channel = trio.open_memory_channel[bytes](self._bound + 1)
        self._channel[0].send_nowait(frame)

    def _next(self) -> bytes | None:
        try:
            return None if self._channel is None else self._channel[1].receive_nowait()
        except trio.WouldBlock:
            return None


class Latest(Fifo):
    """What waits, one frame an event name, in the order of the newest; the channel carries only the bell."""

    __slots__ = ("_answers", "_frames")

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self._frames: OrderedDict[str | int, bytes] = OrderedDict()
        self._answers = 0

    def put(self, frame: bytes, name: str) -> bool:
        """See `Fifo`."""
        if len(self._frames) >= self._bound:
            return False
        if not name:  # answers to commands are never conflated
            self._answers += 1
        self._frames[name or self._answers] = frame
        self.ring()
        self.count = len(self._frames)
        return True

    def replaced(self, name: str) -> bytes | None:
        """See `Fifo`."""
        frame = self._frames.pop(name, None)
        self.count = len(self._frames)
        return frame

    def pop(self) -> bytes | None:
        """See `Fifo`."""
        if not self._frames:
            return None
        frame = self._frames.popitem(last=False)[1]
        self.count = len(self._frames)
        return frame
