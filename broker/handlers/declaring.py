"""What an application writes down: which of its functions answers what."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from broker.core.event import Event
from broker.core.payload import encode
from broker.core.shapes import Shape, ShapeError, parse_shape
from broker.handlers.data import plain, reader
from broker.handlers.errors import BadHandler
from broker.handlers.hooks import UNSET, Hooks, OnError, OnReceived, OnSent, Unset, checked
from broker.handlers.house import SOURCE, House, current_client
from broker.handlers.signature import Signature, name_of, read_signature

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
R = TypeVar("R", bound=OnReceived | None)
S = TypeVar("S", bound=OnSent | None)
E = TypeVar("E", bound=OnError | None)

COMMAND: Final = ("connection", "user", "data", "id", "request")
_BROADCAST: Final = ("event", "data", "to")  # what `Channel.broadcast` takes beside the placeholders
_OWN: Final = frozenset(("subscribe", "unsubscribe", "resume", "authenticate"))  # commands of the broker
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+|/")


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """What answers a command. shape: its name. read: makes of decoded JSON what the function declares."""

    shape: Shape
    signature: Signature
    read: Callable[[Any], Any]
    timeout: float | None
    hooks: Hooks
    channel: Channel | None = None


@dataclass(frozen=True, slots=True)
class MessageHandler:
    """What answers messages as they come, texts, bytes or both."""

    signature: Signature
    takes_text: bool
    takes_bytes: bool
    timeout: float | None
    hooks: Hooks


class _Place:
    """Where handlers are registered: a path, or a channel of it."""

    def __init__(self, prefix: str, channel: Channel | None) -> None:
        self._prefix = prefix
        self._channel = channel
        self.commands: list[CommandHandler] = []
        self.hooks = Hooks()

    def on(
        self,
        event: str,
        *,
        timeout: float | None = None,
        on_message_received: OnReceived | Unset | None = UNSET,
        on_message_sent: OnSent | Unset | None = UNSET,
        on_error: OnError | Unset | None = UNSET,
    ) -> Callable[[F], F]:
        """Let the function below answer the command `event`, in which `<name>` stands for a segment.

        It may take `connection`, `user`, `data`, `id` (the command's), `request` (the message as middleware sees it),
        and each placeholder by its name. `data` is decoded JSON, or what it is annotated with: an attrs class, a
        dataclass, list[int] … What it returns answers a command that has an id.

        timeout: seconds; by default those of the configuration. The hooks: see `docs/handlers.md`, middleware.

        Raises BadHandler.
        """
        if not isinstance(event, str):
            raise BadHandler(f'{name_of(event)}: the name of the command is missing: @on("NAME")')
        _check_seconds(f"the timeout of {event!r}", timeout, above=True)

        def register(function: F) -> F:
            shape = _shape(self._prefix + event, COMMAND)
            signature = read_signature(function, (*COMMAND, *shape.placeholders))
            kind = signature.annotations.get("data", Any)
            if kind is bytes:
                raise BadHandler(f"{signature.name}: commands are texts; bytes come to `on_message`")
            if not _OWN.isdisjoint(shape.patterns):
                raise BadHandler(f"{signature.name}: {shape.text!r} is a command of the broker's own")
            if any(each.shape.patterns == shape.patterns for each in self.commands):
                raise BadHandler(f"{signature.name}: {shape.text!r} has a handler already")
            hooks = Hooks(checked(on_message_received), checked(on_message_sent), checked(on_error))
            read = reader(kind, signature.name)
            self.commands.append(CommandHandler(shape, signature, read, timeout, hooks, self._channel))
            return function

        return register

    def on_message_received(self, function: R) -> R:
        """Let this be called with each message before its handler; None: nothing. What it raises answers instead."""
        self.hooks = Hooks(checked(function), self.hooks.sent, self.hooks.error)
        return function

    def on_message_sent(self, function: S) -> S:
        """Let this be called with each message that a handler has sent; None: nothing."""
        self.hooks = Hooks(self.hooks.received, checked(function), self.hooks.error)
        return function

    def on_error(self, function: E) -> E:
        """Let this be called with what a handler or a hook has raised; None: nothing."""
        self.hooks = Hooks(self.hooks.received, self.hooks.sent, checked(function))
        return function


class Channel(_Place):
    """A conversation of its own under a name, `chat.<room>`: who subscribes to that name is on it, if it may.

    Its handlers answer commands whose names begin with the channel's: `chat.<room>.say` is `@channel.on("say")`. They
    are called only for connections that are on it. `on` and the middleware are those of `Handlers`.
    """

    def __init__(self, name: str, handlers: Handlers) -> None:
        super().__init__(f"{name}.", self)
        self.shape = _shape(name, (*COMMAND, *_BROADCAST))
        if len(self.shape.patterns) > 1 or "*" in name:
            raise BadHandler(f"{name!r}: a channel's name has literals and placeholders only")
        self._handlers = handlers
        self.permits: Signature | None = None

    def authorize(self, function: F) -> F:
        """Let this say, by True or False, whether a connection may be on the channel; asked when it subscribes.

        It may take `connection`, `user` and each placeholder.
        """
        signature = read_signature(function, ("connection", "user", *self.shape.placeholders))
        self.permits = _only_one(self.permits, signature)
        return function

    def name(self, **placeholders: str) -> str:
        """The name of one of its channels: `chat.42` for room="42".

        Raises ValueError for other placeholders than it has.
        """
        if placeholders.keys() != self.shape.placeholders.keys():
            raise ValueError(f"{self.shape.text} needs {', '.join(self.shape.placeholders) or 'no placeholders'}")
        segments = self.shape.text.split(".")
        for placeholder, place in self.shape.placeholders.items():
            segments[place] = str(placeholders[placeholder])
        return ".".join(segments)

    async def broadcast(
        self, event: str, data: Any = None, *, to: str | Iterable[str] | None = None, **placeholders: str
    ) -> int:
        """Send `{"event": CHANNEL.EVENT, "data": DATA}` to all on the channel, or to these users of them.

        Returns how many connections there are.

        Raises TypeError or ValueError for what can't be sent, and for other placeholders than the channel has.
        """
        name = self.name(**placeholders)
        house = self._handlers.house
        members = house.registry.following(name)
        if to is not None:
            users = {to} if isinstance(to, str) else set(to)
            members = [client for client in members if client.user in users]
        return await house.send({"event": f"{name}.{event}", "data": plain(data)}, list(members))


class Handlers(_Place):
    """The handlers of one path. Several may share a path, if their commands differ.

    path: where clients connect; by default `websocket.path`. heartbeat, heartbeat_timeout: seconds; compression:
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
            raise BadHandler(f"{path!r} is no path: write it like /ws/private")
        _check_seconds("heartbeat", heartbeat)
        _check_seconds("heartbeat_timeout", heartbeat_timeout)
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
        self._house: House | None = None

    @property
    def house(self) -> House:
        """The broker that it runs in.

        Raises RuntimeError where there is none.
        """
        if self._house is None:
            raise RuntimeError("these handlers belong to no broker that runs")
        return self._house

    def move_in(self, house: House) -> None:
        """A broker has begun to run with these handlers."""
        self._house = house

    def channel(self, name: str) -> Channel:
        """A channel of this path: `app.channel("chat.<room>")`.

        Raises BadHandler.
        """
        channel = Channel(name, self)
        if any(each.shape.patterns == channel.shape.patterns for each in self.channels):
            raise BadHandler(f"{name!r}: there is such a channel already")
        self.channels.append(channel)
        return channel

    def on_message(self, function: F) -> F:
        """Let this get each message of this path as it came, str or bytes: there are no commands then.

        Where its `message` is annotated as `bytes`, it gets those only, and texts are commands as ever.
        """
        signature = read_signature(function, ("connection", "user", "message"))
        kind = signature.annotations.get("message", Any)
        self.messages.append(MessageHandler(signature, kind is not bytes, kind is not str, None, Hooks()))
        return function

    def on_connect(self, function: F) -> F:
        """Let this be called with each `connection`, before anything that it sends. If it raises, 1011 is the end."""
        self.connects = _only_one(self.connects, read_signature(function, ("connection", "user")))
        return function

    def on_disconnect(self, function: F) -> F:
        """Let this be called when a `connection` has ended, with `code` and `reason`; it is out of its rooms after."""
        signature = read_signature(function, ("connection", "user", "code", "reason"))
        self.disconnects = _only_one(self.disconnects, signature)
        return function

    def authenticate(self, function: F) -> F:
        """Let this decide, from the `request`, who connects: instead of `[auth]`, on this path.

        It returns a user's name, None for nobody in particular, or `Accepted`; and raises or returns `Refused`.
        True is None, and False a refusal.
        """
        self.authenticates = _only_one(self.authenticates, read_signature(function, ("request",)))
        return function

    def on_online(self, function: F) -> F:
        """Let this be called when the first connection of a `user` has come."""
        self.comes_online = _only_one(self.comes_online, read_signature(function, ("user",)))
        return function

    def on_offline(self, function: F) -> F:
        """Let this be called when the last connection of a `user` has been gone for a while."""
        self.goes_offline = _only_one(self.goes_offline, read_signature(function, ("user",)))
        return function

    def is_online(self, user: str) -> bool:
        """Whether the user has a connection, or had one just now."""
        return self.house.presence.is_online(user)

    def online_users(self) -> Collection[str]:
        """All users who count as online now."""
        return self.house.presence.online()

    async def send(self, message: Any) -> int:
        """Send to every device of the user whose message is being handled; to the one connection if it has no user.

        Raises RuntimeError outside of a handler. Returns how many connections there are.
        """
        client = current_client.get(None)
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


def _shape(text: str, taken: Iterable[str]) -> Shape:
    try:
        shape = parse_shape(text)
    except ShapeError as error:
        raise BadHandler(f"{text!r}: {error}") from None
    for name in shape.placeholders.keys() & taken:
        raise BadHandler(f"{text!r}: <{name}> means something else to handlers; give the placeholder another name")
    return shape


def _check_seconds(what: str, seconds: float | None, *, above: bool = False) -> None:
    if seconds is None or (isinstance(seconds, int | float) and (seconds > 0 or (seconds == 0 and not above))):
        return
    raise BadHandler(f"{what}: {seconds!r} is no number of seconds{' above 0' if above else ''}")


def _only_one(before: Signature | None, signature: Signature) -> Signature:
    if before is not None:
        raise BadHandler(f"{signature.name}: {before.name} is there for this already")
    return signature
