"""What those who come and go, and resume, may and must hear: said slowly, from a list of all that has happened.

Theory. Who gets what live is exact. What a replay brings is exact where nothing is learned while it goes on; otherwise
an event may come that was to be seen at some moment of it, and must come if it was at every one. Besides, the broker
may know less of the past than this model: of somebody who was a member more than once, and of a key that was in doubt,
it may not know whether he was one then. Such an event may come only if it is certain here, and must only if also there.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

POLICY = """
default = "everyone"

[relations.group]
set    = "groups.<id>.set"
add    = "groups.<id>.add"
remove = "groups.<id>.remove"
clear  = "groups.<id>.clear"
key    = "<id>"
users  = "data.users"

[[rules]]
events     = "groups.<id>.*"
visible_to = { relation = "group", key = "<id>" }

[[rules]]
events     = "news.<id>"
visible_to = { relation = "group", key = "<id>" }

[[rules]]
events     = "others.<id>"
visible_to = { not = { relation = "group", key = "<id>" } }

[[rules]]
events     = "users.<user>"
visible_to = { users = "<user>" }
"""

Known = dict[str, int] | None  # the members of a group, each since when; None: nobody knows
Verdict = bool | None


@dataclass(frozen=True)
class Happened:
    """An event: `kind`, of what (a group, a user), and the users in it; None: they are missing."""

    kind: str
    of: str
    users: frozenset[str] | None = None
    id: str = ""
    own_id: bool = False

    @property
    def name(self) -> str:
        return f"groups.{self.of}.{self.kind}" if self.changes else f"{self.kind}.{self.of}"

    @property
    def changes(self) -> bool:
        return self.kind in ("set", "add", "remove", "clear")

    def data(self, offset: int) -> dict[str, Any]:
        return {"n": offset} if self.users is None else {"n": offset, "users": sorted(self.users)}


def after(known: Known, event: Happened, offset: int) -> Known:
    """The members of the event's group after it."""
    if event.kind == "clear":
        return {}
    if event.users is None:
        return None
    if event.kind == "set":
        return {user: (known or {}).get(user, offset) for user in event.users}
    if known is None:
        return None
    if event.kind == "add":
        return dict.fromkeys(event.users, offset) | known
    return {user: since for user, since in known.items() if user not in event.users}


class History:
    """All that has happened, with what was known after each event; the first one has the offset 1."""

    def __init__(self, retain: int) -> None:
        self.retain = retain
        self.events: list[Happened] = []
        self._after: list[dict[str, Known]] = [{}]

    def __len__(self) -> int:
        return len(self.events)

    def add(self, event: Happened) -> None:
        self.events.append(event)
        known = dict(self._after[-1])
        if event.changes:
            known[event.of] = after(known.get(event.of, {}), event, len(self))
        self._after.append(known)

    def first(self, length: int) -> int:
        """The first event that is held when there have been so many."""
        return max(1, length - self.retain + 1)

    def held(self) -> list[Happened]:
        """What the log holds now."""
        return self.events[self.first(len(self)) - 1 :]

    def reaches(self, place: Place, length: int) -> bool:
        """Whether the log reaches back to a place when there have been so many."""
        return place.offset >= self.first(length) - (not place.own_id)

    def seen_live(self, user: str | None, offset: int) -> bool:
        return self._verdict(user, offset, self._was_member(user, offset)) is True

    def may_come(self, user: str | None, offset: int, moment: int) -> bool:
        """Whether this event may be sent again when so many have happened."""
        then = self._then(user, offset, moment)
        return self._sees_now(user, offset, moment) and self._verdict(user, offset, then) is True

    def must_come(self, user: str | None, offset: int, moment: int) -> bool:
        """Whether it must."""
        then = self._then(user, offset, moment)
        if then is False and self._may_be_forgotten(user, offset, moment):
            then = None
        return self._sees_now(user, offset, moment) and self._verdict(user, offset, then) is True

    def _group(self, offset: int) -> str:
        return self.events[offset - 1].of

    def _known(self, offset: int, moment: int) -> Known:
        """What is known of the group of the event at `offset` when so many have happened."""
        return self._after[moment].get(self._group(offset), {})

    def _verdict(self, user: str | None, offset: int, member: Verdict) -> Verdict:
        event = self.events[offset - 1]
        if event.kind == "public":
            return True
        if event.kind == "users":
            return user == event.of
        if event.kind == "others":
            return None if member is None else not member
        return member

    def _sees_now(self, user: str | None, offset: int, moment: int) -> bool:
        known = self._known(offset, moment)
        member = None if known is None else user in known
        return self._verdict(user, offset, member) is True

    def _was_member(self, user: str | None, offset: int) -> Verdict:
        """Whether the user was a member during this event: what it adds counts, what it takes away does not yet."""
        before, later = self._known(offset, offset - 1), self._known(offset, offset)
        if later is None:
            return None
        if user in later:
            return True
        return None if before is None else user in before

    def _then(self, user: str | None, offset: int, moment: int) -> Verdict:
        """The same, as it counts later: who has left since, and perhaps came back, is not known to have been one."""
        was = self._was_member(user, offset)
        return was if was is not True or self._is_since(user, offset, moment) else None

    def _is_since(self, user: str | None, offset: int, moment: int) -> bool:
        known = self._known(offset, moment)
        return known is not None and user is not None and known.get(user, moment + 1) <= offset

    def _may_be_forgotten(self, user: str | None, offset: int, moment: int) -> bool:
        """Whether the broker may not know any more that the user was no member then."""
        states = [self._known(offset, each) for each in range(moment + 1)]
        members = [known is not None and user in known for known in states]
        was_before, was_later = any(members[: offset + 1]), any(members[offset:])
        return (was_before and was_later) or None in states[offset:]


