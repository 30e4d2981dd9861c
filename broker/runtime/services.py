"""What a connection needs of the house that it is in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import trio

from broker.core.commands import Command
from broker.core.errors import BrokerError
from broker.core.heartbeat import Heartbeat
from broker.core.http import Request
from broker.core.ports import Authenticator, Identity
from broker.runtime.outbox import QueueLimits
from broker.runtime.party import Refusal
from broker.runtime.presence import Presence
from broker.runtime.registry import Registry

if TYPE_CHECKING:
    from broker.runtime.connection import Connection


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may use: patterns, commands a second, what waits for it; and its heartbeat."""

    max_subscriptions: int = 1000
    commands_per_second: int = 100
    queue: QueueLimits = field(default_factory=QueueLimits)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)


Resumed = Callable[[str | BrokerError], None]


class Resumer(Protocol):
    """Sends a connection what it has missed."""

    def start(self, connection: Connection, place: str | None, resumed: Resumed) -> trio.CancelScope:
        """Begin to send what came after `place`; None: nothing has been missed.

        resumed: is called with the position of the log, between the last missed event and the first live one; or
            with what has gone wrong.
        Returns a scope that ends it.
        """
        ...

    def refresh(self, connection: Connection) -> None:
        """Tell a connection that can't ask the position of the log, if it has got all that is before it."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What a connection needs of the house: where it is filed, who knows tokens, what it has missed, who is there."""

    registry: Registry[Connection]
    authenticator: Authenticator
    resumer: Resumer
    presence: Presence


class Application(Protocol):
    """What else clients may say on a path, beyond the broker's own commands. Nothing of it waits."""

    def connected(self, client: Connection) -> None:
        """A client has come."""
        ...

    def hear(self, client: Connection, message: str | bytes) -> bool:
        """Take a message as it came; False: such messages are commands, or nothing."""
        ...

    def obey(self, client: Connection, command: Command) -> bool:
        """Take a command, and answer it some time; False: there is no such command.

        Raises ClientError.
        """
        ...

    def subscribe(self, client: Connection, name: str, command: Command) -> bool:
        """Decide some time whether the client may subscribe to `name`, and answer it; False: it need not be asked.

        Raises ClientError.
        """
        ...

    def postpone(self, client: Connection, command: Command) -> bool:
        """Carry out one of the broker's own commands behind the subscriptions that wait; False: there are none.

        Raises ClientError.
        """
        ...

    def authenticated(self, client: Connection) -> None:
        """A client has shown another token: what it was permitted by the one before is to be asked again."""
        ...

    def disconnected(self, client: Connection, code: int, reason: str) -> None:
        """A client has gone."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a client has come to an application: by which request, and what was found out about it on the way."""

    application: Application
    request: Request
    data: Any = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who is let in by the application: as whom, and what it wants to remember about it."""

    identity: Identity
    data: object = None


Admit = Callable[[Request], Awaitable[Admitted | Refusal]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of WebSockets: its bounds, and the application behind it.

    compression: whether it is offered, where there is any. admit: decides who connects, instead of the authenticator.
    """

    limits: ConnectionLimits
    subprotocols: Sequence[str] = ()
    compression: bool = True
    application: Application | None = None
    admit: Admit | None = None
