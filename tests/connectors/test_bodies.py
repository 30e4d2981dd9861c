"""CloudEvents by HTTP: in the body, or with the attributes in the head; and what a head says that nobody can read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.errors import PublisherError
from broker.core.event import Event
from connectors import bodies
from connectors.bodies import Form, form_of
from connectors.webhook import Webhook
from tests.connectors.parts import whole
from tests.connectors.posting import JSON, MAX_BODY, NDJSON, Door, Words, answer, post, said, unread

decode_body = whole(bodies.decode_body)

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
CLOUDEVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"games.1.created","subject":"other","data":{"a": 1}}'
HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/s",
    "ce-type": "games.1.created",
    "ce-subject": "other",
}
EVENT = Event("games.1.created", b'{"a": 1}', "/s 1", "webhook")


# --- What is taken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [STRUCTURED, "Application/CloudEvents+JSON; charset=UTF-8"])
async def test_a_cloudevent_is_taken(media_type: str) -> None:
    door = Door()
    response = await answer(post(CLOUDEVENT, media_type), door)
    assert (response.status, said(response)) == (202, {"ids": ["/s 1"]})
    assert door.events == [EVENT]


async def test_a_batch_of_cloudevents_is_taken_in_order() -> None:
    door = Door()
    other = CLOUDEVENT.replace(b'"1"', b'"2"')
    assert said(await answer(post(b"[%b,%b]" % (CLOUDEVENT, other), BATCH), door)) == {"ids": ["/s 1", "/s 2"]}
    assert door.events == [EVENT, EVENT._replace(id="/s 2")]


@pytest.mark.parametrize("media_type", [JSON, None, f"{JSON}; charset=utf-8", "application/vnd.game+json", "text/json"])
async def test_a_cloudevent_with_its_attributes_in_the_head_is_taken(media_type: str | None) -> None:
    door = Door()
    assert (await answer(post(b' {"a": 1}', media_type, **HEADERS), door)).status == 202
    assert door.events == [EVENT]


async def test_an_empty_body_is_the_payload_null() -> None:
    door = Door()
    await answer(post(b"", **HEADERS), door)
    assert door.events == [EVENT._replace(data=b"null")]


@pytest.mark.parametrize(
    "request_", [post(CLOUDEVENT, STRUCTURED), post(b"[%b]" % CLOUDEVENT, BATCH), post(b'{"a": 1}', **HEADERS)]
)
async def test_the_name_may_be_the_subject(request_: object) -> None:
    door = Door()
    webhook = Webhook(Words(), path="/in", max_body=MAX_BODY, cloudevents_name="subject")
    assert isinstance(request_, type(post()))
    await answer(request_, door, webhook)
    assert door.events == [EVENT._replace(name="other")]


async def test_attributes_in_the_head_of_a_whole_cloudevent_count_for_nothing() -> None:
    door = Door()
    await answer(post(CLOUDEVENT, STRUCTURED, **{**HEADERS, "ce-type": "games.2", "ce-id": ""}), door)
    assert door.events == [EVENT]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/s", "/s"),
        ("%2Fs", "/s"),
        ("%2fs", "/s"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro € 😀".encode().decode("latin-1"), "Euro € 😀"),
        ("%25%32%35", "%25"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("a+b", "a+b"),
        ('"/s"', "/s"),
        ('"/a \\"b\\" \\\\%20c"', '/a "b" \\ c'),
        ('"', '"'),
        ('"/s', '"/s'),
        ("  /s\t", "/s"),
    ],
)
def test_a_header_is_taken_out_of_its_quotes_and_its_percent_encoding(written: str, meant: str) -> None:
    request = post(b"", None, **{**HEADERS, "ce-type": written})
    (event,) = decode_body(request, form_of(request), b"", "x", "type")
    assert event.name == meant


@given(st.text(min_size=1))
@example("%C0%A0")
def test_whatever_is_written_as_the_binding_says_is_read_as_it_was_meant(text: str) -> None:
    with suppress(UnicodeEncodeError):
        written = "".join(
            f"%{byte:02x}" if not 33 <= byte <= 126 or byte in b'%"' else chr(byte) for byte in text.encode()
        )
        request = post(b"", None, **{**HEADERS, "ce-type": written})
        (event,) = decode_body(request, form_of(request), b"", "x", "type")
        assert event.name == text


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["%C0%A0", "%ff", "%ed%a0%80", "\xff", "%e2%82"])
@pytest.mark.parametrize("name", ["ce-type", "ce-id", "ce-anything"])
async def test_a_header_that_is_no_utf_8_is_refused(name: str, value: str) -> None:
    response = await answer(post(b"1", **{**HEADERS, name: value}))
    assert (response.status, said(response)["index"]) == (400, 0)
    assert f"{name} is not percent-encoded UTF-8" in said(response)["error"]


async def test_an_attribute_that_is_there_twice_is_refused() -> None:
    request = post(b"1", **HEADERS)
    twice = replace(request, headers=[*request.headers, (b"ce-type", b"games.2")])
    response = await answer(twice)
    assert (response.status, said(response)["error"]) == (400, "the header ce-type is there twice")


@pytest.mark.parametrize(
    ("body", "media_type", "index"),
    [
        (CLOUDEVENT.replace(b"1.0", b"0.3"), STRUCTURED, 0),
        (b"[%b]" % CLOUDEVENT, STRUCTURED, 0),
        (b'{"event":"games.1"}', STRUCTURED, 0),
        (b"[%b,1]" % CLOUDEVENT, BATCH, 1),
        (b"[%b,nope]" % CLOUDEVENT, BATCH, 1),
        (CLOUDEVENT, BATCH, None),
        (b"[", BATCH, None),
        (b"", STRUCTURED, 0),
    ],
)
async def test_a_bad_cloudevent_is_told_by_its_index(body: bytes, media_type: str, index: int | None) -> None:
    door = Door()
    response = await answer(post(body, media_type), door)
    assert (response.status, said(response).get("index"), door.events) == (400, index, [])


@pytest.mark.parametrize("change", [{"ce-id": None}, {"ce-specversion": "2.0"}, {"ce-time": "now"}, {"ce-my_x": "1"}])
async def test_bad_attributes_in_the_head_are_refused(change: dict[str, str | None]) -> None:
    headers = {name: value for name, value in {**HEADERS, **change}.items() if value is not None}
    response = await answer(post(b"1", **headers))
    assert (response.status, said(response)["index"]) == (400, 0)


async def test_a_name_that_the_token_may_not_publish_is_refused() -> None:
    response = await answer(post(b"1", **{**HEADERS, "ce-type": "users.1"}))
    assert (response.status, said(response)["index"], said(response)["code"]) == (403, 0, "not_permitted")


@pytest.mark.parametrize("media_type", ["text/plain", NDJSON, "application/cloudevents+xml", "application/cloudevents"])
async def test_what_a_cloudevent_can_not_be_is_refused_by_its_head(media_type: str) -> None:
    response = await answer(post(unread, media_type, **HEADERS))
    assert (response.status, said(response)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("media_type", [f"{STRUCTURED}; charset=latin-1", f"{BATCH}; a=b; charset=utf-16"])
async def test_cloudevents_are_utf_8(media_type: str) -> None:
    assert (await answer(post(unread, media_type))).status == 415


async def test_without_a_version_in_the_head_a_body_is_what_its_type_says() -> None:
    door = Door()
    await answer(post(b'{"event":"games.2"}', **{"ce-type": "games.1", "ce-id": "1"}), door)
    assert [event.name for event in door.events] == ["games.2"]


@given(
    st.dictionaries(
        st.sampled_from([*HEADERS, "ce-", "ce-time", "ce-data"]), st.text(st.characters(max_codepoint=255))
    ),
    st.binary(),
)
def test_hostile_heads_are_at_worst_the_publisher_s_fault(headers: dict[str, str], body: bytes) -> None:
    request = post(body, **{**HEADERS, **headers})
    assert form_of(request) is Form.BINARY
    with suppress(PublisherError):
        decode_body(request, Form.BINARY, body, "x", "type")
