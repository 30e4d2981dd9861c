"""Relations: who is a member of what, learned from the events themselves.

Theory. A relation's events change, for one key, who its members are. What an event adds counts before its audience
is taken, what it takes away only after: so both the newcomer and the one who leaves see the event that concerns them.
Hence two calls an event, `add` before and `remove` after. If an event should change a key but its users can't be
read, then nobody knows any more who the members are: the key is in doubt, and nobody counts as a member or as none,
until an event says all of it again (`set`, `clear`). A key that no event has named has no members, for certain.
Who has left, and what was in doubt, is remembered for a while (`leavers.py`), for events that are looked at later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from broker.core.event import RESERVED_PREFIX
from broker.core.happening import DataPath, Happening, Placeholder, UnreadableError
from broker.core.leavers import ANYBODY, Leavers, Place, Stay
from broker.core.shapes import Shape

_Key = tuple[str, str]  # a relation, and one of its keys

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


@dataclass(frozen=True, slots=True)
class Learned:
    """Facts on their way to the log or back: all of them, or only those that have changed.

    offset: of the event up to which, that one too, everything is counted in.
    members: since which offset a user is one, by relation, key and user; None: no more.
    doubts: whether nobody knows the members, by relation and key.
    leavers: during which events a user who has left may have been a member; None: forgotten.
    """

    offset: int = 0
    members: Mapping[Place, int | None] = field(default_factory=dict)
    doubts: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    leavers: Mapping[Place, Stay | None] = field(default_factory=dict)

    def followed_by(self, later: Learned) -> Learned:
        """Both as one."""
        return Learned(
            later.offset,
            {**self.members, **later.members},
            {**self.doubts, **later.doubts},
            {**self.leavers, **later.leavers},
        )


class Facts:
    """Who is a member of what, and since which offset; and for a while, who was."""

    def __init__(self, learned: Learned | None = None) -> None:
        learned = learned or Learned()
        self._members: dict[str, dict[str, dict[str, int]]] = {}
        self._doubtful: dict[str, set[str]] = {}
        self._leavers = Leavers(learned.leavers)
        self._changed_members: dict[Place, int | None] = {}
        self._changed_doubts: dict[tuple[str, str], bool] = {}
        self._restore(learned)

    def add(self, changes: Iterable[Change], offset: int) -> None:
        """Take in what the event at `offset` adds, before its audience is taken."""
        for change in changes:
            if change.fault is not None:
                self._doubt(change, offset)
            elif change.users and self._may_add(change):
                members = self._members.setdefault(change.relation, {}).setdefault(change.key, {})
                for user in change.users:
                    if members.setdefault(user, offset) == offset:
                        self._changed_members[change.relation, change.key, user] = offset

    def remove(self, changes: Sequence[Change], offset: int) -> None:
        """Take out what the same event takes away, after its audience was taken."""
        for change in changes:
            if change.fault is None:
                self._remove(change, changes, offset)

    def members(self, relation: str, key: str) -> Mapping[str, int]:
        """The known members, each with the offset since when. It is live: read it before the next change.

        If it is not `complete`, there may be others.
        """
        return self._members.get(relation, _NO_KEYS).get(key, _NONE)

    def all_members(self, relation: str) -> set[str]:
        """Who is a member of anything by this relation."""
        return {user for members in self._members.get(relation, _NO_KEYS).values() for user in members}

    def complete(self, relation: str, key: str, as_of: int | None = None) -> bool:
        """Whether `members` are all there are; False if a fault has made it unknown.

        as_of: whether they are, with those whom `perhaps` names, all that there were during the event at this offset.
        """
        if key in self._doubtful.get(relation, ()):
            return False
        return as_of is None or not self._leavers.perhaps((relation, key, ANYBODY), as_of)

    def perhaps(self, relation: str, key: str, as_of: int, user: str) -> bool:
        """Whether a user who has left may have been a member during the event at this offset."""
        return self._leavers.perhaps((relation, key, user), as_of)

    def keep(self, relations: Iterable[str], offset: int) -> None:
        """Forget the members of all other relations; for a policy that rules behind the event at this offset."""
        kept = frozenset(relations)
        for places, forget in ((self._members, self._forget), (self._doubtful, self._trust)):
            for relation in places.keys() - kept:
                for key in list(places[relation]):
                    forget((relation, key), offset)

    def forget_leavers(self, first: int) -> bool:
        """Forget what matters only for events before this offset; returns whether there was anything."""
        return self._leavers.forget(first)

    def changed(self, offset: int) -> Learned:
        """What has changed since the last call, for the log. `offset`: of the last event that was taken in."""
        members, self._changed_members = self._changed_members, {}
        doubts, self._changed_doubts = self._changed_doubts, {}
        return Learned(offset, members, doubts, self._leavers.changed())

    def statistics(self) -> Mapping[str, int]:
        """How many relations, keys with members, members in all, keys in doubt, and who has left.

        The broker's own relations do not count: they say nothing about the policy.
        """
        relations = [keys for relation, keys in self._members.items() if not _own(relation)]
        return {
            "relations": len(relations),
            "keys": sum(map(len, relations)),
            "facts": sum(len(members) for keys in relations for members in keys.values()),
            "doubtful_keys": sum(len(keys) for keys in self._doubtful.values()),
            "leavers": len(self._leavers),
        }

    def _restore(self, learned: Learned) -> None:
        for (relation, key, user), since in learned.members.items():
            if since is not None:
                self._members.setdefault(relation, {}).setdefault(key, {})[user] = since
        for (relation, key), doubtful in learned.doubts.items():
            if doubtful:
                self._doubtful.setdefault(relation, set()).add(key)

    def _may_add(self, change: Change) -> bool:
        return change.action is Action.SET or (change.action is Action.ADD and self.complete(*_key(change)))

    def _doubt(self, change: Change, offset: int) -> None:
        self._forget(_key(change), offset)
        self._doubtful.setdefault(change.relation, set()).add(change.key)
        self._changed_doubts[_key(change)] = True

    def _remove(self, change: Change, changes: Iterable[Change], offset: int) -> None:
        key = _key(change)
        if change.action is Action.CLEAR:
            self._trust(key, offset)
            self._forget(key, offset)
        elif change.action is Action.SET and not any(_spoils(change, also) for also in changes):
            self._trust(key, offset)
            kept = change.users.union(*(also.users for also in changes if _adds_to(change, also)))
            self._take(key, [user for user in self.members(*key) if user not in kept], offset)
        elif change.action is Action.REMOVE:
            self._take(key, change.users, offset)

    def _forget(self, key: _Key, offset: int) -> None:
        self._take(key, list(self.members(*key)), offset)

    def _take(self, key: _Key, users: Iterable[str], offset: int) -> None:
        keys = self._members.get(key[0], {})
        members = keys.get(key[1], {})
        for user in users:
            since = members.pop(user, None)
            if since is not None:
                place = (*key, user)
                self._changed_members[place] = None
                if not _own(key[0]):  # no policy looks back at those
                    self._leavers.add(place, Stay(since, offset))
        if not members:
            keys.pop(key[1], None)
        if not keys:
            self._members.pop(key[0], None)

    def _trust(self, key: _Key, offset: int) -> None:
        doubtful = self._doubtful.get(key[0], set())
        if key[1] in doubtful:
            doubtful.discard(key[1])
            self._changed_doubts[key] = False
            self._leavers.add((*key, ANYBODY), Stay(0, offset))
        if not doubtful:
            self._doubtful.pop(key[0], None)


def _own(relation: str) -> bool:
    """Whether it is the broker's own, and no policy's."""
    return relation.startswith(RESERVED_PREFIX)


def _key(change: Change) -> _Key:
    return change.relation, change.key


def _spoils(change: Change, other: Change) -> bool:
    return other.fault is not None and _key(other) == _key(change)


def _adds_to(change: Change, other: Change) -> bool:
    return other.action is Action.ADD and _key(other) == _key(change)
