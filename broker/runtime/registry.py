"""Who is connected, what they subscribed to, and where to find them: by pattern, by user, by claim."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from broker.core.audience import Viewer
from broker.core.directory import Directory
from broker.core.errors import BrokerError
from broker.core.index import PatternIndex

REMEMBERED_NAMES = 16_384


class Member(Viewer, Protocol):
    """What the registry needs to know of a connection: who is at its end, and the patterns that it holds."""

    def __hash__(self) -> int: ...

    @property
    def patterns(self) -> Collection[str]:
        """The patterns under which it is filed now."""
        ...


M = TypeVar("M", bound=Member)


class TooManyConnections(BrokerError):
    """The user holds as many connections as one may."""

    code = "too_many_connections"


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """How many connections and subscriptions there are now."""

    connections: int
    subscriptions: int


class Registry(Generic[M]):
    """The connections that are attached now. Whoever attaches one gets a `with` block that detaches it."""

    def __init__(self, *, max_per_user: int, indexed_claims: Iterable[str] = ()) -> None:
        self.patterns: PatternIndex[M] = PatternIndex(remember=REMEMBERED_NAMES)
        self.held: PatternIndex[M] = PatternIndex()  # the patterns of those who get no live events now
        self.directory: Directory[M] = Directory(indexed_claims)
        self._held: set[M] = set()
        self._connections: dict[M, None] = {}
        self._max_per_user = max_per_user

    def __len__(self) -> int:
        """How many connections are attached."""
        return len(self._connections)

    def __iter__(self) -> Iterator[M]:
        """The attached connections at this moment, safe against changes while one walks over them."""
        return iter(list(self._connections))

    def check_room(self, user: str | None) -> None:
        """Check that one more connection of this user could be attached.

        Raises TooManyConnections.
        """
        if user is not None and len(self.directory.of_user(user)) >= self._max_per_user:
            raise TooManyConnections(f"a user may have at most {self._max_per_user} connections at a time")

    def attach(self, connection: M) -> None:
        """Attach `connection`; whoever does so detaches it in the end.

        Raises TooManyConnections.
        """
        user = connection.user
        self.check_room(user)
        self._connections[connection] = None
        self.directory.add(connection, user, connection.claims)

    def detach(self, connection: M) -> None:
        """Take away every trace of an attached connection."""
        for pattern in connection.patterns:
            self.unsubscribe(connection, pattern)
        self._held.discard(connection)
        self.directory.remove(connection)
        del self._connections[connection]

    def subscribe(self, connection: M, pattern: str) -> None:
        """File an attached connection under a pattern."""
        self._index_of(connection).add(pattern, connection)

    def unsubscribe(self, connection: M, pattern: str) -> None:
        """Take a connection from under that very pattern."""
        self._index_of(connection).remove(pattern, connection)

    def hold(self, connection: M) -> None:
        """Let a connection get no live events for a while; nothing happens if it is held already, or has gone."""
        if connection in self._connections and connection not in self._held:
            self._move(connection, self.patterns, self.held)
            self._held.add(connection)

    def holds(self, connection: M) -> bool:
        """Whether it gets no live events now."""
        return connection in self._held

    def release(self, connection: M) -> None:
        """Let it get live events again; nothing happens if it is not held, or has gone."""
        if connection in self._held:
            self._move(connection, self.held, self.patterns)
            self._held.discard(connection)

    def _move(self, connection: M, source: PatternIndex[M], target: PatternIndex[M]) -> None:
        for pattern in connection.patterns:
            source.remove(pattern, connection)
            target.add(pattern, connection)

    def _index_of(self, connection: M) -> PatternIndex[M]:
        return self.held if connection in self._held else self.patterns

    def following(self, pattern: str) -> Collection[M]:
        """The connections subscribed to this very pattern, those that are held too."""
        return [*self.patterns.under(pattern), *self.held.under(pattern)]

    def matching(self, name: str) -> Sequence[Collection[M]]:
        """The connections subscribed to events of this name, one collection for each pattern that matches."""
        return self.patterns.match(name)

    def statistics(self) -> RegistryStatistics:
        """An immutable look inside."""
        return RegistryStatistics(len(self._connections), len(self.patterns) + len(self.held))
