"""Who may see one event, as a value.

Theory. An audience answers for one viewer with yes, no, or unknown, in Kleene's logic: `not` of unknown is unknown,
`any` is yes as soon as one part is yes, `all` is no as soon as one part is no, and unknown decides nothing. Unknown
comes from faults (a value missing in the payload, a claim of the wrong type), and only yes is delivered: so no fault
ever widens an audience, whatever it is combined with.

To find those whom an event concerns without asking everybody, an audience also names an upper bound of them, by
what the directory can look up. The bound may be wide, but it leaves out nobody who would be admitted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from broker.core.directory import Directory, V
from broker.core.scalars import Comparable, as_text, comparable, index_text


class Viewer(Protocol):
    """Somebody who might see an event."""

    @property
    def user(self) -> str | None:
        """The user's id, or None for somebody unknown."""
        ...

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of the token."""
        ...


class Audience(ABC):
    """Who may see one event."""

    __slots__ = ()

    @abstractmethod
    def admits(self, viewer: Viewer) -> bool | None:
        """Whether `viewer` may see the event. None: it can't be told, through a fault; deliver only on True."""

    @abstractmethod
    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """Collections that together hold all members whom it might admit (and perhaps others, and some twice).

        None: it can't be narrowed, anybody might be admitted. The collections are the directory's own.
        """


@dataclass(frozen=True, slots=True)
class Constant(Audience):
    """The same answer for all."""

    name: str
    verdict: bool | None

    def admits(self, viewer: Viewer) -> bool | None:  # noqa: ARG002
        """The one answer."""
        return self.verdict

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:  # noqa: ARG002
        """All or none."""
        return None if self.verdict else []


@dataclass(frozen=True, slots=True)
class Authenticated(Audience):
    """Whoever has a user."""

    def admits(self, viewer: Viewer) -> bool | None:
        """Whether there is a user."""
        return viewer.user is not None

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """All who have one."""
        return [directory.authenticated()]


EVERYONE = Constant("everyone", verdict=True)
NOBODY = Constant("nobody", verdict=False)
UNKNOWN = Constant("unknown", verdict=None)
AUTHENTICATED = Authenticated()


@dataclass(frozen=True, slots=True)
class Users(Audience):
    """These users. The collection is held, not copied: it may be a live view, as long as it finds its elements fast."""

    users: Collection[str]

    def admits(self, viewer: Viewer) -> bool | None:
        """Whether the viewer is one of them."""
        return viewer.user in self.users

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """Those of them who are there."""
        return directory.of_users(self.users)


def _of_nobody(user: str) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True, slots=True)
class UsersSince(Audience):
    """Those users whose number, the offset since when, is at most `offset`.

    perhaps: of whom else it is unknown.
    """

    since: Mapping[str, int]
    offset: int
    perhaps: Callable[[str], bool] = _of_nobody

    def admits(self, viewer: Viewer) -> bool | None:
        """Whether the viewer is one of them for long enough."""
        if viewer.user is None:
            return False
        since = self.since.get(viewer.user)
        if since is not None and since <= self.offset:
            return True
        return None if self.perhaps(viewer.user) else False

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """Those of them who are there, since whenever."""
        return directory.of_users(self.since)


@dataclass(frozen=True, slots=True)
class ClaimIn(Audience):
    """Whose claim is one of these values; with `textual`, compared as text, integers in decimal."""

    claim: str
    values: frozenset[Comparable]
    textual: bool = False

    def admits(self, viewer: Viewer) -> bool | None:
        """Whether the claim is one of them; None if it is missing or of another kind."""
        return _one_equal([viewer.claims.get(self.claim)], self.values, textual=self.textual)

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """Whose claim looks like one of them."""
        return _claimants(self.claim, self.values, directory)


@dataclass(frozen=True, slots=True)
class ClaimContains(Audience):
    """Whose claim is a list with one of these values, or a string with one as a word of it (OAuth's `scope`)."""

    claim: str
    values: frozenset[Comparable]
    textual: bool = False

    def admits(self, viewer: Viewer) -> bool | None:
        """Whether one of them is in the claim; None if that is missing, no list, or holds values of another kind."""
        claim = viewer.claims.get(self.claim)
        if isinstance(claim, str):
            claim = claim.split()
        return _one_equal(claim, self.values, textual=self.textual) if isinstance(claim, list) else None

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """Whose claim seems to hold one of them."""
        return _claimants(self.claim, self.values, directory)


@dataclass(frozen=True, slots=True)
class AnyOf(Audience):
    """Whom at least one of the parts admits."""

    parts: tuple[Audience, ...]

    def admits(self, viewer: Viewer) -> bool | None:
        """Yes if one says yes; no if all say no."""
        verdict: bool | None = False
        for part in self.parts:
            answer = part.admits(viewer)
            if answer:
                return True
            if answer is None:
                verdict = None
        return verdict

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """The reach of all parts together."""
        together: list[Collection[V]] = []
        for part in self.parts:
            reach = part.reach(directory)
            if reach is None:
                return None
            together += reach
        return together


@dataclass(frozen=True, slots=True)
class AllOf(Audience):
    """Whom every part admits."""

    parts: tuple[Audience, ...]

    def admits(self, viewer: Viewer) -> bool | None:
        """No if one says no; yes if all say yes."""
        verdict: bool | None = True
        for part in self.parts:
            answer = part.admits(viewer)
            if answer is False:
                return False
            if answer is None:
                verdict = None
        return verdict

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:
        """The smallest reach of any one part."""
        narrowed = [reach for part in self.parts if (reach := part.reach(directory)) is not None]
        return min(narrowed, key=lambda reach: sum(map(len, reach)), default=None)


@dataclass(frozen=True, slots=True)
class Not(Audience):
    """Whom the part does not admit, and that for certain."""

    part: Audience

    def admits(self, viewer: Viewer) -> bool | None:
        """The opposite, where there is one."""
        answer = self.part.admits(viewer)
        return None if answer is None else not answer

    def reach(self, directory: Directory[V]) -> list[Collection[V]] | None:  # noqa: ARG002
        """Anybody, unless the part is the same for all."""
        return [] if self.part in (EVERYONE, UNKNOWN) else None


def values_for(values: Sequence[Any]) -> frozenset[Comparable] | None:
    """The right side of a claim's comparison, or None if one of the values can't be compared."""
    found = [comparable(value) for value in values]
    known = frozenset(value for value in found if value is not None)
    return None if None in found else known


def _claimants(claim: str, values: Collection[Comparable], directory: Directory[V]) -> list[Collection[V]] | None:
    if not directory.indexes(claim):
        return None
    return [directory.with_claim(claim, index_text(value) or "") for _, value in values]


def _one_equal(claimed: Sequence[Any], values: frozenset[Comparable], *, textual: bool) -> bool | None:
    left = [comparable(as_text(value) if textual else value) for value in claimed]
    if any(value in values for value in left):
        return True
    kinds = {kind for kind, _ in values}
    alike = all(value is not None and kinds <= {value[0]} for value in left)
    return False if alike else None
