"""One client: reads its commands, carries them out, takes its events, and decides with which code it ends.

The connection never touches the socket. Messages come from `receive`, frames go to the outbox; whoever made it runs
the outbox's writer beside it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import trio

from broker.core.commands import MAX_ID_LENGTH, Command, parse_command, problem, reply
from broker.core.delivery import Delivery
from broker.core.errors import (
    AuthenticationError,
    BadShape,
    BrokerError,
    ClientError,
    Close,
    InvalidToken,
    LogGap,
    ResumeInProgress,
    TooManySubscriptions,
    UnknownCommand,
)
from broker.core.forms import PLAIN, Form
from broker.core.patterns import parse_pattern
from broker.core.ports import Authenticator, Identity
from broker.runtime.allowance import Allowance
from broker.runtime.outbox import Fate, Outbox, QueueLimits
from broker.runtime.registry import Registry, TooManyConnections

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[str | bytes]]
Ending = tuple[int, str]

# Where what waits still goes out before the close frame; everybody else is ended at once.
_PATIENT = frozenset((Close.NORMAL, Close.GOING_AWAY, Close.TOKEN_EXPIRED, Close.DISCONNECTED))
_LATER = object()  # in the place of a reply's data: the reply comes when the command is done
_ids = count(1)


class PeerGone(Exception):
    """The client has ended the connection, or broken the protocol in a way that ends it; carries code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may use: patterns it holds, commands a second, and the queue of what waits for it."""

    max_subscriptions: int = 1000
    commands_per_second: int = 100
    queue: QueueLimits = field(default_factory=QueueLimits)


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
    """What a connection needs of the house: where it is filed, who knows tokens, and who knows what it has missed."""

    registry: Registry[Connection]
    authenticator: Authenticator
    resumer: Resumer


class Party(Protocol):
    """What the edge talks to on behalf of one client: a connection, or the refusal of one."""

    @property
    def outbox(self) -> Outbox:
        """Where all that goes to the client goes."""
        ...

    def heard(self) -> None:
        """Something came from the client."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """End it, soon."""
        ...

    async def run(self, receive: Receive) -> Ending:
        """Serve the client to the end, and return how it ended."""
        ...


class Refusal:
    """Stands where a connection would, says why there is none, and ends."""

    def __init__(self, code: int, reason: str) -> None:
        self.id = next(_ids)
        self.outbox = Outbox(QueueLimits(frames=1))
        self._ending = (code, reason)

    def heard(self) -> None:
        """Nobody waits for a sign of life."""

    def close(self, code: int, reason: str = "") -> None:
        """It ends anyway."""

    async def run(self, receive: Receive) -> Ending:  # noqa: ARG002
        """Send the close frame, and return its code and reason."""
        await trio.lowlevel.checkpoint()
        self.outbox.finish(PLAIN.close(*self._ending), discard=True)
        return self._ending


class Connection:
    """One client of the broker; made for each, used once."""

    __slots__ = (
        "_allowance",
        "_ending",
        "_identity",
        "_lifetime",
        "_limits",
        "_resuming",
        "_services",
        "form",
        "heard_at",
        "id",
        "outbox",
        "patterns",
        "pinged_at",
    )

    def __init__(self, identity: Identity, services: Services, limits: ConnectionLimits, form: Form = PLAIN) -> None:
        self.id = next(_ids)
        self.form = form
        self.outbox = Outbox(limits.queue)
        self.patterns: set[str] = set()
        self.heard_at = trio.current_time()
        self.pinged_at: float | None = None
        self._identity = identity
        self._services = services
        self._limits = limits
        self._resuming: trio.CancelScope | None = None
        self._allowance = Allowance(limits.commands_per_second)
        self._lifetime = trio.CancelScope()
        self._ending: Ending | None = None

    @property
    def user(self) -> str | None:
        """The user at the other end, or None."""
        return self._identity.user

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of the token that counts now."""
        return self._identity.claims

    def offer(self, delivery: Delivery) -> Fate:
        """Queue an event for this client. A client whose queue overflows is ended with 4008."""
        fate = self.outbox.offer(delivery.encoded(self.form), delivery.record.event.name)
        if fate is Fate.OVERFLOWED:
            self.close(Close.TOO_SLOW, "too slow: the queue overflowed")
        return fate

    def send(self, data: bytes) -> None:
        """Queue what is never dropped: no event, or a missed one. A client without room for it is ended with 4008."""
        if self.outbox.answer(data) is Fate.OVERFLOWED:
            self.close(Close.TOO_SLOW, "too slow: the queue overflowed")

    def hold(self) -> None:
        """Get no live events until it has resumed. To be called where it has no patterns yet."""
        self._services.registry.hold(self)

    def identify(self) -> None:
        """Let events carry their ids from now on."""
        self.form = self.form.with_ids

    def close(self, code: int, reason: str = "") -> None:
        """End this connection, soon, with this code. The first call counts."""
        if self._ending is None:
            self._ending = (code, reason)
            self.outbox.finish(self.form.close(code, reason), discard=code not in _PATIENT)
            self._lifetime.cancel()

    def heard(self) -> None:
        """Note that something came from the client: it lives."""
        self.heard_at = trio.current_time()
        self.pinged_at = None

    def ping(self) -> None:
        """Ask the client for a sign of life; where none can come, at least keep what is on the way from giving up."""
        if self.form.listens_only:
            self.heard_at = trio.current_time()
            self._services.resumer.refresh(self)
        else:
            self.pinged_at = trio.current_time()
        self.outbox.control(self.form.ping)

    async def run(self, receive: Receive) -> Ending:
        """Serve the client until one side ends it; returns the close code and the reason.

        receive: waits for the next message, and raises PeerGone when there will be none.
        On return the outbox has been told its last frame; its writer may still be at work.
        """
        try:
            with self._services.registry.attached(self):
                self._live_until(self._identity.expires_at)
                try:
                    with self._lifetime:
                        await self._obey(receive)
                finally:
                    if self._resuming is not None:
                        self._resuming.cancel()
        except PeerGone as gone:
            self._ending = self._ending or (gone.code, gone.reason)
        except TooManyConnections as error:
            self._ending = (Close.POLICY_VIOLATION, str(error))
        if self._ending is None and self._lifetime.cancelled_caught:
            self._ending = (Close.TOKEN_EXPIRED, "the token has expired")
        code, reason = self._ending or (Close.GOING_AWAY, "")
        self.outbox.finish(self.form.close(code, reason), discard=code not in _PATIENT)
        return code, reason

    async def _obey(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if isinstance(message, bytes):
                self.close(Close.UNSUPPORTED_DATA, "this path takes text frames only")
            elif self._allowance.take():
                self._answer(message)
            else:
                self.close(Close.POLICY_VIOLATION, "too many commands")

    def _answer(self, message: str) -> None:
        command_id = None
        try:
            command = parse_command(message)
            command_id = command.id
            data = self._carry_out(command)
        except ClientError as error:
            self._tell(problem(error, command_id if command_id is not None else error.reply_id))
        except BrokerError as error:
            self._tell(problem(error, command_id))
        else:
            if command_id is not None and data is not _LATER:
                self._tell(reply(command_id, data))

    def _tell(self, value: Mapping[str, Any]) -> None:
        self.send(self.form.message(value))

    def _carry_out(self, command: Command) -> object:
        match command.event:
            case "subscribe":
                return self._subscribe(command.data)
            case "unsubscribe":
                return self._unsubscribe(command.data)
            case "resume":
                return self._resume(command)
            case "authenticate":
                return self._authenticate(command.data)
            case unknown:
                known = "subscribe, unsubscribe, resume, authenticate"
                raise UnknownCommand(f"there is no command {unknown[:100]!r}; there are {known}")

    def _subscribe(self, data: object) -> object:
        pattern = parse_pattern(data)
        if pattern not in self.patterns:
            most = self._limits.max_subscriptions
            if len(self.patterns) >= most:
                raise TooManySubscriptions(f"a connection holds at most {most} subscriptions")
            self.patterns.add(pattern)
            self._services.registry.subscribe(self, pattern)
            self._allowance.give_back()  # bounded by their number already, and a client may need all of them at once
        return {"pattern": pattern}

    def _unsubscribe(self, data: object) -> object:
        pattern = parse_pattern(data)
        if pattern in self.patterns:
            self.patterns.discard(pattern)
            self._services.registry.unsubscribe(self, pattern)
        return {"pattern": pattern}

    def _resume(self, command: Command) -> object:
        place = command.data
        if place is not None and not (isinstance(place, str) and len(place) <= MAX_ID_LENGTH):
            raise BadShape("resume takes the id of an event or a position, which are texts, or null")
        if self._resuming is not None:
            raise ResumeInProgress("wait for the answer to the resume before")

        def resumed(outcome: str | BrokerError) -> None:
            self._resuming = None
            if isinstance(outcome, BrokerError):
                self._tell(problem(outcome, command.id))
                if self.form.listens_only and not isinstance(outcome, LogGap):
                    self.close(Close.INTERNAL_ERROR, "try again")
            elif command.id is not None:
                self._tell(reply(command.id, {"id": outcome}))

        self._resuming = self._services.resumer.start(self, place, resumed)
        return _LATER

    def _authenticate(self, data: object) -> object:
        if data is not None and not isinstance(data, str):
            raise BadShape("authenticate takes a token, which is a text")
        try:
            identity = self._services.authenticator.identify(data)
        except AuthenticationError as error:
            logger.info("authenticate.refused", extra={"connection": self.id, "reason": str(error)})
            raise
        if identity.user != self._identity.user:
            raise InvalidToken("the token is for another user")
        self._identity = identity
        self._services.registry.directory.update(self, identity.user, identity.claims)
        self._live_until(identity.expires_at)
        return {"expires_at": identity.expires_at}

    def _live_until(self, expires_at: float | None) -> None:
        # The token's end is wall-clock time; Trio's clock only runs forward, so the distance is taken afresh each time.
        remaining = float("inf") if expires_at is None else expires_at - time.time()
        self._lifetime.deadline = trio.current_time() + remaining
