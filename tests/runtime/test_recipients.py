"""Who gets an event: both ways to find out, held against asking everybody."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from hypothesis import event, example, given

from broker.core.audience import AUTHENTICATED, NOBODY, AllOf, Audience, ClaimIn, Users, Viewer
from broker.core.directory import Directory, V
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.registry import Registry
from broker.runtime.routing import recipients
from tests.runtime.crowds import asking_everybody, attach, audiences, members, names, new_registry


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


@given(members, names, audiences())
@example([(Identity("ada"), set()), (Identity("bob"), {"**", "a"})], "a", Users({"ada", "bob"}))
@example([(Identity("ada"), {"**", "a"})], "a", AllOf((AUTHENTICATED, NOBODY)))
@example(
    [(Identity("ada"), {"a"}), (Identity("bob"), {"a"})], "a", AllOf((Users({"ada"}), ClaimIn("team", frozenset())))
)
async def test_both_walks_find_whom_asking_everybody_finds(
    crowd: list[tuple[Identity, set[str]]], name: str, audience: Audience
) -> None:
    registry = new_registry()
    with ExitStack() as stack:
        expected = ids(asking_everybody(attach(stack, registry, crowd), name, audience))
        event(f"{len(expected)} recipients")
        assert ids(chosen(registry, name, audience)) == expected
        assert ids(chosen(registry, name, Anybody(audience))) == expected
        assert ids(chosen(registry, name, Few(audience))) == expected
    assert list(chosen(registry, name, audience)) == []


def chosen(registry: Registry[Connection], name: str, audience: Audience) -> Collection[Connection]:
    return recipients(registry.matching(name), audience.reach(registry.directory), audience)
