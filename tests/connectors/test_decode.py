"""Bytes to events: what is taken is kept byte for byte, and whatever else comes is refused as its publisher's fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.errors import BadEvent, BadPayload, PublisherError
from broker.core.event import AT_ONCE, Event
from broker.core.payload import MAX_DEPTH
from connectors import decode
from connectors.decode import decode_event, decode_payload
from tests.connectors.parts import whole

decode_json, decode_ndjson = whole(decode.decode_json), whole(decode.decode_ndjson)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def written(value: Any, *, ascii_only: bool, indent: int | None) -> bytes | None:
    """The value as JSON, or None where it can't be written."""
    try:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return None


def with_data(data: bytes) -> bytes:
    return b'{"event":"a.b","data":%b}' % data


# --- What is taken ---------------------------------------------------------------------------------------------------


@given(values, st.booleans(), st.sampled_from([None, 0, 2]))
def test_any_payload_is_kept_byte_for_byte(value: Any, ascii_only: bool, indent: int | None) -> None:
    data = written(value, ascii_only=ascii_only, indent=indent)
    if data is not None:
        assert decode_event(with_data(data), "x") == Event("a.b", data, None, "x")


@given(values)
def test_a_payload_that_stands_alone_is_kept_byte_for_byte(value: Any) -> None:
    data = written(value, ascii_only=True, indent=None)
    assert data is not None
    assert decode_payload(b" \t" + data + b"\r\n ") == data


@given(st.text().filter(lambda text: written(text, ascii_only=False, indent=None) is not None))
def test_any_name_and_id_is_read_for_others_to_judge(text: str) -> None:
    event = decode_event(json.dumps({"event": text, "id": text}).encode(), "x")
    assert (event.name, event.id) == (text, text)


@pytest.mark.parametrize(
    "data",
    [
        b"1" * 10_000,
        b"-0",
        b"1e999999",
        b"0.1000000000000000000001",
        b"1E+2",
        b'"\\u00e4\\/"',
        b"[ ]",
        b'{"a":1,"a":2}',
    ],
)
def test_a_payload_is_forwarded_and_not_understood(data: bytes) -> None:
    assert decode_event(with_data(data), "x").data == data


def test_an_event_without_data_has_null() -> None:
    assert decode_event(b'{"event":"a"}', "x").data == b"null"


def test_an_id_of_null_is_none() -> None:
    assert decode_event(b'{"event":"a","id":null}', "x").id is None


def test_keys_come_in_any_order() -> None:
    assert decode_event(b' { "id" : "i" , "data" : 1 , "event" : "a" } ', "x") == Event("a", b"1", "i", "x")


def test_of_a_key_that_comes_twice_the_last_counts_as_everywhere() -> None:
    text = b'{"event":"a","data":1,"event":"b","data":2}'
    event = decode_event(text, "x")
    assert {"event": event.name, "data": json.loads(event.data)} == json.loads(text)


def test_a_payload_may_be_nested_as_deep_as_the_bound() -> None:
    data = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert decode_event(with_data(data), "x").data == data


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert decode_event(with_data(b'"\\ud83d\\ude00"'), "x").data == b'"\\ud83d\\ude00"'


# --- What is refused -------------------------------------------------------------------------------------------------

NO_JSON = {
    "nothing": b"",
    "white space": b" \t ",
    "NaN": with_data(b"NaN"),
    "Infinity": with_data(b"-Infinity"),
    "a leading zero": with_data(b"01"),
    "a bare fraction": with_data(b".5"),
    "a plus": with_data(b"+1"),
    "single quotes": with_data(b"'a'"),
    "a trailing comma": with_data(b"[1,]"),
    "a bad escape": with_data(b'"\\x41"'),
    "a control character": with_data(b'"\x00"'),
    "half a string": b'{"event":"a","data":"x',
    "trailing garbage": with_data(b"1") + b" x",
    "a second event": with_data(b"1") + with_data(b"1"),
    "a byte order mark": b"\xef\xbb\xbf" + with_data(b"1"),
    "UTF-16": with_data(b"1").decode().encode("utf-16"),
    "no UTF-8 in a payload": with_data(b'"\xff"'),
    "no UTF-8 in a payload's key": with_data(b'{"\xc3": 1}'),
    "overlong UTF-8": with_data(b'"\xc0\xaf"'),
    "a surrogate in UTF-8": with_data(b'"\xed\xa0\x80"'),
    "no UTF-8 in the name": b'{"event":"\xff"}',
    "a lone surrogate": with_data(b'"\\ud800"'),
    "a lone low surrogate": with_data(b'["\\udc00"]'),
    "surrogates the wrong way round": with_data(b'"\\ude00\\ud83d"'),
    "a lone surrogate in a key": with_data(b'{"\\uD800":1}'),
    "a lone surrogate in the name": b'{"event":"\\ud800"}',
    "129 deep": with_data(b"[" * 129 + b"]" * 129),
    "129 deep in objects": with_data(b'{"a":' * 129 + b"1" + b"}" * 129),
    "100,000 deep": with_data(b"[" * 100_000 + b"]" * 100_000),
    "100,000 deep and open": with_data(b"[" * 100_000),
}

NO_EVENT = {
    "null": b"null",
    "a string": b'"a"',
    "a number": b"1",
    "an array": b"[]",
    "no name": b'{"data":1}',
    "a name of null": b'{"event":null}',
    "a number for a name": b'{"event":1}',
    "a number for an id": b'{"event":"a","id":1}',
    "an unknown field": b'{"event":"a","payload":1}',
    "another case": b'{"Event":"a"}',
}


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON.keys())
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadPayload):
        decode_event(text, "x")


