"""A dispatcher at work with a door and clients, for tests of who gets what and how."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.event import Event
from broker.core.policy import Policy
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity, Log
from broker.edge.memory_log import MemoryLog
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.ingest import Ingest
from broker.runtime.outbox import QueueLimits, Write
from broker.runtime.registry import Registry
from broker.runtime.resuming import Resuming
from broker.runtime.services import ConnectionLimits
from tests.fakes import Client, Tokens, frames_in, services
from tests.runtime.sockets import Socket

OPEN = parse_policy('default = "everyone"', "policy.toml")


class ByTheWire(Client):
    """A client at the other end of a socket."""

    def __init__(self, socket: Socket) -> None:
        super().__init__()
        self.socket = socket

    @property
    def connection(self) -> Connection:
        assert isinstance(self.party, Connection)
        return self.party

    def json(self) -> list[Any]:
        self.heard = frames_in(self.socket.got)
        return super().json()


class House:
    """A dispatcher at work, a door, and the clients who came."""

    def __init__(self, nursery: trio.Nursery, policy: Policy, log: Log) -> None:
        self._nursery = nursery
        self.registry: Registry[Connection] = Registry(max_per_user=10, indexed_claims=policy.claims)
        self.dispatcher = Dispatcher(log, policy, self.registry)
        self.ingest = Ingest(100)
        self.resuming = Resuming(log, self.dispatcher, self.registry)
        self.tokens = Tokens()
        nursery.start_soon(self.resuming.run)
        nursery.start_soon(self.dispatcher.run, self.ingest)

    async def join(
        self,
        user: str | None,
        *patterns: str,
        claims: Mapping[str, Any] | None = None,
        queue: QueueLimits | None = None,
        write: Write | None = None,
    ) -> Client:
        client = Client()
        connection = self._connection(user, claims, queue)
        self._nursery.start_soon(connection.outbox.run, write or client.write)
        await self._follow(client, connection, patterns)
        return client

    async def join_by_wire(
        self,
        user: str | None,
        *patterns: str,
        claims: Mapping[str, Any] | None = None,
        queue: QueueLimits | None = None,
        client: ByTheWire | None = None,
    ) -> ByTheWire:
        """The same, by a socket; if none is given, by one that takes bytes at once."""
        client = client or ByTheWire(Socket())
        connection = self._connection(user, claims, queue)
        self._nursery.start_soon(connection.outbox.run, client.socket.write, client.socket)
        await self._follow(client, connection, patterns)
        return client

    async def publish(self, *events: tuple[str, Any], ids: Sequence[str | None] = ()) -> list[str]:
        """Publish a batch, and wait until it has reached everybody."""
        given = ids or [None] * len(events)
        pairs = zip(events, given, strict=True)
        taken = await self.ingest.publish([Event(name, json.dumps(data).encode(), i) for (name, data), i in pairs])
        await wait_all_tasks_blocked()
        return taken

    def _connection(self, user: str | None, claims: Mapping[str, Any] | None, queue: QueueLimits | None) -> Connection:
        limits = ConnectionLimits(queue=queue or QueueLimits(frames=10_000))
        return Connection(Identity(user, claims or {}), services(self.registry, self.tokens, self.resuming), limits)

    async def _follow(self, client: Client, connection: Connection, patterns: Sequence[str]) -> None:
        self._nursery.start_soon(client.follow, connection)
        await client.say(*({"event": "subscribe", "data": pattern} for pattern in patterns))


@asynccontextmanager
async def house(policy: Policy | str = OPEN, log: Log | None = None) -> AsyncIterator[House]:
    policy = parse_policy(policy, "policy.toml") if isinstance(policy, str) else policy
    async with trio.open_nursery() as nursery:
        yield House(nursery, policy, MemoryLog() if log is None else log)
        nursery.cancel_scope.cancel()


async def forever(data: bytes) -> None:
    """A write that never ends."""
    await trio.sleep_forever()


def seen(client: Client) -> list[tuple[str, Any]]:
    return [(message["event"], message["data"]) for message in client.json()]
