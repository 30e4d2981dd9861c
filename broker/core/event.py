"""The event, the value that travels through the broker, and the rules for its name and its id."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from broker.core.errors import BadEvent, BadName, PublisherError

MAX_NAME_BYTES = 255
MAX_ID_BYTES = 255
RESERVED_PREFIX = "broker."
AT_ONCE: Final = 1000  # events of a batch that are dealt with before the others have their turn: a millisecond or two

_SEGMENT = r"[^.*<>{},\s\x00-\x1f\x7f-\x9f]+"
_NAME = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})*")
_UNFIT_FOR_ID = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Event(NamedTuple):
    """Something that happened.

    name: segments joined by `.`, see `check_name`.
    data: the payload, JSON text in UTF-8, byte for byte as the publisher sent it.
    id: the publisher's own id, or None to be given one; equal ids are one event.
    source: the name of the connector that brought it, for logs and counters.
    """

    name: str
    data: bytes
    id: str | None = None
    source: str = ""


class Record(NamedTuple):
    """An event as the log took it: `id` is the event's for ever, `offset` its place in the log's order."""

    event: Event
    id: str
    offset: int


# For those that are made by the dozen: what a named tuple's class does when it is called takes half as long again.
new_event: Final[Callable[[tuple[str, bytes, str | None, str]], Event]] = partial(tuple.__new__, Event)
new_record: Final[Callable[[tuple[Event, str, int]], Record]] = partial(tuple.__new__, Record)


def check_name(name: str) -> None:
    """Check that an event may be called `name`.

    Non-empty segments joined by `.`, without white space, control characters or any of `* < > { } ,`, at most 255
    bytes of UTF-8 in all.

    Raises BadName, with what is wrong and where.
    """
    complaint = _complaint(name)
    if complaint is not None:
        raise BadName(complaint)


def check_id(event_id: str) -> None:
    """Check that an event may have this id: 1 to 255 bytes of UTF-8 without control characters.

    Raises PublisherError.
    """
    if event_id.isascii() and event_id.isprintable() and 0 < len(event_id) <= MAX_ID_BYTES:
        return  # as most are
    length = utf8_length(event_id)
    if length is None or not 0 < length <= MAX_ID_BYTES or _UNFIT_FOR_ID.search(event_id):
        raise PublisherError(f"an event's id is a text of 1 to {MAX_ID_BYTES} bytes without control characters")


def check_publishable(event: Event) -> None:
    """Check what a source may publish: a good name that is not the broker's own, and a usable id.

    Raises BadName or PublisherError.
    """
    check_name(event.name)
    if event.name.startswith(RESERVED_PREFIX):
        raise BadName(f"names that begin with {RESERVED_PREFIX!r} are the broker's own: {event.name!r}")
    if event.id is not None:
        check_id(event.id)


def check_batch(events: Sequence[Event]) -> None:
    """Check every event of a batch as `check_publishable` does.

    Raises BadEvent with the index of the first bad one.
    """
    good: set[str] = set()  # events of one batch are often of one name
    for index, event in enumerate(events):
        if event.id is None and event.name in good:
            continue
        try:
            check_publishable(event)
        except PublisherError as error:
            raise BadEvent(index, str(error)) from error
        good.add(event.name)


def utf8_length(text: str) -> int | None:
    """The length of `text` in UTF-8, or None where it has none (a lone surrogate)."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def _complaint(name: str) -> str | None:
    if len(name) <= MAX_NAME_BYTES and name.isascii() and _NAME.fullmatch(name) is not None:
        return None  # as most are
    if len(name) > MAX_NAME_BYTES:
        return f"a name has at most {MAX_NAME_BYTES} bytes, this one has {len(name)} characters"
    length = utf8_length(name)
    if length is None:
        return f"a name must be valid Unicode: {name!r}"
    if length > MAX_NAME_BYTES:
        return f"a name has at most {MAX_NAME_BYTES} bytes, this one has {length}"
    if _NAME.fullmatch(name) is None:
        return _what_is_wrong(name)
    return None


def _what_is_wrong(name: str) -> str:
    if not name:
        return "the name is empty"
    segments = enumerate(name.split("."), start=1)
    number, segment = next(found for found in segments if re.fullmatch(_SEGMENT, found[1]) is None)
    if not segment:
        return f"segment {number} of {name!r} is empty"
    return f"segment {number} of {name!r} has white space, a control character or one of * < > {{ }} ,"
