"""Requests and responses as values."""

from __future__ import annotations

import json

from broker.core.errors import Overloaded
from broker.core.http import BodyTooLarge, Headers, HeaderTable, Request, Response, error_response, json_response


async def no_body(limit: int) -> bytes:
    return b""


def request(*headers: tuple[bytes, bytes]) -> Request:
    return Request("GET", "/", {}, headers, b"1.1", no_body)


def test_a_header_that_is_not_there_is_none() -> None:
    assert request().header("host") is None
    assert request().header_values("host") == []


def test_a_table_of_headers_with_another_value_is_a_table_of_those_headers() -> None:
    headers = [(b"a", b"1"), (b"length", b"2"), (b"a", b"3")]
    other = [(b"a", b"1"), (b"length", b"40"), (b"a", b"3")]
    replaced = HeaderTable(headers).replaced(b"length", b"40")
    assert (replaced, replaced.values) == (HeaderTable(other), HeaderTable(other).values)


def test_several_headers_of_one_name_are_joined() -> None:
    headers: Headers = [(b"accept", b" a "), (b"host", b"x"), (b"accept", b"b, c")]
    assert request(*headers).header("accept") == "a, b, c"
    assert request(*headers).header_values("accept") == ["a", "b, c"]


def test_a_header_may_hold_any_byte() -> None:
    assert request((b"x", b"\xff")).header("x") == "\xff"


def test_tokens_are_in_lower_case_and_parted_by_commas() -> None:
    upgrade = request((b"connection", b"keep-alive, Upgrade"), (b"connection", b"X"))
    assert upgrade.header_tokens("connection") == {"keep-alive", "upgrade", "x"}


def test_a_header_that_is_not_there_has_no_token() -> None:
    assert "upgrade" not in request().header_tokens("connection")


def test_a_json_response_holds_the_value_and_the_headers() -> None:
    assert json_response(202, {"é": 1}, Retry_After="1") == Response(
        202, '{"é": 1}\n'.encode(), headers={"Retry-After": "1"}
    )


def test_a_json_response_is_utf8_whatever_it_holds() -> None:
    assert json_response(200, "\ud800").body == b'"?"\n'


def test_an_error_response_says_what_and_under_which_code() -> None:
    response = error_response(503, Overloaded(), index=3)
    assert response.status == 503
    assert json.loads(response.body) == {
        "error": "the broker is busy: its ingest queue is full",
        "code": "overloaded",
        "index": 3,
    }


def test_a_body_too_large_tells_the_limit() -> None:
    error = BodyTooLarge(10)
    assert error.limit == 10
    assert str(error) == "the body has more than 10 bytes"


def test_only_white_space_of_http_is_taken_off_a_header() -> None:
    """An id in UTF-8 may end in a byte that Latin-1 takes for white space."""
    assert request((b"x", b" \t voil\xc3\xa0\x85 \t")).header_values("x") == ["voil\xc3\xa0\x85"]


def test_cookies_are_found_by_name() -> None:
    cookies = request((b"cookie", b'a=1; b="two"; c=x=y; nothing'), (b"cookie", b"d=1,2; a=9")).cookies
    assert cookies == {"a": "1", "b": "two", "c": "x=y", "d": "1,2"}


def test_without_cookies_there_are_none() -> None:
    assert request().cookies == {}
