"""Who was a member once, for as long as somebody may ask about an event of that time.

Theory. Who may see an event that is looked at later depends on who was a member when it happened. Of members it is
known since when they are; but who left after the event, and perhaps came back, would count as none then, and a `not`
would show him what was kept from him. So for whoever leaves it is remembered during which events he may have been a
member: about these it is unknown whether he was. The same is remembered of everybody where a key was in doubt.

Nobody asks about events that the log has dropped, so what is older is forgotten. Should a log find old events again (it
was told to retain more, or the clock was put back), then about these it is unknown of everybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

ANYBODY: Final = ""  # in the place of a user; no user's id is empty

Place = tuple[str, str, str]  # relation, key, user

_ANYWHERE: Final = ("", "", ANYBODY)  # no key is empty


class Stay(NamedTuple):
    """The offsets of the first and of the last event during which somebody may have been a member."""

    since: int
    until: int


class Leavers:
    """Those who have left, in the order in which they did."""

    def __init__(self, known: Mapping[Place, Stay | None]) -> None:
        stays = [(place, stay) for place, stay in known.items() if stay is not None]
        self._stays = OrderedDict(sorted(stays, key=lambda entry: entry[1].until))
        self._forgotten = self._stays.pop(_ANYWHERE, Stay(-1, -1)).until
        self._changed: dict[Place, Stay | None] = {}

    def __len__(self) -> int:
        return len(self._stays)

    def add(self, place: Place, stay: Stay) -> None:
        """Somebody leaves. Of one who has left before it is not remembered that he was away in between."""
        before = self._stays.pop(place, stay)
        self._stays[place] = self._changed[place] = Stay(min(before.since, stay.since), stay.until)

    def perhaps(self, place: Place, offset: int) -> bool:
        """Whether somebody who has left may have been a member during the event at this offset."""
        stay = self._stays.get(place)
        return offset <= self._forgotten or (stay is not None and stay.since <= offset <= stay.until)

    def forget(self, first: int) -> bool:
        """Forget what matters only for events before this offset; returns whether there was anything."""
        before = self._forgotten
        while self._stays:
            oldest = next(iter(self._stays))
            if self._stays[oldest].until >= first:
                break
            self._forgotten = self._stays.pop(oldest).until
            self._changed[oldest] = None
        if self._forgotten == before:
            return False
        self._changed[_ANYWHERE] = Stay(0, self._forgotten)
        return True

    def changed(self) -> Mapping[Place, Stay | None]:
        """What has changed since the last call; None: it was forgotten."""
        changed, self._changed = self._changed, {}
        return changed
