"""Bodies of HTTP requests: which of the forms of `connectors/decode.py` and `connectors/cloudevents.py` one has is
decided by the request's head alone, so that what nobody can read is refused before it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import partial
from urllib.parse import unquote_to_bytes

from broker.core.errors import PublisherError, UnsupportedMediaType
from broker.core.event import Event
from broker.core.http import Headers, Request
from connectors.cloudevents import NameFrom, batch, binary, is_json, structured
from connectors.decode import Parts, decode_at, decode_json, decode_ndjson

_CE_PREFIX = "ce-"
_FORM_ENCODED = "application/x-www-form-urlencoded"
_CHARSETS = frozenset(("", "utf-8", "utf8", "us-ascii"))
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


class Form(Enum):
    """How a body holds its events."""

    EVENTS = "one event or an array of them"
    LINES = "one event a line"
    CLOUDEVENT = "a CloudEvent with its attributes"
    CLOUDEVENTS = "an array of them"
    BINARY = "the data of a CloudEvent whose attributes are in the head"


_FORMS: Mapping[str, Form] = {
    "application/json": Form.EVENTS,
    "application/x-ndjson": Form.LINES,
    "application/ndjson": Form.LINES,
    "application/jsonl": Form.LINES,
    "application/cloudevents+json": Form.CLOUDEVENT,
    "application/cloudevents-batch+json": Form.CLOUDEVENTS,
}
_SAYING_MORE = ("ce-specversion", "content-encoding")  # headers


def form_of(request: Request) -> Form:
    """The form that a request's head gives its body.

    Raises UnsupportedMediaType.
    """
    content_type = request.header("content-type") or ""
    if content_type in _FORMS and not any(map(request.header_values, _SAYING_MORE)):
        return _FORMS[content_type]
    media_type, _, parameters = content_type.lower().partition(";")
    media_type = media_type.strip()
    form = _FORMS.get(media_type)
    if form not in (Form.CLOUDEVENT, Form.CLOUDEVENTS) and request.header_values("ce-specversion"):
        form = Form.BINARY if not media_type or is_json(media_type) else None
    if form is None:
        raise UnsupportedMediaType(_complaint(request, media_type))
    _check_encoding(request, parameters)
    return form


def decode_body(request: Request, form: Form, text: bytes, source: str, name_from: NameFrom) -> Parts:
    """Read the events of a body, part by part.

    source: the connector's name, for the events. name_from: which attribute of a CloudEvent names it.

    Raises PublisherError; BadEvent with the index of the first bad event, where there is one.
    """
    match form:
        case Form.EVENTS:
            yield from decode_json(text, source)
        case Form.LINES:
            yield from decode_ndjson(text, source)
        case Form.CLOUDEVENT:
            yield [decode_at(0, text, partial(structured, source=source, name_from=name_from))]
        case Form.CLOUDEVENTS:
            yield from batch(text, source, name_from)
        case Form.BINARY:
            yield [decode_at(0, text, lambda body: _binary(request, bytes(body), source, name_from))]


def _binary(request: Request, body: bytes, source: str, name_from: NameFrom) -> Event:
    return binary(_attributes(request.headers), request.header("content-type"), body, source, name_from)


def _attributes(headers: Headers) -> dict[str, str]:
    """The attributes of a CloudEvent in binary mode (HTTP protocol binding, section 3.1.3).

    Raises PublisherError for one that is there twice, or is not UTF-8 behind its percent-encoding.
    """
    attributes: dict[str, str] = {}
    for name, value in headers:
        header = name.decode("latin-1").lower()
        if not header.startswith(_CE_PREFIX):
            continue
        if header.removeprefix(_CE_PREFIX) in attributes:
            raise PublisherError(f"the header {header} is there twice")
        attributes[header.removeprefix(_CE_PREFIX)] = _decoded(header, value)
    return attributes


def _decoded(header: str, value: bytes) -> str:
    """Section 3.1.3.2: first what stands in quotes is taken out of them, then one round of percent-decoding."""
    value = value.strip()
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = _ESCAPE.sub(rb"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise PublisherError(f"the header {header} is not percent-encoded UTF-8") from None


def _check_encoding(request: Request, parameters: str) -> None:
    if parameters and (charset := _charset(parameters)) not in _CHARSETS:
        raise UnsupportedMediaType(f"JSON is UTF-8 here, not {charset!r}")
    if request.header("content-encoding") not in (None, "identity"):
        raise UnsupportedMediaType("the body must come without a Content-Encoding")


def _charset(parameters: str) -> str:
    named = (parameter.partition("=") for parameter in parameters.split(";"))
    return next((value.strip(' "') for name, _, value in named if name.strip() == "charset"), "")


def _complaint(request: Request, media_type: str) -> str:
    if media_type == _FORM_ENCODED and request.header_values("x-hub-signature-256"):
        return "a form can't be read here: choose application/json as the content type of the webhook at GitHub"
    shown = f"not {media_type!r}" if media_type else "and the request has none"
    known = "application/json, application/x-ndjson, application/cloudevents+json or application/cloudevents-batch+json"
    return f"the Content-Type must be {known}, {shown}"
