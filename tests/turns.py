"""Who runs, and how often: those that one has an eye on, and somebody else who would like to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio


class Other:
    """A task that always has something to do. turns: how many it has had."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1


@asynccontextmanager
async def somebody_else() -> AsyncIterator[Other]:
    other = Other()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.run)
        yield other
        nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """Counts the steps of the tasks that `counts` says yes to."""

    def __init__(self, counts: Callable[[trio.lowlevel.Task], bool]) -> None:
        self.taken = 0
        self._counts = counts

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += self._counts(task)


@contextmanager
def counting_steps(counts: Callable[[trio.lowlevel.Task], bool]) -> Iterator[Steps]:
    steps = Steps(counts)
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)
