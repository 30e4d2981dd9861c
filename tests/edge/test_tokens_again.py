"""Tokens that come again: what is remembered of them changes nothing but the work."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jwt
import pytest

from broker.core.errors import ExpiredToken, InvalidToken
from broker.edge.keys import hmac_key
from tests.edge.signing import NOW, Clock, authenticator, encoded, token


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tokens whose signature was looked at."""
    looked: list[Any] = []
    decode = jwt.PyJWS.decode

    def looking(self: jwt.PyJWS, token: Any, *args: Any, **kwargs: Any) -> Any:
        looked.append(token)
        return decode(self, token, *args, **kwargs)

    monkeypatch.setattr(jwt.PyJWS, "decode", looking)
    return looked


def test_a_token_that_comes_again_is_the_same_identity_without_another_look_at_its_signature(
    verified: list[Any],
) -> None:
    asked = authenticator()
    made = token(sub="ada", roles=["admin"], exp=NOW + 60)
    assert [asked.identify(made) for _ in range(3)] == [authenticator().identify(made)] * 3
    assert asked.publisher(made) == authenticator().publisher(made)
    assert verified == [made] * 3  # of one who remembers, and of two who can't


def test_a_token_that_has_ended_since_it_came_last_is_refused() -> None:
    clock = Clock()
    asked = authenticator(clock=clock, leeway=5.0)
    made = token(sub="ada", exp=NOW + 60)
    for clock.now in (NOW, NOW + 64.9):
        assert asked.identify(made).expires_at == NOW + 65
    for clock.now in (NOW + 65, NOW + 1e6):
        for ask in (asked.identify, asked.publisher):
            with pytest.raises(ExpiredToken):
                ask(made)


def test_a_token_that_came_too_early_counts_when_its_time_has_come_and_not_before() -> None:
    clock = Clock()
    asked = authenticator(clock=clock)
    made = token(sub="ada", nbf=NOW + 60, exp=NOW + 120)
    for clock.now in (NOW, NOW + 50):
        with pytest.raises(InvalidToken, match="not valid yet"):
            asked.identify(made)
    clock.now = NOW + 60
    assert asked.identify(made).user == "ada"
    clock.now = NOW
    with pytest.raises(InvalidToken, match="not valid yet"):
        asked.identify(made)


def test_a_forged_token_is_refused_and_looked_at_each_time(verified: list[Any]) -> None:
    asked = authenticator()
    made = token(sub="ada")
    head, body, _ = made.split(".")
    forged = [token(b"x" * 64, sub="ada"), f"{head}.{body}.{encoded(bytes(32))}"]
    asked.identify(made)
    for bad in forged * 2:
        with pytest.raises(InvalidToken, match="not signed by a key"):
            asked.identify(bad)
    assert asked.identify(made).user == "ada"
    assert verified == [made, *forged, *forged]


@pytest.mark.parametrize(
    "claims", [{"sub": "ada", "iss": "https://j"}, {"sub": "a\nb", "iss": "https://i"}, {"sub": "ada", "aud": "x"}]
)
def test_a_token_that_is_refused_is_refused_again(claims: dict[str, Any]) -> None:
    asked = authenticator(issuer="https://i")
    for _ in range(3):
        with pytest.raises(InvalidToken):
            asked.identify(token(**claims))


def test_a_publisher_s_token_without_a_user_lets_nobody_connect_however_well_it_is_known() -> None:
    asked = authenticator()
    bare = token(publish=["**"])
    for _ in range(2):
        assert asked.publisher(bare).user is None
        with pytest.raises(InvalidToken, match="names no user"):
            asked.identify(bare)


def test_what_one_authenticator_remembers_another_does_not_know() -> None:
    made = token(sub="ada")
    assert authenticator().identify(made).user == "ada"
    with pytest.raises(InvalidToken):
        authenticator([hmac_key(b"y" * 64, ["HS256"], "s")]).identify(made)


class Remembered(str):
    """A token that one can see being forgotten."""


def test_tokens_are_remembered_up_to_a_bound_and_those_before_are_looked_at_anew() -> None:
    asked = authenticator()
    alive: weakref.WeakSet[Remembered] = weakref.WeakSet()
    for number in range(1_500):
        made = Remembered(token(sub=f"user-{number}"))
        alive.add(made)
        assert asked.identify(made).user == f"user-{number}"
    del made
    gc.collect()
    assert 0 < len(alive) <= 1_024
    assert asked.identify(token(sub="user-0")).user == "user-0"


def test_no_token_that_is_refused_is_remembered() -> None:
    asked = authenticator()
    alive: weakref.WeakSet[Remembered] = weakref.WeakSet()
    for bad in ("x" * 100_000, token(b"x" * 64, sub="ada"), token(sub="ada", aud="other"), token(sub="ada") + "x"):
        made = Remembered(bad)
        alive.add(made)
        with pytest.raises(InvalidToken):
            asked.identify(made)
    del made
    gc.collect()
    assert len(alive) == 0
