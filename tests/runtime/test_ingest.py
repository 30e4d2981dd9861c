"""The one door: it waits while it is full, and never says "not taken" of what is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.errors import BadEvent, LogUnavailable, Overloaded, Stopping
from broker.core.event import Event
from broker.runtime.ingest import LAST_WORD, Batch, EndOfIngest, Ingest


def event(name: str) -> Event:
    return Event(name, b"{}")


def names(batches: list[Batch]) -> list[str]:
    return [event.name for batch in batches for event in batch.events]


class Publisher:
    """Publishes in a task of its own, and keeps the outcome."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self.outcome: list[str] | Exception | None = None

    async def publish(self, *names: str, timeout: float | None = None) -> None:
        try:
            self.outcome = await self._ingest.publish([event(name) for name in names], timeout=timeout)
        except Exception as error:
            self.outcome = error


@asynccontextmanager
async def publishing(ingest: Ingest, *names: str) -> AsyncIterator[list[Publisher]]:
    """Publishers at the door, each with one event, come in order."""
    publishers = [Publisher(ingest) for _ in names]
    async with trio.open_nursery() as nursery:
        for publisher, name in zip(publishers, names, strict=True):
            nursery.start_soon(publisher.publish, name)
            await wait_all_tasks_blocked()
        yield publishers


async def test_publishing_returns_the_ids_when_the_log_has_taken_the_batch() -> None:
    ingest = Ingest(1)
    publisher = Publisher(ingest)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.publish, "a", "b")
        [batch] = await ingest.take(10)
        await wait_all_tasks_blocked()
        assert publisher.outcome is None
        batch.taken(["1", "2"])
    assert publisher.outcome == ["1", "2"]


async def test_publishing_fails_with_what_the_log_failed_with() -> None:
    ingest = Ingest(1)
    async with publishing(ingest, "a") as [publisher]:
        [batch] = await ingest.take(10)
        batch.failed(LogUnavailable("the disk is full"))
    assert isinstance(publisher.outcome, LogUnavailable)


async def test_batches_are_taken_in_the_order_in_which_they_came() -> None:
    ingest = Ingest(2)
    async with publishing(ingest, *"abcd"):
        batches = await ingest.take(3) + await ingest.take(3)
        for batch in batches:
            batch.taken(["x"])
    assert names(batches) == list("abcd")


async def test_no_more_is_taken_than_asked_for() -> None:
    ingest = Ingest(10)
    async with publishing(ingest, *"abc"):
        first = await ingest.take(2)
        second = await ingest.take(2)
        for batch in [*first, *second]:
            batch.taken(["x"])
    assert (names(first), names(second)) == (["a", "b"], ["c"])


async def test_taking_waits_until_something_comes() -> None:
    ingest = Ingest(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Publisher(ingest).publish, "a")
        [batch] = await ingest.take(10)
        batch.taken(["x"])
    assert names([batch]) == ["a"]


async def test_publishing_waits_while_the_queue_is_full(autojump_clock: MockClock) -> None:
    ingest = Ingest(1)
    async with publishing(ingest, "a", "b") as publishers:
        await trio.sleep(10_000)
        assert [publisher.outcome for publisher in publishers] == [None, None]
        assert ingest.waiting() == 1
        for batch in await ingest.take(10):
            batch.taken(["x"])
    assert [publisher.outcome for publisher in publishers] == [["x"], ["x"]]


async def test_who_waits_only_so_long_is_told_that_it_is_busy(autojump_clock: MockClock) -> None:
    ingest = Ingest(1)
    async with publishing(ingest, "a"):
        began = trio.current_time()
        with pytest.raises(Overloaded) as caught:
            await ingest.publish([event("b")], timeout=5)
        assert trio.current_time() - began == 5
        assert not isinstance(caught.value, Stopping)
        for batch in await ingest.take(10):
            batch.taken(["x"])


async def test_what_was_too_much_is_not_taken_later(autojump_clock: MockClock) -> None:
    ingest = Ingest(1)
    async with publishing(ingest, "a"):
        with pytest.raises(Overloaded):
            await ingest.publish([event("b")], timeout=5)
        batches = await ingest.take(10)
        assert names(batches) == ["a"]
        assert ingest.waiting() == 0
        batches[0].taken(["x"])


