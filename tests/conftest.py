"""For all tests: a coroutine test that hangs fails by itself, and Ctrl-C means what it means at a terminal."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from threading import Timer
from typing import Any

import pytest
import trio
from hypothesis import settings

# What a shell starts in the background ignores SIGINT, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("broker", deadline=None)  # a slow machine is no fault
settings.load_profile("broker")

LONGEST_TEST = 30.0  # seconds on the wall, where the mark `longest` does not say otherwise
LONGEST_JUMP = 1e9  # seconds on a mock clock, which jumps over them at once when nothing else is left to happen


def pytest_addoption(parser: pytest.Parser) -> None:
    kills = parser.getgroup("kills", "tests/system/test_kills.py")
    kills.addoption("--kills", type=int, default=8, help="how often the broker is killed")
    kills.addoption("--kills-seed", type=int, default=1, help="where the chance begins that rules all of it")
    soak = parser.getgroup("soak", "tests/system/test_handlers.py")
    soak.addoption("--soak", type=int, default=300, help="how many connections come and go")


# A fixture can't do this: pytest-trio runs fixtures beside the test, not around it. And a deadline on Trio's clock
# alone can't either: a mock clock may stand still for ever.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        test = getattr(item, "obj", None)
        given = getattr(test, "hypothesis", None)
        mark = item.get_closest_marker("longest")
        longest = LONGEST_TEST if mark is None else mark.args[0]
        if given is not None and iscoroutinefunction(given.inner_test):
            given.inner_test = _ending_by_itself(given.inner_test, longest)
        elif iscoroutinefunction(test):
            item.obj = _ending_by_itself(test, longest)  # type: ignore[attr-defined]


def _ending_by_itself(test: Callable[..., Awaitable[None]], longest: float) -> Callable[..., Awaitable[None]]:
    hung = False

    @wraps(test)
    async def ending(*args: Any, **kwargs: Any) -> None:
        nonlocal hung
        if not hung:  # if it was, hypothesis would like to see it hang again, a hundred times
            with trio.move_on_after(LONGEST_JUMP) as limit:
                wall_clock = Timer(longest, trio.lowlevel.current_trio_token().run_sync_soon, [limit.cancel])
                wall_clock.start()
                try:
                    await test(*args, **kwargs)
                finally:
                    wall_clock.cancel()
            hung = limit.cancelled_caught
        if hung:
            raise trio.TooSlowError

    return ending
