"""Routing: what the groups of one turn hold, put together again, is what a slow model gives to each connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count, pairwise
from unittest.mock import patch

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from broker.core.audience import AUTHENTICATED, EVERYONE, NOBODY, AllOf, AnyOf, Audience, Not, Users, UsersSince, Viewer
from broker.core.delivery import Bundle
from broker.core.directory import Directory, V
from broker.core.event import Event, Record
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.registry import Registry
from broker.runtime.routing import EVENTS_PER_TURN, FEW, MAX_BUNDLE_BYTES, Group, Routing
from tests.runtime.crowds import USERS, asking_everybody, attach, audiences, members, names, new_registry

Crowd = list[tuple[Identity, set[str]]]

ADA, BOB, EVE = (Identity(user) for user in USERS)
FACTS: dict[str, int] = {}  # the members of a relation, whom the events of a turn come to change
LIVE = Users(FACTS)

_offsets = count(1)
sizes = st.sampled_from([1, 1, 1, 1, 20_000, 33_000, MAX_BUNDLE_BYTES, 70_000])
events = st.tuples(names, audiences(LIVE, UsersSince(FACTS, 1)), sizes)
changes = st.tuples(st.sampled_from(USERS), st.integers(0, 3))
turns = st.lists(events | events | changes, max_size=12)


def record(name: str, size: int = 1) -> Record:
    return Record(Event(name, b"1" * size), "1", next(_offsets))


@contextmanager
def attached(crowd: Crowd) -> Iterator[tuple[Registry[Connection], Mapping[Connection, set[str]]]]:
    registry = new_registry()
    with ExitStack() as stack:
        yield registry, attach(stack, registry, crowd)


def put_together(groups: list[Group]) -> dict[Connection, list[Record]]:
    """What each connection gets."""
    got: dict[Connection, list[Record]] = defaultdict(list)
    for bundle, group in groups:
        for connection in group:
            got[connection] += [each.record for each in bundle.deliveries]
    return dict(got)


# Against the model.


@pytest.mark.parametrize("few", [0, FEW])
@given(members, turns)
@example([(ADA, {"a"}), (BOB, {"a"})], [("a", LIVE, 1), ("ada", 0), ("a", LIVE, 1), ("ada", 0), ("a", LIVE, 1)])
@example([(ADA, {"a", "**"}), (BOB, {"**"})], [("a", EVERYONE, 1), ("a.b", EVERYONE, 1), ("a", Users({"ada"}), 1)])
@example([(ADA, {"a"}), (BOB, {"a"})], [("a", EVERYONE, 33_000), ("a", AUTHENTICATED, 33_000), ("a", EVERYONE, 1)])
async def test_each_gets_just_those_events_that_it_may_see_in_order_and_once(
    few: int, crowd: Crowd, turn: list[tuple[str, Audience, int] | tuple[str, int]]
) -> None:
    FACTS.clear()
    expected: dict[Connection, list[Record]] = defaultdict(list)
    with patch("broker.runtime.routing.FEW", few), attached(crowd) as (registry, held):
        routing = Routing(registry)
        for step in turn:
            if len(step) == 2:
                user, since = step
                if FACTS.pop(user, None) is None:
                    FACTS[user] = since
                continue
            name, audience, size = step
            one = record(name, size)
            routing.add(one, audience)
            for connection in asking_everybody(held, name, audience):
                expected[connection].append(one)
        FACTS.clear()
        groups = list(routing.groups())
        event(f"{len(groups)} groups")
        assert put_together(groups) == expected
        check_bundles(groups)
        check_that_each_is_in_one_group(groups)


fixed = st.dictionaries(names, st.sampled_from([EVERYONE, AUTHENTICATED, NOBODY]))


@pytest.mark.parametrize("few", [0, FEW])
@given(members, st.lists(names, max_size=20), fixed)
@example([(ADA, {"a"}), (BOB, {"**"})], ["a", "b", "a", "b", "a"], {"a": EVERYONE, "b": NOBODY})
@example([(ADA, {"a"}), (Identity(), {"**"})], ["a", "b", "a", "b", "a"], {"a": AUTHENTICATED})
async def test_those_that_follow_go_where_the_first_of_their_name_went(
    few: int, crowd: Crowd, sequence: list[str], fixed: Mapping[str, Audience]
) -> None:
    with patch("broker.runtime.routing.FEW", few), attached(crowd) as (registry, held):
        routing = Routing(registry)
        records = [record(name) for name in sequence]
        place = asked = 0
        while place < len(records):
            name = sequence[place]
            routing.add(records[place], fixed.get(name, Users({"ada"})), fixed=name in fixed)
            place = routing.follow(records, place + 1)
            asked += 1
        expected: dict[Connection, list[Record]] = defaultdict(list)
        for one in records:
            for connection in asking_everybody(held, one.event.name, fixed.get(one.event.name, Users({"ada"}))):
                expected[connection].append(one)
        groups = list(routing.groups())
        assert put_together(groups) == expected
        check_bundles(groups)
        assert asked == len({*sequence} & {*fixed}) + sum(name not in fixed for name in sequence)


def check_bundles(groups: list[Group]) -> None:
    """They are neither longer than they may be nor shorter than need be."""
    for bundle, _ in groups:
        assert len(bundle.deliveries) == 1 or size_of(bundle) <= MAX_BUNDLE_BYTES
    for (one, its), (other, theirs) in pairwise(groups):
        if its == theirs:
            assert size_of(one) + other.deliveries[0].size > MAX_BUNDLE_BYTES


def size_of(bundle: Bundle) -> int:
    return sum(each.size for each in bundle.deliveries)


def check_that_each_is_in_one_group(groups: list[Group]) -> None:
    """All parts of a group have the same members, and nobody else has any of them."""
    of: dict[Connection, set[Connection]] = {}
    for _, group in groups:
        assert len(set(group)) == len(group)
        for connection in group:
            assert of.setdefault(connection, set(group)) == set(group)


# Classes.


async def test_events_of_one_class_go_to_all_of_its_members_in_one_group() -> None:
    crowd: Crowd = [(identity, {"a.*", "**"}) for identity in (ADA, BOB, EVE)]
    with attached(crowd) as (registry, held):
        routing = Routing(registry)
        for number in range(100):
            routing.add(record(f"a.{number}"), EVERYONE)
        [(bundle, group)] = routing.groups()
        assert len(bundle.deliveries) == 100
        assert set(group) == set(held)


async def test_those_who_get_the_same_form_one_group_whatever_classes_there_are() -> None:
    with attached([(ADA, {"**"}), (BOB, {"**"}), (EVE, {"**"})]) as (registry, held):
        ada, bob, eve = held
        routing = Routing(registry)
        for audience in (EVERYONE, Users(frozenset({"ada", "bob"})), Users(frozenset({"eve"})), NOBODY):
            routing.add(record("a"), audience)
        assert {frozenset(group): len(bundle.deliveries) for bundle, group in routing.groups()} == {
            frozenset((ada, bob)): 2,
            frozenset((eve,)): 2,
        }


async def test_audiences_that_are_equal_are_of_one_class() -> None:
    with attached([(ADA, {"**"}), (BOB, {"**"})]) as (registry, _):
        routing = Routing(registry)
        for _ in range(3):
            routing.add(record("a"), AnyOf((Users(frozenset({"ada"})), Not(AUTHENTICATED))))
        assert [len(bundle.deliveries) for bundle, _ in routing.groups()] == [3]


class Asked(Audience):
    """Everyone, and it counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def admits(self, viewer: Viewer) -> bool | None:
        self.times += 1
        return True

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        return None


