"""Subscriptions: what is asked for and when, who gets what, and what happens when nobody reads."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.client import ClientClosed, CommandFailed, Disconnected, Event, Options, ResumeGap, Subscription, connect
from broker.client.inbox import Inbox
from broker.core.errors import BadPattern
from tests.client.server import FakeBroker
from tests.client.using import URL, names


async def test_events_are_values_with_a_name_data_and_an_id(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("games.**") as events:
        broker.publish("games.42.created")
        async for event in events:
            assert event == Event("games.42.created", b"0", "e1")
            assert (event.name, event.data, event.raw, event.id) == ("games.42.created", 0, b"0", "e1")
            break
        else:
            pytest.fail("it ended by itself")


async def test_an_event_comes_once_to_each_subscription_that_it_matches(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("a.*", "**") as wide, client.subscribe("a.1", "a.1") as narrow:
        broker.publish("a.1", "b", "a.1")
        assert await names(wide, 3) == ["a.1", "b", "a.1"]
        assert await names(narrow, 2) == ["a.1", "a.1"]


async def test_a_pattern_that_is_there_is_not_waited_for(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("a") as first, client.subscribe("a") as second:
        broker.publish("a")
        assert await names(first, 1) == await names(second, 1) == ["a"]
    assert [command for command in broker.heard()[0] if command[0] == "subscribe"] == [("subscribe", "a")]


async def test_patterns_go_with_the_last_who_wants_them(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        async with client.subscribe("a", "b"):
            async with client.subscribe("b", "c"):
                pass
            await wait_all_tasks_blocked()
            assert broker.connection.model is not None
            assert broker.connection.model.patterns == ["a", "b"]
        await wait_all_tasks_blocked()
        assert broker.connection.model.patterns == []


@pytest.mark.parametrize("pattern", ["", "a..b", "{a,b}", 7])
async def test_what_is_no_pattern_is_refused_at_once(pattern: str, broker: FakeBroker) -> None:
    async with connect(URL) as client:
        with pytest.raises(BadPattern):
            client.subscribe("a", pattern)
        assert client.statistics().subscriptions == 0


async def test_a_subscription_needs_a_pattern_and_room(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        with pytest.raises(ValueError, match="at least one"):
            client.subscribe()
        with pytest.raises(ValueError, match="at least one"):
            client.subscribe("a", buffer=0)


async def test_a_refusal_comes_out_of_the_block_and_of_the_iterator(broker: FakeBroker) -> None:
    broker.model.most = 1
    async with connect(URL) as client, client.subscribe("a") as good:
        with pytest.raises(CommandFailed) as failed:
            async with client.subscribe("b"):
                pytest.fail("it was refused")
        assert failed.value.code == "too_many_subscriptions"
        with pytest.raises(CommandFailed):
            await anext(client.subscribe("b"))
        assert client.statistics().subscriptions == 1
        broker.publish("a")
        assert await names(good, 1) == ["a"]


async def test_the_block_begins_with_the_confirmation_and_nothing_from_before_comes(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**") as all_events:
        broker.publish("a.1")
        async with client.subscribe("a.*") as later:
            broker.publish("a.2")
            assert await names(later, 1) == ["a.2"]
        assert await names(all_events, 2) == ["a.1", "a.2"]


# --- How a subscription ends ------------------------------------------------------------------------------------------


async def test_who_waits_for_an_event_is_told_that_the_subscription_is_over(broker: FakeBroker) -> None:
    async with connect(URL) as client, trio.open_nursery() as nursery:
        events = client.subscribe("a")

        async def listen() -> None:
            async for _ in events:
                pytest.fail("nothing happens")

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        await events.aclose()
        await events.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_who_leaves_a_loop_ends_its_subscription(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        async with client.subscribe("b") as others:
            await leave_after_one(client.subscribe("a", buffer=1), broker)
            gc.collect()
            broker.publish("a", "a", "a", "b")
            assert await names(others, 1) == ["b"]
        assert client.statistics().subscriptions == 0


async def leave_after_one(subscription: Subscription, broker: FakeBroker) -> None:
    await wait_all_tasks_blocked()
    broker.publish("a")
    async for _ in subscription:
        break


def test_a_subscription_may_outlive_everything() -> None:
    kept: list[Subscription] = []

    async def main() -> None:
        kept.append(Subscription(Inbox(1, 1), lambda _: None))

    trio.run(main)
    kept.clear()
    gc.collect()


async def test_after_the_client_s_block_there_are_no_more_events(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        events = client.subscribe("a")
        await wait_all_tasks_blocked()
        broker.publish("a")
        await wait_all_tasks_blocked()
    assert await names(events, 1) == ["a"]  # it had come
    for _ in range(2):
        with pytest.raises(ClientClosed):
            await anext(events)
    with pytest.raises(ClientClosed):
        client.subscribe("b")
    await events.aclose()
    assert broker.connection.closed_with == (1000, "")


# --- When nobody reads ------------------------------------------------------------------------------------------------


async def test_when_a_buffer_is_full_the_client_stops_reading(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**", buffer=3) as events:
        for _ in range(10):
            broker.publish(*["a"] * 10)
            await wait_all_tasks_blocked()
        read = broker.connection.read
        assert client.statistics().buffered == 3
        broker.publish(*["a"] * 10)
        await wait_all_tasks_blocked()
        assert broker.connection.read == read
        assert [(await anext(events)).data for _ in range(110)] == list(range(110))


async def test_a_full_subscription_holds_up_the_others_until_it_ends(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("b") as others:
        full = client.subscribe("a", buffer=1)
        await wait_all_tasks_blocked()
        broker.publish("a", "a", "a", "b")
        await wait_all_tasks_blocked()
        with trio.move_on_after(0) as impatient:
            await anext(others)
        assert impatient.cancelled_caught
        await full.aclose()
        assert await names(others, 1) == ["b"]


async def test_a_buffer_is_bounded_in_bytes_as_well_but_takes_what_is_larger(broker: FakeBroker) -> None:
    async with connect(URL, options=Options(buffer_bytes=2)) as client, client.subscribe("**") as events:
        broker.publish(*["a"] * 20)
        await wait_all_tasks_blocked()
        assert client.statistics().buffered == 2
        for number in range(20):
            assert (await anext(events)).data == number
            await wait_all_tasks_blocked()
            assert client.statistics().buffered <= 2


async def test_the_end_is_told_though_nobody_reads(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client, client.subscribe("**", buffer=1) as events:
        broker.publish("a.1", "a.2", "a.3")
        await wait_all_tasks_blocked()
        broker.connection.close(4004)
        assert await names(events, 3) == ["a.1", "a.2", "a.3"]
        with pytest.raises(Disconnected):
            await anext(events)


async def test_a_client_can_be_left_though_nobody_reads(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**", buffer=1):
        broker.publish("a.1", "a.2", "a.3")
        await wait_all_tasks_blocked()
    assert broker.connection.closed_with == (1000, "")


async def test_several_may_share_a_subscription(broker: FakeBroker) -> None:
    got: list[object] = []
    async with connect(URL) as client, client.subscribe("**") as events, trio.open_nursery() as nursery:

        async def take_one() -> None:
            got.append((await anext(events)).data)

        for _ in range(5):
            nursery.start_soon(take_one)
        await wait_all_tasks_blocked()
        broker.publish(*["a"] * 5)
    assert sorted(map(str, got)) == ["0", "1", "2", "3", "4"]


async def test_who_is_cancelled_while_it_waits_takes_no_event_with_it(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        for number in range(3):
            with trio.CancelScope() as scope:
                broker.publish("a")
                scope.cancel()
                await anext(events)
            assert scope.cancelled_caught
            assert (await anext(events)).data == number


async def test_an_inbox_notes_one_gap_where_there_are_several() -> None:
    inbox: Inbox[Event] = Inbox(10, 10)
    inbox.put_gap(ResumeGap("one"))
    inbox.put_gap(ResumeGap("two"))
    assert len(inbox) == 1
