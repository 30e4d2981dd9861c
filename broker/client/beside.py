"""Tasks that run beside a block and end with it, without a trace of them in what the block raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def beside(*tasks: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run tasks while the block runs. What the block raises comes out as it is, where a nursery would wrap it.

    A task that fails ends the block, and its error comes out, again as it is.
    """
    raised: BaseException | None = None
    failed: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            try:
                yield
            except BaseException as error:  # kept out of the nursery
                raised = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failed = _first(group)
    if raised is not None and (failed is None or not isinstance(raised, trio.Cancelled)):
        raise raised
    if failed is not None:
        raise failed


def _first(error: BaseException) -> BaseException:
    """The first error in a group that is no cancellation, if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    _, others = error.split(trio.Cancelled)
    return _first((others or error).exceptions[0])
