"""What the application can do with the broker that it runs in: send to connections, rooms and users, and publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from broker.core.event import Event
from broker.core.message import Message
from broker.core.ports import Publisher
from broker.handlers.data import plain
from broker.handlers.hooks import Hooks, Received, Sent, call, report
from broker.runtime.connection import Connection as Client
from broker.runtime.presence import Presence
from broker.runtime.registry import Registry
from broker.runtime.rooms import Rooms

if TYPE_CHECKING:
    from broker.handlers.connection import Connection

SOURCE: Final = "handler"
SENDS_PER_TURN: Final = 250  # a few milliseconds between two chances for everybody else


@dataclass(frozen=True, slots=True)
class Current:
    """What is being handled, and by which hooks: what a handler calls finds it here."""

    hooks: Hooks
    received: Received | None = None
    client: Client | None = None


current: ContextVar[Current | None] = ContextVar("current", default=None)


@dataclass(frozen=True, slots=True)
class House:
    """The running broker, as the application sees it.

    hooks: for what is sent outside of handlers. connections: those of all paths that have handlers. turn: whose it is
    to send to many, so that all of them get messages in the same order.
    """

    registry: Registry[Client]
    rooms: Rooms[Client]
    presence: Presence
    publisher: Publisher
    hooks: Hooks
    connections: dict[Client, Connection] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=lambda: Counter(calls=0, calls_failed=0, calls_timed_out=0))
    turn: trio.Lock = field(default_factory=trio.Lock)

    def seen(self, clients: Iterable[Client]) -> Collection[Connection]:
        """These clients as handlers see them; those whose path has none are left out."""
        return [self.connections[client] for client in clients if client in self.connections]

    async def send(self, content: Any, clients: Collection[Client]) -> int:
        """Send to each of them; returns how many there are. Who has gone meanwhile is no error.

        Raises TypeError or ValueError for what can't be sent.
        """
        message = Message(plain(content))
        async with self.turn:
            for number, client in enumerate(clients, start=1):
                client.deliver(message)
                if number % SENDS_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
        await self.sent(content, len(clients))
        return len(clients)

    async def sent(self, content: Any, to: int) -> None:
        """Tell the middleware of the handler that sends, or that of the path. What it raises is reported."""
        now = current.get() or Current(self.hooks)
        before = current.set(replace(now, hooks=replace(now.hooks, sent=None)))  # what the hook sends is not told to it
        try:
            await call(now.hooks.sent, Sent(content, to))
        except Exception as error:
            await report(error, now.received, now.hooks)
        finally:
            current.reset(before)

    def of_users(self, users: Iterable[str]) -> Collection[Client]:
        """All connections of these users, each once."""
        directory = self.registry.directory
        return [client for user in dict.fromkeys(users) for client in directory.of_user(user)]

    async def publish(self, events: Sequence[Event]) -> Sequence[str]:
        """Publish by the same door as everybody."""
        return await self.publisher.publish(events)
