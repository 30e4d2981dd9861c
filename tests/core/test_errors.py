"""Errors: what the outside sees of them."""

from __future__ import annotations

import pytest

from broker.core.errors import (
    ADVICE,
    CLOSE_FOR_AUTHENTICATION,
    AuthenticationError,
    BrokerError,
    Close,
    Fault,
    FaultyFile,
    NotPermitted,
    Overloaded,
    Stopping,
)


def family(error: type[BrokerError]) -> set[type[BrokerError]]:
    return {error}.union(*map(family, error.__subclasses__()))


def test_every_close_code_comes_with_advice() -> None:
    assert set(ADVICE) == set(Close)


def test_every_refusal_of_a_token_has_a_close_code() -> None:
    assert set(CLOSE_FOR_AUTHENTICATION) == family(AuthenticationError) - {AuthenticationError}


def test_every_error_has_a_code_for_the_outside() -> None:
    assert all(error.code.isidentifier() and error.code.islower() for error in family(BrokerError))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("", "no TOML"), "no TOML"),
        (Fault("a.b", "unknown key"), "a.b: unknown key"),
        (Fault("a.b", "unknown key", 3), "line 3: a.b: unknown key"),
        (Fault("a.b", "unknown key", 3, "did you mean a.c?"), "line 3: a.b: unknown key (did you mean a.c?)"),
    ],
)
def test_a_fault_says_where_what_and_what_to_do(fault: Fault, text: str) -> None:
    assert str(fault) == text


def test_the_faults_of_a_file_are_told_in_the_order_of_their_lines() -> None:
    error = FaultyFile("policy.toml", [Fault("b", "x", 7), Fault("c", "y"), Fault("a", "z", 7), Fault("d", "w", 2)])
    assert str(error).splitlines() == [
        "policy.toml: c: y",
        "policy.toml: line 2: d: w",
        "policy.toml: line 7: a: z",
        "policy.toml: line 7: b: x",
    ]


def test_a_publisher_without_the_right_learns_which_event_it_was() -> None:
    error = NotPermitted(3, "not yours")
    assert (error.index, error.reason, str(error)) == (3, "not yours", "not yours")


def test_a_broker_that_stops_does_not_say_that_it_is_busy() -> None:
    assert str(Overloaded()) == "the broker is busy: its ingest queue is full"
    assert str(Stopping()) == "the broker is stopping, and takes no more events"
