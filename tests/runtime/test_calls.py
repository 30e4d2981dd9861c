"""Calls into the application: in order for one owner, side by side for many, bounded, and nothing ends them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.runtime import calls as calls_module
from broker.runtime.calls import GRACE, MAX_WAITING, Call, Calls


class Work:
    """Calls that note when they begin and end, and take as long as they are told."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.ended: list[object] = []
        self.go = trio.Event()

    def call(self, name: object, seconds: float = 0) -> Call:
        async def run() -> None:
            self.begun.append(name)
            await trio.sleep(seconds)
            self.ended.append(name)

        return run

    def held(self, name: object) -> Call:
        async def run() -> None:
            self.begun.append(name)
            await self.go.wait()
            self.ended.append(name)

        return run


@asynccontextmanager
async def running() -> AsyncIterator[Calls]:
    calls = Calls()
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        yield calls
        nursery.cancel_scope.cancel()


async def test_those_of_one_owner_run_one_after_the_other(autojump_clock: MockClock) -> None:
    work = Work()
    async with running() as calls:
        for number in range(5):
            assert calls.put("ada", work.call(number, seconds=5 - number))
        await calls.finish()
    assert work.begun == work.ended == [0, 1, 2, 3, 4]


async def test_those_of_several_run_side_by_side(autojump_clock: MockClock) -> None:
    work = Work()
    async with running() as calls:
        calls.put("ada", work.call("slow", seconds=10))
        calls.put("bob", work.call("quick", seconds=1))
        await calls.finish()
    assert work.ended == ["quick", "slow"]


async def test_who_has_nothing_that_waits_costs_nothing(autojump_clock: MockClock) -> None:
    work = Work()
    async with running() as calls:
        calls.put("ada", work.call(1, seconds=1))
        assert calls.waiting() == 1
        await calls.finish()
        assert calls.waiting() == 0


async def test_as_many_may_wait_as_is_said_and_no_more() -> None:
    work = Work()
    async with running() as calls:
        calls.put("ada", work.held("first"))
        await wait_all_tasks_blocked()
        assert all(calls.put("ada", work.call(number)) for number in range(MAX_WAITING))
        assert not calls.put("ada", work.call("one too many"))
        assert calls.put("ada", work.call("more"), most=MAX_WAITING + 1)
        assert calls.put("ada", work.call("always"), always=True)
        assert calls.put("bob", work.call("another's"))
        work.go.set()
        await calls.finish()
    assert "one too many" not in work.ended
    assert work.ended[-2:] == ["more", "always"]


async def test_what_is_forgotten_does_not_begin_but_what_runs_ends() -> None:
    work = Work()
    async with running() as calls:
        calls.put("ada", work.held("runs"))
        await wait_all_tasks_blocked()
        calls.put("ada", work.call("forgotten"))
        calls.forget("ada")
        calls.put("ada", work.call("last"), always=True)
        work.go.set()
        await calls.finish()
    assert work.ended == ["runs", "last"]


async def test_what_must_not_be_lost_is_not_forgotten() -> None:
    work = Work()
    async with running() as calls:
        calls.put("ada", work.call("first"), always=True)
        calls.put("ada", work.call("forgotten"))
        calls.forget("ada")
        calls.put("ada", work.call("last"), always=True)
        await calls.finish()
    assert work.ended == ["first", "last"]


async def test_forgetting_somebody_who_has_nothing_is_no_error() -> None:
    async with running() as calls:
        calls.forget("nobody")
        assert calls.waiting() == 0


async def test_all_of_an_owner_may_be_forgotten_before_it_begins() -> None:
    work = Work()
    async with running() as calls:
        calls.put("ada", work.call("forgotten"))
        calls.forget("ada")
        await calls.finish()
        assert calls.put("ada", work.call("later"))
        await calls.finish()
    assert work.ended == ["later"]


