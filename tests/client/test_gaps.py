"""Events that are gone for good: whoever has missed them is told, once, and goes on."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.client import ResumeGap, connect
from tests.client.server import FakeBroker
from tests.client.using import URL, names, out_of_the_block


def lose_events(broker: FakeBroker) -> None:
    """Events happen that the log has forgotten when the client comes back."""
    broker.connection.reset()
    broker.publish("a.2")
    broker.model.forget()


async def test_a_gap_is_raised_once_in_its_place_and_then_all_goes_on(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("a.*") as first, client.subscribe("**") as second:
        broker.publish("a.1")
        await wait_all_tasks_blocked()
        lose_events(broker)
        await trio.sleep(1)
        broker.publish("a.3")
        for events in (first, second):
            assert await names(events, 1) == ["a.1"]
            with pytest.raises(ResumeGap):
                await anext(events)
            assert await names(events, 1) == ["a.3"]
        assert client.statistics().gaps == 1


async def test_two_gaps_in_a_row_are_one(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        for _ in range(2):
            lose_events(broker)
            await trio.sleep(1)
        broker.publish("a.3")
        with pytest.raises(ResumeGap):
            await anext(events)
        assert await names(events, 1) == ["a.3"]


async def test_a_gap_may_be_told_to_a_function_instead(broker: FakeBroker, autojump_clock: MockClock) -> None:
    gaps: list[ResumeGap] = []
    async with connect(URL, on_gap=gaps.append) as client, client.subscribe("a.*") as first, client.subscribe("**"):
        lose_events(broker)
        await trio.sleep(1)
        broker.publish("a.3")
        assert await names(first, 1) == ["a.3"]
    assert len(gaps) == 1


async def test_what_such_a_function_raises_comes_out_as_it_is(broker: FakeBroker, autojump_clock: MockClock) -> None:
    def fail(_: ResumeGap) -> None:
        raise ZeroDivisionError

    with out_of_the_block(ZeroDivisionError):
        async with connect(URL, on_gap=fail) as client, client.subscribe("**") as events:
            lose_events(broker)
            await anext(events)
