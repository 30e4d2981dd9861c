"""One client: reads its commands, carries them out, takes its events, and decides with which code it ends.

The connection never touches the socket. Messages come from `receive`, frames go to the outbox; whoever made it runs
the outbox's writer beside it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import trio

from broker.core.delivery import Delivery
from broker.core.errors import (
    AuthenticationError,
    BrokerError,
    Close,
    InvalidToken,
    ResumeInProgress,
    TooManySubscriptions,
)
from broker.core.forms import PLAIN, Form
from broker.core.message import Message
from broker.core.ports import Identity
from broker.runtime.allowance import Allowance
from broker.runtime.obeying import obey
from broker.runtime.outbox import Fate, Outbox
from broker.runtime.party import Ending, PeerGone, Receive, ids
from broker.runtime.registry import TooManyConnections
from broker.runtime.services import Arrival, ConnectionLimits, Resumed, Services

logger = logging.getLogger(__name__)

# Whoever is closed with these is ended at once; to everybody else what waits still goes out before the close frame.
_HASTY = frozenset(
    (
        Close.PROTOCOL_ERROR,
        Close.UNSUPPORTED_DATA,
        Close.INVALID_PAYLOAD,
        Close.POLICY_VIOLATION,
        Close.MESSAGE_TOO_BIG,
        Close.INTERNAL_ERROR,
        Close.TOO_SLOW,
        Close.HEARTBEAT_MISSED,
        1005,
        1006,
    )
)


class Connection:
    """One client of the broker; made for each, used once."""

    __slots__ = (
        "_allowance",
        "_ending",
        "_identity",
        "_lifetime",
        "_resuming",
        "_services",
        "arrival",
        "form",
        "heard_at",
        "id",
        "limits",
        "outbox",
        "patterns",
        "pinged_at",
    )

    def __init__(
        self,
        identity: Identity,
        services: Services,
        limits: ConnectionLimits,
        form: Form = PLAIN,
        arrival: Arrival | None = None,
    ) -> None:
        self.id = next(ids)
        self.form = form
        self.arrival = arrival
        self.outbox = Outbox(limits.queue)
        self.patterns: set[str] = set()
        self.heard_at = trio.current_time()
        self.pinged_at: float | None = None
        self._identity = identity
        self._services = services
        self.limits = limits
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

    @property
    def ended(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._ending is not None

    def deliver(self, message: Message) -> None:
        """Queue a message of the application's. A client whose queue overflows is ended with 4008."""
        data = message.encoded(self.form)
        if data and self.outbox.offer(data, "") is Fate.OVERFLOWED:
            self.close(Close.TOO_SLOW, "too slow: the queue overflowed")

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

    def close(self, code: int, reason: str = "", *, discard: bool | None = None) -> None:
        """End this connection, soon, with this code. The first call counts.

        discard: whether what waits is given up; by default that depends on the code.
        """
        if self._ending is None:
            self._ending = (code, reason)
            self.outbox.finish(self.form.close(code, reason), discard=code in _HASTY if discard is None else discard)
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
        elif self.pinged_at is None:  # else it has not answered the one before
            self.pinged_at = trio.current_time()
        self.outbox.control(self.form.ping)

    async def run(self, receive: Receive) -> Ending:
        """Serve the client until one side ends it; returns the close code and the reason.

        receive: waits for the next message, and raises PeerGone when there will be none.
        On return the outbox has been told its last frame; its writer may still be at work.
        """
        ending: Ending
        try:
            self._services.registry.attach(self)
        except TooManyConnections as error:
            self._ending = ending = (Close.POLICY_VIOLATION, str(error))
        else:
            # No context manager: each would cost an idle connection half a KiB.
            try:
                self._come()
                ending = await self._serve(receive)
            finally:
                self._go()
        self.outbox.finish(self.form.close(*ending), discard=ending[0] in _HASTY)
        return ending

    async def _serve(self, receive: Receive) -> Ending:
        self._live_until(self._identity.expires_at)
        ending: Ending = (Close.TOKEN_EXPIRED, "the token has expired")  # unless it is something else that ends it
        try:
            with self._lifetime:
                await self._obey(receive)
        except PeerGone as gone:
            ending = (gone.code, gone.reason)
        self._ending = self._ending or ending
        return self._ending

    def _come(self) -> None:
        """Let others know that the client is there."""
        if self.user is not None:
            self._services.presence.came(self.user)
        if self.arrival is not None:
            self.arrival.application.connected(self)

    def _go(self) -> None:
        """Take away every trace, however it has ended."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self.user is not None:
            self._services.presence.went(self.user)
        self._ending = self._ending or (Close.INTERNAL_ERROR, "")
        try:
            if self.arrival is not None:
                self.arrival.application.disconnected(self, *self._ending)
        finally:
            self._services.registry.detach(self)

    async def _obey(self, receive: Receive) -> None:
        while True:
            message = await receive()
            self.charge()
            if self.ended:
                continue
            if self.arrival is not None and self.arrival.application.hear(self, message):
                pass
            elif isinstance(message, bytes):
                self.close(Close.UNSUPPORTED_DATA, "this path takes text frames only")
            else:
                obey(self, message)

    def tell(self, value: Mapping[str, Any]) -> None:
        """Queue the answer to a command."""
        self.send(self.form.message(value))

    def spare(self) -> None:
        """Let a command not count: it asks for a new subscription.

        Those are bounded by their number, and a client may need all of them at once.
        """
        self._allowance.give_back()

    def charge(self) -> None:
        """Let a command count after all. A client that may not give it any more is ended with 1008."""
        if not self._allowance.take():
            self.close(Close.POLICY_VIOLATION, "too many commands")

    def subscribe(self, pattern: str, *, spared: bool = False) -> Mapping[str, Any]:
        """Hold one more pattern; returns what answers the command. spared: it does not count already.

        Raises TooManySubscriptions.
        """
        if pattern not in self.patterns and not self.ended:  # else nobody would take it out again
            most = self.limits.max_subscriptions
            if len(self.patterns) >= most:
                raise TooManySubscriptions(f"a connection holds at most {most} subscriptions")
            self.patterns.add(pattern)
            self._services.registry.subscribe(self, pattern)
            if not spared:
                self.spare()
        return {"pattern": pattern}

    def unsubscribe(self, pattern: str) -> Mapping[str, Any]:
        """Hold a pattern no longer, if it was held; returns what answers the command."""
        if pattern in self.patterns:
            self.patterns.discard(pattern)
            self._services.registry.unsubscribe(self, pattern)
        return {"pattern": pattern}

    def resume(self, place: str | None, resumed: Resumed) -> None:
        """Get what came after `place`; see `Resumer`.

        Raises ResumeInProgress.
        """
        if self._resuming is not None:
            raise ResumeInProgress("wait for the answer to the resume before")

        def done(outcome: str | BrokerError) -> None:
            self._resuming = None
            resumed(outcome)

        self._resuming = self._services.resumer.start(self, place, done)

    def authenticate(self, token: str | None) -> Mapping[str, Any]:
        """Let another token of the same user count from now on; returns what answers the command.

        Raises AuthenticationError.
        """
        try:
            identity = self._services.authenticator.identify(token)
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
