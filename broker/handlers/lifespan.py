"""What the application has open for as long as the broker runs, and its end.

Each lifespan lives in a task of its own: what it opens may be a nursery, and that is closed by the task that opened it.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar

import trio

from broker.core.errors import OperatorError
from broker.handlers.containing import contained
from broker.handlers.errors import BadHandler
from broker.handlers.signature import name_of

logger = logging.getLogger(__name__)

START_TIMEOUT: Final = 60.0  # seconds for all that stands before the `yield`

L = TypeVar("L", bound=Callable[[], Any])
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


def read_lifespan(function: Callable[[], Any]) -> Lifespan:
    """What opens and closes, by an async generator function, or by what `asynccontextmanager` made of one.

    Raises BadHandler.
    """
    made = inspect.unwrap(function)
    if not inspect.isasyncgenfunction(made):
        raise BadHandler(f"{name_of(function)}: a lifespan is an `async def` that yields once")
    if inspect.signature(function).parameters:
        raise BadHandler(f"{name_of(function)}: a lifespan takes no arguments")
    return asynccontextmanager(function) if made is function else function


class Lifespans:
    """All lifespans of the application, of which none knows of another."""

    def __init__(self, lifespans: Iterable[Lifespan]) -> None:
        self._lifespans = list(lifespans)
        self._ending = trio.Event()
        self._ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[OperatorError | None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open them, one after the other, and close them when it is time.

        The task has started with None when all are open; with an error where one can't be, and the others are closed.
        """
        failure: OperatorError | None = None
        async with trio.open_nursery() as nursery:
            for each in self._lifespans:
                failure = await nursery.start(self._live, each)
                if failure is not None:
                    self._ending.set()
                    break
            task_status.started(failure)
        self._ended.set()

    async def finish(self) -> None:
        """Close them, and wait until that is done."""
        self._ending.set()
        await self._ended.wait()

    async def _live(self, lifespan: Lifespan, task_status: trio.TaskStatus[OperatorError | None]) -> None:
        name, is_open = name_of(lifespan), False
        with trio.CancelScope(deadline=trio.current_time() + START_TIMEOUT) as opening:
            try:
                with contained():
                    async with lifespan():
                        opening.deadline, is_open = math.inf, True
                        task_status.started(None)
                        await self._ending.wait()
            except Exception as error:
                if is_open:
                    logger.exception("lifespan.failed", extra={"lifespan": name})
                else:
                    task_status.started(OperatorError(f"{name}: {type(error).__name__}: {error}"))
        if opening.cancelled_caught:
            task_status.started(OperatorError(f"{name} has not begun after {START_TIMEOUT:g} seconds"))
