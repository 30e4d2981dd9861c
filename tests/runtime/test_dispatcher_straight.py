"""The dispatcher and idle sockets: events go straight to them; and nobody has to wait long for a large crowd."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from broker.core.event import Event
from broker.core.forms import PLAIN
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.outbox import Overflow, QueueLimits
from broker.runtime.services import ConnectionLimits
from broker.runtime.shared_file import MANY, WORTH_IT
from tests.fakes import CLOSE, TEXT, attached, frames_in, services
from tests.runtime.house import House, forever, house, seen
from tests.runtime.sockets import Socket, is_writer
from tests.turns import counting_steps

CROWD = 1_000
OFFERS = 250  # that may be made before the others have their turn
EVENTS = 128  # that may be looked at before the others have their turn


# Straight, queued, or in part.


async def test_events_go_straight_to_idle_sockets_and_no_writer_is_woken() -> None:
    async with house() as home:
        clients = [await home.join_by_wire(user, "**") for user in ("ada", "bob", None)]
        with counting_steps(is_writer) as steps:
            await home.publish(*((f"e.{number}", number) for number in range(10)))
        assert steps.taken == 0
        for client in clients:
            assert seen(client) == [(f"e.{number}", number) for number in range(10)]
            assert len(client.socket.straight) == 1


async def test_each_gets_only_its_own_when_events_go_straight() -> None:
    async with house('[[rules]]\nevents = "to.<user>"\nvisible_to = { users = "<user>" }\n') as home:
        ada, bob = [await home.join_by_wire(user, "**") for user in ("ada", "bob")]
        await home.publish(("to.ada", 1), ("to.bob", 2), ("to.eve", 3), ("to.ada", 4), ("other", 5))
        assert seen(ada) == [("to.ada", 1), ("to.ada", 4)]
        assert seen(bob) == [("to.bob", 2)]


async def test_what_several_publishers_bring_at_the_same_time_shares_a_write() -> None:
    async with house() as home:
        ada = await home.join_by_wire("ada", "**")
        async with trio.open_nursery() as publishers:
            for number in range(60):
                publishers.start_soon(home.ingest.publish, [Event("e", b"%d" % number)])
        await wait_all_tasks_blocked()
        assert sorted(seen(ada)) == [("e", number) for number in range(60)]
        assert len(ada.socket.straight) == 1


Burst = tuple[int, bool, int, bool]
bursts = st.lists(
    st.tuples(st.integers(0, 120), st.booleans(), st.integers(1, 4), st.booleans()), min_size=1, max_size=12
)


@given(bursts)
async def test_the_order_holds_however_much_each_socket_takes_at_once(bursts: list[Burst]) -> None:
    async with house() as home:
        ada, bob = [await home.join_by_wire(user, "**") for user in ("ada", "bob")]
        published = 0
        for room, blocked, size, settles in bursts:
            ada.socket.room = room
            (ada.socket.block if blocked and ada.socket.open.is_set() else ada.socket.open.set)()
            await home.ingest.publish([Event("e", b"%d" % number) for number in range(published, published + size)])
            published += size
            if settles:
                await wait_all_tasks_blocked()
        ada.socket.open.set()
        await wait_all_tasks_blocked()
        for client in (ada, bob):
            assert [data for _, data in seen(client)] == list(range(published))


@pytest.mark.parametrize("room", [math.inf, 0, 1, 20, 30, 100])
async def test_deliveries_count_the_same_whichever_way_they_go(room: float) -> None:
    async with house() as home:
        for user in ("ada", "bob", "eve"):
            (await home.join_by_wire(user, "**")).socket.room = room
        await home.publish(*((f"e.{number}", number) for number in range(10)))
        await home.publish(("a", 1))
        assert +home.dispatcher.counters == {"events": 11, "deliveries": 33}


async def test_what_does_not_go_straight_counts_as_what_becomes_of_it() -> None:
    async with house() as home:
        ada = await home.join_by_wire("ada", "**", queue=QueueLimits(frames=2, overflow=Overflow.DROP_NEWEST))
        ada.socket.room = len(b"..") + len('{"event":"a","data":0}') + 1  # the first event and a byte of the second
        await home.publish(*(("a", number) for number in range(7)))
        assert +home.dispatcher.counters == {"events": 7, "deliveries": 2 + 2, "deliveries_dropped_newest": 3}
        assert [data for _, data in seen(ada)] == [0, 1, 2, 3]


async def test_an_event_that_is_too_long_for_the_queue_goes_straight_to_an_idle_socket() -> None:
    async with house() as home:
        ada = await home.join_by_wire("ada", "**", queue=QueueLimits(bytes=10))
        await home.publish(("a", "x" * 100))
        assert seen(ada) == [("a", "x" * 100)]


# What many get.


LARGE = "x" * WORTH_IT


@pytest.mark.parametrize(("clients", "shares"), [(MANY - 1, 0), (MANY, 1)])
async def test_what_is_large_and_for_many_is_sent_from_memory_that_they_share(clients: int, shares: int) -> None:
    async with house() as home:
        crowd = [await home.join_by_wire(f"user-{number}", "**") for number in range(clients)]
        await home.publish(("a", LARGE))
        await home.publish(("a", 1))
        for client in crowd:
            assert seen(client) == [("a", LARGE), ("a", 1)]
            assert client.socket.shared == shares


async def test_each_form_is_shared_by_those_who_want_it() -> None:
    async with house() as home:
        crowd = [await home.join_by_wire(f"user-{number}", "**") for number in range(2 * MANY)]
        for number, connection in enumerate(home.registry):
            connection.form = PLAIN.with_ids if number % 2 else PLAIN
        for _ in range(3):
            (given,) = await home.publish(("a", LARGE))
            for number, client in enumerate(crowd):
                *_, last = client.json()
                assert last == {"event": "a", "data": LARGE, **({"id": given} if number % 2 else {})}
        assert {client.socket.shared for client in crowd} == {3}


rooms = st.lists(st.integers(0, 3 * len(LARGE)), min_size=MANY, max_size=MANY)


@given(st.lists(st.tuples(rooms, st.integers(1, 3)), min_size=1, max_size=4))
async def test_the_order_holds_however_much_of_what_they_share_each_socket_takes(
    steps: list[tuple[list[int], int]],
) -> None:
    async with house() as home:
        crowd = [await home.join_by_wire(f"user-{number}", "**") for number in range(MANY)]
        expected: list[tuple[str, object]] = []
        for takes, size in steps:
            for client, room in zip(crowd, takes, strict=True):
                client.socket.room = room
            batch = [("e", f"{len(expected) + number}{LARGE}") for number in range(size)]
            expected += batch
            await home.publish(*batch)
        for client in crowd:
            assert seen(client) == expected


async def test_memory_that_is_not_to_be_had_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    async with house() as home:
        crowd = [await home.join_by_wire(f"user-{number}", "**") for number in range(MANY)]
        await home.publish(("a", LARGE))
        for client in crowd:
            assert seen(client) == [("a", LARGE)]
            assert client.socket.shared == 0


# Everybody has a turn.


class Strides(trio.abc.Instrument):
    """Looks at a number before and after each step of the dispatcher; `longest`: the most that it grew in one."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look = look
        self._before = 0
        self.longest = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = self._look()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.endswith("Dispatcher.run"):
            self.longest = max(self.longest, self._look() - self._before)


