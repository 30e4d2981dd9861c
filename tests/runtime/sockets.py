"""A stand-in for a socket and for what goes to it, for tests of the outbox."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing

from broker.core.delivery import Delivery, Joined
from broker.core.event import Event, Record
from broker.core.forms import PLAIN
from broker.runtime.outbox import Outbox


class Piece(Delivery):
    """An event whose frame is given."""

    __slots__ = ()

    def __init__(self, frame: bytes, name: str = "n") -> None:
        super().__init__(Record(Event(name, b""), "1", 1))
        self._encoded = {PLAIN: frame}

    @property
    def frame(self) -> bytes:
        return self.encoded()


def joined(*frames: bytes) -> Joined:
    return Joined([Piece(frame) for frame in frames], PLAIN)


@contextmanager
def memory(*, used: bool = True) -> Iterator[int | None]:
    """A file in memory, from which sockets may be sent what they have in common; none if it is not to be used."""
    if not used:
        yield None
        return
    file = os.memfd_create("test")
    try:
        yield file
    finally:
        os.close(file)


def send_now(out: Outbox, events: Joined, file: int | None = None) -> int:
    """Offer events as the dispatcher does, by a file if there is one; how many of them need no offer any more."""
    try:
        if file is None:
            sent = out.straight(events.data)
        else:
            place = os.lseek(file, 0, os.SEEK_END)
            os.write(file, events.data)
            sent = out.straight_from(file, place, events.size)
    except OSError:
        sent = 0
    return events.count if sent == events.size else out.went(events, sent)


class Socket:
    """Takes `room` bytes at once; with `failure`, fails instead. The writer can be made to wait until it is open."""

    def __init__(self) -> None:
        self.got = b""
        self.straight: list[bytes] = []  # what came without the writer
        self.shared = 0  # how often it was sent something from a file
        self.writes: list[bytes] = []  # of the writer
        self.room = math.inf
        self.failure: OSError | None = None
        self.open = trio.Event()
        self.open.set()

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        self.writes.append(data)
        self.got += data

    def send(self, data: bytes, /) -> int:
        if self.failure is not None:
            raise self.failure
        taken = int(min(self.room, len(data)))
        self.straight.append(data[:taken])
        self.got += data[:taken]
        return taken

    def send_from(self, descriptor: int, place: int, size: int, /) -> int:
        self.shared += 1
        return self.send(os.pread(descriptor, size, place))

    def block(self) -> None:
        self.open = trio.Event()


class Slow(Socket):
    """Takes nothing at once, and each write only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.failure = BlockingIOError()
        self._let = trio.Semaphore(0)

    async def write(self, data: bytes) -> None:
        await self._let.acquire()
        await super().write(data)

    async def let(self, writes: int = 1) -> None:
        """Let so many writes through, and wait for what comes of it."""
        for _ in range(writes):
            self._let.release()
            await trio.testing.wait_all_tasks_blocked()
            if self._let.value:  # there was nothing to write
                self._let.acquire_nowait()

    def let_all(self) -> None:
        """Let all writes through from now on."""
        for _ in range(10_000):
            self._let.release()


def is_writer(task: trio.lowlevel.Task) -> bool:
    """Whether it writes what waits in an outbox."""
    return task.name.endswith("Outbox.run")
