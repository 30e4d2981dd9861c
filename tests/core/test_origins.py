"""Origins: a browser's page may connect if it is ours or listed; a program may always."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.origins import origin_allowed


def test_a_program_sends_no_origin_and_may_connect() -> None:
    assert origin_allowed(None, "broker.example", [])
    assert origin_allowed(None, None, ["https://app.example"])


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "file://", ""])
def test_a_star_allows_every_page(origin: str) -> None:
    assert origin_allowed(origin, "broker.example", ["https://app.example", "*"])


@pytest.mark.parametrize("origin", ["https://app.example", "HTTPS://APP.example", "https://app.example/"])
def test_a_listed_page_may_connect(origin: str) -> None:
    assert origin_allowed(origin, "broker.example", ["https://other.example", "https://App.Example/"])


@pytest.mark.parametrize(
    "origin",
    [
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil.example/app.example",
        "https://broker.example",  # with a list, the own host must be listed too
        "null",
        "",
    ],
)
def test_a_page_that_is_not_listed_may_not(origin: str) -> None:
    assert not origin_allowed(origin, "broker.example", ["https://app.example"])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://broker.example", "broker.example"),
        ("http://broker.example", "broker.example"),
        ("https://broker.example", "BROKER.example:443"),
        ("https://broker.example:443", "broker.example"),
        ("http://localhost:8080", "localhost:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://[::1]", "[::1]"),
    ],
)
def test_without_a_list_a_page_of_the_same_host_may_connect(origin: str, host: str) -> None:
    assert origin_allowed(origin, host, [])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "broker.example"),
        ("https://broker.example.evil.example", "broker.example"),
        ("https://broker.example@evil.example", "broker.example"),
        ("https://broker.example:8443", "broker.example"),
        ("http://localhost:3000", "localhost:8080"),
        ("http://localhost", "localhost:8080"),
        ("http://localhost:443", "localhost"),
        ("https://broker.example", None),
        ("https://broker.example", ""),
        ("null", "broker.example"),
        ("null", ""),
        ("", ""),
        ("file://", ""),
        ("http://localhost:x", "localhost"),
        ("http://localhost", "localhost:99999"),
        ("http://[::1", "[::1"),
    ],
)
def test_without_a_list_no_other_page_may(origin: str, host: str | None) -> None:
    assert not origin_allowed(origin, host, [])


@given(st.text(), st.text())
def test_no_header_at_all_makes_it_fail(origin: str, host: str) -> None:
    assert origin_allowed(origin, host, []) in (True, False)
