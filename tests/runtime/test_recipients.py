"""Who gets an event: both ways to find out, held against asking everybody."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st

from broker.core.audience import (
    AUTHENTICATED,
    EVERYONE,
    NOBODY,
    UNKNOWN,
    AllOf,
    AnyOf,
    Audience,
    ClaimContains,
    ClaimIn,
    Not,
    Users,
    UsersSince,
    Viewer,
    values_for,
)
from broker.core.directory import Directory, V
from broker.core.patterns import matches
from broker.core.ports import Identity
from broker.runtime.connection import Connection, ConnectionLimits
from broker.runtime.dispatcher import recipients
from broker.runtime.registry import Registry
from tests.fakes import Tokens

USERS = ["ada", "bob", "eve"]
ROLES = ["admin", "dev"]

users = st.sampled_from(USERS)
roles = st.lists(st.sampled_from(ROLES), max_size=2)
role_values = st.sampled_from([frozenset(values_for([role]) or ()) for role in ROLES])
audiences: st.SearchStrategy[Audience] = st.recursive(
    st.sampled_from([EVERYONE, NOBODY, UNKNOWN, AUTHENTICATED])
    | st.sets(users).map(Users)
    | st.dictionaries(users, st.integers(0, 3)).map(lambda since: UsersSince(since, 1))
    | role_values.map(lambda values: ClaimContains("roles", values))
    | role_values.map(lambda values: ClaimIn("team", values)),  # a claim without an index
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(tuple(parts)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts)))
        | inner.map(Not)
    ),
    max_leaves=5,
)
names = st.sampled_from(["a", "a.b", "b.a"])
patterns = st.sampled_from(["**", "*", "a.*", "*.b", "a", "b.**"])
identities = st.builds(
    Identity,
    st.none() | users,
    st.fixed_dictionaries({}, optional={"roles": roles, "team": st.sampled_from([*ROLES, 7])}),
)
members = st.lists(st.tuples(identities, st.sets(patterns, max_size=4)), min_size=2, max_size=8)


class Anybody(Audience):
    """The same audience, which can't say whom it might admit: so those who match are walked."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def admits(self, viewer: Viewer) -> bool | None:
        return self._audience.admits(viewer)

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        return None


class Few(Anybody):
    """The same audience, which seems to admit fewer than match: so those are walked."""

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        found = self._audience.reach(directory)
        return None if found is None else [Smaller(members) for members in found]


class Smaller(Collection[Any]):
    """A collection that says that it has nobody."""

    def __init__(self, members: Collection[Any]) -> None:
        self._members = members

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Any:
        return iter(self._members)

    def __contains__(self, member: object) -> bool:
        return member in self._members


def ids(connections: Any) -> list[int]:
    return sorted(connection.id for connection in connections)


def attach(
    stack: ExitStack, registry: Registry[Connection], crowd: list[tuple[Identity, set[str]]]
) -> Mapping[Connection, set[str]]:
    attached = {}
    for identity, held in crowd:
        connection = Connection(identity, registry, Tokens(), ConnectionLimits())
        stack.enter_context(registry.attached(connection))
        for pattern in held:
            connection.patterns.add(pattern)
            registry.patterns.add(pattern, connection)
        attached[connection] = held
    return attached


@given(members, names, audiences)
@example([(Identity("ada"), set()), (Identity("bob"), {"**", "a"})], "a", Users({"ada", "bob"}))
@example([(Identity("ada"), {"**", "a"})], "a", AllOf((AUTHENTICATED, NOBODY)))
@example(
    [(Identity("ada"), {"a"}), (Identity("bob"), {"a"})], "a", AllOf((Users({"ada"}), ClaimIn("team", frozenset())))
)
async def test_both_walks_find_whom_asking_everybody_finds(
    crowd: list[tuple[Identity, set[str]]], name: str, audience: Audience
) -> None:
    registry: Registry[Connection] = Registry(max_per_user=10, indexed_claims=["roles"])
    with ExitStack() as stack:
        attached = attach(stack, registry, crowd)
        expected = ids(
            connection
            for connection, held in attached.items()
            if any(matches(pattern, name) for pattern in held) and audience.admits(connection) is True
        )
        event(f"{len(expected)} recipients")
        assert ids(recipients(registry, name, audience)) == expected
        assert ids(recipients(registry, name, Anybody(audience))) == expected
        assert ids(recipients(registry, name, Few(audience))) == expected
    assert list(recipients(registry, name, audience)) == []
