"""Supervision: a source that fails is started again, after pauses that grow; the log hears of it, but not for ever."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.core.backoff import FIRST_PAUSE, LONGEST_PAUSE
from broker.core.errors import LogUnavailable
from broker.core.event import Event
from broker.core.ports import Publisher
from broker.runtime.supervision import State, Supervisor

AWAY = LogUnavailable("there is nobody")


class Door:
    """Nobody ever knocks."""

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        raise NotImplementedError


DOOR = Door()


class Source:
    """Each time that it is run it does the next thing of a list; the last thing again and again.

    A thing is an error to raise at once, or how many seconds to run well before the error that comes next is raised;
    None: it is at its end.
    """

    name = "source"

    def __init__(self, *things: Exception | tuple[float, Exception] | None) -> None:
        self.counters: Counter[str] = Counter()
        self.started: list[float] = []
        self.publishers: set[Publisher] = set()
        self._things = things

    async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
        thing = self._things[min(len(self.started), len(self._things) - 1)]
        self.started.append(trio.current_time())
        self.publishers.add(publisher)
        if isinstance(thing, tuple):
            seconds, thing = thing
            ready()
            await trio.sleep(seconds)
        await trio.lowlevel.checkpoint()
        if thing is not None:
            raise thing

    def pauses(self) -> list[float]:
        """Seconds from one start to the next."""
        return [later - earlier for earlier, later in zip(self.started, self.started[1:], strict=False)]


def supervisor(source: Source, share: float = 1.0) -> Supervisor:
    return Supervisor(source, jitter=lambda: share)


async def supervised(source: Source, seconds: float, share: float = 1.0) -> Supervisor:
    """A source that was looked after for so long."""
    looking_after = supervisor(source, share)
    with trio.move_on_after(seconds):
        await looking_after.run(DOOR)
    return looking_after


# --- Ends and pauses -------------------------------------------------------------------------------------------------


async def test_a_source_at_its_end_is_not_run_again(autojump_clock: MockClock) -> None:
    source = Source(None)
    looking_after = supervisor(source)
    await looking_after.run(DOOR)
    assert (looking_after.state, looking_after.failures, source.started) == (State.ENDED, 0, [0])
    assert source.publishers == {DOOR}


async def test_a_source_that_fails_is_run_again_until_its_end(autojump_clock: MockClock) -> None:
    source = Source(AWAY, AWAY, None)
    looking_after = supervisor(source)
    await looking_after.run(DOOR)
    assert (looking_after.state, looking_after.failures, len(source.started)) == (State.ENDED, 2, 3)


async def test_pauses_double_up_to_the_longest(autojump_clock: MockClock) -> None:
    source = Source(AWAY)
    await supervised(source, 60)
    assert source.pauses()[:9] == [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10]


async def test_of_each_pause_only_a_share_is_waited_for(autojump_clock: MockClock) -> None:
    source = Source(AWAY)
    await supervised(source, 30, share=0.5)
    assert source.pauses()[:7] == [0.125, 0.25, 0.5, 1, 2, 4, 5]


async def test_by_itself_the_share_is_half_or_more_and_not_always_the_same(autojump_clock: MockClock) -> None:
    source = Source(AWAY)
    looking_after = Supervisor(source)
    with trio.move_on_after(1000):
        await looking_after.run(DOOR)
    longest = source.pauses()[7:]
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in longest)
    assert len(set(longest)) > 1


async def test_who_has_run_well_for_long_begins_with_the_first_pause(autojump_clock: MockClock) -> None:
    source = Source(AWAY, AWAY, AWAY, (LONGEST_PAUSE, AWAY), AWAY)
    await supervised(source, 20)
    assert source.pauses()[:5] == [0.25, 0.5, 1, LONGEST_PAUSE + FIRST_PAUSE, 0.5]


async def test_who_was_ready_for_a_moment_only_has_not_run_well(autojump_clock: MockClock) -> None:
    source = Source(AWAY, AWAY, (9, AWAY), AWAY)
    await supervised(source, 20)
    assert source.pauses()[:4] == [0.25, 0.5, 9 + 1, 2]


async def test_who_took_long_to_fail_has_not_run_well(autojump_clock: MockClock) -> None:
    class Slow(Source):
        async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
            self.started.append(trio.current_time())
            await trio.sleep(100)
            raise AWAY

    source = Slow()
    await supervised(source, 320)
    assert source.pauses() == [100.25, 100.5, 101]


async def test_to_have_run_well_once_does_not_count_for_the_next_time(autojump_clock: MockClock) -> None:
    source = Source((LONGEST_PAUSE, AWAY), AWAY)
    await supervised(source, 14)
    assert source.pauses()[:4] == [LONGEST_PAUSE + 0.25, 0.5, 1, 2]


# --- How it is -------------------------------------------------------------------------------------------------------


async def test_the_state_tells_how_a_source_is(autojump_clock: MockClock) -> None:
    looking_after = supervisor(Source(AWAY, (5, AWAY), AWAY, None))
    states = [looking_after.state]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(looking_after.run, DOOR)
        for seconds in (0.1, 1, 4.5):
            await trio.sleep(seconds)
            states.append(looking_after.state)
    states.append(looking_after.state)
    assert states == [State.STARTING, State.WAITING, State.RUNNING, State.WAITING, State.ENDED]
    assert looking_after.failures == 3


async def test_until_it_is_ready_it_is_starting(autojump_clock: MockClock) -> None:
    states: list[State] = []

    class Slow(Source):
        async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
            states.append(looking_after.state)
            ready()
            states.append(looking_after.state)
            raise AWAY

    looking_after = supervisor(Slow())
    with trio.move_on_after(0.3):
        await looking_after.run(DOOR)
    assert states == [State.STARTING, State.RUNNING] * 2


async def test_a_cancellation_ends_it_whatever_it_does(autojump_clock: MockClock) -> None:
    for source in (Source(AWAY), Source((1000, AWAY))):
        looking_after = await supervised(source, 5)
        assert looking_after.state in {State.WAITING, State.RUNNING}


# --- What the log hears ----------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, int]]:
    records: list[dict[str, Any]] = [vars(record) for record in caplog.records]
    assert {record["connector"] for record in records} == {"source"}
    return [(record["msg"], record["reason"], record["times"]) for record in records]


async def test_a_reason_that_stays_is_told_at_1_10_and_100(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    looking_after = await supervised(Source(AWAY), 1500)
    assert looking_after.failures > 100
    assert told(caplog) == [("connector.unavailable", "there is nobody", times) for times in (1, 10, 100)]


async def test_another_reason_is_told_at_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    full = LogUnavailable("too much")
    await supervised(Source(AWAY, AWAY, full, AWAY, None), 100)
    assert [reason for _, reason, _ in told(caplog)] == ["there is nobody", "too much", "there is nobody"]


async def test_who_was_back_is_told_to_be_away_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await supervised(Source(AWAY, (86_000.0, AWAY), AWAY, None), 90_000)
    assert [times for _, _, times in told(caplog)] == [1, 1]


async def test_a_fault_of_ours_is_told_with_its_traceback_and_is_not_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    looking_after = supervisor(Source(KeyError("ours"), ExceptionGroup("several", [ValueError()]), None))
    await looking_after.run(DOOR)
    assert (looking_after.state, looking_after.failures) == (State.ENDED, 2)
    assert [(record.message, record.levelno) for record in caplog.records] == [("connector.failed", logging.ERROR)] * 2
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
