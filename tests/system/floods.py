"""Clients whose sockets are full, by WebSocket and as event streams: from then on events wait in the broker's queue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.system.event_source import EventSource, hearing
from tests.system.harness import Broker
from tests.system.raw import Raw, raw_websocket

LARGE = "x" * 20_000
QUEUE = 8

_FATES = ("overflowed", "dropped_oldest", "dropped_newest", "replaced")

NextEvent = Callable[[], Awaitable[dict[str, Any]]]


def config(overflow: str) -> str:
    return f'[websocket]\nqueue_size = {QUEUE}\noverflow = "{overflow}"\n'


@asynccontextmanager
async def deaf_websocket(broker: Broker) -> AsyncIterator[Raw]:
    """A subscriber to `flood.**` whose socket is full."""
    async with raw_websocket(broker, "mallory", "flood.**", receive_buffer=4096) as raw:
        _fill(broker)
        yield raw


@asynccontextmanager
async def deaf_stream(broker: Broker) -> AsyncIterator[EventSource]:
    """A stream of `flood.**` whose socket is full."""
    async with hearing(broker, "mallory", "flood.**", receive_buffer=4096) as source:
        _fill(broker)
        yield source


@asynccontextmanager
async def heard_late_by_websocket(broker: Broker) -> AsyncIterator[NextEvent]:
    """What gives the next event, when a WebSocket that was full is read at last."""
    async with deaf_websocket(broker) as raw:

        async def next_event() -> dict[str, Any]:
            event: dict[str, Any] = json.loads(await raw.text())
            return event

        yield next_event


@asynccontextmanager
async def heard_late_by_stream(broker: Broker) -> AsyncIterator[NextEvent]:
    """The same of an event stream."""
    async with deaf_stream(broker) as source:

        async def next_event() -> dict[str, Any]:
            event: dict[str, Any] = (await source.message()).json
            return event

        yield next_event


def _fill(broker: Broker) -> None:
    while not any(broker.metric(f"broker_deliveries_{fate}_total") for fate in _FATES):
        for _ in range(QUEUE):
            broker.publish("flood.fill", LARGE)
