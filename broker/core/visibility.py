"""Who may see each event as it comes, by the policy and by what was learned from the events before it.

Theory. An event's own additions count before its audience is taken, and its own removals after it was used: so there
are two calls an event, `enter` and `leave`, and the audience is to be used in between, since it may be a live view of
what is known. An event whose name is all that the policy wants to know needs neither (`fixed`). An event that is looked
at later, for a client that comes back, changes nothing any more: `look_back` asks twice, the present policy about the
present, and the policy of then about then; who is admitted by both gets it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from broker.core.audience import NOBODY, AllOf, Audience
from broker.core.conditions import Scope
from broker.core.event import Record
from broker.core.happening import Happening
from broker.core.policy import Policy
from broker.core.relations import Change, Facts, Learned

EARLIER_POLICIES: Final = 8


class Visibility:
    """The policy that rules, and the facts that it uses.

    `version` is another one whenever `look_back` might say something else of the same event.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._earlier: deque[tuple[int, Policy]] = deque()  # with the offset of the last event that each ruled
        self._ruled_since = 0  # before this offset nobody knows which policy did
        self._offset = 0  # of the last event that came
        self.facts = Facts()
        self.version = 0

    def recall(self, learned: Learned) -> None:
        """Know again what was known when the last broker ended."""
        self.facts = Facts(learned)
        self.facts.keep(self._policy.relations, learned.offset)
        self._offset = learned.offset
        self.version += 1

    def adopt(self, policy: Policy) -> None:
        """Let `policy` rule from now on. Facts stay, except those of relations that are gone."""
        if not self._earlier or self._earlier[-1][0] < self._offset:  # else it has not ruled any event
            self._earlier.append((self._offset, self._policy))
        if len(self._earlier) > EARLIER_POLICIES:
            self._forget_policy()
        self._policy = policy
        self.facts.keep(policy.relations, self._offset)
        self.version += 1

    def fixed(self, name: str) -> Audience | None:
        """Who may see all events of this name as long as this policy rules; None: each of them is to `enter`."""
        return self._policy.ruling(name).fixed

    def enter(self, record: Record, faults: list[str]) -> tuple[Audience, Sequence[Change]]:
        """Learn what the event adds; who may see it, to be used before `leave` is called with the changes.

        faults: takes a line for each value that is missing or can't be used; lines name paths and kinds, never data.
        """
        self._offset = record.offset
        happening = Happening(record.event)
        ruling = self._policy.ruling(happening.name)
        changes = ruling.changes(happening)
        if changes:
            self.facts.add(changes, record.offset)
            self.version += 1
        try:
            audience = ruling.condition.audience(Scope(happening, self.facts, faults))
        except BaseException:
            self.leave(changes)
            raise
        if changes:
            faults += [change.fault for change in changes if change.fault is not None]
        return audience, changes

    def leave(self, changes: Sequence[Change]) -> None:
        """Learn what the event takes away."""
        if changes:
            self.facts.remove(changes, self._offset)
            self.version += 1

    def passed(self, offset: int) -> None:
        """All events up to this offset have come, also those that did not need to `enter`."""
        self._offset = offset

    def learn(self, record: Record) -> None:
        """Learn from an event that nobody is to see."""
        self._offset = record.offset
        changes = self._policy.changes(Happening(record.event))
        self.facts.add(changes, record.offset)
        self.leave(changes)

    def look_back(self, record: Record) -> Audience:
        """Who may see the event now, and might have seen it then."""
        happening = Happening(record.event)
        now = self._policy.audience(happening, self.facts)
        policy = self._policy_at(record.offset)
        then = NOBODY if policy is None else policy.audience(happening, self.facts, as_of=record.offset)
        return now if now == then else AllOf((now, then))

    def learned(self, offset: int) -> Learned:
        """What was learned since the last call, for the log. `offset`: of the last event that was learned from."""
        return self.facts.changed(offset)

    def forget(self, first: int) -> None:
        """Forget what matters only for events before this offset, which nobody looks back at any more."""
        self.version += self.facts.forget_leavers(first)
        while self._earlier and self._earlier[0][0] < first:
            self._forget_policy()

    def statistics(self) -> Mapping[str, int]:
        """How many facts there are, by kind."""
        return self.facts.statistics()

    def _policy_at(self, offset: int) -> Policy | None:
        if offset < self._ruled_since:
            return None
        return next((policy for last, policy in self._earlier if offset <= last), self._policy)

    def _forget_policy(self) -> None:
        last, _ = self._earlier.popleft()
        self._ruled_since = last + 1