@pytest.mark.parametrize("text", NO_EVENT.values(), ids=NO_EVENT.keys())
def test_what_is_no_event_is_refused_with_what_one_looks_like(text: bytes) -> None:
    with pytest.raises(PublisherError, match=r'\{"event": NAME, "data": PAYLOAD\}'):
        decode_event(text, "x")


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(PublisherError, match="payload"):
        decode_event(NO_EVENT["an unknown field"], "x")


@given(st.binary())
@example(b'{"\xff":1}')
@example(b'{"event":"a","\xff":1}')
@example(b"[" * 100_000)
def test_random_bytes_are_at_worst_the_publisher_s_fault(text: bytes) -> None:
    for read in (decode_event, decode_json, decode_ndjson):
        with suppress(PublisherError):
            read(text, "x")
    with suppress(PublisherError):
        decode_payload(text)


def no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def is_json(text: str) -> bool:
    """What another decoder, which is strict where we are, says."""
    try:
        json.loads(text, parse_constant=no_constant)
    except ValueError:
        return False
    return True


@given(st.text('[]{}":,0123456789.eE+-truefalsn\\u \n\t/\x01ä', max_size=12))
def test_exactly_what_is_json_is_taken_for_a_payload(text: str) -> None:
    try:
        taken: bytes | None = decode_payload(text.encode())
    except PublisherError:
        taken = None
    assert (taken is not None) == is_json(text)


def test_a_payload_ends_where_it_ends() -> None:
    with pytest.raises(BadPayload):
        decode_payload(b'1,"id":"x"')


# --- Several events at once ------------------------------------------------------------------------------------------


def test_one_event_or_an_array_of_them_is_a_json_text() -> None:
    assert decode_json(b' {"event":"a"}', "x") == [Event("a", b"null", None, "x")]
    several = b'\n[{"event":"a"},{"event":"b","data":[1, 2]}]'
    assert decode_json(several, "x") == [Event("a", b"null", None, "x"), Event("b", b"[1, 2]", None, "x")]


def test_an_array_may_be_empty() -> None:
    assert decode_json(b"[]", "x") == []


@pytest.mark.parametrize("text", [b"[", b'[{"event":"a"}', b'[{"event":"a"},]', b'[{"event":"a"}] x'])
def test_an_array_that_is_none_is_refused_as_a_whole(text: bytes) -> None:
    with pytest.raises(BadPayload):
        decode_json(text, "x")


@pytest.mark.parametrize(
    "bad",
    [
        b"1",
        b"{}",
        b'{"event":1}',
        b'{"event":"a","data":"\xff"}',
        b'{"event":"a","data":NaN}',
        b'{"event":"a","data":01}',
        b'{"event":"a","data":"\\ud800"}',
        b'{"event":"a"',
        b'{"event":"a","data":' + b"[" * 100_000,
        b"nonsense",
    ],
)
def test_the_first_bad_event_of_an_array_is_told_by_its_index(bad: bytes) -> None:
    with pytest.raises(BadEvent) as caught:
        decode_json(b'[{"event":"a"},%b,{"event":"b"},%b]' % (bad, bad), "x")
    assert caught.value.index == 1


def test_what_stands_before_the_bad_one_may_be_anything() -> None:
    odd = b'{"event":"a","data":%b},{"event":"]","data":[" ,[ ]",{}]} ,\n' % (b"9" * 5000)
    with pytest.raises(BadEvent) as caught:
        decode_json(b'[ %b{"event":"b","data":nope}]' % odd, "x")
    assert caught.value.index == 2


def test_a_single_bad_event_has_the_index_0() -> None:
    with pytest.raises(BadEvent) as caught:
        decode_json(b"nonsense", "x")
    assert caught.value.index == 0


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n"])
def test_ndjson_is_one_event_a_line(end: bytes) -> None:
    text = b'{"event":"a"}\r\n\n  \n{"event":"b"}' + end
    assert [event.name for event in decode_ndjson(text, "x")] == ["a", "b"]


@pytest.mark.parametrize("text", [b"", b"\n", b" \r\n\t"])
def test_ndjson_may_be_empty(text: bytes) -> None:
    assert decode_ndjson(text, "x") == []


READ = pytest.mark.parametrize(
    ("read", "joined"),
    [
        (decode.decode_json, lambda texts: b"[" + b" ,".join(texts) + b"]"),
        (decode.decode_ndjson, lambda texts: b"\n \n".join(texts)),
    ],
    ids=["an array", "lines"],
)
Read = Callable[[bytes, str], decode.Parts]
Join = Callable[[list[bytes]], bytes]


@READ
def test_many_events_are_read_in_parts(read: Read, joined: Join) -> None:
    texts = [b'{"event":"a.%d","data":"%b"}' % (number, b"x" * 40) for number in range(3 * AT_ONCE + 1)]
    parts = [*read(joined(texts), "x")]
    assert [len(part) for part in parts] == [AT_ONCE, AT_ONCE, AT_ONCE, 1]
    assert [event.name for part in parts for event in part] == [f"a.{number}" for number in range(len(texts))]


@READ
@pytest.mark.parametrize("bad", [0, 1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 7])
def test_the_first_bad_event_of_many_is_told_by_its_index_among_all(read: Read, joined: Join, bad: int) -> None:
    texts = [b'{"event":"a","data":"%b"}' % (b"x" * 60)] * (3 * AT_ONCE)
    texts[bad] = texts[-1] = b'{"evnt":"a"}'
    with pytest.raises(BadEvent) as caught:
        whole(read)(joined(texts), "x")
    assert caught.value.index == bad


def test_the_first_bad_line_is_told_by_its_index_among_events() -> None:
    with pytest.raises(BadEvent) as caught:
        decode_ndjson(b'{"event":"a"}\n\n{"event":"b"}{"event":"c"}\n{}', "x")
    assert caught.value.index == 1
