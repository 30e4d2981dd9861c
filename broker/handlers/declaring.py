"""What an application writes down: which of its functions answers what."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from broker.core.event import Event
from broker.core.payload import encode
from broker.handlers.channel import Channel
from broker.handlers.data import plain
from broker.handlers.errors import BadHandler
from broker.handlers.hooks import UNSET, Hooks, OnError, OnReceived, OnSent, Unset, checked
from broker.handlers.house import SOURCE, House, current
from broker.handlers.lifespan import L, Lifespan, read_lifespan
from broker.handlers.place import F, MessageHandler, Place, check_seconds, only_one
from broker.handlers.signature import Signature, read_signature
from broker.runtime.connection import Connection as Client

if TYPE_CHECKING:
    from broker.handlers.connection import Connection

_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~-]+|<[A-Za-z_][A-Za-z0-9_]*>))+|/")


class Handlers(Place):
    """The handlers of one path. Several may share a path, if their commands differ.

    path: where clients connect; by default `websocket.path`. In it `<name>` stands for a segment, which is then one of
    `connection.request.params`. heartbeat, heartbeat_timeout: seconds; compression:
    whether it is offered; by default those of the configuration.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        heartbeat: float | None = None,
        heartbeat_timeout: float | None = None,
        compression: bool | None = None,
    ) -> None:
        if path is not None and _PATH.fullmatch(path) is None:
            raise BadHandler(f"{path!r} is no path: write it like /ws/private, or /shops/<shop>")
        check_seconds("heartbeat", heartbeat)
        check_seconds("heartbeat_timeout", heartbeat_timeout)
        super().__init__("", None)
        self.path = path
        self.heartbeat = heartbeat
        self.heartbeat_timeout = heartbeat_timeout
        self.compression = compression
        self.messages: list[MessageHandler] = []
        self.channels: list[Channel] = []
        self.authenticates: Signature | None = None
        self.connects: Signature | None = None
        self.disconnects: Signature | None = None
        self.comes_online: Signature | None = None
        self.goes_offline: Signature | None = None
        self.lifespans: list[Lifespan] = []
        self._house: House | None = None
        self._peers: Collection[Client] = ()

    @property
    def house(self) -> House:
        """The broker that it runs in.

        Raises RuntimeError where there is none.
        """
        if self._house is None:
            raise RuntimeError("these handlers belong to no broker that runs")
        return self._house

    @property
    def peers(self) -> Collection[Client]:
        """The clients of this path, whoever's handlers serve them."""
        return self._peers

    def move_in(self, house: House, peers: Collection[Client]) -> None:
        """A broker has begun to run with these handlers. peers: the clients of their path, as they come and go."""
        self._house = house
        self._peers = peers

    def channel(self, name: str) -> Channel:
        """A channel of this path: `app.channel("chat.<room>")`.

        Raises BadHandler.
        """
        channel = Channel(name, self)
        if any(each.template.patterns == channel.template.patterns for each in self.channels):
            raise BadHandler(f"{name!r}: there is such a channel already")
        self.channels.append(channel)
        return channel

    @overload
    def on_message(self, function: F) -> F: ...

    @overload
    def on_message(
        self,
        *,
        timeout: float | None = None,
        on_message_received: OnReceived | Unset | None = UNSET,
        on_message_sent: OnSent | Unset | None = UNSET,
        on_error: OnError | Unset | None = UNSET,
    ) -> Callable[[F], F]: ...

    def on_message(
        self,
        function: F | None = None,
        *,
        timeout: float | None = None,
        on_message_received: OnReceived | Unset | None = UNSET,
        on_message_sent: OnSent | Unset | None = UNSET,
        on_error: OnError | Unset | None = UNSET,
    ) -> F | Callable[[F], F]:
        """Let this get each message of this path as it came, str or bytes: there are no commands then.

        Where its `message` is annotated as `bytes`, it gets those only, and texts are commands as ever. With arguments
        they are those of `on`: `@app.on_message(timeout=5)`.

        Raises BadHandler.
        """
        check_seconds("the timeout of on_message", timeout, above=True)
        hooks = Hooks(checked(on_message_received), checked(on_message_sent), checked(on_error))

        def register(function: F) -> F:
            signature = read_signature(function, ("connection", "user", "message"))
            kind = signature.annotations.get("message", Any)
            self.messages.append(MessageHandler(signature, kind is not bytes, kind is not str, timeout, hooks))
            return function

        return register if function is None else register(function)

    def lifespan(self, function: L) -> L:
        """Let what this opens be open as long as the broker runs: a database, a task of its own, a nursery.

        It is an async generator function without parameters that yields once. What stands before the `yield` is done
        before anybody can connect, and may take a minute; if it raises, the broker does not start. What stands after it
        is done when the last connection has ended. Decorated with `contextlib.asynccontextmanager` it will do as well.

        Raises BadHandler.
        """
        self.lifespans.append(read_lifespan(function))
        return function

    def on_connect(self, function: F) -> F:
        """Let this be called with each `connection`, before anything that it sends.

        If it raises, the connection is closed: with the code and reason of `Refused`, else with 1011.
        """
        self.connects = only_one(self.connects, read_signature(function, ("connection", "user")))
        return function

    def on_disconnect(self, function: F) -> F:
        """Let this be called when a `connection` has ended, with `code` and `reason`; it is out of its rooms after."""
        signature = read_signature(function, ("connection", "user", "code", "reason"))
        self.disconnects = only_one(self.disconnects, signature)
        return function

    def authenticate(self, function: F) -> F:
        """Let this decide, from the `request`, who connects: instead of `[auth]`, on this path.

        It returns a user's name, None for nobody in particular, or `Accepted`; and raises or returns `Refused`.
        True is None, and False a refusal.
        """
        self.authenticates = only_one(self.authenticates, read_signature(function, ("request",)))
        return function

    def on_online(self, function: F) -> F:
        """Let this be called when the first connection of a `user` has come."""
        self.comes_online = only_one(self.comes_online, read_signature(function, ("user",)))
        return function

    def on_offline(self, function: F) -> F:
        """Let this be called when the last connection of a `user` has been gone for a while."""
        self.goes_offline = only_one(self.goes_offline, read_signature(function, ("user",)))
        return function

    def is_online(self, user: str) -> bool:
        """Whether the user has a connection, or had one just now."""
        return self.house.presence.is_online(user)

    def online_users(self) -> Collection[str]:
        """All users who count as online now."""
        return self.house.presence.online()

    @property
    def connections(self) -> Collection[Connection]:
        """The connections of this path now."""
        return self.house.seen(self._peers)

    def members(self, room: str) -> Collection[Connection]:
        """The connections that are in a room now, in the order in which they have joined."""
        return self.house.seen(self.house.rooms.members(room))

    def connections_of(self, user: str) -> Collection[Connection]:
        """The connections that a user has now, of all paths with handlers."""
        return self.house.seen(self.house.of_users([user]))

    async def send(self, message: Any) -> int:
        """Send to every device of the user whose message is being handled; to the one connection if it has no user.

        Raises RuntimeError outside of a handler. Returns how many connections there are.
        """
        now = current.get()
        client = now.client if now else None
        if client is None:
            raise RuntimeError("outside of a handler nobody is the caller: use to(users).send(…)")
        return await self.house.send(message, [client] if client.user is None else self.house.of_users([client.user]))

    def to(self, users: str | Iterable[str]) -> Recipients:
        """These users, to send to: `await app.to(["ada", "bob"]).send(message)`."""
        return Recipients(self, (users,) if isinstance(users, str) else tuple(users))

    async def broadcast(self, message: Any, *, rooms: str | Iterable[str]) -> int:
        """Send to all in these rooms; each connection gets it once. Returns how many there are."""
        names = (rooms,) if isinstance(rooms, str) else rooms
        return await self.house.send(message, self.house.rooms.members_of(names))

    async def publish(self, event: str, data: Any = None, *, id: str | None = None) -> str:  # noqa: A002
        """Publish an event: it goes the way of all events, and the policy says who may see it. Returns its id.

        Raises BadEvent, Stopping, LogUnavailable.
        """
        (event_id,) = await self.house.publish([Event(event, encode(plain(data)), id, SOURCE)])
        return event_id


@dataclass(frozen=True, slots=True)
class Recipients:
    """Users to send to, with all their devices."""

    handlers: Handlers
    users: tuple[str, ...]

    async def send(self, message: Any) -> int:
        """Send to each connection that they have now; returns how many there are.

        Raises TypeError or ValueError for what can't be sent.
        """
        house = self.handlers.house
        return await house.send(message, house.of_users(self.users))
