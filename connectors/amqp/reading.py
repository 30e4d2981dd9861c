"""From a message of RabbitMQ's to an event: the formats in which services publish there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from broker.core.errors import BadName, BadPayload, PublisherError
from broker.core.event import Event, check_publishable
from connectors.amqp.codec import Delivery
from connectors.cloudevents import NameFrom, binary, structured
from connectors.decode import decode_event, decode_payload

Format = Literal["envelope", "routing_key", "cloudevents"]
Read = Callable[[Delivery], Event]


class TooLarge(PublisherError):
    """A message whose body is larger than we take."""


# The RabbitMQ and AMQP bindings of CloudEvents write the attributes into headers of these names.
_PREFIXES = ("cloudevents:", "cloudevents_", "ce-", "ce_")

# What the counter of a refusal is called; the first that fits counts.
_REASONS: Mapping[type[PublisherError], str] = {
    TooLarge: "too_large",
    BadPayload: "not_json",
    BadName: "bad_name",
    PublisherError: "bad_event",
}
REASONS = tuple(_REASONS.values())


def reason_of(error: PublisherError) -> str:
    """Which of REASONS an error is counted as."""
    return next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))


def reader(form: Format, source: str, cloudevents_name: NameFrom = "type") -> Read:
    """What reads messages of this format. It raises PublisherError for those that are no events.

    source: the connector's name. cloudevents_name: which attribute of a CloudEvent names the event.
    """
    reads: Mapping[Format, Callable[[Delivery, bytes], Event]] = {
        "envelope": lambda delivery, body: _identified(decode_event(body, source), delivery),
        "routing_key": lambda delivery, body: _identified(_named_by_key(delivery, body, source), delivery),
        "cloudevents": lambda delivery, body: _cloudevent(delivery, body, source, cloudevents_name),
    }
    read = reads[form]

    def checked(delivery: Delivery) -> Event:
        if delivery.body is None:
            raise TooLarge(f"the body has {delivery.size} bytes, more than we take")
        event = read(delivery, delivery.body)
        check_publishable(event)
        return event

    return checked


def _identified(event: Event, delivery: Delivery) -> Event:
    """A message is delivered more than once, at times; its id is what it is known by."""
    message_id = delivery.properties.message_id
    return event._replace(id=message_id) if message_id else event


def _named_by_key(delivery: Delivery, body: bytes, source: str) -> Event:
    return Event(delivery.routing_key.decode(errors="replace"), decode_payload(body), None, source)


def _cloudevent(delivery: Delivery, body: bytes, source: str, name_from: NameFrom) -> Event:
    """It is known by its own `source` and `id`, whatever the transport's `message_id`."""
    properties = delivery.properties
    content_type = (properties.content_type or "").lower()
    if content_type.startswith("application/cloudevents-batch"):
        raise PublisherError("a message holds one CloudEvent: a batch could not be rejected in part")
    if content_type.startswith("application/cloudevents"):
        return structured(body, source, name_from)
    attributes = {
        name.removeprefix(prefix): _attribute(value)
        for name, value in ((key.lower(), value) for key, value in properties.headers.items())
        for prefix in _PREFIXES
        if name.startswith(prefix)
    }
    return binary(attributes, properties.content_type, body, source, name_from)


def _attribute(value: Any) -> str:
    """As text: AMQP has types of its own for what a CloudEvent writes down as one."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)
