"""Calls into the application: those of one connection one after the other, those of many side by side.

A connection has a task only while something of it waits or runs; ten thousand idle ones have none. Nobody takes all
places: there is a share for each user, however many connections that one has, or has had.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import trio

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64  # calls of one connection that have not begun
MAX_AT_ONCE: Final = 1000  # calls that run at a time
SHARE: Final = 100  # of these, for one user
GRACE: Final = 5.0  # seconds that a call may go on when its connection has ended

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    always: bool


@dataclass(slots=True)
class _Line:
    """What of one owner waits, and the end of what runs if that may be ended."""

    share: trio.CapacityLimiter | nullcontext[None]
    waiting: deque[_Waiting] = field(default_factory=deque)
    running: trio.CancelScope | None = None


class Calls:
    """Runs calls; what they raise ends nothing but themselves."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}
        self._places = trio.CapacityLimiter(MAX_AT_ONCE)
        self._shares: WeakValueDictionary[Hashable, trio.CapacityLimiter] = WeakValueDictionary()
        self._nursery: trio.Nursery | None = None
        self._idle = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # it takes nothing more

    def put(
        self, owner: Hashable, call: Call, *, user: str | None = None, most: int = MAX_WAITING, always: bool = False
    ) -> bool:
        """Let `call` run after those of the same owner; False: too many wait, or nothing runs any more.

        user: out of whose share, if it is somebody's. most: how many may wait. always: it is one of the few that must
        not be lost, such as the first and the last.
        """
        if self._nursery is None:
            return False
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = _Line(nullcontext() if user is None else self._share(user))
            self._nursery.start_soon(self._work, owner, line)
        elif len(line.waiting) >= most and not always:
            return False
        line.waiting.append(_Waiting(call, always))
        return True

    def forget(self, owner: Hashable) -> None:
        """Let nothing more of `owner` begin but what must not be lost, and end soon what runs and may be lost."""
        line = self._lines.get(owner)
        if line is None:
            return
        kept = [each for each in line.waiting if each.always]
        line.waiting.clear()
        line.waiting.extend(kept)
        if line.running is not None:
            line.running.deadline = trio.current_time() + GRACE

    async def finish(self) -> None:
        """Wait until nothing waits or runs any more."""
        while self._lines:
            self._idle = trio.Event()
            await self._idle.wait()

    def waiting(self) -> int:
        """How many owners have something that waits or runs."""
        return len(self._lines)

    def _share(self, user: str) -> trio.CapacityLimiter:
        share = self._shares.get(user)
        if share is None:
            share = self._shares[user] = trio.CapacityLimiter(SHARE)
        return share

    async def _work(self, owner: Hashable, line: _Line) -> None:
        try:
            while line.waiting:
                async with line.share, self._places:
                    if line.waiting:  # it may have been forgotten meanwhile
                        await self._run(line, line.waiting.popleft())
        finally:
            del self._lines[owner]
            if not self._lines:
                self._idle.set()

    async def _run(self, line: _Line, each: _Waiting) -> None:
        with trio.CancelScope() as scope:
            line.running = None if each.always else scope
            try:
                await each.call()
            except Exception:
                logger.exception("call.failed")
            finally:
                line.running = None
