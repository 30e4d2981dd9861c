"""Says of every listener whether it heard exactly what it should have, by a slow and obvious model of who may see what.

Theory. One listener may see everything, and what it heard is the order of the log. Who was a member of what at each
event follows from that order by going through it once. All others have to have heard, in this order and once, what
matches their patterns and what they might see at that place of the order.

There is one thing that the order does not tell. Who comes back is sent what it missed only if it may *still* see it; so
if its right was lost later on, then whether it hears the event depends on the moment at which the broker looked: before
the loss or after. Each return of a listener is therefore written down with bounds of that moment. A loss that happened
before the first one must have been heeded, and one that happened after the others can be no excuse.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from tests.system.kills import AUDITOR, Sent

Place = tuple[str, str]  # a group or a game, by its kind and its name


@dataclass
class Return:
    """A time that a listener came back and asked for what it had missed.

    begin: how much it had heard by then. known: how much the witness had heard, so that the broker had given it out.
    live: how much it had heard when the broker said that this was all; None: it was cut off before.
    sent: how much had been sent by then, by all publishers.
    """

    begin: int
    known: int
    live: int | None = None
    sent: float = math.inf


@dataclass
class Listener:
    """Who listened, to what, and what it heard, by the events' numbers.

    after: the event behind which it began; None: at the beginning. stayed: whether it was there until the end.
    """

    user: str
    patterns: Sequence[str]
    roles: Sequence[str] = ()
    after: str | None = None
    stayed: bool = True
    heard: list[str] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)

    @property
    def sees_all(self) -> bool:
        return AUDITOR in self.roles

    def wants(self, name: str) -> bool:
        return any(matches(pattern, name) for pattern in self.patterns)

    def end_of(self, number: int) -> int:
        """How much it had heard when this return was over, be it by a cut."""
        later = self.returns[number + 1].begin if number + 1 < len(self.returns) else len(self.heard)
        live = self.returns[number].live
        return later if live is None else live


def matches(pattern: str, name: str) -> bool:
    parts = {"*": r"[^.]+", "**": r".+"}
    shape = r"\.".join(parts.get(segment, re.escape(segment)) for segment in pattern.split("."))
    return re.fullmatch(shape, name) is not None


class Rights:
    """Who might see each event of an order, and when that was over."""

    def __init__(self, order: Sequence[Sent]) -> None:
        self._order = order
        self._members: list[Set[str]] = []  # of the place of each event
        self._losses: defaultdict[tuple[Place, str], list[int]] = defaultdict(list)
        now: defaultdict[Place, set[str]] = defaultdict(set)
        for index, event in enumerate(order):
            members = now[place_of(event)]
            joined, left = changes(event, members)
            members |= joined
            self._members.append(frozenset(members))
            members -= left
            for user in left:
                self._losses[place_of(event), user].append(index)

    def admit(self, index: int, listener: Listener) -> bool:
        """Whether the listener might see the event when it happened."""
        match self._order[index].name.split("."):
            case ["news", *_] | ["games", _, "members", *_]:
                return True
            case ["users", user, "inbox", _]:
                return user == listener.user or listener.sees_all
            case ["groups" | "games", *_]:
                return listener.user in self._members[index] or listener.sees_all
        return False

    def lost(self, index: int, listener: Listener) -> float:
        """With which event, this one or a later one, the listener lost its right to this one; infinity: with none."""
        event = self._order[index]
        if event.name.startswith(("news.", "users.")) or ".members." in event.name or listener.sees_all:
            return math.inf
        losses = self._losses[place_of(event), listener.user]
        at = bisect_left(losses, index)
        return losses[at] if at < len(losses) else math.inf


def place_of(event: Sent) -> Place:
    kind, name, *_ = event.name.split(".")
    return kind, name


def changes(event: Sent, members: Set[str]) -> tuple[Set[str], Set[str]]:
    """Who is a member by this event, and who is none any more after it."""
    match event.name.split("."):
        case ["groups", _, "created" | "updated"]:
            all_of_them = {*event.data["members"]}
            return all_of_them, members - all_of_them
        case ["groups", _, "deleted"]:
            return set(), {*members}
        case ["games", _, "members", user, "created"]:
            return {user}, set()
        case ["games", _, "members", user, "deleted"]:
            return set(), {user} & members
    return set(), set()


class Judge:
    """Knows the order of the log, from the one who saw everything."""

    def __init__(self, sent: Mapping[str, Sent], witness: Listener) -> None:
        twice = {number for number in witness.heard if witness.heard.count(number) > 1} if _repeats(witness) else set()
        assert not twice, f"{witness.user} heard these more than once: {sorted(twice)}"
        self._order = [sent[number] for number in witness.heard]
        places = {number: place for place, number in enumerate(sent)}
        self._sent = [places[number] for number in witness.heard]
        self._index = {event.number: index for index, event in enumerate(self._order)}
        self._rights = Rights(self._order)
        self.excused = 0  # events that were rightly withheld from one who had lost its right to them

    def check_answered(self, answered: Set[str], sent: Mapping[str, Sent]) -> None:
        """Whoever got an answer has been taken at its word."""
        missing = {number for number in answered if not sent[number].hidden} - self._index.keys()
        assert not missing, f"answered, and lost: {sorted(missing)}"

    def check_whole(self, request: Sequence[Sent]) -> None:
        """A request that got no answer, and was not repeated, was taken as a whole or not at all."""
        taken = [event.number in self._index for event in request if not event.hidden]
        assert all(taken) or not any(taken), f"a part of it was taken: {[event.number for event in request]}"

    def check_order_of(self, teller: str) -> None:
        """What one publisher sent, each after the answer to the one before, was taken in this order."""
        numbers = [int(event.number.rpartition("-")[2]) for event in self._order if event.teller == teller]
        assert numbers == sorted(numbers), f"{teller} was not taken in order"

    def check(self, listener: Listener) -> None:
        """It heard, in order and once, all that it should have and nothing else."""
        heard = [self._index[number] for number in listener.heard]
        for before, after in pairwise(heard):
            assert before < after, f"{listener.user} heard {self._order[after]} after {self._order[before]}"
        due = self._due(listener, heard)
        for index in heard:
            event = self._order[index]
            assert index in due, f"{listener.user} heard {event}, which was before its time"
            assert listener.wants(event.name), f"{listener.user} did not subscribe to {event}"
            assert self._rights.admit(index, listener), f"{listener.user} must not see {event}"
        self._check_heeded(listener, heard)
        self._check_complete(listener, heard, due)

    def _due(self, listener: Listener, heard: Sequence[int]) -> range:
        """Which events were in its time."""
        begin = 0 if listener.after is None else self._index[listener.after] + 1
        if listener.stayed:
            return range(begin, len(self._order))
        complete = [again.known for again in listener.returns if again.live is not None]
        return range(begin, max([begin, *complete, *(index + 1 for index in heard[-1:])]))

    def _check_heeded(self, listener: Listener, heard: Sequence[int]) -> None:
        """What it heard on a return it had not lost the right to before."""
        for number, again in enumerate(listener.returns):
            for index in heard[again.begin : listener.end_of(number)]:
                lost = self._rights.lost(index, listener)
                assert lost >= again.known, (
                    f"{listener.user} came back, and got {self._order[index]}, which it may not see any more since"
                    f" {self._order[int(lost)]}"
                )

    def _check_complete(self, listener: Listener, heard: Sequence[int], due: range) -> None:
        for index in sorted({*due} - {*heard}):
            event = self._order[index]
            if listener.wants(event.name) and self._rights.admit(index, listener):
                lost = self._rights.lost(index, listener)
                assert self._may_be_withheld(listener, heard, index, lost), (
                    f"{listener.user} never heard {event}, which was not lost"
                    f" {'at all' if math.isinf(lost) else f'before {self._order[int(lost)]}'}"
                )
                self.excused += 1

    def _may_be_withheld(self, listener: Listener, heard: Sequence[int], index: int, lost: float) -> bool:
        """Whether the listener was on a return at that place, and the broker may have looked after the loss."""
        place = bisect_left(heard, index)
        return not math.isinf(lost) and any(
            again.begin <= place <= listener.end_of(number) and self._may_have_known(listener, heard, number, int(lost))
            for number, again in enumerate(listener.returns)
        )

    def _may_have_known(self, listener: Listener, heard: Sequence[int], number: int, lost: int) -> bool:
        """Whether a loss may have been before the end of a return; if that was cut off, of the next that was not."""
        ended = next((again for again in listener.returns[number:] if again.live is not None), None)
        if ended is None or ended.live is None:
            return True
        live = heard[ended.live] if ended.live < len(heard) else math.inf  # what was heard then came later
        return lost < live and self._sent[lost] < ended.sent


def _repeats(listener: Listener) -> bool:
    return len(set(listener.heard)) < len(listener.heard)
