"""Heartbeats: who is silent is asked, who stays silent is ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from broker.core.errors import Close
from broker.core.heartbeat import Beat, Heartbeat
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.heartbeat import keep_alive
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits
from tests.fakes import PING, Client, services, talking

HEARTBEAT = Heartbeat(interval=30, timeout=10)


@asynccontextmanager
async def watched(heartbeat: Heartbeat) -> AsyncIterator[tuple[Connection, Client]]:
    """A connection that is looked after."""
    registry: Registry[Connection] = Registry(max_per_user=10)
    connection = Connection(Identity(), services(registry), ConnectionLimits(heartbeat=heartbeat))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_alive, registry, [heartbeat])
        async with talking(connection) as client:
            yield connection, client
        nursery.cancel_scope.cancel()


def pings(client: Client) -> int:
    return sum(opcode == PING for opcode, _ in client.heard)


@pytest.mark.parametrize(
    ("now", "heard_at", "pinged_at", "beat"),
    [
        (100, 100, None, Beat.NOTHING),
        (100, 71, None, Beat.NOTHING),
        (100, 70, None, Beat.PING),
        (100, 0, None, Beat.PING),
        (100, 60, 91, Beat.NOTHING),
        (100, 60, 90, Beat.END),
        (100, 0, 0, Beat.END),
    ],
)
def test_the_times_decide(now: float, heard_at: float, pinged_at: float | None, beat: Beat) -> None:
    assert HEARTBEAT.decide(now, heard_at, pinged_at) is beat


async def test_who_is_silent_is_pinged_once(autojump_clock: MockClock) -> None:
    async with watched(HEARTBEAT) as (_, client):
        await trio.sleep(29)
        assert pings(client) == 0
        await trio.sleep(9)
        assert pings(client) == 1


async def test_who_stays_silent_is_ended(autojump_clock: MockClock) -> None:
    async with watched(HEARTBEAT) as (_, client):
        await trio.sleep(42)
        assert client.close_code() == Close.HEARTBEAT_MISSED
        assert client.ending == (Close.HEARTBEAT_MISSED, "no sign of life")


async def test_who_answers_is_left_alone_and_asked_again(autojump_clock: MockClock) -> None:
    async with watched(HEARTBEAT) as (connection, client):
        for asked in (1, 2, 3):
            await trio.sleep(33)
            assert pings(client) == asked
            connection.heard()
        assert client.close_code() is None


async def test_who_speaks_is_not_pinged(autojump_clock: MockClock) -> None:
    async with watched(HEARTBEAT) as (connection, client):
        for _ in range(20):
            await trio.sleep(20)
            connection.heard()
        assert client.heard == []


async def test_an_interval_of_zero_means_never(autojump_clock: MockClock) -> None:
    async with watched(Heartbeat(interval=0, timeout=10)) as (_, client):
        await trio.sleep(10_000)
        assert client.heard == []


async def test_short_times_are_looked_at_often_enough(autojump_clock: MockClock) -> None:
    async with watched(Heartbeat(interval=0.4, timeout=0.2)) as (_, client):
        await trio.sleep(0.55)
        assert pings(client) == 1
        assert client.close_code() is None
        await trio.sleep(0.2)
        assert client.close_code() == Close.HEARTBEAT_MISSED
