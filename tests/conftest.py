"""For all tests: a coroutine test that hangs fails by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

import pytest
import trio
from trio.testing import MockClock

LONGEST_TEST = 30.0  # seconds
LONGEST_TEST_OF_JUMPS = 1e9  # seconds that a mock clock jumps over at once when nothing else is left to happen


# The fixture of pytest-trio that one would use for this does not reach the test, and an autojump clock with no
# deadline anywhere spins for ever: so every test gets a deadline of its own.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        test = getattr(item, "obj", None)
        given = getattr(test, "hypothesis", None)
        if given is not None and iscoroutinefunction(given.inner_test):
            given.inner_test = _ending_by_itself(given.inner_test)
        elif iscoroutinefunction(test):
            item.obj = _ending_by_itself(test)  # type: ignore[attr-defined]


def _ending_by_itself(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    hung = False

    @wraps(test)
    async def ending(*args: Any, **kwargs: Any) -> None:
        nonlocal hung
        if hung:  # hypothesis would like to see it hang again, a hundred times
            raise trio.TooSlowError
        jumps = isinstance(trio.lowlevel.current_clock(), MockClock)
        with trio.move_on_after(LONGEST_TEST_OF_JUMPS if jumps else LONGEST_TEST) as limit:
            await test(*args, **kwargs)
        if limit.cancelled_caught:
            hung = True
            raise trio.TooSlowError

    return ending
