"""The policy: the rules that give every event its audience, and the relations that they use.

Of the rules whose shape matches an event's name the most specific one counts, and no other: its place among all of
them is worked out when the file is loaded (`shapes.rank`), so choosing is taking the least number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from broker.core.audience import NOBODY, Audience
from broker.core.conditions import Claimed, Condition, Fixed, Scope
from broker.core.event import RESERVED_PREFIX
from broker.core.happening import Happening
from broker.core.index import PatternIndex
from broker.core.relations import Change, Facts, Relation, Step
from broker.core.shapes import Shape, rank

__all__ = ["Happening", "Policy", "Rule", "Ruling"]

REMEMBERED = 16_384  # names, and forms of names
_RESERVED = RESERVED_PREFIX.removesuffix(".")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which events, visible to whom; and the line of the file where it stands."""

    shape: Shape
    visible_to: Condition
    line: int | None = None


class Ruling(NamedTuple):
    """What the policy says of all events of one name.

    rule: None: the default counts. fixed: who may see them, where that is the same for all, and nothing is learned from
    them.
    """

    rule: Rule | None
    condition: Condition
    steps: Sequence[Step]
    fixed: Audience | None

    def changes(self, happening: Happening) -> Sequence[Change]:
        """What the event does to relations: to be handed to `Facts.add` and, after delivery, to `Facts.remove`."""
        if not self.steps:
            return ()
        return sorted((step.change(happening) for step in self.steps), key=lambda change: change.action)


class Policy:
    """A policy as loaded. It is a value: nothing in it changes, and what is learned from events lives in `Facts`.

    relations: by name.
    rules: in the order of the file; no two of the same shape.
    default: who may see what no rule matches.
    claims: the claims that it names, by which it pays to index those who are connected.
    """

    __slots__ = (
        "_index",
        "_literals",
        "_ranked",
        "_remembered",
        "_ruling_at",
        "_steps",
        "claims",
        "default",
        "relations",
        "rules",
    )

    def __init__(
        self,
        relations: Mapping[str, Relation] | None = None,
        rules: Sequence[Rule] = (),
        default: Condition | None = None,
    ) -> None:
        self.relations: Mapping[str, Relation] = dict(relations or {})
        self.rules = tuple(rules)
        self.default = default or Fixed("nobody", NOBODY)
        self.claims = frozenset(_claims([*(rule.visible_to for rule in self.rules), self.default]))
        # Both in one, so that one look finds them: the places of rules are below 0, those of steps are not.
        self._index: PatternIndex[int] = PatternIndex()
        self._ranked = _file_rules(self.rules, self._index)
        self._steps = _file_steps(self.relations.values(), self._index)
        shapes = [*(rule.shape for rule in self.rules), *(step.shape for step in self._steps)]
        patterns = (pattern for shape in shapes for pattern in shape.patterns)
        self._literals = {segment for pattern in patterns for segment in pattern.split(".")} | {_RESERVED}
        # Names come again, and what is found for them stays the same for as long as the policy does.
        self._remembered = lru_cache(REMEMBERED)(self._find_ruling)
        self._ruling_at = lru_cache(REMEMBERED)(self._ruling_by)

    def with_relation(self, relation: Relation) -> Policy:
        """The same with one more relation, which is the broker's own."""
        return Policy({**self.relations, relation.name: relation}, self.rules, self.default)

    def audience(
        self,
        happening: Happening,
        facts: Facts,
        faults: list[str] | None = None,
        *,
        as_of: int | None = None,
    ) -> Audience:
        """Who may see the event, by what `facts` hold now.

        faults: takes a line for each value that is missing or can't be used. The lines name paths and kinds, never
            data, so they are few.
        as_of: the event's offset, when it is looked at later: who might have seen it then, for certain.
        """
        scope = Scope(happening, facts, [] if faults is None else faults, as_of)
        return self.ruling(happening.name).condition.audience(scope)

    def changes(self, happening: Happening) -> Sequence[Change]:
        """See `Ruling.changes`."""
        return self.ruling(happening.name).changes(happening)

    def ruling(self, name: str) -> Ruling:
        """What there is to say of events of this name."""
        return self._remembered(name)

    def _find_ruling(self, name: str) -> Ruling:
        # There may be millions of names, but they differ in segments that the policy does not spell out.
        literals = self._literals
        return self._ruling_at(".".join([part if part in literals else "" for part in name.split(".")]))

    def _ruling_by(self, path: str) -> Ruling:
        """For the names of this form, in which segments that no pattern has are left empty."""
        places = sorted({place for places in self._index.match(path) for place in places})
        rule = self._ranked[places[0]] if places and places[0] < 0 else None
        condition = self.default if rule is None else rule.visible_to
        steps = [self._steps[place] for place in places if place >= 0]
        fixed = condition.fixed if isinstance(condition, Fixed) and not steps else None
        return Ruling(rule, condition, steps, fixed)


def conditions_in(condition: Condition) -> Iterator[Condition]:
    """A condition and all that it is made of."""
    yield condition
    for part in condition.parts:
        yield from conditions_in(part)


def _claims(conditions: Iterable[Condition]) -> Iterator[str]:
    for condition in conditions:
        for part in conditions_in(condition):
            if isinstance(part, Claimed):
                yield part.claim


def _file_rules(rules: Sequence[Rule], index: PatternIndex[int]) -> Sequence[Rule]:
    """File each rule under its place, which is negative; returns them by place, the most specific one first."""
    # sorted() is stable, so of equals the one that stands first in the file stays first.
    pairs = sorted(((pattern, rule) for rule in rules for pattern in rule.shape.patterns), key=lambda p: rank(p[0]))
    for place, (pattern, _) in enumerate(pairs, start=-len(pairs)):
        index.add(pattern, place)
    return tuple(rule for _, rule in pairs)


def _file_steps(relations: Iterable[Relation], index: PatternIndex[int]) -> Sequence[Step]:
    """File each step under its place; returns them by place."""
    steps = tuple(step for relation in relations for step in relation.steps)
    for place, step in enumerate(steps):
        for pattern in step.shape.patterns:
            index.add(pattern, place)
    return steps
