"""Bytes to events: the forms in which events are written down, the same for every source.

An event is `{"event": NAME, "data": PAYLOAD}`, with an `"id"` if the publisher has one. The payload is checked in
full here, once, and kept byte for byte as it came. What CloudEvents look like is in `connectors/cloudevents.py`.

A text may hold so many events that reading them all would keep everybody else waiting. So those of a text are read in
parts, each of them when it is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec

from broker.core.errors import BadEvent, BadPayload, PublisherError
from broker.core.event import AT_ONCE, Event, new_event
from broker.core.payload import check_text, check_texts

T = TypeVar("T")
Text = bytes | msgspec.Raw
DecodeOne = Callable[[Text], Event]
DecodeAll = Callable[[Sequence[Text]], list[Event] | None]
Parts = Iterator[list[Event]]

_SMALL: Final = 65_536  # bytes of an array that is read as a whole


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_envelopes = msgspec.json.Decoder(list[_Envelope])
_payload = msgspec.json.Decoder(msgspec.Raw)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_lenient = json.JSONDecoder(parse_int=float)  # int() refuses thousands of digits
_ITEM = re.compile(r"[\s,]*([^\s,\]])")  # where the next item of an array begins
# What the whole of a batch is refused with, where one event in it is bad: it is then looked at one by one.
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PublisherError)
_NO_EVENT = 'this is no event such as {"event": NAME, "data": PAYLOAD}'


def decode_event(text: Text, source: str) -> Event:
    """Read one event.

    Raises PublisherError (BadPayload for the payload), with what is wrong.
    """
    envelope = parse(_envelope, text, _NO_EVENT)
    return Event(envelope.event, checked(envelope.data), envelope.id, source)


def decode_payload(text: bytes) -> bytes:
    """Read a payload that stands alone, without white space around it.

    Raises BadPayload.
    """
    return checked(parse(_payload, text, _NO_EVENT))


def decode_json(text: bytes, source: str) -> Parts:
    """Read a JSON text that is one event or an array of events.

    Raises BadEvent with the index of the first bad one; BadPayload where the text as a whole is no JSON.
    """
    decode = partial(decode_event, source=source)
    if not begins_with(b"[", text):
        yield [decode_at(0, text, decode)]
        return
    events = _decode_small(text, source)
    if events is None:
        yield from decode_array(text, decode, partial(decode_lines, source=source))
    else:
        yield events


def decode_ndjson(text: bytes, source: str) -> Parts:
    """Read newline-delimited JSON, one event a line; blank lines count for nothing.

    Raises BadEvent with the index of the first bad event.
    """
    lines = [line for line in text.split(b"\n") if line.strip()]
    return _parts(lines, partial(decode_event, source=source), partial(decode_lines, source=source))


def decode_lines(lines: Sequence[Text], source: str) -> list[Event] | None:
    """Read one event a line, all at once; None where at least one of them is bad."""
    with suppress(*_REFUSALS):
        return _events([_envelope.decode(line) for line in lines], b"".join(lines), source)
    return None


def decode_array(text: bytes, decode: DecodeOne, decode_all: DecodeAll | None = None, at_once: int = AT_ONCE) -> Parts:
    """Read an array, which begins with `[`, of what `decode` reads.

    decode_all: reads several at once, or returns None where at least one of them is bad. at_once: events of a part.

    Raises BadEvent with the index of the first bad one; BadPayload where the text as a whole is no JSON.
    """
    try:
        items = parse(_array, text, _NO_EVENT)
    except PublisherError as error:
        index = yield from _place_of_fault(text, decode)
        if index is None:
            raise
        raise BadEvent(index, str(error)) from error
    yield from _parts(items, decode, decode_all, at_once)


def decode_at(index: int, text: Text, decode: DecodeOne) -> Event:
    """Read the event at `index` of a batch.

    Raises BadEvent with that index.
    """
    try:
        return decode(text)
    except PublisherError as error:
        raise BadEvent(index, str(error)) from error


def parse(decoder: msgspec.json.Decoder[T], text: Text, complaint: str) -> T:
    """What `decoder` makes of `text`; `complaint` begins the message where it is JSON, but of another shape.

    Raises PublisherError, or BadPayload where it is no JSON.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise PublisherError(f"{complaint}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadPayload(f"this is no JSON: {error}") from None
    except RecursionError:
        raise BadPayload("this JSON is nested too deep") from None


def checked(data: msgspec.Raw) -> bytes:
    """A payload's bytes, checked for what the grammar of JSON does not say.

    Raises BadPayload.
    """
    raw = bytes(data)
    check_text(raw)
    return raw


def begins_with(bracket: bytes, text: bytes) -> bool:
    """Whether a JSON text is an object (`{`) or an array (`[`), if it is any at all."""
    return text.lstrip()[:1] == bracket


def _parts(texts: Sequence[Text], decode: DecodeOne, decode_all: DecodeAll | None, at_once: int = AT_ONCE) -> Parts:
    for begin in range(0, len(texts), at_once):
        part = texts[begin : begin + at_once]
        events = decode_all(part) if decode_all else None
        if events is None:
            events = [decode_at(index, text, decode) for index, text in enumerate(part, start=begin)]
        yield events


def _decode_small(text: bytes, source: str) -> list[Event] | None:
    """Read a short array as a whole; None where it is not short, or at least one event in it is bad."""
    if len(text) <= _SMALL:
        with suppress(*_REFUSALS):
            return _events(_envelopes.decode(text), text, source)
    return None


def _events(envelopes: Iterable[_Envelope], text: bytes, source: str) -> list[Event]:
    """The events of a text, whose payloads are checked together where that is possible."""
    events = [new_event((each.event, bytes(each.data), each.id, source)) for each in envelopes]
    check_texts([event.data for event in events], text)
    return events


def _place_of_fault(text: bytes, decode: DecodeOne) -> Generator[list[Event], None, int | None]:
    """Which item makes an array unreadable; None if it is the array itself. Its parts are empty, for the pauses.

    The fast decoder refuses the text as a whole, so a slower and more lenient one takes it item by item.
    """
    lenient = text.decode(errors="surrogateescape")
    index = 0
    at = lenient.index("[") + 1
    while (item := _ITEM.match(lenient, at)) is not None:
        try:
            _, at = _lenient.raw_decode(lenient, item.start(1))
            decode(lenient[item.start(1) : at].encode(errors="surrogateescape"))
        except (ValueError, RecursionError, PublisherError):
            return index
        index += 1
        if index % AT_ONCE == 0:
            yield []
    return None
