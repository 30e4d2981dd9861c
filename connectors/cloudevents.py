"""CloudEvents 1.0: in JSON, alone or in a batch, and with the attributes beside the body. The only module that knows
the `cloudevents` library.

The library checks the attributes. It never sees the data, which is kept byte for byte as it came, and it is not asked
to read anything: its readers decode the data, fill in an id that is missing, and let errors of four other
libraries escape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, Literal

import msgspec
from cloudevents.core.exceptions import CloudEventValidationError, InvalidAttributeTypeError
from cloudevents.core.v1.event import CloudEvent

from broker.core.errors import PublisherError
from broker.core.event import Event, check_id
from connectors.decode import Parts, Text, begins_with, checked, decode_array, decode_payload, parse

NameFrom = Literal["type", "subject"]

_NO_CLOUDEVENT = "this is no CloudEvent"
_REQUIRED = ("specversion", "id", "source", "type")
_AT_ONCE = 64  # of an array; each takes as long as a dozen events of ours
_SHOWN = 60  # characters of what a stranger sent that a message repeats
_NULL = msgspec.Raw(b"null")
_JSON_TYPE = re.compile(r"[^/\s]+/(?:[^/\s]+\+)?json", re.IGNORECASE)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value: msgspec.json.Decoder[str | int | bool | None] = msgspec.json.Decoder(str | int | bool | None)


def structured(text: Text, source: str, name_from: NameFrom) -> Event:
    """Read a CloudEvent in the JSON event format (section 3 of that specification).

    source: the connector's name, which is no CloudEvents `source`. name_from: which attribute names the event.

    Raises PublisherError (BadPayload for its data), with the attribute that is wrong.
    """
    members = parse(_members, text, _NO_CLOUDEVENT)
    data = members.pop("data", _NULL)
    if members.pop("data_base64", _NULL) != _NULL:
        raise PublisherError("a payload is JSON here: send it as `data`, not as `data_base64`")
    attributes = {name: value for name, raw in members.items() if (value := _read(name, raw)) is not None}
    _check_json_type(attributes.get("datacontenttype"))
    return _event(attributes, checked(data), source, name_from)


def batch(text: bytes, source: str, name_from: NameFrom) -> Parts:
    """Read an array of CloudEvents in the JSON batch format (section 4 of that specification).

    Raises BadEvent with the index of the first bad one; PublisherError where the text as a whole is no array.
    """
    if not begins_with(b"[", text):
        raise PublisherError("a batch is a JSON array of CloudEvents")
    return decode_array(text, partial(structured, source=source, name_from=name_from), at_once=_AT_ONCE)


def binary(
    attributes: Mapping[str, str], content_type: str | None, body: bytes, source: str, name_from: NameFrom
) -> Event:
    """Read a CloudEvent in binary mode: its attributes came beside the body, which is the data.

    attributes: names in lower case without the transport's prefix, values without its encoding. content_type: what the
    transport says that the body is; None: nothing. An empty body is the payload null.

    Raises PublisherError (BadPayload for the body), with the attribute that is wrong.
    """
    _check_json_type(content_type)
    _check_json_type(attributes.get("datacontenttype"))
    return _event(attributes, decode_payload(body) if body else b"null", source, name_from)


def is_json(content_type: str) -> bool:
    """Whether a media type says JSON: its subtype is `json` or ends in `+json` (JSON event format, section 3.1)."""
    return _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()) is not None


def _event(attributes: Mapping[str, Any], data: bytes, source: str, name_from: NameFrom) -> Event:
    event = _validated(attributes)
    name = event.get_type() if name_from == "type" else event.get_subject()
    if name is None:
        raise PublisherError("this CloudEvent has no `subject`, by which events are named here")
    return Event(name, data, _identity(event.get_source(), event.get_id()), source)


def _validated(attributes: Mapping[str, Any]) -> CloudEvent:
    """The library's event, without data: every attribute is as the specification wants it (its section 3)."""
    for name in _REQUIRED:
        if name not in attributes:  # the library would make up an id and a version
            raise PublisherError(f"{_NO_CLOUDEVENT}: the attribute `{name}` is missing")
    known = dict(attributes)
    if "time" in known:
        known["time"] = _time(known["time"])
    try:
        return CloudEvent(known)
    except CloudEventValidationError as error:
        raise PublisherError(f"{_NO_CLOUDEVENT}: {_complaint(error)}") from None


def _complaint(error: CloudEventValidationError) -> str:
    name, found = next(iter(error.errors.items()))
    if any(isinstance(each, InvalidAttributeTypeError) for each in found):
        return f"the attribute `{_shown(name)}` must be a text"
    if name not in (*_REQUIRED, "subject", "datacontenttype", "dataschema", "time"):
        return f"the attribute `{_shown(name)}` must be named with a to z and 0 to 9 only"
    return str(found[0])


def _time(value: object) -> datetime:
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise PublisherError(f"{_NO_CLOUDEVENT}: the attribute `time` must be a time as RFC 3339 has it") from None


def _read(name: str, raw: msgspec.Raw) -> str | int | None:
    """An attribute's value; None: it is unset (JSON event format, section 2.2)."""
    return parse(_value, raw, f"{_NO_CLOUDEVENT}: the attribute `{_shown(name)}`")


def _check_json_type(content_type: object) -> None:
    """Check what the data are said to be, unless nothing is said, which means JSON."""
    if isinstance(content_type, str) and content_type and not is_json(content_type):
        raise PublisherError(f"a payload is JSON here, not {_shown(content_type)!r}")


def _identity(source: str, event_id: str) -> str:
    """The broker's id of what only `source` and `id` together make unique (specification, section 3.1).

    A space separates them, which no URI has. What does not fit an event's id, or could be read in two ways, is
    hashed; the length says where one ends and the other begins.
    """
    composed = f"{source} {event_id}"
    try:
        check_id(composed)
    except PublisherError:
        fits = False
    else:
        fits = " " not in source
    return composed if fits else sha256(f"{len(source)} {composed}".encode(errors="surrogatepass")).hexdigest()


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