async def test_the_members_of_a_class_are_looked_up_once() -> None:
    with attached([(ADA, {"**"}), (BOB, {"**"})]) as (registry, held):
        routing, audience = Routing(registry), Asked()
        for _ in range(10):
            routing.add(record("a"), audience)
        assert audience.times == len(held)


async def test_a_few_are_looked_at_each_time_and_do_not_fill_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.runtime.routing.LOOKS_PER_TURN", 1)
    with attached([(ADA, {"**"}), (BOB, {"**"}), (EVE, {"**"})]) as (registry, (ada, bob, _)):
        routing = Routing(registry)
        sent = [record("a"), record("a")]
        for each in sent:
            routing.add(each, Users(frozenset({"ada", "bob"})))
        assert not routing.full
        assert put_together(list(routing.groups())) == {ada: sent, bob: sent}


async def test_who_matches_by_other_patterns_is_of_another_class() -> None:
    with attached([(ADA, {"a"}), (BOB, {"b"})]) as (registry, held):
        routing = Routing(registry)
        first, second = record("a"), record("b")
        routing.add(first, EVERYONE)
        routing.add(second, EVERYONE)
        ada, bob = held
        assert put_together(list(routing.groups())) == {ada: [first], bob: [second]}


@pytest.mark.parametrize("audience", [NOBODY, AllOf((AUTHENTICATED, NOBODY)), Users(frozenset({"eve"}))])
async def test_an_event_for_nobody_makes_no_group(audience: Audience) -> None:
    with attached([(ADA, {"**"}), (BOB, {"a"})]) as (registry, _):
        routing = Routing(registry)
        routing.add(record("a"), audience)
        assert list(routing.groups()) == []


