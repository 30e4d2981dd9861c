"""The client as its users see it: connect, subscribe, take messages, send commands, publish."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from broker.client.address import parse_address
from broker.client.beside import beside
from broker.client.errors import ClientClosed, CommandTimedOut
from broker.client.frames import Event, Message
from broker.client.inbox import Inbox
from broker.client.link import Link
from broker.client.messages import Messages
from broker.client.options import Listeners, OnChange, OnGap, Options, with_tls
from broker.client.publishing import Publisher
from broker.client.subscription import Subscription
from broker.client.tokens import Token, Tokens
from broker.core.patterns import parse_pattern

_OUR_OWN = frozenset(("subscribe", "unsubscribe", "resume"))


@asynccontextmanager
async def connect(
    url: str,
    token: Token = None,
    *,
    on_gap: OnGap | None = None,
    on_change: OnChange | None = None,
    options: Options | None = None,
) -> AsyncIterator[Client]:
    """Connect to a broker, and stay connected as long as the block runs.

    url: of scheme http, https, ws or wss; the path is `/ws` where there is none.
    token: a JSON Web Token; or a function, async or not, that gives a fresh one for each connection.
    on_gap: called when events are missed for good, instead of raising ResumeGap from the subscriptions.
    on_change: called when the connection is lost and when there is one. What these two raise ends the client.

    Raises BadUrl; at the first connection NotConnected, Refused, Disconnected or TokenUnavailable; and out of the
    block what ends the client for good, where nobody in it waits for events or messages.
    """
    address, tokens = parse_address(url), Tokens(token)
    options = with_tls(options or Options(), wanted=address.tls)
    link = Link(address, tokens, Listeners(on_change, on_gap), options)
    publisher = Publisher(address, tokens, options)
    try:
        async with publisher.serving(), beside(link.run):
            await link.wait_first()
            with link.block:
                try:
                    yield Client(link, publisher)
                finally:
                    link.end(ClientClosed("the client is closed"))
    except BaseExceptionGroup as group:
        if link.error is None or group.split(lambda error: error is link.error)[1] is not None:
            raise
        raise link.error from None  # nothing else went wrong in the user's own nurseries
    if link.block.cancelled_caught and link.error is not None:
        raise link.error


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """How a client is.

    connections: made since the beginning. gaps: times that events were missed. buffered: events and messages that wait
    for whoever iterates.
    """

    connected: bool
    connections: int
    gaps: int
    subscriptions: int
    buffered: int


class Client:
    """One user's way to a broker; `connect` makes it."""

    def __init__(self, link: Link, publisher: Publisher) -> None:
        self._link = link
        self._publisher = publisher
        self._options = link.options

    def subscribe(self, *patterns: str, buffer: int = 1024) -> Subscription:
        """Begin to receive the events that match one of the patterns; iterate over what this returns.

        buffer: events that it holds until they are taken. When it is full, the client stops reading.

        Raises BadPattern of `broker.core.errors`, or what has ended the client.
        """
        if not patterns or buffer < 1:
            raise ValueError("a subscription has at least one pattern, and room for at least one event")
        parsed = [parse_pattern(pattern) for pattern in patterns]
        inbox: Inbox[Event] = Inbox(buffer, self._options.buffer_bytes)
        self._link.subscribe(inbox, parsed)
        return Subscription(inbox, self._link.unsubscribe)

    def messages(self, *, buffer: int = 1024) -> Messages:
        """Begin to receive what the broker's application sends without being asked; iterate over what this returns.

        It is no event, so it is not replayed after a reconnect. Who asks first also gets what came while `connect`
        waited. buffer: messages that it holds until they are taken. When it is full, the client stops reading.

        Raises what has ended the client.
        """
        if buffer < 1:
            raise ValueError("there has to be room for at least one message")
        inbox: Inbox[Message] = Inbox(buffer, self._options.buffer_bytes)
        self._link.hear(inbox)
        return Messages(inbox, self._link.hearers.remove)

    async def command(self, event: str, data: Any = None, *, timeout: float = 30.0) -> Any:
        """Send a command, and wait for the data of its reply.

        While there is no connection, it waits for one. It is never sent twice.

        Raises CommandFailed for an error of the broker's; CommandLost where the connection ended before the answer;
        CommandTimedOut; or what has ended the client. TypeError or ValueError for data that is no JSON.
        """
        if event in _OUR_OWN:
            raise ValueError(f"{event!r} is the client's own: see `subscribe`")
        with trio.move_on_after(timeout):
            return await self._link.command(event, data)
        full = "; a buffer is full, so nothing is read" if self._link.held_up else ""
        raise CommandTimedOut(f"there was no answer to {event!r} within {timeout:g} seconds{full}")

    async def publish(self, name: str, data: Any = None, id: str | None = None, *, timeout: float = 30.0) -> str:  # noqa: A002
        """Publish an event over HTTP; see `Publisher.publish`."""
        return await self._publisher.publish(name, data, id, timeout=timeout)

    def statistics(self) -> ClientStatistics:
        """A look inside."""
        link = self._link
        buffered = sum(len(inbox) for inbox in link.inboxes) + link.hearers.buffered
        return ClientStatistics(link.connected, link.connections, link.gaps, len(link.inboxes), buffered)
