"""Middleware: what is called beside handlers when a message came, when one was sent, and when something failed.

Each of the three can be set for one handler, for a channel, or for a path; the most specific one counts. None stands
for nothing at all; what is not set is the default here, which logs what came and what failed, and not what was sent.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from broker.handlers.containing import contained
from broker.handlers.errors import BadHandler, HandlerTimedOut
from broker.handlers.signature import name_of

if TYPE_CHECKING:
    from broker.handlers.connection import Connection

logger = logging.getLogger(__name__)

TIMEOUT: Final = 10.0  # seconds that a hook may take


class Unset(Enum):
    """Stands where nothing was said, so that None can say something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a client on its way to a handler.

    event: the command's name; None for a message as it came. data: decoded. id: the command's, or None.
    """

    connection: Connection
    event: str | None
    data: Any
    id: str | int | None = None

    @property
    def user(self) -> str | None:
        """The user who sent it, or None."""
        return self.connection.user


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that has been sent. to: how many connections it went to."""

    content: Any
    to: int


H = TypeVar("H")

OnReceived = Callable[[Received], Awaitable[None]]
OnSent = Callable[[Sent], Awaitable[None]]
OnError = Callable[[Exception, Received], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is set in one place."""

    received: OnReceived | Unset | None = UNSET
    sent: OnSent | Unset | None = UNSET
    error: OnError | Unset | None = UNSET

    def before(self, wider: Hooks) -> Hooks:
        """These where they are set, else the wider ones."""
        return Hooks(
            *(getattr(wider if getattr(self, each.name) is UNSET else self, each.name) for each in fields(self))
        )


async def log_received(request: Received) -> None:
    """The default: say that a message came, and nothing of what it holds."""
    logger.info(
        "message.received",
        extra={"connection": request.connection.id, "user": request.user, "command": request.event},
    )


async def log_error(error: Exception, request: Received) -> None:
    """The default: the error with its traceback, the connection and the command."""
    told = {"connection": request.connection.id, "user": request.user, "command": request.event}
    logger.error("handler.failed", exc_info=error, extra=told)


DEFAULT: Final = Hooks(log_received, None, log_error)


async def call(hook: Callable[..., Awaitable[None]] | Unset | None, *arguments: Any) -> None:
    """Call a hook, if there is one.

    Raises HandlerTimedOut, and whatever it raises.
    """
    if hook is None or isinstance(hook, Unset):
        return
    with trio.move_on_after(TIMEOUT), contained():
        await hook(*arguments)
        return
    raise HandlerTimedOut(f"{name_of(hook)} took longer than {TIMEOUT:g} seconds")


async def report(error: Exception, received: Received | None, hooks: Hooks) -> None:
    """Tell the hook for errors; without a message there is nothing to tell it of, and the error is logged."""
    try:
        if received is None:
            raise error
        await call(hooks.error, error, received)
    except Exception:  # a hook that fails itself, or that one
        logger.exception("hook.failed")


def checked(hook: H) -> H:
    """The hook, if it is one: a coroutine function, None, or what stands for nothing said.

    Raises BadHandler.
    """
    if hook is not None and not isinstance(hook, Unset) and not inspect.iscoroutinefunction(hook):
        raise BadHandler(f"{name_of(hook)}: middleware must be a coroutine function, `async def`, or None")
    return hook


def chosen(places: Sequence[Hooks]) -> Hooks:
    """What counts, of all places from the most specific to the widest, and the default behind them."""
    found = Hooks()
    for each in (*places, DEFAULT):
        found = found.before(each)
    return found