async def test_an_event_that_nobody_subscribed_to_makes_no_group() -> None:
    with attached([(ADA, {"a"})]) as (registry, _):
        routing = Routing(registry)
        routing.add(record("b"), EVERYONE)
        assert list(routing.groups()) == []


# What belongs to others.


@given(members, turns)
async def test_nobody_s_collections_are_changed(
    crowd: Crowd, turn: list[tuple[str, Audience, int] | tuple[str, int]]
) -> None:
    with attached(crowd) as (registry, _):
        before = collections(registry)
        routing = Routing(registry)
        for step in turn:
            if len(step) == 3:
                routing.add(record(step[0]), step[1])
        for _, group in routing.groups():
            assert all(group is not collection for collection in theirs(registry))
        assert collections(registry) == before


def theirs(registry: Registry[Connection]) -> list[Collection[Connection]]:
    """The very collections of the index and of the directory."""
    directory = registry.directory
    of_users = [directory.of_user(user) for user in USERS]
    with_roles = [directory.with_claim("roles", role) for role in ("admin", "dev")]
    matching = [found for name in ("a", "a.b", "b.a") for found in registry.matching(name)]
    return [directory.authenticated(), *of_users, *with_roles, *matching]


def collections(registry: Registry[Connection]) -> list[list[Connection]]:
    return [list(collection) for collection in theirs(registry)]


@pytest.mark.parametrize("audiences", [[EVERYONE], [EVERYONE, AUTHENTICATED, Users(frozenset(USERS))]])
async def test_who_subscribes_or_leaves_once_the_groups_began_changes_nothing(audiences: list[Audience]) -> None:
    with attached([(ADA, {"**"}), (BOB, {"**"}), (EVE, set())]) as (registry, held):
        ada, bob, eve = held
        routing = Routing(registry)
        sent = [record("a", MAX_BUNDLE_BYTES) for _ in range(6)]
        for number, one in enumerate(sent):
            routing.add(one, audiences[number % len(audiences)])
        groups = routing.groups()
        begun = [next(groups)]
        registry.patterns.remove("**", ada)
        registry.patterns.add("**", eve)
        registry.directory.remove(bob)
        assert put_together(begun + list(groups)) == {ada: sent, bob: sent}


async def test_members_that_are_being_served_may_leave_while_they_are_walked() -> None:
    with attached([(ADA, {"**"}), (BOB, {"**"})]) as (registry, held):
        routing = Routing(registry)
        routing.add(record("a"), EVERYONE)
        served = []
        for _, group in routing.groups():
            for connection in group:
                registry.patterns.remove("**", connection)
                served.append(connection)
        assert set(served) == set(held)


# When a turn is full.


async def test_a_turn_is_full_with_so_many_events_though_nobody_wants_them() -> None:
    routing = Routing(new_registry())
    for _ in range(EVENTS_PER_TURN):
        assert not routing.full
        routing.add(record("a"), EVERYONE)
    assert routing.full


async def test_so_many_follow_as_a_turn_takes_and_no_more() -> None:
    routing = Routing(new_registry())
    records = [record("a") for _ in range(EVENTS_PER_TURN + 10)]
    routing.add(records[0], EVERYONE, fixed=True)
    assert routing.follow(records[:10], 1) == 10
    assert not routing.full
    assert routing.follow(records, 10) == EVENTS_PER_TURN
    assert routing.full


@pytest.mark.parametrize(("audience", "looks"), [(Users(frozenset(USERS)), 2), (AnyOf((EVERYONE, NOBODY)), 3)])
async def test_a_turn_is_full_when_so_many_connections_were_looked_at(
    audience: Audience, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those who match and those who may see, the fewer count; but a handful of those who may see does not."""
    monkeypatch.setattr("broker.runtime.routing.FEW", looks - 1)
    monkeypatch.setattr("broker.runtime.routing.LOOKS_PER_TURN", 2 * looks)
    with attached([(ADA, {"**"}), (BOB, {"**"}), (Identity("zoe"), {"**"})]) as (registry, _):
        routing = Routing(registry)
        routing.add(record("a"), audience)
        assert not routing.full
        routing.add(record("a"), audience)  # of the same class: nobody is looked at again
        assert not routing.full
        routing.add(record("a"), AllOf((audience, EVERYONE)))
        assert routing.full
