"""Why somebody sees an event, or does not: the policy's decision, step by step, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from broker.core.audience import Viewer
from broker.core.conditions import Claimed, Condition, Related, Scope, UsersAt
from broker.core.happening import Happening, UnreadableError
from broker.core.policy import Policy, Rule
from broker.core.relations import Facts

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """What one condition came to: how deep it stands in the others, as written, its verdict, and why."""

    depth: int
    condition: str
    verdict: bool | None
    because: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision: the rule that counts (None: the default), and every condition of it, outermost first."""

    event: str
    rule: Rule | None
    findings: tuple[Finding, ...]

    @property
    def visible(self) -> bool:
        """Whether the viewer gets the event."""
        return self.findings[0].verdict is True

    @property
    def reasons(self) -> str:
        """What decided it, in one line."""
        return "; ".join(finding.because for finding in self.findings if finding.because)


def explain(policy: Policy, happening: Happening, facts: Facts, viewer: Viewer) -> Explanation:
    """Explain what `policy` decides. The event's own additions must be among the facts already."""
    scope = Scope(happening, facts, [])
    ruling = policy.ruling(happening.name)
    findings = tuple(_findings(ruling.condition, scope, viewer, depth=0))
    return Explanation(happening.name, ruling.rule, findings)


def _findings(condition: Condition, scope: Scope, viewer: Viewer, depth: int) -> Iterator[Finding]:
    alone = Scope(scope.happening, scope.facts, [])
    verdict = condition.audience(alone).admits(viewer)
    because = "" if condition.parts else "; ".join([*alone.faults, *_evidence(condition, scope, viewer)])
    yield Finding(depth, str(condition), verdict, because)
    for part in condition.parts:
        yield from _findings(part, scope, viewer, depth + 1)


def _evidence(condition: Condition, scope: Scope, viewer: Viewer) -> Iterator[str]:
    try:
        if isinstance(condition, UsersAt):
            yield f"{condition.source} is {_some(condition.source.users(scope.happening))}"
        elif isinstance(condition, Related):
            yield _members(condition, scope)
        elif isinstance(condition, Claimed):
            yield _claim(condition, viewer)
    except UnreadableError:
        return  # it stands among the faults


def _members(condition: Related, scope: Scope) -> str:
    key = condition.key.key(scope.happening)
    return f"{condition.relation}({key}) is {_some(scope.facts.members(condition.relation, key))}"


def _claim(condition: Claimed, viewer: Viewer) -> str:
    if condition.claim not in viewer.claims:
        return f"there is no claim {condition.claim!r}"
    return f"the claim {condition.claim!r} is {json.dumps(viewer.claims[condition.claim], ensure_ascii=False)}"


def _some(users: Iterable[str]) -> str:
    everybody = sorted(users)
    more = f" and {len(everybody) - _SHOWN} more" if len(everybody) > _SHOWN else ""
    return "[" + ", ".join(_printable(user) for user in everybody[:_SHOWN]) + "]" + more


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
