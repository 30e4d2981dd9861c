"""Who is cancelled while the log on disk writes: what the log knows and what is in the file stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.errors import LogUnavailable
from broker.core.event import Record
from broker.core.relations import Learned
from broker.edge import sqlite_segments
from broker.edge.sqlite_log import SqliteLog
from tests.edge.sqlite_house import PLENTY, append, events, failing

LEARNED = Learned(1, {("group", "1", "ada"): 1})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@contextmanager
def held_up() -> Iterator[Callable[[], None]]:
    """Whoever adds events waits in his thread until the function that this gives is called."""
    add: Callable[..., Any] = sqlite_segments.add
    go_on = ThreadEvent()

    def wait(*arguments: object) -> Any:
        assert go_on.wait(20)
        return add(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_segments, "add", wait)
        try:
            yield go_on.set
        finally:
            go_on.set()


async def check(log: SqliteLog, path: Path, *offsets: int) -> None:
    """What the log says of itself is what the file says when it is opened again."""
    held = log.statistics()
    taken = await log.read(0, 100, PLENTY)
    located = [await log.locate(record.id) for record in taken]
    assert [record.offset for record in taken] == located == list(offsets)
    assert (held["events"], held["next_offset"]) == (len(offsets), len(offsets) + 1)
    log.close()
    with closing(SqliteLog(path)) as again:
        assert await again.read(0, 100, PLENTY) == taken
        assert again.statistics() == held
        assert [await again.locate(record.id) for record in taken] == located


async def test_who_is_cancelled_while_the_thread_writes_hears_what_came_of_it(path: Path) -> None:
    log = SqliteLog(path)
    await append(log, "x")
    with held_up() as go_on:
        async with trio.open_nursery() as nursery:
            answers: list[Record | str] = []

            async def publish() -> None:
                answers.extend(await log.append(events("x", "y", None)))

            nursery.start_soon(publish)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            go_on()
    assert [each if isinstance(each, str) else each.offset for each in answers] == ["x", 2, 3]
    assert await log.append(events("y")) == ["y"]
    await check(log, path, 1, 2, 3)


async def test_who_is_cancelled_while_another_one_writes_has_taken_nothing(path: Path) -> None:
    log = SqliteLog(path)
    with held_up() as go_on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.append, events("x"))
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await log.append(events("y"))
            assert scope.cancelled_caught
            go_on()
    assert await log.locate("y") is None
    await check(log, path, 1)


async def test_who_is_cancelled_before_the_thread_writes_leaves_what_was_learned_for_the_next(path: Path) -> None:
    log = SqliteLog(path)
    await log.append(events(None))
    log.learn(LEARNED)
    with trio.CancelScope() as scope:
        scope.cancel()
        await log.append(events(None))
    await log.append(events(None))
    assert log._file.read("SELECT count(*) FROM changes") == [(1,)]
    await check(log, path, 1, 2)


async def test_who_is_cancelled_while_the_thread_fails_hears_that_it_failed(path: Path) -> None:
    log = SqliteLog(path)
    await log.append(events(None))
    log.learn(LEARNED)
    with failing(), held_up() as go_on:
        async with trio.open_nursery() as nursery:
            failed: list[LogUnavailable] = []

            async def publish() -> None:
                with pytest.raises(LogUnavailable) as error:
                    await log.append(events("x"))
                failed.append(error.value)

            nursery.start_soon(publish)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            go_on()
    assert len(failed) == 1
    assert await log.locate("x") is None
    await check(log, path, 1)
    with closing(SqliteLog(path)) as again:
        assert await again.recall() == (LEARNED, ())


async def test_what_is_learned_while_the_thread_writes_is_written_with_the_next(path: Path) -> None:
    log = SqliteLog(path)
    await log.append(events(None))
    with held_up() as go_on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.append, events(None))
            await wait_all_tasks_blocked()
            log.learn(LEARNED)
            go_on()
    await log.append(events(None))
    await check(log, path, 1, 2, 3)
    with closing(SqliteLog(path)) as again:
        learned, behind = await again.recall()
        assert (learned, [record.offset for record in behind]) == (LEARNED, [2, 3])