async def test_a_batch_that_is_in_the_queue_is_not_given_up(autojump_clock: MockClock) -> None:
    ingest = Ingest(1)
    publisher = Publisher(ingest)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: publisher.publish("a", timeout=5))
        await trio.sleep(1000)
        assert publisher.outcome is None
        [batch] = await ingest.take(10)
        await trio.sleep(1000)
        batch.taken(["x"])
    assert publisher.outcome == ["x"]


async def test_no_patience_at_all_is_enough_where_there_is_room() -> None:
    ingest = Ingest(1)
    async with trio.open_nursery() as nursery:
        publisher = Publisher(ingest)
        nursery.start_soon(lambda: publisher.publish("a", timeout=0))
        await wait_all_tasks_blocked()
        assert ingest.waiting() == 1
        [batch] = await ingest.take(10)
        batch.taken(["x"])
    assert publisher.outcome == ["x"]


async def test_no_patience_at_all_is_not_enough_where_there_is_none() -> None:
    ingest = Ingest(1)
    async with publishing(ingest, "a"):
        with pytest.raises(Overloaded):
            await ingest.publish([event("b")], timeout=0)
        [batch] = await ingest.take(10)
        batch.taken(["x"])


async def test_an_empty_batch_is_taken_without_anybody() -> None:
    assert await Ingest(1).publish([]) == []


async def test_a_bad_event_stops_its_whole_batch_at_the_door() -> None:
    ingest = Ingest(1)
    with pytest.raises(BadEvent) as caught:
        await ingest.publish([event("a"), event("broker.x")])
    assert caught.value.index == 1
    assert ingest.waiting() == 0


async def test_events_added_to_the_publishers_own_list_later_do_not_come_in() -> None:
    ingest = Ingest(1)
    events = [event("a")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ingest.publish, events)
        await wait_all_tasks_blocked()
        events.append(event(".."))
        [batch] = await ingest.take(10)
        batch.taken(["x"])
    assert names([batch]) == ["a"]


async def test_a_closed_door_takes_nothing() -> None:
    ingest = Ingest(1)
    ingest.close()
    with pytest.raises(Stopping):
        await ingest.publish([event("a")])


async def test_a_closed_door_still_takes_nothing_from_nobody() -> None:
    ingest = Ingest(1)
    ingest.close()
    assert await ingest.publish([]) == []


async def test_who_waits_for_room_is_told_when_the_door_closes() -> None:
    ingest = Ingest(1)
    async with publishing(ingest, "a", "b") as [first, second]:
        ingest.close()
        await wait_all_tasks_blocked()
        assert isinstance(second.outcome, Stopping)
        [batch] = await ingest.take(10)
        batch.taken(["x"])
    assert first.outcome == ["x"]


async def test_what_waits_when_the_door_closes_is_still_taken_and_then_it_ends() -> None:
    ingest = Ingest(3)
    async with publishing(ingest, *"abc") as publishers:
        ingest.close()
        batches = await ingest.take(2) + await ingest.take(2)
        for batch in batches:
            batch.taken(["x"])
        with pytest.raises(EndOfIngest):
            await ingest.take(2)
    assert names(batches) == list("abc")
    assert [publisher.outcome for publisher in publishers] == [["x"]] * 3


async def test_closing_twice_is_closing_once() -> None:
    ingest = Ingest(1)
    ingest.close()
    ingest.close()
    with pytest.raises(EndOfIngest):
        await ingest.take(1)


# At the end.


async def test_who_is_cancelled_hears_an_answer_that_is_on_its_way(autojump_clock: MockClock) -> None:
    ingest = Ingest(1)
    heard: list[list[str]] = []
    gone_on: list[bool] = []

    async def source(scope: trio.CancelScope) -> None:
        with scope:
            heard.append(await ingest.publish([Event("a", b"1")]))
            await trio.lowlevel.checkpoint()
            gone_on.append(True)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(source, scope)
        [batch] = await ingest.take(1)
        scope.cancel()
        await trio.sleep(LAST_WORD / 2)
        batch.taken(["id"])
    assert heard == [["id"]]
    assert gone_on == []


async def test_who_is_cancelled_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    ingest = Ingest(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ingest.publish, [Event("a", b"1")])
        await ingest.take(1)
        before = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - before == LAST_WORD
