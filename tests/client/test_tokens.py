"""When a token expires, as far as that can be seen without verifying it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.tokens import expiry


def jwt(claims: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.c2ln"


@given(st.floats(1, 1e10), st.text())
def test_the_end_of_a_token_is_its_exp(expires_at: float, subject: str) -> None:
    assert expiry(jwt({"exp": expires_at, "sub": subject})) == expires_at


@pytest.mark.parametrize(
    "token",
    ["", "opaque", "a.b.c", "a.%.c", "a..c", "a.ü.c", jwt({}), jwt([]), jwt(None), jwt("exp"), jwt({"exp": "soon"})]
    + [jwt({"exp": exp}) for exp in (None, "", -1, 0, 1e300, float("inf"), float("nan"), 10**400)]
    + [f"a.{base64.urlsafe_b64encode(b'[' * 100_000).decode()}.c"],
)
def test_where_there_is_no_exp_there_is_no_end(token: str) -> None:
    assert expiry(token) is None


@given(st.text())
def test_whatever_it_is_it_does_no_harm(token: str) -> None:
    assert expiry(token) is None or float(expiry(token) or 0) > 0
