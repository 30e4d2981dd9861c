"""Tokens in requests: where they may stand, and that nobody becomes anonymous by a bad one."""

from __future__ import annotations

import pytest

from broker.core.credentials import QUERY_PARAMETERS, token_of
from broker.core.errors import InvalidToken
from broker.core.http import Request


async def no_body(limit: int) -> bytes:
    return b""


def request(*headers: str, **query: str | list[str]) -> Request:
    listed = {name: [value] if isinstance(value, str) else value for name, value in query.items()}
    return Request("GET", "/ws", listed, [(b"authorization", value.encode()) for value in headers], b"1.1", no_body)


def test_without_one_there_is_none() -> None:
    assert token_of(request(other="x")) is None


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER   abc  "])
def test_a_header_carries_it(header: str) -> None:
    assert token_of(request(header)) == "abc"


@pytest.mark.parametrize("parameter", QUERY_PARAMETERS)
@pytest.mark.parametrize("value", ["abc", " abc ", "Bearer abc", "bearer  abc"])
def test_each_parameter_carries_it_bare_or_with_its_scheme(parameter: str, value: str) -> None:
    assert token_of(request(**{parameter: value})) == "abc"


@pytest.mark.parametrize("value", ["", "  ", "Bearer", "Bearer  "])
def test_an_empty_parameter_is_none(value: str) -> None:
    assert token_of(request(token=value)) is None


@pytest.mark.parametrize("header", ["", "abc", "Basic abc", "Bearer", "Bearer  ", "Bearerabc"])
def test_a_bad_header_does_not_fall_back_to_the_query(header: str) -> None:
    with pytest.raises(InvalidToken, match="must be `Bearer <token>`"):
        token_of(request(header, token="abc"))


@pytest.mark.parametrize(
    "several",
    [
        request("Bearer abc", token="xyz"),
        request("Bearer abc", "Bearer xyz"),
        request(token="abc", access_token="xyz"),
        request(token=["abc", "xyz"]),
    ],
)
def test_two_different_tokens_are_refused(several: Request) -> None:
    with pytest.raises(InvalidToken, match="two different tokens"):
        token_of(several)


@pytest.mark.parametrize(
    "several",
    [
        request("Bearer abc", "bearer abc"),
        request("Bearer abc", authHeader="Bearer abc", token="abc"),
        request(token=["abc", "", "abc"]),
    ],
)
def test_the_same_token_twice_is_one(several: Request) -> None:
    assert token_of(several) == "abc"


def test_a_refusal_never_shows_the_token() -> None:
    with pytest.raises(InvalidToken) as caught:
        token_of(request("Bearer geheim", token="secret"))
    assert "geheim" not in str(caught.value)
    assert "secret" not in str(caught.value)
