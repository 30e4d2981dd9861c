"""The registry: who is attached can be found; who is not has left no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio

from broker.core.index import PatternIndex
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.outbox import QueueLimits
from broker.runtime.party import PeerGone
from broker.runtime.registry import Registry, RegistryStatistics, TooManyConnections
from broker.runtime.services import ConnectionLimits
from tests.fakes import Tokens, attached, services

ADA = Identity("ada", {"roles": ["admin"]})
GIVEN = Tokens({"fresh": Identity("ada", {"roles": ["admin", "dev"]}, expires_at=9e9)})


def connection(registry: Registry[Connection], identity: Identity = ADA) -> Connection:
    return Connection(identity, services(registry, GIVEN), ConnectionLimits(queue=QueueLimits(frames=4)))


def traces(registry: Registry[Connection]) -> dict[str, int]:
    """All places in which something of a connection could be left."""
    directory = registry.directory
    return +Counter(
        connections=len(registry),
        members=len(directory),
        users=len(directory._by_user),
        authenticated=len(directory.authenticated()),
        admins=len(directory.with_claim("roles", "admin")),
        devs=len(directory.with_claim("roles", "dev")),
        patterns=len(registry.patterns),
        held=len(registry.held),
        matching=len(registry.matching("a.b")),
    )


async def test_who_is_attached_is_found_by_user_and_by_claim() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2, indexed_claims=["roles"])
    ada = connection(registry)
    with attached(registry, ada):
        assert list(registry) == [ada]
        assert list(registry.directory.of_user("ada")) == [ada]
        assert list(registry.directory.with_claim("roles", "admin")) == [ada]


async def test_who_is_attached_is_found_by_its_patterns() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    ada = connection(registry)
    with attached(registry, ada):
        for pattern in ("a.*", "**"):
            ada.patterns.add(pattern)
            registry.patterns.add(pattern, ada)
        assert [list(found) for found in registry.matching("a.b")] == [[ada], [ada]]
        assert registry.statistics() == RegistryStatistics(connections=1, subscriptions=2)


async def test_leaving_removes_every_trace() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2, indexed_claims=["roles"])
    ada = connection(registry)
    with attached(registry, ada):
        for pattern in ("a.*", "**", "c"):
            ada.patterns.add(pattern)
            registry.patterns.add(pattern, ada)
    assert traces(registry) == {}


async def test_leaving_by_an_error_removes_every_trace_too() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with pytest.raises(ZeroDivisionError), attached(registry, connection(registry)):
        raise ZeroDivisionError
    assert traces(registry) == {}


async def test_one_that_leaves_takes_nothing_from_the_others() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    ada, also_ada = connection(registry), connection(registry)
    with attached(registry, ada):
        registry.patterns.add("a.b", ada)
        with attached(registry, also_ada):
            registry.patterns.add("a.b", also_ada)
            also_ada.patterns.add("a.b")
        assert list(registry) == [ada]
        assert list(registry.directory.of_user("ada")) == [ada]
        assert [list(found) for found in registry.matching("a.b")] == [[ada]]


async def test_a_user_may_have_so_many_connections_and_no_more() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with attached(registry, connection(registry)), attached(registry, connection(registry)):
        with pytest.raises(TooManyConnections, match="at most 2 connections"), attached(registry, connection(registry)):
            pass
        assert len(registry) == 2


async def test_whether_there_is_room_can_be_asked_before() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1)
    registry.check_room("ada")
    with attached(registry, connection(registry)):
        with pytest.raises(TooManyConnections, match="at most 1 connections"):
            registry.check_room("ada")
        registry.check_room("bob")
        registry.check_room(None)
    registry.check_room("ada")


async def test_who_was_refused_a_place_gets_one_when_another_leaves() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1)
    with attached(registry, connection(registry)):
        pass
    with attached(registry, connection(registry)):
        assert len(registry) == 1


async def test_another_user_has_places_of_its_own() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1)
    bob = connection(registry, Identity("bob"))
    with attached(registry, connection(registry)), attached(registry, bob):
        assert len(registry) == 2


async def test_nobody_in_particular_may_come_as_often_as_it_likes() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(attached(registry, connection(registry, Identity())))
        assert len(registry) == 5


async def test_one_may_walk_over_it_while_others_come_and_go() -> None:
    registry: Registry[Connection] = Registry(max_per_user=9)
    stack = ExitStack()
    for _ in range(3):
        stack.enter_context(attached(registry, connection(registry)))
    seen = 0
    for _ in registry:
        seen += 1
        stack.close()
        stack.enter_context(attached(registry, connection(registry)))
    assert seen == 3
    stack.close()


# Those who get no live events for a while.


def found(index: PatternIndex[Connection], name: str = "a.b") -> list[Connection]:
    return [member for members in index.match(name) for member in members]


@contextmanager
def following(registry: Registry[Connection], *patterns: str) -> Iterator[Connection]:
    """Somebody who is attached, and subscribed to these."""
    ada = connection(registry)
    with attached(registry, ada):
        for pattern in patterns:
            ada.patterns.add(pattern)
            registry.subscribe(ada, pattern)
        yield ada


async def test_who_is_held_is_found_among_the_held_and_not_among_the_live() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*", "**") as ada:
        registry.hold(ada)
        assert (found(registry.patterns), found(registry.held)) == ([], [ada, ada])


async def test_who_is_released_is_live_again() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*") as ada:
        registry.hold(ada)
        registry.release(ada)
        assert (found(registry.patterns), found(registry.held)) == ([ada], [])


async def test_to_hold_or_to_release_again_changes_nothing() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*") as ada:
        for again in (registry.hold, registry.release):
            again(ada)
            before = found(registry.patterns)
            again(ada)
            assert found(registry.patterns) == before


async def test_who_is_held_takes_nobody_else_along() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*") as ada, following(registry, "a.*") as also_ada:
        registry.hold(ada)
        assert (found(registry.patterns), found(registry.held)) == ([also_ada], [ada])


async def test_who_is_held_subscribes_and_unsubscribes_among_the_held() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*") as ada:
        registry.hold(ada)
        registry.subscribe(ada, "**")
        registry.unsubscribe(ada, "a.*")
        assert (found(registry.patterns), found(registry.held)) == ([], [ada])


async def test_who_is_held_before_it_subscribes_is_never_live() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry) as ada:
        registry.hold(ada)
        registry.subscribe(ada, "a.b")
        assert (found(registry.patterns), found(registry.held)) == ([], [ada])


async def test_subscriptions_of_the_held_count_too() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*", "**") as ada:
        registry.hold(ada)
        assert registry.statistics() == RegistryStatistics(connections=1, subscriptions=2)


async def test_who_leaves_while_held_leaves_no_trace() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*", "**") as ada:
        registry.hold(ada)
    assert traces(registry) == {}


async def test_who_has_left_can_neither_be_held_nor_released() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry, "a.*") as ada:
        registry.hold(ada)
    registry.release(ada)
    registry.hold(ada)
    assert traces(registry) == {}


async def test_who_left_while_held_is_live_when_it_comes_again() -> None:
    registry: Registry[Connection] = Registry(max_per_user=2)
    with following(registry) as ada:
        registry.hold(ada)
    with attached(registry, ada):
        registry.subscribe(ada, "a.b")
        assert found(registry.patterns) == [ada]
        registry.unsubscribe(ada, "a.b")


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the tasks of its nursery have made so many steps."""

    def __init__(self, steps: int, nursery: trio.Nursery) -> None:
        self._left = steps
        self._nursery = nursery
        self.happened = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.parent_nursery is self._nursery:
            self._left -= 1
            if self._left == 0:
                self.happened = True
                self._nursery.cancel_scope.cancel()


