"""Publishing to RabbitMQ. Each message is persistent, mandatory and confirmed: what counts as published is in a queue.

At most WINDOW messages are on their way at a time, and while they are no more of standard input is read. RabbitMQ
answers for them in any order; they are told in that of their lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio
from msgspec import Raw
from msgspec import json as msgspec_json

from broker.core.event import Event
from cli.lines import Line, Lines, read_chunk
from cli.tally import Tally
from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic
from connectors.amqp.confirms import Publication
from connectors.amqp.connection import MAX_BODY_BYTES, Connection, open_connection
from connectors.amqp.errors import NOT_FOUND, AmqpError, ChannelClosed, ConnectionFailed, PublishRefused
from connectors.amqp.url import Address

WINDOW = 100
PATIENCE = 30.0  # seconds without an answer, after which RabbitMQ counts as lost
_PERSISTENT = 2

T = TypeVar("T")


class OverAmqp:
    """Publishes to an exchange of RabbitMQ. `addresses`: of its nodes, tried in turn."""

    def __init__(self, addresses: Sequence[Address], exchange: str) -> None:
        self._addresses = addresses
        self._exchange = exchange

    def send(self, event: Event) -> str:
        """See `Way` in `cli/publish.py`."""
        return _run(lambda: self._send(event))

    def send_lines(self, tally: Tally) -> None:
        """See `Way` in `cli/publish.py`."""
        _run(lambda: self._send_lines(tally))

    async def _send(self, event: Event) -> str:
        sent = False
        try:
            async with self._open() as outlet:
                publication = await outlet.publish(event)
                sent = True
                await outlet.confirmed(publication)
        except PublishRefused:
            raise
        except AmqpError as error:
            if not sent:
                raise
            raise AmqpError(
                f"{error}\nnobody knows whether the event was published; with --id {event.id!r} it may be published "
                "again, and is delivered once"
            ) from error
        return event.id or ""

    async def _send_lines(self, tally: Tally) -> None:
        pipe = None
        try:
            async with self._open() as outlet:
                pipe = _Pipe(outlet, tally)
                await pipe.run()
        except AmqpError as error:
            if pipe is None:
                raise
            raise AmqpError(f"{error}\n{await pipe.reckoning()}") from error

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Outlet]:
        """Raises AmqpError, also where there is no such exchange."""
        async with AsyncExitStack() as stack:
            connection = await self._connect(stack)
            channel = await connection.open_channel()
            try:
                await channel.declare_exchange(self._exchange, "", passive=True)
            except ChannelClosed as error:
                if error.reply_code != NOT_FOUND:
                    raise
                raise AmqpError(
                    f"{error.said}; start a broker with a binding to the exchange {self._exchange!r}, which makes it, "
                    "or make it yourself, or name another one by --exchange"
                ) from error
            await channel.confirm(WINDOW)
            yield _Outlet(connection, channel, self._exchange)

    async def _connect(self, stack: AsyncExitStack) -> Connection:
        failures = []
        for address in self._addresses:
            try:
                return await stack.enter_async_context(open_connection(address, name="broker publish"))
            except ConnectionFailed as error:
                failures.append(str(error))
        raise ConnectionFailed("\n".join(failures))


@dataclass(frozen=True, slots=True)
class _Outlet:
    """The exchange to publish to, and the way to it."""

    connection: Connection
    channel: Channel
    exchange: str

    async def publish(self, event: Event) -> Publication:
        """Send an event; waits while RabbitMQ takes nothing.

        Raises PublishRefused for one that is too large; AmqpError when nothing more can be sent.
        """
        body = msgspec_json.encode({"event": event.name, "data": Raw(event.data)})
        if len(body) > MAX_BODY_BYTES:
            raise PublishRefused(f"this message has {len(body)} bytes; a broker takes at most {MAX_BODY_BYTES}")
        properties = Basic.Properties(content_type="application/json", delivery_mode=_PERSISTENT, message_id=event.id)
        with self._patience():
            return await self.channel.publish(self.exchange, event.name, body, properties, mandatory=True)

    async def confirmed(self, publication: Publication) -> None:
        """Wait for RabbitMQ's answer."""
        with self._patience():
            await publication.wait_confirmed()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        try:
            with trio.fail_after(PATIENCE):
                yield
        except trio.TooSlowError:
            short = ", being short of memory or disk (rabbitmq-diagnostics alarms)" if self.connection.blocked else ""
            raise AmqpError(f"RabbitMQ has not answered for {PATIENCE:g} seconds{short}") from None


class _Pipe:
    """Standard input on its way to RabbitMQ."""

    def __init__(self, outlet: _Outlet, tally: Tally) -> None:
        self._outlet = outlet
        self._tally = tally
        self._sent: deque[tuple[int, Publication]] = deque()  # with the numbers of their lines, as nobody has told them

    async def run(self) -> None:
        """Publish it all."""
        lines = Lines(self._tally.refuse)
        chunk = b"the first"
        while chunk:
            # In a thread: whatever standard input is, there is no other way to wait for it.
            chunk = await trio.to_thread.run_sync(read_chunk, abandon_on_cancel=True)
            for line in lines.of(chunk):
                await self._send(line)
            while self._sent:  # so that a slow pipe is told at once
                await self._settle_first()

    async def reckoning(self) -> str:
        """When the connection has ended: tell what was answered for, and say what is known of the rest."""
        unknown = []
        for number, publication in self._sent:
            try:
                await self._tell(number, publication.wait_confirmed())  # or never will be, so that this does not wait
            except AmqpError:
                unknown.append(number)
        if not unknown:
            return f"{self._tally}; no other event was sent"
        return (
            f"{self._tally}; what became of {len(unknown)} from line {unknown[0]} on, nobody knows; no other was sent\n"
            'to publish the same again is safe only if each line has an "id": then it is delivered once'
        )

    async def _send(self, line: Line) -> None:
        if len(self._sent) == WINDOW:
            await self._settle_first()
        try:
            publication = await self._outlet.publish(line.event)
        except PublishRefused as error:
            self._tally.refuse(line.number, str(error))
        else:
            self._sent.append((line.number, publication))

    async def _settle_first(self) -> None:
        number, publication = self._sent[0]
        await self._tell(number, self._outlet.confirmed(publication))
        self._sent.popleft()  # and if nobody knows, it stays

    async def _tell(self, number: int, answer: Awaitable[None]) -> None:
        try:
            await answer
        except PublishRefused as error:
            self._tally.refuse(number, str(error))
        else:
            self._tally.took(1)


def _run(main: Callable[[], Awaitable[T]]) -> T:
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None  # Ctrl-C, out of a nursery
