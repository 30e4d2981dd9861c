"""From messages to events: the envelope and the routing key, whose id wins, and why a message is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from broker.core.errors import PublisherError
from broker.core.event import Event
from connectors.amqp.codec import Basic, Delivery
from connectors.amqp.reading import REASONS, Format, reader, reason_of

ENVELOPE = b'{"event":"games.1.created","data":{"a": 1}}'


def delivery(
    body: bytes | None, routing_key: bytes = b"a.b", message_id: str | None = None, size: int | None = None
) -> Delivery:
    header = ContentHeader(properties=Basic.Properties(message_id=message_id)).marshal()
    made = Delivery(b"consumer", 1, 0, b"exchange", routing_key)
    made.begin(header[12:], len(body or b"") if size is None else size)
    made.body = body
    return made


def read(form: Format, *arguments: object, **named: object) -> Event:
    return reader(form, "amqp_main")(delivery(*arguments, **named))  # type: ignore[arg-type]


def refusal(form: Format, *arguments: object, **named: object) -> str:
    """What a refusal is counted as."""
    with pytest.raises(PublisherError) as caught:
        read(form, *arguments, **named)
    return reason_of(caught.value)


# --- Events ----------------------------------------------------------------------------------------------------------


def test_an_envelope_is_the_event_whatever_the_routing_key() -> None:
    assert read("envelope", ENVELOPE, b"\xff") == Event("games.1.created", b'{"a": 1}', None, "amqp_main")


def test_a_routing_key_is_the_name_and_the_body_the_payload() -> None:
    assert read("routing_key", b' {"a": 1}\n', b"games.1.created") == Event(
        "games.1.created", b'{"a": 1}', None, "amqp_main"
    )


def test_an_envelope_may_have_an_id() -> None:
    assert read("envelope", b'{"event":"a","id":"mine"}').id == "mine"


def test_the_message_s_id_wins() -> None:
    assert read("envelope", b'{"event":"a","id":"mine"}', message_id="the message's").id == "the message's"
    assert read("routing_key", b"1", message_id="the message's").id == "the message's"


def test_a_payload_of_any_json_is_kept_as_it_is() -> None:
    for payload in (b"null", b"1.50", b'"\\u00e4"', b"[ 1 ]"):
        assert read("routing_key", payload).data == payload


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "body", "routing_key", "reason"),
    [
        ("envelope", b"", b"a", "not_json"),
        ("envelope", b"\xff", b"a", "not_json"),
        ("envelope", b"{", b"a", "not_json"),
        ("envelope", b'{"event":"a","data":"\\ud800"}', b"a", "not_json"),
        ("envelope", b"[]", b"a", "bad_event"),
        ("envelope", b'{"data":1}', b"a", "bad_event"),
        ("envelope", b'{"event":"a","colour":1}', b"a", "bad_event"),
        ("envelope", b'{"event":"a","id":""}', b"a", "bad_event"),
        ("envelope", b'{"event":"a b"}', b"a", "bad_name"),
        ("envelope", b'{"event":"broker.x"}', b"a", "bad_name"),
        ("routing_key", b"", b"a", "not_json"),
        ("routing_key", b"{", b"a", "not_json"),
        ("routing_key", b"1", b"", "bad_name"),
        ("routing_key", b"1", b"a..b", "bad_name"),
        ("routing_key", b"1", b"broker.x", "bad_name"),
        ("routing_key", b"1", b"a b", "bad_name"),
    ],
)
def test_a_message_that_is_no_event_is_refused_for_a_reason(
    form: Format, body: bytes, routing_key: bytes, reason: str
) -> None:
    assert refusal(form, body, routing_key) == reason
    assert reason in REASONS


@pytest.mark.parametrize("form", ["envelope", "routing_key", "cloudevents"])
def test_a_body_that_was_not_kept_is_too_large(form: Format) -> None:
    with pytest.raises(PublisherError, match="the body has 2000000 bytes, more than we take") as caught:
        read(form, None, size=2_000_000)
    assert reason_of(caught.value) == "too_large"


def test_an_id_that_no_event_may_have_is_refused() -> None:
    assert refusal("envelope", ENVELOPE, message_id="a\nb") == "bad_event"


@given(st.sampled_from(["envelope", "routing_key", "cloudevents"]), st.binary(max_size=50), st.binary(max_size=20))
def test_whatever_comes_is_an_event_or_refused(form: Format, body: bytes, routing_key: bytes) -> None:
    try:
        event = read(form, body, routing_key)
    except PublisherError as error:
        reason = reason_of(error)
    else:
        reason = REASONS[0]
        assert event.source == "amqp_main"
    assert reason in REASONS
