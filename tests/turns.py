"""Somebody else who would like to run: how often could it?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
