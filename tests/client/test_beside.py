"""Tasks beside a block: they end with it, and leave no trace in what comes out of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from broker.client.beside import beside


class Fault(Exception):
    """Anybody's error."""


async def fail() -> None:
    await trio.lowlevel.cancel_shielded_checkpoint()
    raise Fault


async def run_beside(task: Callable[[], Awaitable[None]]) -> None:
    async with beside(task, trio.sleep_forever):
        await trio.sleep_forever()


async def interrupt() -> None:
    await trio.lowlevel.checkpoint()
    raise KeyboardInterrupt


async def test_tasks_run_while_the_block_runs_and_end_with_it() -> None:
    ended = []

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with beside(run, run):
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
    assert len(ended) == 2


@pytest.mark.parametrize("error", [Fault(), KeyboardInterrupt(), ExceptionGroup("several", [Fault()])])
async def test_what_the_block_raises_comes_out_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        async with beside(trio.sleep_forever):
            raise error
    assert raised.value is error


@pytest.mark.parametrize(("task", "error"), [(fail, Fault), (interrupt, KeyboardInterrupt)])
async def test_a_task_that_fails_ends_the_block_with_its_error(
    task: Callable[[], Awaitable[None]], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        await run_beside(task)


async def test_where_both_fail_it_is_the_block_s_error() -> None:
    async def leave() -> None:
        async with beside(fail):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("the block's")

    with pytest.raises(ValueError, match="the block's"):
        await leave()


async def test_a_task_that_has_nothing_more_to_do_does_not_end_the_block() -> None:
    async with beside(trio.lowlevel.checkpoint):
        await trio.testing.wait_all_tasks_blocked()


async def test_who_is_cancelled_from_outside_is_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with beside(trio.sleep_forever):
            scope.cancel()
            await trio.sleep_forever()
        pytest.fail("it went on")
    assert scope.cancelled_caught


async def test_so_is_who_is_cancelled_while_a_task_fails() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(Fault):
            await run_beside(fail)
    assert not scope.cancelled_caught