async def test_what_is_forgotten_while_it_waits_for_a_place_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "MAX_AT_ONCE", 1)
    work = Work()
    async with running() as calls:
        calls.put("ada", work.held("runs"))
        await wait_all_tasks_blocked()
        calls.put("bob", work.call("forgotten"))
        await wait_all_tasks_blocked()
        calls.forget("bob")
        work.go.set()
        await calls.finish()
    assert work.ended == ["runs"]


async def test_no_more_run_at_a_time_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "MAX_AT_ONCE", 3)
    work = Work()
    async with running() as calls:
        for owner in range(10):
            calls.put(owner, work.held(owner))
        await wait_all_tasks_blocked()
        assert len(work.begun) == 3
        work.go.set()
        await calls.finish()
    assert sorted(map(str, work.ended)) == sorted(map(str, range(10)))


async def test_what_one_raises_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    work = Work()
    async with running() as calls:
        calls.put("ada", fail)
        calls.put("ada", work.call("after"))
        calls.put("bob", work.call("beside"))
        await calls.finish()
    assert sorted(map(str, work.ended)) == ["after", "beside"]
    assert [record.getMessage() for record in caplog.records] == ["call.failed"]


async def test_one_may_put_the_next(autojump_clock: MockClock) -> None:
    work = Work()

    async def first(calls: Calls) -> None:
        await trio.lowlevel.checkpoint()
        calls.put("ada", work.call("next"))

    async with running() as calls:
        calls.put("ada", partial(first, calls))
        await calls.finish()
    assert work.ended == ["next"]


async def test_to_finish_waits_for_those_that_come_meanwhile(autojump_clock: MockClock) -> None:
    work = Work()

    async def come_late(calls: Calls) -> None:
        await trio.sleep(1)
        calls.put("bob", work.call("bob", seconds=5))

    async with running() as calls, trio.open_nursery() as nursery:
        calls.put("ada", work.call("ada", seconds=2))
        nursery.start_soon(come_late, calls)
        await calls.finish()
        assert work.ended == ["ada", "bob"]


async def test_before_the_beginning_and_after_the_end_nothing_is_taken() -> None:
    work = Work()
    calls = Calls()
    assert not calls.put("ada", work.call("too early"))
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        nursery.cancel_scope.cancel()
    assert not calls.put("ada", work.call("too late"), always=True)
    assert work.begun == []


async def test_to_be_cancelled_ends_what_runs_and_leaves_nothing() -> None:
    work = Work()
    calls = Calls()
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        calls.put("ada", work.held("ada"))
        calls.put("ada", work.call("after"))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (work.begun, work.ended, calls.waiting()) == (["ada"], [], 0)


async def test_one_user_takes_no_more_places_than_its_share_however_many_come_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_module, "SHARE", 2)
    work, others = Work(), Work()
    async with running() as calls:
        for owner in range(10):
            calls.put(owner, work.held(owner), user="ada")
        calls.put("bob", others.call("bob"), user="bob")
        calls.put("somebody", others.call("nobody in particular"))
        await wait_all_tasks_blocked()
        assert (len(work.begun), set(others.ended)) == (2, {"bob", "nobody in particular"})
        runs = set(work.begun)
        for owner in range(5):
            calls.forget(owner)
        work.go.set()
        await calls.finish()
        assert not calls._shares, "whoever has nothing that waits costs nothing"
    assert set(work.ended) == runs | set(range(5, 10))


async def test_what_runs_when_its_owner_is_forgotten_has_a_while(autojump_clock: MockClock) -> None:
    work = Work()
    async with running() as calls:
        calls.put("short", work.call("short", seconds=GRACE - 1))
        calls.put("long", work.call("long", seconds=GRACE + 1))
        calls.put("must", work.call("must", seconds=GRACE + 1), always=True)
        await wait_all_tasks_blocked()
        for owner in ("short", "long", "must"):
            calls.forget(owner)
            calls.put(owner, work.call(f"{owner} is over"), always=True)
        await calls.finish()
    assert set(work.begun) - set(work.ended) == {"long"}
    assert "long is over" in work.ended
