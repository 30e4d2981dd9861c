"""A message's properties: as pamqp reads them, and of whatever a stranger sends what can be."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode
from pamqp.header import ContentHeader

from connectors.amqp.codec import Basic
from connectors.amqp.properties import Properties, read_properties

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)  # of at most 128 bytes, which is pamqp's bound
VALUES = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    st.binary(max_size=30).map(bytearray),
)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)

EVERYTHING: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "gzip",
    "headers": {"h": "v", "n": 1},
    "delivery_mode": 2,
    "priority": 9,
    "correlation_id": "a correlation",
    "reply_to": "back",
    "expiration": "60000",
    "message_id": "an id",
    "timestamp": datetime(2024, 5, 6, tzinfo=UTC),
    "message_type": "created",
    "user_id": "guest",
    "app_id": "games",
}


def encoded(properties: Basic.Properties) -> bytes:
    """A content header from its flags on."""
    return ContentHeader(body_size=1, properties=properties).marshal()[12:]


def slowly_read(head: bytes) -> Properties:
    """The model: pamqp reads all of them."""
    header = ContentHeader()
    header.unmarshal(bytes(12) + head)
    headers = header.properties.headers
    return Properties(
        header.properties.content_type,
        header.properties.message_id,
        encode.field_table(headers)[4:] if headers is not None else b"",
    )


# --- Whole ones ------------------------------------------------------------------------------------------------------


def test_every_combination_is_read_as_pamqp_reads_it() -> None:
    nine = list(EVERYTHING)[:9]  # all up to the last that we read
    for present in product([False, True], repeat=len(nine)):
        chosen = {name: EVERYTHING[name] for name, is_there in zip(nine, present, strict=True) if is_there}
        head = encoded(Basic.Properties(**chosen))
        assert read_properties(head) == slowly_read(head)


@given(st.dictionaries(st.sampled_from(list(EVERYTHING)), st.none()).map(lambda chosen: list(chosen)), TEXTS, TEXTS)
def test_properties_of_any_length_are_read_as_pamqp_reads_them(chosen: list[str], text: str, other: str) -> None:
    texts = {"message_id": text, "content_type": other, "correlation_id": other + text, "reply_to": text}
    head = encoded(Basic.Properties(**{name: texts.get(name, EVERYTHING[name]) for name in chosen}))
    assert read_properties(head) == slowly_read(head)


@given(HEADERS)
def test_headers_are_read_as_pamqp_reads_them(headers: dict[str, Any]) -> None:
    head = encoded(Basic.Properties(headers=headers, message_id="m"))
    properties = read_properties(head)
    assert (properties.headers, properties.message_id) == (headers, "m")


def test_no_properties_at_all_are_none() -> None:
    assert read_properties(encoded(Basic.Properties())) == Properties(None, None, b"")
    assert Properties().headers == {}


def test_an_empty_text_is_not_none() -> None:
    assert read_properties(b"\x80\x80\x00\x00") == Properties("", "")


def test_further_words_of_flags_are_passed_over() -> None:
    assert read_properties(b"\x80\x81\x00\x03\x00\x00\x01t\x01m") == Properties("t", "m")


# --- Every type of field ---------------------------------------------------------------------------------------------

FIELDS: dict[str, tuple[bytes, object]] = {
    "boolean": (b"t\x01", True),
    "signed octet": (b"b\xff", -1),
    "octet": (b"B\xff", 255),
    "signed short": (b"s\xff\xfe", -2),
    "short": (b"u\xff\xfe", 65534),
    "signed long": (b"I\xff\xff\xff\xfe", -2),
    "long": (b"i\xff\xff\xff\xfe", 2**32 - 2),
    "long long": (b"l" + b"\xff" * 8, -1),
    "another long long": (b"L" + b"\xff" * 8, -1),
    "float": (b"f" + struct.pack(">f", 0.5), 0.5),
    "double": (b"d" + struct.pack(">d", 0.1), 0.1),
    "decimal": (b"D\x02" + struct.pack(">i", -314), Decimal("-3.14")),
    "text": (b"S\x00\x00\x00\x03\xc3\xa4b", "äb"),
    "text that is no UTF-8": (b"S\x00\x00\x00\x02\xffb", b"\xffb"),
    "timestamp": (b"T" + struct.pack(">Q", 1_700_000_000), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
    "void": (b"V", None),
    "another void": (b"\x00", None),
    "byte array": (b"x\x00\x00\x00\x02\x00\xff", bytearray(b"\x00\xff")),
}
STEPPED_OVER = {
    "table": b"F\x00\x00\x00\x04\x01at\x01",
    "empty table": b"F\x00\x00\x00\x00",
    "array": b"A\x00\x00\x00\x03t\x01V",
    "array of what nobody knows": b"A\x00\x00\x00\x01Z",
    "table that is cut off inside": b"F\x00\x00\x00\x02\x09a",
}
UNDECODABLE = {
    "an unknown type": b"Z\x01",
    "a timestamp out of range": b"T" + b"\xff" * 8,
    "a timestamp in a far year": b"T" + struct.pack(">Q", 10**15),
    "a text longer than all": b"S\x00\x00\x01\x00short",
    "a byte array longer than all": b"x\xff\xff\xff\xffshort",
    "a table longer than all": b"F\x00\x00\x01\x00\x01at\x01",
    "an array longer than all": b"A\xff\xff\xff\xffV",
}
BEFORE, AFTER = b"\x06beforet\x01", b"\x05aftert\x01"


def headers_of(table: bytes) -> object:
    return Properties(encoded_headers=table).headers


@pytest.mark.parametrize(("field", "value"), FIELDS.values(), ids=FIELDS)
def test_a_field_of_any_type_is_read_and_what_comes_after_it(field: bytes, value: object) -> None:
    assert decode.embedded_value(field) == (len(field), value)
    assert headers_of(BEFORE + b"\x02it" + field + AFTER) == {"before": True, "it": value, "after": True}


@pytest.mark.parametrize("field", STEPPED_OVER.values(), ids=STEPPED_OVER)
def test_tables_and_arrays_are_stepped_over(field: bytes) -> None:
    assert headers_of(BEFORE + b"\x02it" + field + AFTER) == {"before": True, "after": True}


@pytest.mark.parametrize("field", UNDECODABLE.values(), ids=UNDECODABLE)
def test_what_comes_before_an_undecodable_field_is_kept(field: bytes) -> None:
    assert headers_of(BEFORE + b"\x02it" + field + AFTER) == {"before": True}


@pytest.mark.parametrize("field", [field for field, _ in FIELDS.values()] + list(STEPPED_OVER.values()))
def test_a_field_that_is_cut_off_is_left_out(field: bytes) -> None:
    for length in range(len(field)):
        assert headers_of(BEFORE + b"\x02it" + field[:length]) == {"before": True}
    for length in range(3):
        assert headers_of(BEFORE + b"\x02it"[:length]) == {"before": True}


def test_a_name_that_is_no_utf_8_is_shown_as_well_as_can_be() -> None:
    assert headers_of(b"\x02a\xfft\x01") == {"a\ufffd": True}


def test_the_last_of_two_fields_of_one_name_holds() -> None:
    assert headers_of(b"\x01at\x00\x01at\x01") == {"a": True}


# --- What is made to take long ---------------------------------------------------------------------------------------


def test_what_is_nested_very_deep_is_stepped_over() -> None:
    deep = b""
    for _ in range(20_000):
        deep = b"A" + len(deep).to_bytes(4, "big") + deep
    assert headers_of(b"\x02it" + deep + AFTER) == {"after": True}


@pytest.mark.parametrize(
    "fields",
    [[b"\x05%05dV" % number for number in range(2000)], [b"\x00V"] * 60_000, [b"\x01aA\x00\x00\x00\x00"] * 2000],
)
def test_there_is_a_bound_on_how_many_fields_are_looked_at(
    fields: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(value: bytes, really: Any = decode.embedded_value) -> Any:
        nonlocal looks
        looks += 1
        return really(value)

    monkeypatch.setattr(decode, "embedded_value", look)
    assert "last" not in Properties(encoded_headers=b"".join(fields) + b"\x04lastV").headers
    assert looks <= 1000


# --- Garbage ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_any_bytes_are_read_as_far_as_can_be(head: bytes) -> None:
    properties = read_properties(head)
    assert isinstance(properties.headers, dict)


@given(st.binary(max_size=40), st.integers(0, 65535))
def test_any_bytes_behind_any_flags_are_read_as_far_as_can_be(rest: bytes, flags: int) -> None:
    properties = read_properties(flags.to_bytes(2, "big") + rest)
    assert isinstance(properties.headers, dict)


def test_a_header_that_is_cut_off_gives_no_half_texts() -> None:
    head = encoded(Basic.Properties(**EVERYTHING))
    whole = read_properties(head)
    for length in range(len(head)):
        properties = read_properties(head[:length])
        assert properties.content_type in {None, whole.content_type}
        assert properties.message_id in {None, whole.message_id}
        assert set(properties.headers) <= set(whole.headers)


def test_a_text_that_is_no_utf_8_is_none_and_the_others_are_read() -> None:
    assert read_properties(b"\x80\x80\x01\xff\x01m") == Properties(None, "m")
    assert read_properties(b"\x80\x80\x01t\x01\xff") == Properties("t", None)