@contextmanager
def watching(look: Callable[[], int]) -> Iterator[Strides]:
    strides = Strides(look)
    trio.lowlevel.add_instrument(strides)
    try:
        yield strides
    finally:
        trio.lowlevel.remove_instrument(strides)


async def gather(home: House, nursery: trio.Nursery, *, idle: bool) -> list[Connection]:
    """A large crowd that wants all there is; idle sockets, or such that never take anything."""
    limits = ConnectionLimits(queue=QueueLimits(frames=10_000))
    crowd = [Connection(Identity(), services(home.registry), limits) for _ in range(CROWD)]
    for connection in crowd:
        nursery.start_soon(attend, home, connection, Socket() if idle else None)
    await wait_all_tasks_blocked()
    return crowd


async def attend(home: House, connection: Connection, socket: Socket | None) -> None:
    with attached(home.registry, connection):
        connection.patterns.add("**")
        home.registry.patterns.add("**", connection)
        if socket is None:
            await connection.outbox.run(forever)
        else:
            await connection.outbox.run(socket.write, socket)


@pytest.mark.parametrize("idle", [True, False], ids=["straight", "queued"])
@pytest.mark.parametrize("events", [1, 2, 20, 200])
async def test_a_large_crowd_does_not_keep_the_others_from_running(idle: bool, events: int) -> None:
    async with house() as home, trio.open_nursery() as nursery:
        await gather(home, nursery, idle=idle)
        counters = home.dispatcher.counters
        with watching(lambda: counters["deliveries"]) as strides:
            await home.publish(*[("e", 1)] * events)
        assert counters["deliveries"] == CROWD * events
        at_once = min(events, EVENTS)
        assert strides.longest <= (OFFERS * at_once if idle else OFFERS + at_once)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("default", ['"everyone"', '{ users = "data" }'], ids=["fixed", "asked"])
async def test_a_large_batch_does_not_keep_the_others_from_running_though_nobody_wants_it(default: str) -> None:
    async with house(f"default = {default}") as home:
        dispatcher = home.dispatcher
        with watching(lambda: dispatcher.position) as strides:
            await home.publish(*(("a", str(number)) for number in range(1_000)))
    assert dispatcher.position == 1_000
    assert strides.longest <= EVENTS


async def test_who_leaves_while_a_crowd_is_served_gets_nothing_more() -> None:
    async with house() as home, trio.open_nursery() as nursery:
        sockets = [(await home.join_by_wire(None, "**")).socket for _ in range(CROWD)]
        counters = home.dispatcher.counters

        async def send_away() -> None:
            while not counters["deliveries"]:
                await trio.lowlevel.checkpoint()
            for connection in home.registry:
                connection.close(1001)

        nursery.start_soon(send_away)
        await home.publish(("a", 1))
        assert counters["deliveries"] + counters["deliveries_closed"] == CROWD
        assert 0 < counters["deliveries_closed"] < CROWD
        heard = [[opcode for opcode, _ in frames_in(socket.got)] for socket in sockets]
        assert heard.count([TEXT, CLOSE]) == counters["deliveries"]
        assert heard.count([CLOSE]) == counters["deliveries_closed"]
