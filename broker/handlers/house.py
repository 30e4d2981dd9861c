"""What the application can do with the broker that it runs in: send to connections, rooms and users, and publish."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from broker.core.event import Event
from broker.core.message import Message
from broker.core.ports import Publisher
from broker.handlers.data import plain
from broker.handlers.hooks import Hooks, Sent, call
from broker.runtime.connection import Connection as Client
from broker.runtime.presence import Presence
from broker.runtime.registry import Registry
from broker.runtime.rooms import Rooms

if TYPE_CHECKING:
    from broker.handlers.connection import Connection

SOURCE: Final = "handler"
SENDS_PER_TURN: Final = 250  # a few milliseconds between two chances for everybody else

# Whose message is being handled, and by which hooks: what a handler calls finds them here.
current_hooks: ContextVar[Hooks] = ContextVar("current_hooks")
current_client: ContextVar[Client] = ContextVar("current_client")


@dataclass(frozen=True, slots=True)
class House:
    """The running broker, as the application sees it. connections: those of all paths that have handlers."""

    registry: Registry[Client]
    rooms: Rooms[Client]
    presence: Presence
    publisher: Publisher
    hooks: Hooks
    connections: dict[Client, Connection] = field(default_factory=dict)

    def seen(self, clients: Iterable[Client]) -> Collection[Connection]:
        """These clients as handlers see them; those whose path has none are left out."""
        return [self.connections[client] for client in clients if client in self.connections]

    async def send(self, content: Any, clients: Collection[Client]) -> int:
        """Send to each of them; returns how many there are. Who has gone meanwhile is no error.

        Raises TypeError or ValueError for what can't be sent.
        """
        message = Message(plain(content))
        for number, client in enumerate(clients, start=1):
            client.deliver(message)
            if number % SENDS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
        await self.sent(content, len(clients))
        return len(clients)

    async def sent(self, content: Any, to: int) -> None:
        """Tell the middleware of the handler that sends, or that of the path."""
        hooks = current_hooks.get(self.hooks)
        told = current_hooks.set(replace(hooks, sent=None))  # what the hook sends is not told to it
        try:
            await call(hooks.sent, Sent(content, to))
        finally:
            current_hooks.reset(told)

    def of_users(self, users: Iterable[str]) -> Collection[Client]:
        """All connections of these users, each once."""
        directory = self.registry.directory
        return [client for user in dict.fromkeys(users) for client in directory.of_user(user)]

    async def publish(self, events: Sequence[Event]) -> Sequence[str]:
        """Publish by the same door as everybody."""
        return await self.publisher.publish(events)
