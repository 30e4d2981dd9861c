"""Ids and positions that tell nothing: places in a log under a cipher whose key never leaves it.

Theory. An event without an id of its own needs one, and a client needs a name for "now" from which to resume. A
counter would tell how much happens that this client may not see; a random text would have to be stored and looked up.
So the offset itself is the name, in one block of AES: whoever has the key reads it back, to everybody else it is
random. An event has one id for ever. A position has many names, since two equal ones would tell that nothing happened
in between.

A log that lost its end (a backup put back, a disk that lied) gives the same offsets to other events. Therefore each
opening of a log has a random number of its own, which is in the block too, and is remembered with the offset at which
it began. A name counts only up to where the next opening began: what was named beyond that is gone.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from broker.core.event import Event, Record, new_record

KEY_BYTES = 32

_BLOCK = Struct(">IIQ")  # the opening's number; some salt; the offset and, in its last bit, whether it names an event
_BLOCK_BYTES = 16
_TEXT_LENGTH = 2 * _BLOCK_BYTES
_AHEAD = 64  # ids
_NUMBER_BITS = _SALT_BITS = 32


class Opening(NamedTuple):
    """One time that the log was opened: a random number, and the offset of the first event that it could take."""

    number: int
    begin: int


class Place(NamedTuple):
    """What a text stands for: behind which event, and whether it is the id of that event."""

    offset: int
    is_event: bool


def opening(begin: int) -> Opening:
    """A new one."""
    return Opening(secrets.randbits(_NUMBER_BITS), begin)


class Positions:
    """Gives and reads the ids and positions of one log.

    openings: all that are remembered, in order; the last is the present one.
    """

    def __init__(self, key: bytes, openings: Sequence[Opening]) -> None:
        # A name is one block, so there is nothing to chain.
        cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update
        self._openings = openings
        self._begins = [each.begin for each in openings]
        ends = [*self._begins[1:], None]
        self._ahead: dict[int, str] = {}  # ids of the events to come
        self._ends = {each.number: end for each, end in zip(openings, ends, strict=True)}

    def ids(self, offsets: Sequence[int]) -> list[str]:
        """The ids of events that brought none, which is the same whenever it is asked for."""
        if not offsets:
            return []
        number, begin = self._openings[-1]
        pack = _BLOCK.pack
        if min(offsets) >= begin:
            blocks = [pack(number, 0, offset << 1 | 1) for offset in offsets]
        else:
            blocks = [pack(self._number_at(offset), 0, offset << 1 | 1) for offset in offsets]
        return self._encrypt(b"".join(blocks)).hex(" ", _BLOCK_BYTES).split(" ")

    def records(self, numbered: Sequence[tuple[int, Event]]) -> list[Record]:
        """Events with their offsets, as records: each under its own id, or under one of ours."""
        ids = iter(self.ids([offset for offset, event in numbered if event.id is None]))
        return [Record(event, next(ids) if event.id is None else event.id, offset) for offset, event in numbered]

    def answers(self, events: Sequence[Event], offsets: Sequence[int | None]) -> list[Record | str]:
        """What a log answers to those who append; an offset of None: the event's own id is known already."""
        new = [offset for offset in offsets if offset is not None]
        if len(new) == len(events) and not [event for event in events if event.id is not None]:  # as most batches are
            return [*map(new_record, zip(events, self._new_ids(new), new, strict=True))]
        pairs = list(zip(events, offsets, strict=True))
        ids = iter(self._new_ids([offset for event, offset in pairs if offset is not None and event.id is None]))
        return [
            (event.id or "") if offset is None else Record(event, next(ids) if event.id is None else event.id, offset)
            for event, offset in pairs
        ]

    def position(self, after: int) -> str:
        """A name for the place behind the event at this offset."""
        salt = secrets.randbits(_SALT_BITS)
        return self._encrypt(_BLOCK.pack(self._openings[-1].number, salt, after << 1)).hex()

    def read(self, text: str) -> Place | None:
        """What was given as this text; None if nothing was, or if it is not true any more."""
        if len(text) != _TEXT_LENGTH:
            return None
        try:
            block = bytes.fromhex(text)
        except ValueError:
            return None
        if len(block) != _BLOCK_BYTES or block.hex() != text:  # white space, capitals: not as we write it
            return None
        number, _, rest = _BLOCK.unpack(self._decrypt(block))
        offset = rest >> 1
        end = self._ends.get(number, 0)
        return Place(offset, bool(rest & 1)) if end is None or offset < end else None

    def _new_ids(self, offsets: Sequence[int]) -> list[str]:
        """As `ids`. Events that come alone come one after the other, and many ids at once cost little more than one."""
        if len(offsets) != 1:
            return self.ids(offsets)
        (offset,) = offsets
        if offset not in self._ahead:
            ahead = range(offset, offset + _AHEAD)
            self._ahead = dict(zip(ahead, self.ids(ahead), strict=True))
        return [self._ahead[offset]]

    def _number_at(self, offset: int) -> int:
        return self._openings[max(0, bisect_right(self._begins, offset) - 1)].number
