"""Calls into the application: those of one connection one after the other, those of many side by side.

A connection has a task only while something of it waits or runs; ten thousand idle ones have none.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final

import trio

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64  # calls of one connection that have not begun
MAX_AT_ONCE: Final = 1000  # calls that run at a time

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    always: bool


class Calls:
    """Runs calls; what they raise ends nothing but themselves."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[_Waiting]] = {}
        self._places = trio.CapacityLimiter(MAX_AT_ONCE)
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

    def put(self, owner: Hashable, call: Call, *, most: int = MAX_WAITING, always: bool = False) -> bool:
        """Let `call` run after those of the same owner; False: too many wait, or nothing runs any more.

        most: how many may wait. always: it is one of the few that must not be lost, such as the first and the last.
        """
        if self._nursery is None:
            return False
        waiting = self._waiting.get(owner)
        if waiting is None:
            waiting = self._waiting[owner] = deque()
            self._nursery.start_soon(self._work, owner, waiting)
        elif len(waiting) >= most and not always:
            return False
        waiting.append(_Waiting(call, always))
        return True

    def forget(self, owner: Hashable) -> None:
        """Let nothing more of `owner` begin but what must not be lost. What runs ends by itself."""
        waiting = self._waiting.get(owner, deque())
        kept = [each for each in waiting if each.always]
        waiting.clear()
        waiting.extend(kept)

    async def finish(self) -> None:
        """Wait until nothing waits or runs any more."""
        while self._waiting:
            self._idle = trio.Event()
            await self._idle.wait()

    def waiting(self) -> int:
        """How many owners have something that waits or runs."""
        return len(self._waiting)

    async def _work(self, owner: Hashable, waiting: deque[_Waiting]) -> None:
        try:
            while waiting:
                async with self._places:
                    if waiting:  # it may have been forgotten meanwhile
                        await self._run(waiting.popleft().call)
        finally:
            del self._waiting[owner]
            if not self._waiting:
                self._idle.set()

    async def _run(self, call: Call) -> None:
        try:
            await call()
        except Exception:
            logger.exception("call.failed")
