"""A running application: handlers as an application has them, and clients that talk to them, without a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.event import Event
from broker.core.http import Request
from broker.core.ports import Identity
from broker.handlers.declaring import Handlers
from broker.handlers.endpoints import build_endpoints
from broker.handlers.hooks import DEFAULT
from broker.handlers.house import House
from broker.runtime.calls import Calls
from broker.runtime.connection import Connection
from broker.runtime.outbox import QueueLimits
from broker.runtime.party import Party, Refusal
from broker.runtime.presence import Presence
from broker.runtime.registry import Registry
from broker.runtime.rooms import Rooms
from broker.runtime.services import Admitted, Arrival, ConnectionLimits, Endpoint, Services
from tests.fakes import Client, NobodyResumes, Tokens, nothing_to_say

BINARY = 0x2
LIMITS = ConnectionLimits(max_subscriptions=100, commands_per_second=100_000, queue=QueueLimits(frames=10_000))


class Published:
    """Takes events, and keeps them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.events += events
        return [str(number) for number, _ in enumerate(events, start=len(self.events))]


async def no_body(_limit: int) -> bytes:
    return b""


def request(path: str = "/ws", **headers: str) -> Request:
    where, _, query = path.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("GET", where, {name: [value] for name, _, value in pairs}, named, b"1.1", no_body, "192.0.2.1")


class Application:
    """The handlers of all paths at work, and whoever has come to them."""

    def __init__(self, handlers: Sequence[Handlers], timeout: float, limits: ConnectionLimits = LIMITS) -> None:
        self.nursery: trio.Nursery | None = None
        self._clients: list[Client] = []
        self.calls = Calls()
        self.published = Published()
        self.rooms: Rooms[Connection] = Rooms()
        self.registry: Registry[Connection] = Registry(max_per_user=100)
        presence = Presence(0, nothing_to_say)
        self.house = house = House(self.registry, self.rooms, presence, self.published, DEFAULT)
        self.endpoints = build_endpoints(handlers, ("/ws", Endpoint(limits)), house, self.calls, timeout)
        self.tokens = Tokens()
        self._services = Services(self.registry, self.tokens, NobodyResumes(), presence)

    async def join(self, user: str | None = "ada", path: str = "/ws", **claims: Any) -> Client:
        """A client that has come to a path, and whose `on_connect` has begun."""
        client = self.come(Identity(user, claims), request(path))
        await wait_all_tasks_blocked()
        return client

    async def knock(self, asked: Request) -> Client:
        """A client that comes to a path whose handlers decide themselves who may."""
        admit = self.endpoints[asked.path].admit
        assert admit is not None
        admitted = await admit(asked)
        if isinstance(admitted, Refusal):
            client = self._follow(admitted)
        else:
            client = self.come(admitted.identity, asked, admitted)
        await wait_all_tasks_blocked()
        return client

    def come(self, identity: Identity, asked: Request, admitted: Admitted | None = None) -> Client:
        endpoint = self.endpoints[asked.path]
        assert endpoint.application is not None
        arrival = Arrival(endpoint.application, asked, admitted.data if admitted else None)
        return self._follow(Connection(identity, self._services, endpoint.limits, arrival=arrival))

    def _follow(self, party: Party) -> Client:
        assert self.nursery is not None
        client = Client()
        self._clients.append(client)
        self.nursery.start_soon(party.outbox.run, client.write)
        self.nursery.start_soon(client.follow, party)
        return client

    def hang_up(self) -> None:
        """All clients go."""
        for client in self._clients:
            client.hang_up()

    def left_behind(self) -> Mapping[str, int]:
        """All places in which something of a connection could be left."""
        applications = [each.application for each in self.endpoints.values() if each.application is not None]
        kept = [getattr(each, name) for each in applications for name in ("_peers", "_deciding")]
        return {
            "calls": self.calls.waiting(),
            "rooms": len(self.rooms) + len(self.rooms._rooms),
            "connections": len(self.registry) + len(self.house.connections) + sum(map(len, kept)),
            "subscriptions": self.registry.statistics().subscriptions,
        }


@asynccontextmanager
async def running(
    *handlers: Handlers, timeout: float = 30, limits: ConnectionLimits = LIMITS
) -> AsyncIterator[Application]:
    """An application at work for the length of the block; when its clients have gone nothing may be left of them."""
    application = Application(handlers, timeout, limits)
    async with trio.open_nursery() as nursery:
        application.nursery = nursery
        await nursery.start(application.calls.run)
        yield application
        application.hang_up()
        await wait_all_tasks_blocked()
        await application.calls.finish()
        assert set(application.left_behind().values()) == {0}
        nursery.cancel_scope.cancel()


def command(event: str, data: Any = None, command_id: str | int | None = 1) -> dict[str, Any]:
    """A command as a client sends it."""
    return {"event": event, "data": data, **({} if command_id is None else {"id": command_id})}


async def tell(client: Client, *messages: str | bytes | dict[str, Any]) -> None:
    """Send messages, and wait until nothing more happens."""
    client.say_soon(*messages)
    await wait_all_tasks_blocked()


def texts(client: Client) -> list[str]:
    """All text frames that came."""
    return [payload.decode() for opcode, payload in client.heard if opcode == 1]


async def ask(client: Client, event: str, data: Any = None) -> Any:
    """Send a command, and return what answers it: the data, or the code of what is wrong."""
    known = len(texts(client))
    client.say_soon(json.dumps(command(event, data, "asked")))
    for _ in range(1000):
        await wait_all_tasks_blocked()
        for found in (json.loads(text) for text in texts(client)[known:] if text.startswith('{"reply":"asked"')):
            return found["data"] if "data" in found else found["code"]
        await trio.sleep(0.1)
    raise AssertionError("there was no answer")
