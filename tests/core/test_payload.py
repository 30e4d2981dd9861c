"""Payloads: checked against a slow model that decodes the text and walks through the value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import BadPayload
from broker.core.payload import MAX_DEPTH, MISSING, check_text, check_texts, encode, read

characters = st.sampled_from(["a", '"', "\\", "[", "{", "]", "\ud800", "\udbff", "\udc00", "\udfff", "é", "😀", "\n"])
texts = st.text(characters, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def has_lone_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, dict):
        return any(has_lone_surrogate(key) or has_lone_surrogate(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(has_lone_surrogate, value))


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(value, (dict, list)) else 0


def passes(raw: bytes) -> bool:
    try:
        check_text(raw)
    except BadPayload:
        return False
    return True


@given(values)
def test_a_lone_surrogate_is_found_wherever_it_is_escaped(value: Any) -> None:
    raw = json.dumps(value).encode()
    # Two escapes beside one another become one character when they are read again: so the model reads too.
    assert passes(raw) == (not has_lone_surrogate(json.loads(raw)))


@given(values, st.integers(MAX_DEPTH - 4, MAX_DEPTH + 4), st.lists(st.booleans(), min_size=MAX_DEPTH + 4))
def test_depth_is_counted_outside_of_texts_only(value: Any, levels: int, objects: list[bool]) -> None:
    for _, is_object in zip(range(levels), objects, strict=False):
        value = {"[{": value, "]}": "[[[["} if is_object else [value, "}}}}{{{{"]
    raw = json.dumps(value).encode()
    assert passes(raw) == (depth(value) <= MAX_DEPTH and not has_lone_surrogate(json.loads(raw)))


def refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except BadPayload:
        return True
    return False


@given(st.lists(st.one_of(values.map(json.dumps), st.integers(120, 140).map(lambda depth: "[" * depth + "]" * depth))))
def test_several_are_refused_together_if_one_of_them_is_alone(texts: list[str]) -> None:
    parts = [text.encode() for text in texts]
    alone = any(refused(partial(check_text, part)) for part in parts)
    assert refused(partial(check_texts, parts, b"".join(parts))) == alone


def test_as_deep_as_may_be_passes() -> None:
    check_text(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_one_deeper_does_not() -> None:
    with pytest.raises(BadPayload, match="nested deeper than 128"):
        check_text(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_many_brackets_beside_one_another_are_not_deep() -> None:
    check_text(b"[" + b",".join([b"[]"] * 1000) + b"]")


@pytest.mark.parametrize("raw", [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', '"é"'.encode("latin-1")])
def test_what_is_not_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(BadPayload, match=r"not UTF-8: .* at byte 1"):
        check_text(raw)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (rb'"\ud800"', "a lone surrogate before byte 7"),
        (rb'"\uDBFFx"', "a lone surrogate before byte 7"),
        (rb'"\ud800\n"', "a lone surrogate before byte 7"),
        (rb'"\ud800x\udc00"', "a lone surrogate at byte 8"),
        (rb'"\ud800\ud800\udc00"', "a lone surrogate before byte 7"),
        (rb'"\udc00"', "a lone surrogate at byte 1"),
        (rb'"\ud83d\ude00\ude00"', "a lone surrogate at byte 13"),
        (rb'["\ud83d","\ude00"]', "a lone surrogate at byte 11"),
        (rb'{"\udfff":1}', "a lone surrogate at byte 2"),
    ],
)
def test_a_lone_surrogate_is_refused_with_its_place(raw: bytes, complaint: str) -> None:
    with pytest.raises(BadPayload, match=complaint):
        check_text(raw)


@pytest.mark.parametrize(
    "raw", [rb'"\ud83d\ude00"', rb'"\uD83D\uDE00\uD83D\uDE00"', rb'"\\ud800"', rb'"\\\\ud800"', b"1"]
)
def test_pairs_and_what_only_looks_like_a_surrogate_pass(raw: bytes) -> None:
    check_text(raw)


@given(values)
def test_reading_gives_the_value(value: Any) -> None:
    raw = json.dumps(value).encode()
    assert read(raw) == json.loads(raw)


def test_numbers_of_any_size_are_read() -> None:
    huge = read(b'{"a":1' + b"0" * 5000 + b',"b":"c"}')
    assert math.isinf(huge["a"])
    assert huge["b"] == "c"


@pytest.mark.parametrize("raw", [b"[" * 200_000, b"{", b'"\xff"'])
def test_what_this_decoder_cannot_hold_is_missing(raw: bytes) -> None:
    assert read(raw) is MISSING


def test_missing_says_so() -> None:
    assert repr(MISSING) == "MISSING"


@pytest.mark.parametrize("value", [None, 1, "größer", [1, {"a": []}]])
def test_a_value_is_written_as_it_is_read(value: Any) -> None:
    assert read(encode(value)) == value
    assert b" " not in encode(value)


@pytest.mark.parametrize("value", ["\ud800", {"a": ["\udfff"]}])
def test_a_text_that_is_none_is_not_written(value: Any) -> None:
    with pytest.raises(BadPayload):
        encode(value)


@pytest.mark.parametrize(("value", "error"), [(math.nan, ValueError), (math.inf, ValueError), ({1}, TypeError)])
def test_what_json_can_t_say_is_not_written(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode(value)
