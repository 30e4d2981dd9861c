"""Random crowds and random audiences: who is connected, what they hold, and who may see something."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

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
    values_for,
)
from broker.core.patterns import matches
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits
from tests.fakes import attached, services

USERS = ["ada", "bob", "eve"]
ROLES = ["admin", "dev"]

users = st.sampled_from(USERS)
names = st.sampled_from(["a", "a.b", "b.a"])
patterns = st.sampled_from(["**", "*", "a.*", "*.b", "a", "b.**"])
identities = st.builds(
    Identity,
    st.none() | users,
    st.fixed_dictionaries(
        {}, optional={"roles": st.lists(st.sampled_from(ROLES), max_size=2), "team": st.sampled_from([*ROLES, 7])}
    ),
)
members = st.lists(st.tuples(identities, st.sets(patterns, max_size=4)), min_size=2, max_size=8)

_role_values = st.sampled_from([frozenset(values_for([role]) or ()) for role in ROLES])


def audiences(*more: Audience) -> st.SearchStrategy[Audience]:
    """Audiences of all kinds and any combination of them; `more`: other ones that may be among them."""
    return st.recursive(
        st.sampled_from([EVERYONE, NOBODY, UNKNOWN, AUTHENTICATED, *more])
        | st.sets(users).map(Users)
        | st.frozensets(users).map(Users)
        | st.dictionaries(users, st.integers(0, 3)).map(lambda since: UsersSince(since, 1))
        | _role_values.map(lambda values: ClaimContains("roles", values))
        | _role_values.map(lambda values: ClaimIn("team", values)),  # a claim without an index
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(tuple(parts)))
            | st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts)))
            | inner.map(Not)
        ),
        max_leaves=5,
    )


def new_registry() -> Registry[Connection]:
    return Registry(max_per_user=10, indexed_claims=["roles"])


def attach(
    stack: ExitStack, registry: Registry[Connection], crowd: list[tuple[Identity, set[str]]]
) -> Mapping[Connection, set[str]]:
    """Attach them all until the stack ends; returns what each holds."""
    crowd_there = {}
    for identity, held in crowd:
        connection = Connection(identity, services(registry), ConnectionLimits())
        stack.enter_context(attached(registry, connection))
        for pattern in held:
            connection.patterns.add(pattern)
            registry.patterns.add(pattern, connection)
        crowd_there[connection] = held
    return crowd_there


def asking_everybody(crowd: Mapping[Connection, set[str]], name: str, audience: Audience) -> list[Connection]:
    """Who gets an event, said slowly: whoever holds a pattern that matches and is admitted."""
    return [
        connection
        for connection, held in crowd.items()
        if any(matches(pattern, name) for pattern in held) and audience.admits(connection) is True
    ]