@dataclass(frozen=True)
class Place:
    """From where somebody resumes: behind which event; `own_id`: an id that the log forgets with the event."""

    text: str | None
    offset: int = 0
    own_id: bool = False


@dataclass
class Session:
    """One connection, and what it has heard so far, in order, as offsets of events."""

    user: str | None
    patterns: Set[str]
    joined: int  # how many events had been given out
    plain: list[int] = field(default_factory=list)  # events without ids
    replayed: list[int] = field(default_factory=list)  # with ids, before the answer
    live: list[int] = field(default_factory=list)  # and behind it
    place: Place | None = None  # from where it asked to resume
    asked: int = 0  # how many events had been given out when it did
    taken: int = 0  # and how many the log had
    settled: int = 0  # and when all had come to rest after it
    answer: str | None = None
    position: int | None = None  # that came with the answer

    def wants(self, event: Happened) -> bool:
        kind, *more = event.name.split(".")
        return bool(self.patterns & {"**", f"{kind}.**" if len(more) > 1 else f"{kind}.*"})


def check(history: History, session: Session, *, whole: bool) -> None:
    """Check what was heard so far. `whole`: it has heard all that there was to hear up to now."""
    for part in (session.plain, session.replayed, session.live):
        assert part == sorted(set(part)), "in order, and once"
    _check_plain(history, session, whole=whole)
    if session.place is not None:
        _check_answer(history, session, session.place, whole=whole)
        _check_replay(history, session, session.place)
        _check_live(history, session, session.place, whole=whole)


def _heard_live(history: History, session: Session, begin: int) -> list[int]:
    """Which events behind this one it gets as they happen."""
    return [
        offset
        for offset in range(begin + 1, len(history) + 1)
        if session.wants(history.events[offset - 1]) and history.seen_live(session.user, offset)
    ]


def _check_plain(history: History, session: Session, *, whole: bool) -> None:
    expected = _heard_live(history, session, session.joined)
    assert session.plain == expected[: len(session.plain)]
    end = len(history) if whole and session.place is None else 0
    if session.replayed or session.answer:
        end = session.asked
    if session.place and session.place.text is None and session.position is not None:
        end = session.position
    assert [offset for offset in expected if offset <= end] == [offset for offset in session.plain if offset <= end]


def _check_answer(history: History, session: Session, place: Place, *, whole: bool) -> None:
    assert session.answer or not whole
    if place.text is None:
        assert session.answer in (None, "ok")
    elif not history.reaches(place, session.taken):
        assert session.answer in (None, "gap")
        assert session.replayed == []
    elif session.answer == "gap" and history.reaches(place, session.settled):
        reached = max(session.replayed, default=place.offset)
        assert reached < history.first(len(history)) - 1, "what came next has been dropped meanwhile"


def _check_replay(history: History, session: Session, place: Place) -> None:
    end = len(history) if session.position is None else session.position
    passed = [
        offset
        for offset in range(max(place.offset, 0) + 1, end + 1)
        if place.text is not None and session.wants(history.events[offset - 1])
    ]
    may, must = set(), set()
    for offset in passed:
        moments = range(max(offset, session.asked), end + 1)
        if any(history.may_come(session.user, offset, moment) for moment in moments):
            may.add(offset)
        if all(history.must_come(session.user, offset, moment) for moment in moments):
            must.add(offset)
    reached = end if session.answer == "ok" else max(session.replayed, default=0)
    assert {offset for offset in must if offset <= reached} <= set(session.replayed) <= may


def _check_live(history: History, session: Session, place: Place, *, whole: bool) -> None:
    begin = session.asked if session.position is None else session.position
    expected = _heard_live(history, session, begin)
    if session.answer == "gap":  # live from some moment on
        at_once = session.settled and not history.reaches(place, session.taken)
        begin = min([*session.live[:1], session.settled + 1 if at_once else len(history) + 1])
        expected = [offset for offset in expected if offset >= begin]
    assert session.live == expected[: len(session.live)]
    assert not whole or session.live == expected
