"""Who may see each event as it comes, by the policy and by what was learned from the events before it.

Theory. An event's own additions count before its audience is taken, and its own removals after it was used: so there
are two calls an event, `enter` and `leave`, and the audience is to be used in between, since it may be a live view of
what is known. An event that is looked at later, for a client that comes back, changes nothing any more: `look_back`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.core.audience import Audience
from broker.core.event import Record
from broker.core.happening import Happening
from broker.core.policy import Policy
from broker.core.relations import Change, Facts, Learned


class Visibility:
    """The policy that rules, and the facts that it uses.

    `version` is another one whenever `look_back` might say something else of the same event.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.facts = Facts()
        self.version = 0

    def recall(self, learned: Learned) -> None:
        """Know again what was known when the last broker ended."""
        self.facts = Facts(learned)
        self.facts.keep(self._policy.relations)
        self.version += 1

    def adopt(self, policy: Policy) -> None:
        """Let `policy` rule from now on. Facts stay, except those of relations that are gone."""
        self._policy = policy
        self.facts.keep(policy.relations)
        self.version += 1

    def enter(self, record: Record, faults: list[str]) -> tuple[Audience, Sequence[Change]]:
        """Learn what the event adds; who may see it, to be used before `leave` is called with the changes.

        faults: takes a line for each value that is missing or can't be used; lines name paths and kinds, never data.
        """
        happening = Happening(record.event)
        changes = self._policy.changes(happening)
        if changes:
            self.facts.add(changes, record.offset)
            self.version += 1
        try:
            audience = self._policy.audience(happening, self.facts, faults)
        except BaseException:
            self.leave(changes)
            raise
        faults += [change.fault for change in changes if change.fault is not None]
        return audience, changes

    def leave(self, changes: Sequence[Change]) -> None:
        """Learn what the event takes away."""
        if changes:
            self.facts.remove(changes)
            self.version += 1

    def learn(self, record: Record) -> None:
        """Learn from an event that nobody is to see."""
        changes = self._policy.changes(Happening(record.event))
        self.facts.add(changes, record.offset)
        self.leave(changes)

    def look_back(self, record: Record) -> Audience:
        """Who may see the event now, and might have seen it then."""
        return self._policy.audience(Happening(record.event), self.facts, as_of=record.offset)

    def learned(self, offset: int) -> Learned:
        """What was learned since the last call, for the log. `offset`: of the last event that was learned from."""
        return self.facts.changed(offset)

    def statistics(self) -> Mapping[str, int]:
        """How many facts there are, by kind."""
        return self.facts.statistics()
