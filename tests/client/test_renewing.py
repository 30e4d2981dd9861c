"""Tokens that expire: they are renewed in time, where that is possible."""

from __future__ import annotations

import base64
import json
import time

import trio
from trio.testing import MockClock

from broker.client import connect
from tests.client.server import FakeBroker
from tests.client.using import URL


def token(expires_at: float, name: str = "t") -> str:
    """What looks like a JSON Web Token."""
    payload = base64.urlsafe_b64encode(json.dumps({"exp": expires_at}).encode()).rstrip(b"=").decode()
    return f"{name}.{payload}.signature"


async def test_a_token_is_renewed_before_it_expires(broker: FakeBroker, autojump_clock: MockClock) -> None:
    lives = iter([100.0, 1000.0, 2000.0])
    given: list[str] = []

    def provide() -> str:
        given.append(token(time.time() + next(lives)))
        return given[-1]

    async with connect(URL, provide):
        await trio.sleep(85)
        assert ("authenticate", given[0]) not in broker.heard()[0]
        await trio.sleep(10)
        assert ("authenticate", given[1]) in broker.heard()[0]
        await trio.sleep(950)
        assert len(given) == 2
        await trio.sleep(30)
    assert len(given) == 3
    assert ("authenticate", given[2]) in broker.heard()[0]
    assert len(broker.connections) == 1


async def test_a_token_that_stays_the_same_is_not_asked_for_again_and_again(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    same = token(time.time() + 100)
    async with connect(URL, lambda: same):
        await trio.sleep(1000)
        assert [name for name, _ in broker.heard()[0]].count("authenticate") == 1


async def test_a_renewal_that_fails_is_left_to_the_next_connection(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    answers = iter([token(time.time() + 100), None, token(time.time() + 1000)])

    def provide() -> str:
        answer = next(answers)
        if answer is None:
            raise OSError
        return answer

    async with connect(URL, provide) as client:
        await trio.sleep(200)
        broker.connection.close(4003)
        async with client.subscribe("a"):
            assert len(broker.connections) == 2


async def test_a_fixed_token_is_not_renewed(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL, token(time.time() + 100)):
        await trio.sleep(200)
        assert [name for name, _ in broker.heard()[0]].count("authenticate") == 0
