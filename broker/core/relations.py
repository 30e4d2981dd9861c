"""Relations: who is a member of what, learned from the events themselves.

Theory. A relation's events change, for one key, who its members are. What an event adds counts before its audience
is taken, what it takes away only after: so both the newcomer and the one who leaves see the event that concerns them.
Hence two calls an event, `add` before and `remove` after. If an event should change a key but its users can't be
read, then nobody knows any more who the members are: the key is in doubt, and nobody counts as a member or as none,
until an event says all of it again (`set`, `clear`). A key that no event has named has no members, for certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from broker.core.happening import DataPath, Happening, Placeholder, UnreadableError
from broker.core.shapes import Shape

_NONE: Final[Mapping[str, int]] = MappingProxyType({})
_NO_KEYS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType({})


class Action(IntEnum):
    """What an event does to the members of a key, in the order in which it does several."""

    SET = 0
    ADD = 1
    REMOVE = 2
    CLEAR = 3


@dataclass(frozen=True, slots=True)
class Change:
    """What one event does to one key of a relation. `fault`: the users should be there, but can't be read."""

    relation: str
    action: Action
    key: str
    users: frozenset[str] = frozenset()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """Which events do what to a relation, and where in them the key and the users stand."""

    relation: str
    action: Action
    shape: Shape
    key: Placeholder
    users: DataPath | Placeholder | None = None

    def change(self, happening: Happening) -> Change:
        """What this event does."""
        key = self.key.key(happening)
        if self.users is None:
            return Change(self.relation, self.action, key)
        try:
            return Change(self.relation, self.action, key, self.users.users(happening))
        except UnreadableError as problem:
            return Change(self.relation, self.action, key, fault=f"relations.{self.relation}: {problem}")


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation as declared: its name, and the kinds of events that change it."""

    name: str
    steps: tuple[Step, ...]


class Facts:
    """Who is a member of what, and since which offset."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, dict[str, int]]] = {}
        self._doubtful: dict[str, set[str]] = {}

    def add(self, changes: Iterable[Change], offset: int) -> None:
        """Take in what the event at `offset` adds, before its audience is taken."""
        for change in changes:
            if change.fault is not None:
                self._doubt(change)
            elif change.users and self._may_add(change):
                members = self._members.setdefault(change.relation, {}).setdefault(change.key, {})
                for user in change.users:
                    members.setdefault(user, offset)

    def remove(self, changes: Sequence[Change]) -> None:
        """Take out what the same event takes away, after its audience was taken."""
        for change in changes:
            if change.fault is None:
                self._remove(change, changes)

    def members(self, relation: str, key: str) -> Mapping[str, int]:
        """The known members, each with the offset since when. It is live: read it before the next change.

        If it is not `complete`, there may be others.
        """
        return self._members.get(relation, _NO_KEYS).get(key, _NONE)

    def complete(self, relation: str, key: str) -> bool:
        """Whether `members` are all there are; False if a fault has made it unknown."""
        return key not in self._doubtful.get(relation, ())

    def keep(self, relations: Iterable[str]) -> None:
        """Forget all other relations; for a new policy."""
        kept = frozenset(relations)
        self._members = {name: keys for name, keys in self._members.items() if name in kept}
        self._doubtful = {name: keys for name, keys in self._doubtful.items() if name in kept}

    def statistics(self) -> Mapping[str, int]:
        """How many relations, keys with members, members in all, and keys in doubt."""
        return {
            "relations": len(self._members),
            "keys": sum(len(keys) for keys in self._members.values()),
            "facts": sum(len(members) for keys in self._members.values() for members in keys.values()),
            "doubtful_keys": sum(len(keys) for keys in self._doubtful.values()),
        }

    def _may_add(self, change: Change) -> bool:
        return change.action is Action.SET or (change.action is Action.ADD and self.complete(*_place(change)))

    def _doubt(self, change: Change) -> None:
        self._forget(change)
        self._doubtful.setdefault(change.relation, set()).add(change.key)

    def _remove(self, change: Change, changes: Iterable[Change]) -> None:
        if change.action is Action.CLEAR:
            self._trust(change)
            self._forget(change)
        elif change.action is Action.SET and not any(_spoils(change, also) for also in changes):
            self._trust(change)
            kept = change.users.union(*(also.users for also in changes if _adds_to(change, also)))
            self._take(change, [user for user in self.members(*_place(change)) if user not in kept])
        elif change.action is Action.REMOVE:
            self._take(change, change.users)

    def _take(self, change: Change, users: Iterable[str]) -> None:
        members = self._members.get(change.relation, {}).get(change.key, {})
        for user in users:
            members.pop(user, None)
        if not members:
            self._forget(change)

    def _forget(self, change: Change) -> None:
        keys = self._members.get(change.relation, {})
        keys.pop(change.key, None)
        if not keys:
            self._members.pop(change.relation, None)

    def _trust(self, change: Change) -> None:
        doubtful = self._doubtful.get(change.relation, set())
        doubtful.discard(change.key)
        if not doubtful:
            self._doubtful.pop(change.relation, None)


def _place(change: Change) -> tuple[str, str]:
    return change.relation, change.key


def _spoils(change: Change, other: Change) -> bool:
    return other.fault is not None and _place(other) == _place(change)


def _adds_to(change: Change, other: Change) -> bool:
    return other.action is Action.ADD and _place(other) == _place(change)
