"""Who gets which events of one turn: the connections that get the same ones form a group, and are served together.

Theory. Events whose name matches the same patterns and whose audience is the same value are of one class: they have
the same recipients, who are looked up once. A connection's events are those of the classes that it is a recipient of,
so that connections with the same classes get the same bytes. With one class, as in a broadcast, there is nothing to
be done for a connection but to hand it those bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from itertools import chain

from broker.core.audience import EVERYONE, Audience
from broker.core.delivery import Bundle, Delivery
from broker.core.event import Record
from broker.runtime.connection import Connection
from broker.runtime.registry import Registry

EVENTS_PER_TURN = 128  # a few milliseconds of work, either of them
LOOKS_PER_TURN = 10_000
FEW = 8  # to look at so many is less work than to find out whether one has done so before
MAX_BUNDLE_BYTES = 65_536  # of events that are joined, if they are more than one: bounds what one group takes in memory

Group = tuple[Bundle, Sequence[Connection]]


class Routing:
    """The events of one turn, in order; nobody may subscribe or leave while they are added."""

    def __init__(self, registry: Registry[Connection]) -> None:
        self._registry = registry
        self._classes: list[_Class] = []
        self._by_key: dict[Hashable, _Class] = {}
        self._fixed: dict[str, _Class] = {}  # by event name, where that says it all
        self._records: list[Record] = []
        self._added = 0
        self._looked_at = 0  # connections, one by one

    @property
    def full(self) -> bool:
        """Whether it is time to give out what there is, and to let others run."""
        return self._added >= EVENTS_PER_TURN or self._looked_at >= LOOKS_PER_TURN

    def add(self, record: Record, audience: Audience, *, fixed: bool = False) -> None:
        """Route one more event. fixed: as long as this turn lasts, all of its name have this audience."""
        self._added += 1
        name = record.event.name
        matching = self._registry.matching(name)
        found = self._class_of(matching, audience) if matching else _Class(())
        if fixed:
            self._fixed[name] = found
        if found.members:
            if not found.places:
                self._classes.append(found)
            found.places.append(len(self._records))
            self._records.append(record)

    def follow(self, records: Sequence[Record], begin: int) -> int:
        """Route those from `begin` on, each like the one of its name before it; returns where that is not possible."""
        known, routed = self._fixed, self._records
        if not known:
            return begin
        end = begin + min(len(records) - begin, EVENTS_PER_TURN - self._added)
        for place in range(begin, end):
            record = records[place]
            found = known.get(record.event.name)
            if found is None:
                end = place
                break
            if found.members:
                found.places.append(len(routed))
                routed.append(record)
        self._added += end - begin
        return end

    def groups(self) -> Iterator[Group]:
        """Each group's events, joined, and its members, as they are now; a group with much to send comes in parts."""
        classes = self._classes
        deliveries = [*map(Delivery, self._records)]
        if len(classes) == 1:
            yield from _parts(deliveries, list(classes[0].members), alone=True)
            return
        for chosen, members in _by_classes(classes).items():
            mine = [classes[number].places for number in _bits(chosen)]
            places = mine[0] if len(mine) == 1 else sorted(chain.from_iterable(mine))
            yield from _parts([deliveries[place] for place in places], members)

    def _class_of(self, matching: Sequence[Collection[Connection]], audience: Audience) -> _Class:
        reach = audience.reach(self._registry.directory)
        if reach is not None and _size(reach) <= FEW:
            return _Class(_admitted(reach, matching, audience))
        key = _key(matching, audience)
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = _Class(recipients(matching, reach, audience))
            self._looked_at += _size(matching) if reach is None else min(_size(reach), _size(matching))
        return found


class _Class:
    """Events with the same recipients: who these are, and the places of the events in the turn."""

    __slots__ = ("members", "places")

    def __init__(self, members: Collection[Connection]) -> None:
        self.members = members
        self.places: list[int] = []


def _parts(deliveries: Sequence[Delivery], members: Sequence[Connection], *, alone: bool = False) -> Iterator[Group]:
    size = sum([delivery.size for delivery in deliveries])
    if size <= MAX_BUNDLE_BYTES:
        yield Bundle(deliveries, size, alone=alone), members
        return
    part: list[Delivery] = []
    size = 0
    for delivery in deliveries:
        if part and size + delivery.size > MAX_BUNDLE_BYTES:
            yield Bundle(part, size, alone=alone), members
            part, size = [], 0
        part.append(delivery)
        size += delivery.size
    yield Bundle(part, size, alone=alone), members


def recipients(
    matching: Sequence[Collection[Connection]], reach: Sequence[Collection[Connection]] | None, audience: Audience
) -> Collection[Connection]:
    """Each of those who match that may see the event, once. `reach`: see `Audience.reach`.

    Of those who match and those who may see, the smaller set is walked; the other one is only asked.
    """
    if reach is not None and _size(reach) < _size(matching):
        return _admitted(reach, matching, audience)
    if audience is EVERYONE:
        return _once(matching)
    return [connection for connection in _once(matching) if audience.admits(connection)]


def _by_classes(classes: Sequence[_Class]) -> dict[int, list[Connection]]:
    """The connections by the classes that they are in: bit n of the key is class n."""
    chosen: dict[Connection, int] = {}
    for number, each in enumerate(classes):
        bit = 1 << number
        for connection in each.members:
            chosen[connection] = chosen.get(connection, 0) | bit
    groups: dict[int, list[Connection]] = {}
    for connection, bits in chosen.items():
        groups.setdefault(bits, []).append(connection)
    return groups


def _bits(number: int) -> list[int]:
    """The places of the ones in a number."""
    places = [number.bit_length() - 1]
    while number := number ^ (1 << places[-1]):
        places.append(number.bit_length() - 1)
    return places


def _admitted(
    reach: Sequence[Collection[Connection]], matching: Sequence[Collection[Connection]], audience: Audience
) -> Collection[Connection]:
    """Those of `reach` who match and may see the event."""
    return [connection for connection in _once(reach) if _is_in(connection, matching) and audience.admits(connection)]


def _is_in(connection: Connection, collections: Sequence[Collection[Connection]]) -> bool:
    return connection in collections[0] or any(connection in each for each in collections[1:])


def _key(matching: Sequence[Collection[Connection]], audience: Audience) -> Hashable:
    if audience is EVERYONE:
        return tuple(map(id, matching))
    key = (tuple(map(id, matching)), audience)
    try:
        hash(key)
    except TypeError:  # it holds a live view of the facts, which the next event may change
        return object()
    return key


def _size(collections: Iterable[Collection[Connection]]) -> int:
    return sum(map(len, collections))


def _once(collections: Sequence[Collection[Connection]]) -> Collection[Connection]:
    return collections[0] if len(collections) == 1 else set().union(*collections)
