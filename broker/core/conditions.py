"""The conditions that a rule may state in `visible_to`, and the audience that each comes to for one event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from broker.core.audience import (
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
from broker.core.happening import DataPath, Happening, Placeholder, UnreadableError
from broker.core.relations import Facts

Source = DataPath | Placeholder
Test = Literal["equals", "contains", "in"]


class Scope(NamedTuple):
    """What a condition is asked about, and where it puts its faults.

    faults: takes a line for each value that can't be used; bounded in kinds, since it never shows data.
    as_of: what counts is what is known of the time of the event at this offset; None: what is known now.
    """

    happening: Happening
    facts: Facts
    faults: list[str]
    as_of: int | None = None


class Condition(ABC):
    """What stands in `visible_to`; `str` shows it as it is written."""

    __slots__ = ()

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The conditions that this one combines."""
        return ()

    @abstractmethod
    def audience(self, scope: Scope) -> Audience:
        """Who may see the event. Unknown, and a line more in the scope's faults, where the event lacks a value."""


@dataclass(frozen=True, slots=True)
class Fixed(Condition):
    """The same audience for every event: `"everyone"`, `"authenticated"`, `"nobody"`."""

    word: str
    fixed: Audience

    def __str__(self) -> str:
        return f'"{self.word}"'

    def audience(self, scope: Scope) -> Audience:  # noqa: ARG002
        """Always the one."""
        return self.fixed


@dataclass(frozen=True, slots=True)
class UsersAt(Condition):
    """The users whom the event itself names."""

    source: Source

    def __str__(self) -> str:
        return f'{{ users = "{self.source}" }}'

    def audience(self, scope: Scope) -> Audience:
        """Those users."""
        try:
            return Users(self.source.users(scope.happening))
        except UnreadableError as problem:
            return _faulty(scope, problem)


@dataclass(frozen=True, slots=True)
class Related(Condition):
    """The members of a relation, for the key that the event names."""

    relation: str
    key: Source

    def __str__(self) -> str:
        return f'{{ relation = "{self.relation}", key = "{self.key}" }}'

    def audience(self, scope: Scope) -> Audience:
        """The members now; or those who have been members since the scope's offset or before, unknown for leavers."""
        try:
            key = self.key.key(scope.happening)
        except UnreadableError as problem:
            return _faulty(scope, problem)
        facts, as_of = scope.facts, scope.as_of
        members = facts.members(self.relation, key)
        known: Audience = Users(members)
        if as_of is not None:
            known = UsersSince(members, as_of, partial(facts.perhaps, self.relation, key, as_of))
        if facts.complete(self.relation, key, as_of):
            return known
        scope.faults.append(f"relations.{self.relation}: unknown since a faulty event")
        return AnyOf((known, UNKNOWN))


@dataclass(frozen=True, slots=True)
class Claimed(Condition):
    """A comparison of a claim with values that stand in the policy or in the event."""

    claim: str
    test: Test
    right: Source | tuple[Any, ...]
    shown: str

    def __str__(self) -> str:
        return f'{{ claim = "{self.claim}", {self.test} = {self.shown} }}'

    def audience(self, scope: Scope) -> Audience:
        """Those whose claim compares."""
        try:
            values = values_for(self._values(scope.happening))
        except UnreadableError as problem:
            return _faulty(scope, problem)
        if values is None:
            return _faulty(scope, f"{self.shown}: a value that can't be compared: only strings, numbers, booleans can")
        kind = ClaimContains if self.test == "contains" else ClaimIn
        return kind(self.claim, values, textual=isinstance(self.right, Placeholder))

    def _values(self, happening: Happening) -> Sequence[Any]:
        if isinstance(self.right, Placeholder):
            return (self.right.segment(happening),)
        if isinstance(self.right, DataPath):
            return self._from_data(self.right, happening)
        return self.right

    def _from_data(self, path: DataPath, happening: Happening) -> Sequence[Any]:
        if self.test != "in":
            return (path.value(happening),)
        values, many = path.values(happening)
        if not many:
            raise UnreadableError(f"{path}: a list is expected")
        return values


@dataclass(frozen=True, slots=True)
class AnyCondition(Condition):
    """At least one of the parts."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return "any of"

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The parts."""
        return self.conditions

    def audience(self, scope: Scope) -> Audience:
        """The audiences of the parts together."""
        return AnyOf(tuple(part.audience(scope) for part in self.conditions))


@dataclass(frozen=True, slots=True)
class AllCondition(Condition):
    """Each of the parts."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return "all of"

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The parts."""
        return self.conditions

    def audience(self, scope: Scope) -> Audience:
        """What the audiences of the parts have in common."""
        return AllOf(tuple(part.audience(scope) for part in self.conditions))


@dataclass(frozen=True, slots=True)
class NotCondition(Condition):
    """The opposite of the part."""

    condition: Condition

    def __str__(self) -> str:
        return "not"

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The one part."""
        return (self.condition,)

    def audience(self, scope: Scope) -> Audience:
        """All whom the part leaves out for certain."""
        return Not(self.condition.audience(scope))


def _faulty(scope: Scope, problem: object) -> Audience:
    scope.faults.append(str(problem))
    return UNKNOWN
