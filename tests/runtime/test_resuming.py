"""Resume: what was missed comes first, then the answer, then what happens; in order, and once."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.errors import LogUnavailable
from broker.core.forms import SERVER_SENT
from broker.core.ports import Identity
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.registry import Registry
from broker.runtime.resuming import LAST_EVENTS, Resuming
from broker.runtime.routing import EVENTS_PER_TURN
from broker.runtime.services import ConnectionLimits
from tests.fakes import services
from tests.runtime.house import OPEN, House, house
from tests.runtime.resumes import RESUMED, heard, numbers, position, resume, slow_reader
from tests.runtime.sockets import Socket

# What comes, and in which order.


async def test_what_was_missed_comes_first_then_the_answer_then_what_happens() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 5))
        ada = await home.join("ada", "a")
        await resume(ada, first)
        await home.publish(("a", 5))
        assert heard(ada) == [1, 2, 3, 4, RESUMED, 5]


async def test_events_carry_the_ids_that_their_publishers_were_told() -> None:
    async with house() as home:
        first, *later = await home.publish(*numbers(0, 3))
        ada = await home.join("ada", "a")
        await resume(ada, first)
        later += await home.publish(("a", 3))
        assert [message["id"] for message in ada.json() if "event" in message] == later


async def test_from_a_position_comes_what_happened_behind_it() -> None:
    async with house() as home:
        await home.publish(("a", 1))
        place = await position(home)
        await home.publish(("a", 2))
        ada = await home.join("ada", "a")
        assert await resume(ada, place) == [2, RESUMED]


async def test_the_answer_is_a_position_behind_all_that_was_sent() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 3))
        ada = await home.join("ada", "a")
        await resume(ada, first)
        place = ada.json()[-1]["data"]["id"]
        await home.publish(("a", 3))
        also_ada = await home.join("ada", "a")
        assert await resume(also_ada, place) == [3, RESUMED]


async def test_from_the_last_event_there_is_nothing_to_be_sent() -> None:
    async with house() as home:
        [only] = await home.publish(("a", 1))
        ada = await home.join("ada", "a")
        assert await resume(ada, only) == [RESUMED]


async def test_with_null_nothing_is_sent_again_and_events_have_ids_from_then_on() -> None:
    async with house() as home:
        await home.publish(("a", 1))
        ada = await home.join("ada", "a")
        answered = await resume(ada, None)
        await home.publish(("a", 2))
        assert (answered, heard(ada)) == ([RESUMED], [RESUMED, 2])


async def test_of_those_who_get_the_same_events_only_who_has_resumed_gets_ids() -> None:
    async with house() as home:
        crowd = [await home.join(user, "a") for user in ("ada", "bob", "eve")]
        await resume(crowd[1], None)
        await home.publish(("a", 1), ("a", 2))
        assert [["id" in message for message in client.json()[-2:]] for client in crowd] == [
            [False, False],
            [True, True],
            [False, False],
        ]


async def test_only_what_the_present_subscriptions_match_is_sent() -> None:
    async with house() as home:
        first, *_ = await home.publish(("a", 0), ("a", 1), ("b", 2), ("c.d", 3), ("c", 4))
        ada = await home.join("ada", "b", "c.*")
        assert await resume(ada, first) == [2, 3, RESUMED]


async def test_an_event_comes_once_however_many_patterns_match() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 3))
        ada = await home.join("ada", "a", "*", "**")
        assert await resume(ada, first) == [1, 2, RESUMED]


async def test_who_has_no_subscription_is_answered_all_the_same() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 3))
        ada = await home.join("ada")
        assert await resume(ada, first) == [RESUMED]


@pytest.mark.parametrize("missed", [LAST_EVENTS - 1, LAST_EVENTS, LAST_EVENTS + 1, 1000])
async def test_all_that_was_missed_comes_however_much_it_is(missed: int) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, missed + 1))
        ada = await home.join("ada", "a")
        assert await resume(ada, first) == [*range(1, missed + 1), RESUMED]


async def test_who_resumes_again_gets_it_again() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 3))
        ada = await home.join("ada", "a")
        assert [await resume(ada, first), await resume(ada, first)] == [[1, 2, RESUMED]] * 2


async def test_what_happens_while_one_reads_what_was_missed_comes_behind_it() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 500))
        ada = await slow_reader(home, "ada", "a")
        await resume(ada, first)
        read = []
        for number in range(500, 510):
            await home.publish(("a", number))
            read += await ada.reads()
        read += await ada.reads_all()
        read.remove(RESUMED)
        assert read == [*range(1, 510)]


async def test_who_resumes_while_live_does_not_get_what_happens_twice() -> None:
    async with house() as home:
        ada = await home.join("ada", "a")
        await resume(ada, None)
        first, *_ = await home.publish(*numbers(0, 5))
        await resume(ada, first)
        await home.publish(*numbers(5, 8))
        assert heard(ada) == [RESUMED, 0, 1, 2, 3, 4, 1, 2, 3, 4, RESUMED, 5, 6, 7]


async def test_many_who_come_back_at_once_all_get_what_they_have_missed() -> None:
    async with house() as home:
        ids = await home.publish(*numbers(0, 600))
        crowd = [await home.join(None, "a") for _ in range(20)]
        for number, client in enumerate(crowd):
            await resume(client, ids[number * 30])
        assert [heard(client) for client in crowd] == [
            [*range(number * 30 + 1, 600), RESUMED] for number in range(len(crowd))
        ]


# Where the log does not reach back.


@pytest.mark.parametrize("place", ["", "nobody gave this", "0" * 32, "é"])
async def test_what_is_no_place_in_the_log_is_a_gap_and_live_events_go_on(place: str) -> None:
    async with house() as home:
        ada = await home.join("ada", "a")
        await resume(ada, place)
        await home.publish(("a", 1))
        assert heard(ada) == ["resume_gap", 1]


async def test_the_last_event_that_was_dropped_is_the_last_from_which_one_can_resume() -> None:
    async with house(log=MemoryLog(Retention(events=3))) as home:
        ids = await home.publish(*numbers(0, 5))
        answers = [await resume(await home.join("ada", "a"), event_id) for event_id in ids[:3]]
        assert answers == [["resume_gap"], [2, 3, 4, RESUMED], [3, 4, RESUMED]]


async def test_an_event_that_not_all_have_been_given_yet_is_a_place_to_resume_from() -> None:
    async with house() as home:
        last = 2 * EVENTS_PER_TURN
        async with home.dispatcher.between_turns:
            *_, event_id = await home.publish(*numbers(0, last + 1))
            ada = await home.join("ada", "a")
            await ada.say({"event": "resume", "data": event_id})
        await home.publish(("a", last + 1))
        assert [message["data"] for message in ada.json() if "id" in message] == [last + 1]


# Who only listens.


async def test_who_only_listens_is_told_the_position_in_the_place_of_an_answer() -> None:
    async with house() as home, trio.open_nursery() as nursery:
        first, *later = await home.publish(*numbers(0, 3))
        socket = await listening(home, nursery, first)
        later += await home.publish(("a", 3))
        *_, position_told, live = ids_in(socket.got)
        assert ids_in(socket.got) == [*later[:2], position_told, live]
        ada = await home.join("ada", "a")
        assert [await resume(ada, place) for place in (position_told, live)] == [[3, RESUMED], [RESUMED]]
        nursery.cancel_scope.cancel()


async def test_who_only_listens_is_told_a_position_after_a_gap_too() -> None:
    async with house() as home, trio.open_nursery() as nursery:
        await home.publish(("a", 0))
        socket = await listening(home, nursery, "nobody gave this")
        await home.publish(("a", 1))
        [position_told, _] = ids_in(socket.got)
        ada = await home.join("ada", "a")
        assert await resume(ada, position_told) == [1, RESUMED]
        nursery.cancel_scope.cancel()


async def listening(home: House, nursery: trio.Nursery, place: str) -> Socket:
    """Somebody who gets server-sent events, and came back to this place."""
    socket = Socket()
    known = services(home.registry, home.tokens, home.resuming)
    connection = Connection(Identity("ada"), known, ConnectionLimits(), SERVER_SENT)
    commands = iter([{"event": "subscribe", "data": "a"}, {"event": "resume", "data": place}])

    async def receive() -> str:
        await trio.lowlevel.checkpoint()
        for command in commands:
            return json.dumps(command)
        await trio.sleep_forever()
        raise AssertionError

    nursery.start_soon(connection.outbox.run, socket.write, socket)
    await wait_all_tasks_blocked()
    nursery.start_soon(connection.run, receive)
    await wait_all_tasks_blocked()
    return socket


def ids_in(stream: bytes) -> list[str]:
    """The ids that were told in a stream of server-sent events."""
    return [line.removeprefix("id: ") for line in stream.decode().splitlines() if line.startswith("id: ")]


# Nobody to resume with.


async def test_before_it_runs_nobody_can_resume() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1)
    log = MemoryLog()
    resuming = Resuming(log, Dispatcher(log, OPEN, registry), registry)
    connection = Connection(Identity("ada"), services(registry, resumer=resuming), ConnectionLimits())
    with pytest.raises(LogUnavailable):
        resuming.start(connection, None, lambda _: None)


async def test_when_it_has_ended_nobody_can_resume() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1)
    log = MemoryLog()
    resuming = Resuming(log, Dispatcher(log, OPEN, registry), registry)
    connection = Connection(Identity("ada"), services(registry, resumer=resuming), ConnectionLimits())
    async with trio.open_nursery() as nursery:
        await nursery.start(resuming.run)
        nursery.cancel_scope.cancel()
    with pytest.raises(LogUnavailable):
        resuming.start(connection, None, lambda _: None)


# Counters.


async def test_what_was_done_is_counted() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 4))
        for place in (first, None, "unknown"):
            await resume(await home.join("ada", "a"), place)
        assert home.resuming.counters == {"resumes": 3, "resumes_failed": 1, "replayed": 3}
