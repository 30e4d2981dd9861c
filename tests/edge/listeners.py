"""A front end with a log and a dispatcher behind it, and clients that listen to server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from broker.core.errors import ExpiredToken
from broker.core.event import Event
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity, Log
from broker.edge.front import Front, FrontSettings
from broker.edge.memory_log import MemoryLog
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.ingest import Ingest
from broker.runtime.outbox import QueueLimits
from broker.runtime.registry import Registry
from broker.runtime.resuming import Resuming
from broker.runtime.services import ConnectionLimits
from tests.edge.streams import Wrap, plain
from tests.fakes import Tokens, services
from tests.system.event_source import EventSource, request
from tests.system.harness import Answer

TOKENS = Tokens({"ada": Identity("ada"), "bob": Identity("bob"), "old": ExpiredToken("that was yesterday")})
SETTINGS = FrontSettings()


class House:
    """What a broker has between its port and its log."""

    def __init__(self, nursery: trio.Nursery, settings: FrontSettings, log: Log, max_per_user: int) -> None:
        self._nursery = nursery
        self._ingest = Ingest(100)
        self.registry: Registry[Connection] = Registry(max_per_user=max_per_user)
        self.dispatcher = Dispatcher(log, parse_policy('default = "everyone"', "policy.toml"), self.registry)
        resuming = Resuming(log, self.dispatcher, self.registry)
        self.front = Front(settings, services(self.registry, TOKENS, resuming), [])
        nursery.start_soon(resuming.run)
        nursery.start_soon(self.dispatcher.run, self._ingest)

    def connect(self, wrap: Wrap = plain) -> EventSource:
        client, server = memory_stream_pair()
        self._nursery.start_soon(self.front.serve, wrap(server))
        return EventSource(client)

    async def ask(self, sent: bytes) -> tuple[EventSource, Answer]:
        source = self.connect()
        await source.send(sent)
        return source, await source.answer()

    async def status(self, sent: bytes) -> tuple[int, str]:
        """Status and code of a refusal."""
        source, answer = await self.ask(sent)
        await source.stream.aclose()
        return answer.status, json.loads(answer.body)["code"]

    async def hear(
        self, *patterns: str, wrap: Wrap = plain, user: str = "ada", after: str | None = None
    ) -> EventSource:
        source = self.connect(wrap)
        headers = [] if after is None else [("Last-Event-ID", after)]
        await source.send(request(*patterns, headers=headers, token=user))
        answer = await source.answer()
        assert answer.status == 200, answer
        await wait_all_tasks_blocked()
        return source

    async def publish(self, *events: tuple[str, object], ids: Sequence[str | None] = ()) -> list[str]:
        """Publish a batch, and wait until it has reached everybody."""
        given = ids or [None] * len(events)
        pairs = zip(events, given, strict=True)
        taken = await self._ingest.publish([Event(name, text(data), i) for (name, data), i in pairs])
        await wait_all_tasks_blocked()
        return taken


def text(data: object) -> bytes:
    """A payload: bytes are one already."""
    return data if isinstance(data, bytes) else json.dumps(data).encode()


def limited(*, max_subscriptions: int = 1000, queue: QueueLimits | None = None) -> FrontSettings:
    """The settings with other bounds for each connection."""
    return replace(SETTINGS, limits=ConnectionLimits(max_subscriptions, queue=queue or QueueLimits()))


@asynccontextmanager
async def house(
    settings: FrontSettings = SETTINGS, log: Log | None = None, max_per_user: int = 100
) -> AsyncIterator[House]:
    """A house for the length of the block."""
    async with trio.open_nursery() as nursery:
        yield House(nursery, settings, MemoryLog() if log is None else log, max_per_user)
        nursery.cancel_scope.cancel()
