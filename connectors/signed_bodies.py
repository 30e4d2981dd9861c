"""Bodies of signed requests: those that everybody may send, and the forms that each kind of sender has of its own.

The names and ids here come from what the signature covers. GitHub's headers are the exception: it signs nothing but the
body, and its events have their names nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from broker.core.errors import UnsupportedMediaType
from broker.core.event import Event
from broker.core.http import Request
from connectors.bodies import Form, decode_body, form_of
from connectors.cloudevents import NameFrom
from connectors.decode import Parts, begins_with, checked, decode_at, decode_event, decode_payload, parse
from connectors.signatures import Source

Members = Mapping[str, msgspec.Raw]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_NO_OBJECT = "this is no JSON object"


def signed_form_of(request: Request) -> Form:
    """As `form_of`, for a signed request.

    Raises UnsupportedMediaType; also for a CloudEvent in binary mode: its name would come from a header, which no
    signature covers, so that whoever has seen one such request could publish its body under any name.
    """
    form = form_of(request)
    if form is Form.BINARY:
        raise UnsupportedMediaType(
            "a signature does not cover the ce- headers: send the CloudEvent as application/cloudevents+json"
        )
    return form


def decode_signed(request: Request, form: Form, text: bytes, source: Source, name_from: NameFrom) -> Parts:
    """Read the events of a body that `source` has signed, part by part.

    Raises PublisherError; BadEvent with the index of the first bad event, where there is one.
    """
    if form is Form.EVENTS and begins_with(b"{", text):
        yield [decode_at(0, text, lambda one: _decode_one(request, bytes(one), source))]
    else:
        yield from decode_body(request, form, text, source.label, name_from)


def identified(request: Request, events: list[Event], source: Source) -> list[Event]:
    """All events of a body, each with the id by which a retry is known, where this kind of sender has one."""
    return _with_ids(events, request.header("webhook-id")) if source.kind == "standard-webhooks" else events


def _decode_one(request: Request, text: bytes, source: Source) -> Event:
    members = parse(_members, text, _NO_OBJECT)
    if source.kind == "standard-webhooks":
        return _standard_event(members, source) or decode_event(text, source.label)
    return _github_event(request, members, text, source) or decode_event(text, source.label)


def _standard_event(members: Members, source: Source) -> Event | None:
    """The structure that Standard Webhooks recommends for payloads: `type`, `timestamp` and `data`."""
    name = _text_of(members.get("type"))
    if name is None or "data" not in members or "event" in members:
        return None
    return Event(name, checked(members["data"]), None, source.label)


def _github_event(request: Request, members: Members, text: bytes, source: Source) -> Event | None:
    """GitHub's own payload, whole: named by `X-GitHub-Event` and its `action`, and known by its delivery."""
    happened = request.header("x-github-event")
    if happened is None or _text_of(members.get("event")) is not None:
        return None
    action = _text_of(members.get("action"))
    name = ".".join([source.name, happened] if action is None else [source.name, happened, action])
    return Event(name, decode_payload(text), request.header("x-github-delivery"), source.label)


def _text_of(member: msgspec.Raw | None) -> str | None:
    """What a member holds, if it is a text."""
    return parse(_text, member, _NO_OBJECT) if member is not None and bytes(member).startswith(b'"') else None


def _with_ids(events: Sequence[Event], message_id: str | None) -> list[Event]:
    """Events with the id of their message, which is the same in a retry; of several each is told by its index."""
    if len(events) == 1:
        return [events[0]._replace(id=message_id)]
    numbered = ((event, f"{message_id}.{index}") for index, event in enumerate(events))
    return [event if event.id is not None else event._replace(id=own) for event, own in numbered]