COMMANDS = (
    '{"event": "subscribe", "data": "a.*", "id": 1}',
    '{"event": "subscribe", "data": "**"}',
    '{"event": "authenticate", "data": "fresh", "id": 2}',
    "what?",
    '{"event": "unsubscribe", "data": "**", "id": 3}',
)


async def converse(registry: Registry[Connection], cancel_at: int) -> bool:
    """Talk for a while, and be cancelled at that step; True if it came to that."""
    commands = iter(COMMANDS)

    async def receive() -> str:
        await trio.lowlevel.checkpoint()
        try:
            return next(commands)
        except StopIteration:
            raise PeerGone(1000) from None

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    ada = connection(registry)
    async with trio.open_nursery() as nursery:
        cancellation = CancelAt(cancel_at, nursery)
        trio.lowlevel.add_instrument(cancellation)
        nursery.start_soon(ada.outbox.run, write)
        nursery.start_soon(ada.run, receive)
    trio.lowlevel.remove_instrument(cancellation)
    return cancellation.happened


async def test_a_connection_cancelled_at_any_checkpoint_leaves_nothing() -> None:
    registry: Registry[Connection] = Registry(max_per_user=1, indexed_claims=["roles"])
    steps = 1
    while await converse(registry, cancel_at=steps):
        assert traces(registry) == {}, f"cancelled at step {steps}"
        steps += 1
    assert traces(registry) == {}
    assert steps > len(COMMANDS)


async def test_who_follows_a_very_pattern_is_found_held_or_not() -> None:
    registry: Registry[Connection] = Registry(max_per_user=10)
    with ExitStack() as stack:
        live, held, other = (connection(registry) for _ in range(3))
        for each, pattern in ((live, "a.b"), (held, "a.b"), (other, "a.*")):
            stack.enter_context(attached(registry, each))
            each.subscribe(pattern)
        registry.hold(held)
        assert list(registry.following("a.b")) == [live, held]
        assert list(registry.following("a.*")) == [other]
    assert list(registry.following("a.b")) == []
