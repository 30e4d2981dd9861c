"""Bytes to events: the forms in which events are written down, the same for every source.

An event is `{"event": NAME, "data": PAYLOAD}`, with an `"id"` if the publisher has one. The payload is checked in
full here, once, and kept byte for byte as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from broker.core.errors import BadEvent, BadPayload, PublisherError
from broker.core.event import Event
from broker.core.payload import check_text

T = TypeVar("T")


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_payload = msgspec.json.Decoder(msgspec.Raw)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_lenient = json.JSONDecoder(parse_int=float)  # int() refuses thousands of digits
_ITEM = re.compile(r"[\s,]*([^\s,\]])")  # where the next item of an array begins


def decode_event(text: bytes | msgspec.Raw, source: str) -> Event:
    """Read one event.

    Raises PublisherError (BadPayload for the payload), with what is wrong.
    """
    envelope = _decode(_envelope, text)
    data = bytes(envelope.data)
    check_text(data)
    return Event(envelope.event, data, envelope.id, source)


def decode_payload(text: bytes) -> bytes:
    """Read a payload that stands alone, without white space around it.

    Raises BadPayload.
    """
    data = bytes(_decode(_payload, text))
    check_text(data)
    return data


def decode_json(text: bytes, source: str) -> list[Event]:
    """Read a JSON text that is one event or an array of events.

    Raises BadEvent with the index of the first bad one; BadPayload where the text as a whole is no JSON.
    """
    if text.lstrip()[:1] != b"[":
        return [_decode_at(0, text, source)]
    try:
        items = _decode(_array, text)
    except PublisherError as error:
        index = _place_of_fault(text, source)
        if index is None:
            raise
        raise BadEvent(index, str(error)) from error
    return [_decode_at(index, item, source) for index, item in enumerate(items)]


def decode_ndjson(text: bytes, source: str) -> list[Event]:
    """Read newline-delimited JSON, one event a line; blank lines count for nothing.

    Raises BadEvent with the index of the first bad event.
    """
    return [_decode_at(index, line, source) for index, line in enumerate(_lines(text))]


def _place_of_fault(text: bytes, source: str) -> int | None:
    """Which item makes an array unreadable; None if it is the array itself.

    The fast decoder refuses the text as a whole, so a slower and more lenient one takes it item by item.
    """
    lenient = text.decode(errors="surrogateescape")
    index = 0
    at = lenient.index("[") + 1
    while (item := _ITEM.match(lenient, at)) is not None:
        try:
            _, at = _lenient.raw_decode(lenient, item.start(1))
            decode_event(lenient[item.start(1) : at].encode(errors="surrogateescape"), source)
        except (ValueError, RecursionError, PublisherError):
            return index
        index += 1
    return None


def _decode(decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise PublisherError(f'this is no event such as {{"event": NAME, "data": PAYLOAD}}: {error}') from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadPayload(f"this is no JSON: {error}") from None
    except RecursionError:
        raise BadPayload("this JSON is nested too deep") from None


def _lines(text: bytes) -> Iterator[bytes]:
    return (line for line in text.split(b"\n") if line.strip())


def _decode_at(index: int, text: bytes | msgspec.Raw, source: str) -> Event:
    try:
        return decode_event(text, source)
    except PublisherError as error:
        raise BadEvent(index, str(error)) from error
