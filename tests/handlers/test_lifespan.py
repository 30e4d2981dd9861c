"""What the application has open as long as the broker runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker import Handlers
from broker.handlers.errors import BadHandler
from broker.handlers.lifespan import START_TIMEOUT, Lifespan, Lifespans, read_lifespan


def told(story: list[str], name: str, *, takes: float = 0.0) -> Lifespan:
    async def life() -> AsyncIterator[None]:
        await trio.sleep(takes)
        story.append(f"{name} opens")
        yield
        story.append(f"{name} closes")

    return read_lifespan(life)


async def test_all_are_open_from_the_start_to_the_end(autojump_clock: MockClock) -> None:
    story: list[str] = []
    lifespans = Lifespans([told(story, "first", takes=2), told(story, "second", takes=1)])
    async with trio.open_nursery() as nursery:
        assert await nursery.start(lifespans.run) is None
        assert story == ["first opens", "second opens"]
        await lifespans.finish()
    assert sorted(story[2:]) == ["first closes", "second closes"]


async def test_without_any_nothing_happens() -> None:
    lifespans = Lifespans([])
    async with trio.open_nursery() as nursery:
        assert await nursery.start(lifespans.run) is None
        await lifespans.finish()


async def test_one_that_can_t_open_stops_the_start_and_closes_the_others() -> None:
    story: list[str] = []

    async def broken() -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    lifespans = Lifespans([told(story, "first"), read_lifespan(broken), told(story, "third")])
    async with trio.open_nursery() as nursery:
        failure = await nursery.start(lifespans.run)
    assert "broken: ConnectionError: no database" in str(failure)
    assert story == ["first opens", "first closes"]


async def test_one_that_never_opens_is_given_up(autojump_clock: MockClock) -> None:
    lifespans = Lifespans([told([], "slow", takes=START_TIMEOUT + 1)])
    async with trio.open_nursery() as nursery:
        failure = await nursery.start(lifespans.run)
    assert "has not begun after 60 seconds" in str(failure)


async def test_one_that_fails_later_is_logged_and_the_others_stay(caplog: pytest.LogCaptureFixture) -> None:
    story: list[str] = []
    fails = trio.Event()

    async def background() -> None:
        await fails.wait()
        raise ValueError("gone wrong")

    @asynccontextmanager
    async def busy() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(background)
            yield
            nursery.cancel_scope.cancel()

    lifespans = Lifespans([read_lifespan(busy), told(story, "other")])
    async with trio.open_nursery() as nursery:
        assert await nursery.start(lifespans.run) is None
        fails.set()
        await wait_all_tasks_blocked()
        assert "lifespan.failed" in caplog.messages
        assert story == ["other opens"]
        await lifespans.finish()
    assert story == ["other opens", "other closes"]


async def test_one_that_can_t_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def life() -> AsyncIterator[None]:
        yield
        raise ValueError("it is stuck")

    lifespans = Lifespans([read_lifespan(life)])
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespans.run)
        await lifespans.finish()
    assert "lifespan.failed" in caplog.messages


def test_the_application_says_it_with_a_decorator() -> None:
    app = Handlers()

    @app.lifespan
    async def plain() -> AsyncIterator[None]:
        yield

    @app.lifespan
    @asynccontextmanager
    async def decorated() -> AsyncIterator[None]:
        yield

    assert len(app.lifespans) == 2
    assert app.lifespans[1] is decorated


async def _coroutine() -> None:
    pass


async def _takes(app: Any) -> AsyncIterator[None]:
    yield app


@pytest.mark.parametrize("function", [_coroutine, _takes, lambda: None])
def test_what_is_no_lifespan_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(BadHandler, match="a lifespan"):
        read_lifespan(function)
