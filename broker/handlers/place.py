"""Where handlers are registered, and what is known of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from broker.handlers.data import reader
from broker.handlers.errors import BadHandler
from broker.handlers.hooks import UNSET, Hooks, OnError, OnReceived, OnSent, Unset, checked
from broker.handlers.naming import Template
from broker.handlers.signature import Signature, name_of, read_signature

if TYPE_CHECKING:
    from broker.handlers.channel import Channel

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
R = TypeVar("R", bound=OnReceived | None)
S = TypeVar("S", bound=OnSent | None)
E = TypeVar("E", bound=OnError | None)

COMMAND: Final = ("connection", "user", "data", "id", "request")
_OWN: Final = frozenset(("subscribe", "unsubscribe", "resume", "authenticate"))  # commands of the broker


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """What answers a command. read: makes of decoded JSON what the function declares."""

    name: Template
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


class Place:
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
        check_seconds(f"the timeout of {event!r}", timeout, above=True)

        def register(function: F) -> F:
            name = template(self._prefix + event, COMMAND)
            signature = read_signature(function, (*COMMAND, *name.placeholders))
            kind = signature.annotations.get("data", Any)
            if kind is bytes:
                raise BadHandler(f"{signature.name}: commands are texts; bytes come to `on_message`")
            if not _OWN.isdisjoint(name.patterns):
                raise BadHandler(f"{signature.name}: {name.text!r} is a command of the broker's own")
            if any(each.name.patterns == name.patterns for each in self.commands):
                raise BadHandler(f"{signature.name}: {name.text!r} has a handler already")
            hooks = Hooks(checked(on_message_received), checked(on_message_sent), checked(on_error))
            read = reader(kind, signature.name)
            self.commands.append(CommandHandler(name, signature, read, timeout, hooks, self._channel))
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


def template(text: str, taken: Iterable[str]) -> Template:
    """The name of a command or a channel; `taken`: what no placeholder can be called.

    Raises BadHandler.
    """
    found = Template(text)
    for name in set(found.placeholders).intersection(taken):
        raise BadHandler(f"{text!r}: <{name}> means something else to handlers; give the placeholder another name")
    return found


def check_seconds(what: str, seconds: float | None, *, above: bool = False) -> None:
    """Raise BadHandler for what is no number of seconds. above: 0 is none either."""
    if seconds is None or (isinstance(seconds, int | float) and (seconds > 0 or (seconds == 0 and not above))):
        return
    raise BadHandler(f"{what}: {seconds!r} is no number of seconds{' above 0' if above else ''}")


def only_one(before: Signature | None, signature: Signature) -> Signature:
    """This one, where none has been before it.

    Raises BadHandler.
    """
    if before is not None:
        raise BadHandler(f"{signature.name}: {before.name} is there for this already")
    return signature
