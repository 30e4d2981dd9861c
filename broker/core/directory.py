"""Who is there, found by user and by claim. It knows nothing of connections: its members are any hashable things.

Theory. Ten thousand members are mostly ten thousand users with one member each, so a group is a tuple while it is
small, and a set from then on: a small tuple is a fifth of a small set, and copying it costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from broker.core.scalars import index_text

V = TypeVar("V", bound=Hashable)
K = TypeVar("K", bound=Hashable)

_SMALL = 8

_Group = tuple[V, ...] | set[V]
_ClaimKey = tuple[str, str]
_Filed = tuple[str | None, Mapping[str, Any], tuple[_ClaimKey, ...]]


class Directory(Generic[V]):
    """Members by user, and by the claims that are worth an index. Collections handed out are its own: only read them.

    indexed_claims: the names of the claims by which members can be found.
    """

    def __init__(self, indexed_claims: Iterable[str] = ()) -> None:
        self._indexed = frozenset(indexed_claims)
        self._members: dict[V, _Filed] = {}
        self._authenticated: set[V] = set()
        self._by_user: dict[str, _Group[V]] = {}
        self._by_claim: dict[_ClaimKey, _Group[V]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: V, user: str | None, claims: Mapping[str, Any]) -> None:
        """File a member; one that is there already is filed anew."""
        self.remove(member)
        keys = tuple(dict.fromkeys(_claim_keys(claims, self._indexed)))
        self._members[member] = (user, claims, keys)
        if user is not None:
            self._authenticated.add(member)
            _join(self._by_user, user, member)
        for key in keys:
            _join(self._by_claim, key, member)

    def remove(self, member: V) -> None:
        """Take a member out, with every trace; nothing happens if it is not there."""
        filed = self._members.pop(member, None)
        if filed is None:
            return
        user, _, keys = filed
        if user is not None:
            self._authenticated.discard(member)
            _leave(self._by_user, user, member)
        for key in keys:
            _leave(self._by_claim, key, member)

    def update(self, member: V, user: str | None, claims: Mapping[str, Any]) -> None:
        """File a member anew, with what is known of it now."""
        self.add(member, user, claims)

    def reindex(self, indexed_claims: Iterable[str]) -> None:
        """Index these claims from now on, and no others; for a new policy."""
        indexed = frozenset(indexed_claims)
        if indexed == self._indexed:
            return
        self._indexed = indexed
        for member, (user, claims, _) in list(self._members.items()):
            self.add(member, user, claims)

    def indexes(self, claim: str) -> bool:
        """Whether members can be found by this claim."""
        return claim in self._indexed

    def of_user(self, user: str) -> Collection[V]:
        """The members of one user."""
        return self._by_user.get(user, ())

    def of_users(self, users: Collection[str]) -> list[Collection[V]]:
        """The members of each of these users of whom there are any."""
        here = self._by_user
        if len(users) <= len(here):
            return [here[user] for user in users if user in here]
        return [members for user, members in here.items() if user in users]

    def with_claim(self, claim: str, text: str) -> Collection[V]:
        """The members whose claim is `text`, or is a list with it, or a string with it as one of its words.

        Numbers and booleans are found by the text that JSON has for them. Only indexed claims are found.
        """
        return self._by_claim.get((claim, text), ())

    def authenticated(self) -> Collection[V]:
        """The members that have a user."""
        return self._authenticated


def _claim_keys(claims: Mapping[str, Any], indexed: Iterable[str]) -> Iterable[_ClaimKey]:
    for claim in indexed:
        value = claims.get(claim)
        values = value if isinstance(value, list) else [value]
        if isinstance(value, str):
            values = [value, *value.split()]
        for text in map(index_text, values):
            if text is not None:
                yield claim, text


def _join(groups: dict[K, _Group[V]], key: K, member: V) -> None:
    group = groups.get(key, ())
    if isinstance(group, set):
        group.add(member)
    else:
        groups[key] = (*group, member) if len(group) < _SMALL else {*group, member}


def _leave(groups: dict[K, _Group[V]], key: K, member: V) -> None:
    group = groups[key]
    if isinstance(group, set):
        group.discard(member)
    else:
        group = groups[key] = tuple(other for other in group if other != member)
    if not group:
        del groups[key]
