"""CloudEvents: what the specification allows is taken with its data byte for byte, and nothing else is."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.errors import BadEvent, BadPayload, PublisherError
from broker.core.event import MAX_ID_BYTES, Event, check_publishable
from connectors import cloudevents
from connectors.cloudevents import binary, is_json, structured
from tests.connectors.parts import whole

batch = whole(cloudevents.batch)

MINIMAL = {"specversion": "1.0", "id": "A234", "source": "/shop/1", "type": "orders.created"}
# The example of the JSON event format (version 1.0.2, section 3.2), with JSON for data.
EXAMPLE = b"""{
    "specversion" : "1.0",
    "type" : "com.example.someevent",
    "source" : "/mycontext",
    "subject": null,
    "id" : "C234-1234-1234",
    "time" : "2018-04-05T17:31:00Z",
    "comexampleextension1" : "value",
    "comexampleothervalue" : 5,
    "datacontenttype" : "application/json",
    "data" : {
        "appinfoA" : "abc",
        "appinfoB" : 123,
        "appinfoC" : true
    }
}"""


def written(**changes: Any) -> bytes:
    """A CloudEvent with these attributes changed; `...` takes one out."""
    return json.dumps({name: value for name, value in {**MINIMAL, **changes}.items() if value is not ...}).encode()


def with_data(data: bytes) -> bytes:
    return written()[:-1] + b',"data":%b}' % data


def read(text: bytes) -> Event:
    return structured(text, "x", "type")


def beside(attributes: dict[str, str], body: bytes = b"1", content_type: str | None = "application/json") -> Event:
    return binary(attributes, content_type, body, "x", "type")


# --- One, in JSON ----------------------------------------------------------------------------------------------------


def test_the_example_of_the_specification_is_read() -> None:
    event = read(EXAMPLE)
    assert (event.name, event.id, event.source) == ("com.example.someevent", "/mycontext C234-1234-1234", "x")
    assert event.data == EXAMPLE[EXAMPLE.index(b"{", 1) : EXAMPLE.rindex(b"}")].rstrip()


@pytest.mark.parametrize(
    "data",
    [b"null", b"0.10", b'"\\u00e4\\/"', b'{"b":1,"a":1,"a":2}', b"[ 1 ,\n2]", b"1e999", b"9" * 5000, b'"\xc3\xa4"'],
)
def test_data_is_kept_byte_for_byte(data: bytes) -> None:
    assert read(with_data(data)).data == data
    assert beside(MINIMAL, data).data == data


def test_without_data_the_payload_is_null() -> None:
    assert read(written()).data == b"null"
    assert beside(MINIMAL, b"").data == b"null"


def test_the_name_is_the_type_or_the_subject() -> None:
    text = written(subject="shop.1.orders.2")
    assert structured(text, "x", "type").name == "orders.created"
    assert structured(text, "x", "subject").name == "shop.1.orders.2"
    assert binary({**MINIMAL, "subject": "a.b"}, None, b"", "x", "subject").name == "a.b"


@pytest.mark.parametrize("text", [written(), written(subject=None)])
def test_an_event_that_is_named_by_its_subject_needs_one(text: bytes) -> None:
    with pytest.raises(PublisherError, match="has no `subject`"):
        structured(text, "x", "subject")


def test_an_attribute_of_null_is_one_that_is_not_there() -> None:
    assert read(written(subject=None, time=None, dataschema=None, extension=None, data_base64=None)).name
    with pytest.raises(PublisherError, match="`id` is missing"):
        read(written(id=None))


@pytest.mark.parametrize("extension", ["", "text", 0, -5, True, False, 2**70])
def test_extensions_are_taken_and_passed_over(extension: object) -> None:
    assert read(written(traceparent=extension)) == read(written())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specversion": ...}, "`specversion` is missing"),
        ({"id": ...}, "`id` is missing"),
        ({"source": ...}, "`source` is missing"),
        ({"type": ...}, "`type` is missing"),
        ({"specversion": "0.3"}, "'specversion' must be '1.0'"),
        ({"specversion": "1.0.1"}, "'specversion' must be '1.0'"),
        ({"specversion": 1}, "`specversion` must be a text"),
        ({"id": ""}, "'id' must not be None or empty"),
        ({"id": 7}, "`id` must be a text"),
        ({"id": 0}, "`id` must be a text"),
        ({"id": ["a"]}, "the attribute `id`: Expected"),
        ({"source": ""}, "'source' must not be None or empty"),
        ({"source": True}, "`source` must be a text"),
        ({"type": {}}, "the attribute `type`: Expected"),
        ({"type": 1.5}, "the attribute `type`: Expected"),
        ({"subject": ""}, "'subject' must not be empty"),
        ({"subject": 1}, "`subject` must be a text"),
        ({"dataschema": ""}, "'dataschema' must not be empty"),
        ({"time": "yesterday"}, "`time` must be a time as RFC 3339 has it"),
        ({"time": "2018-04-05"}, "`time` must be a time as RFC 3339 has it"),
        ({"time": "2018-04-05T17:31:00"}, "'time' must be timezone aware"),
        ({"time": "2018-13-05T17:31:00Z"}, "`time` must be a time as RFC 3339 has it"),
        ({"time": "99999-04-05T17:31:00Z"}, "`time` must be a time as RFC 3339 has it"),
        ({"time": "2018-04-05T17:31:00+99:99"}, "`time` must be a time as RFC 3339 has it"),
        ({"time": ""}, "`time` must be a time as RFC 3339 has it"),
        ({"time": 1522949460}, "`time` must be a time as RFC 3339 has it"),
        ({"time": True}, "`time` must be a time as RFC 3339 has it"),
        ({"myExtension": 1}, "`myExtension` must be named with a to z and 0 to 9 only"),
        ({"my_extension": 1}, "`my_extension` must be named"),
        ({"": 1}, "`` must be named"),
        ({"extension": {"a": 1}}, "`extension`: Expected"),
        ({"extension": 1.5}, "`extension`: Expected"),
        ({"datacontenttype": "text/plain"}, "a payload is JSON here, not 'text/plain'"),
        ({"datacontenttype": ""}, "'datacontenttype' must not be empty"),
        ({"datacontenttype": 1}, "`datacontenttype` must be a text"),
        ({"data_base64": "AAEC"}, "send it as `data`, not as `data_base64`"),
        ({"data_base64": ""}, "send it as `data`, not as `data_base64`"),
        ({"data_base64": {}}, "send it as `data`, not as `data_base64`"),
        ({"data": 1, "data_base64": "AAEC"}, "send it as `data`, not as `data_base64`"),
    ],
)
def test_what_is_against_the_specification_is_refused_with_the_attribute(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PublisherError) as caught:
        read(written(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "time",
    ["2018-04-05T17:31:00Z", "2018-04-05t17:31:00.123456789z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z"],
)
def test_a_time_of_rfc_3339_is_good(time: str) -> None:
    assert read(written(time=time)) == read(written())


def test_a_message_repeats_only_a_little_of_what_a_stranger_sent() -> None:
    hostile: list[dict[str, Any]] = [{"E" * 100_000: 1}, {"e" * 100_000: []}, {"datacontenttype": "e" * 100_000}]
    for changes in hostile:
        with pytest.raises(PublisherError) as caught:
            read(written(**changes))
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "data",
    [b"\xff", b'"\xff"', b'"\\ud800"', b"NaN", b"01", b"[1,]", b"", b"{", b"[" * 129 + b"]" * 129, b"[" * 100_000],
)
def test_data_must_be_json_as_any_payload(data: bytes) -> None:
    with pytest.raises(PublisherError):
        read(with_data(data))
    if data:
        with pytest.raises(BadPayload):
            beside(MINIMAL, data)


@pytest.mark.parametrize(
    "text", [b"", b"1", b"null", b"[]", b'"a"', b"{}", b"{", written() + b"x", b'\xef\xbb\xbf{"id":"1"}']
)
def test_what_is_no_cloudevent_at_all_is_refused(text: bytes) -> None:
    with pytest.raises(PublisherError):
        read(text)


def test_of_a_member_that_is_there_twice_the_last_counts() -> None:
    assert read(written()[:-1] + b',"type":"second","data":1,"data":2}') == Event("second", b"2", "/shop/1 A234", "x")


def test_a_great_many_attributes_are_no_matter() -> None:
    assert read(written(**{f"x{number}": number for number in range(20_000)})) == read(written())
    with pytest.raises(PublisherError):
        read(written(**{f"X{number}": number for number in range(20_000)}))


# --- Which one it is -------------------------------------------------------------------------------------------------


def test_events_of_two_sources_are_two_even_with_the_same_id() -> None:
    assert read(written(id="1", source="/a")).id == "/a 1"
    assert read(written(id="1", source="/b")).id == "/b 1"


def test_no_two_of_source_and_id_become_the_same() -> None:
    pairs = [
        ("a", "b c"),
        ("a b", "c"),
        ("a b c", "d"),
        ("a b", "c d"),
        ("a", "b c d"),
        ("a  b", "c"),
        ("a ", " b"),
        ("a", "  b"),
    ]
    pairs += [("x" * length, "x" * (600 - length)) for length in range(1, 600, 7)]
    assert len({read(written(id=id_, source=source)).id for source, id_ in pairs}) == len(pairs)


texts = st.text(st.characters(codec="utf-8"), min_size=1)


@given(texts, texts, texts, texts)
@example("a", "b c", "a b", "c")
def test_different_events_have_different_ids(source: str, id_: str, other_source: str, other_id: str) -> None:
    one = read(written(id=id_, source=source)).id
    other = read(written(id=other_id, source=other_source)).id
    assert (one == other) == ((source, id_) == (other_source, other_id))


@given(texts, texts)
@example("s" * 200, "i" * 200)
@example("a", "\x00")
@example("a", "ä" * 130)
def test_an_id_is_always_one_that_can_be_published(source: str, id_: str) -> None:
    check_publishable(read(written(id=id_, source=source)))


def test_an_id_is_as_it_is_while_it_fits() -> None:
    longest = "i" * (MAX_ID_BYTES - len("/s "))
    assert read(written(id=longest, source="/s")).id == f"/s {longest}"
    hashed = read(written(id=longest + "i", source="/s")).id
    assert hashed is not None
    assert len(bytes.fromhex(hashed)) == 32


# --- A batch ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_an_array_of_them_in_order() -> None:
    events = batch(b" [%b , %b]" % (written(type="a"), written(type="b", id="2", data={})), "x", "type")
    assert [(event.name, event.data) for event in events] == [("a", b"null"), ("b", b"{}")]
    assert batch(b"[]", "x", "type") == []


@pytest.mark.parametrize(
    "bad", [written(id=...), b"1", b'{"event":"a"}', b'{"id":nope}', with_data(b"\xff"), with_data(b"[" * 100_000)]
)
def test_the_first_bad_one_of_a_batch_is_told_by_its_index(bad: bytes) -> None:
    with pytest.raises(BadEvent) as caught:
        batch(b"[%b,%b,%b]" % (written(), bad, bad), "x", "type")
    assert caught.value.index == 1


@pytest.mark.parametrize("text", [b"", b"1", written(), b"{", b"[", b"[1", b"\xff["])
def test_what_is_no_array_is_no_batch(text: bytes) -> None:
    with pytest.raises(PublisherError):
        batch(text, "x", "type")


# --- With its attributes beside the body -----------------------------------------------------------------------------


def test_binary_mode_is_the_same_event() -> None:
    assert beside(MINIMAL, b' {"a": 1}\n') == read(with_data(b'{"a": 1}'))


@pytest.mark.parametrize("content_type", [None, "", "application/json", "Application/JSON; charset=utf-8", "a/b+json"])
def test_a_body_of_json_is_taken_whatever_kind_of_json_it_is(content_type: str | None) -> None:
    assert beside(MINIMAL, content_type=content_type).data == b"1"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/jsonx", "json", "application/xml+jso", "a/b/c+json"]
)
def test_a_body_of_anything_else_is_refused(content_type: str) -> None:
    assert not is_json(content_type)
    for attributes, beside_it in ((MINIMAL, content_type), ({**MINIMAL, "datacontenttype": content_type}, None)):
        with pytest.raises(PublisherError, match="a payload is JSON here, not"):
            beside(attributes, b"1", beside_it)


@pytest.mark.parametrize("name", MINIMAL)
def test_in_binary_mode_too_nothing_may_be_missing(name: str) -> None:
    with pytest.raises(PublisherError, match=f"`{name}` is missing"):
        beside({each: value for each, value in MINIMAL.items() if each != name})


@pytest.mark.parametrize("attributes", [{"time": "now"}, {"data": "1"}, {"data_base64": "AA=="}, {"": "1"}, {"id": ""}])
def test_bad_attributes_are_refused_in_binary_mode_too(attributes: dict[str, str]) -> None:
    with pytest.raises(PublisherError):
        beside({**MINIMAL, **attributes})


# --- Whatever comes --------------------------------------------------------------------------------------------------

NAMES = [*MINIMAL, "time", "subject", "datacontenttype", "dataschema", "data", "data_base64", "x", "X", ""]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_whatever_the_members_are_a_fault_is_the_publisher_s(members: dict[str, Any]) -> None:
    for text in (json.dumps(members).encode(), json.dumps({**MINIMAL, **members}).encode()):
        with suppress(PublisherError):
            read(text)
        with suppress(PublisherError):
            batch(b"[%b]" % text, "x", "subject")


@given(st.binary())
def test_random_bytes_are_at_worst_the_publisher_s_fault(text: bytes) -> None:
    for one in (text, written()[:-1] + text, with_data(text)):
        with suppress(PublisherError):
            read(one)
        with suppress(PublisherError):
            batch(b"[%b]" % one, "x", "type")


@given(st.dictionaries(st.sampled_from(NAMES), st.text()), st.none() | st.text(), st.binary())
@example({"id": "\ud800"}, None, b"")
@example({"source": "\ud800"}, None, b"")
@example({"type": "\ud800"}, None, b"")
def test_random_attributes_are_at_worst_the_publisher_s_fault(
    attributes: dict[str, str], content_type: str | None, body: bytes
) -> None:
    with suppress(PublisherError):
        check_publishable(beside({**MINIMAL, **attributes}, body, content_type))
