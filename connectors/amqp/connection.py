"""A connection to RabbitMQ: who is inside `open_connection` has one that works, or is told why it does not.

Three tasks serve it. One reads, and hands out what comes; one writes what waits; one watches that the peer is heard.
When any of them finds the connection dead, all inside is cancelled and the reason is raised at the `async with`.
Nothing waits for a peer that is gone: the time to connect, the silence in between and the goodbye are all bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio

from connectors.amqp.channel import Channel
from connectors.amqp.codec import (
    PROTOCOL_HEADER,
    Decoder,
    Heartbeat,
    Incoming,
    Method,
    OpenVhost,
    encode_method,
)
from connectors.amqp.codec import Connection as Methods
from connectors.amqp.errors import (
    REPLY_SUCCESS,
    AmqpError,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    ProtocolError,
)
from connectors.amqp.handshake import Terms, answer_start, answer_tune, check_opened
from connectors.amqp.outgoing import Outgoing
from connectors.amqp.stream import open_stream
from connectors.amqp.url import Address

GOODBYE_SECONDS = 2.0
_READ_BYTES = 262_144
MAX_BODY_BYTES = 1_048_576  # of a delivered message; what a larger one holds is thrown away as it comes


@asynccontextmanager
async def open_connection(address: Address, *, name: str, max_body: int = MAX_BODY_BYTES) -> AsyncIterator[Connection]:
    """Connect, and close when the block is left, in whatever way.

    name: what RabbitMQ's list of connections calls us. max_body: bytes of a delivered body that is kept.

    Raises ConnectionFailed at the beginning; ConnectionLost, ConnectionClosed or ProtocolError out of the block when
    the connection ends by itself.
    """
    with _in_time(address):
        connection = await _connect(address, name, max_body)
    try:
        async with connection.serve():
            yield connection
    finally:
        await connection.leave()


async def _connect(address: Address, name: str, max_body: int) -> Connection:
    stream = await open_stream(address)
    connection = Connection(stream, max_body)
    try:
        await connection.greet(address, name)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return connection


class Connection:
    """An open connection; see `open_connection`."""

    def __init__(self, stream: trio.abc.Stream, max_body: int) -> None:
        self._stream = stream
        self._decoder = Decoder(max_body)
        self._outgoing = Outgoing(stream)
        self._terms = Terms()
        self._greetings: deque[Incoming] = deque()
        self._channels: dict[int, Channel] = {}
        self._heard = trio.current_time()
        self._everything = trio.CancelScope()
        self._error: AmqpError | None = None
        self._blocked = False

    async def open_channel(self) -> Channel:
        """Open one more channel.

        Raises AmqpError where there are as many as RabbitMQ allows, or what ended the connection.
        """
        if self._error is not None:
            raise self._error
        numbers = range(1, self._terms.channel_max + 1)
        number = next((number for number in numbers if number not in self._channels), None)
        if number is None:
            raise AmqpError(f"there are {self._terms.channel_max} channels open, and RabbitMQ allows no more")
        channel = Channel(number, self._outgoing, self._terms.frame_max, self._channels.pop)
        channel.block(blocked=self._blocked)
        self._channels[number] = channel
        await channel.open()
        return channel

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ takes no messages for the time being, since it is short of memory or disk."""
        return self._blocked

    # -- the three parts of its life, for `open_connection`

    async def greet(self, address: Address, name: str) -> None:
        """Shake hands.

        Raises AmqpError.
        """
        self._outgoing.put(PROTOCOL_HEADER)
        self._say(answer_start(await self._next(), address, name))
        tune_ok, self._terms = answer_tune(await self._next(), address)
        self._say(tune_ok)
        self._say(OpenVhost(virtual_host=address.vhost))
        check_opened(await self._next())

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Run the tasks while the block runs; end it when they find the connection dead."""
        fault: Exception | None = None
        async with trio.open_nursery() as nursery:
            self._everything = nursery.cancel_scope
            nursery.start_soon(self._read)
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch)
            try:
                yield
            except Exception as error:  # kept out of the nursery, which would wrap it into a group
                fault = error
            nursery.cancel_scope.cancel()
        if self._error is not None and self._error is not fault:
            raise self._error from fault
        if fault is not None:
            raise fault

    async def leave(self) -> None:
        """Write what waits, say goodbye where somebody listens, and close; within GOODBYE_SECONDS."""
        error = self._error
        self._fail(ConnectionLost("the connection is closed"))
        with trio.move_on_after(GOODBYE_SECONDS) as limit:
            limit.shield = True
            with suppress(AmqpError, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                await self._say_goodbye(error)
        await trio.aclose_forcefully(self._stream)

    # -- the tasks

    async def _read(self) -> None:
        try:
            for incoming in self._greetings:  # what came together with the end of the handshake
                self._handle(incoming)
            while True:
                for number, incoming in await self._receive():
                    if number:
                        self._channel(number).handle(incoming)
                    else:
                        self._handle(incoming)
        except AmqpError as error:
            self._fail(error)

    async def _write(self) -> None:
        try:
            await self._outgoing.run(self._terms.heartbeat)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # What RabbitMQ said before it closed may still be there to be read, and says more than this does.
            await trio.sleep(1)
            self._fail(ConnectionLost("the connection to RabbitMQ broke while writing"))

    async def _watch(self) -> None:
        silence = 2 * self._terms.heartbeat
        if not silence:
            return
        # An event for every chunk that comes would cost more than to look again when the time is up.
        while (rest := self._heard + silence - trio.current_time()) > 0:  # noqa: ASYNC110
            await trio.sleep(rest)
        self._fail(ConnectionLost(f"nothing was heard of RabbitMQ for {silence:g} seconds, two heartbeats"))

    # -- the wire

    async def _receive(self) -> list[tuple[int, Incoming]]:
        """Whatever comes next; may be nothing whole yet.

        Raises ConnectionLost, ProtocolError.
        """
        try:
            data = await self._stream.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionLost(f"the connection to RabbitMQ broke: {error.__cause__ or error}") from error
        if not data:
            raise ConnectionLost("RabbitMQ closed the connection without a word")
        self._heard = trio.current_time()
        return self._decoder.feed(bytes(data))

    async def _next(self) -> Incoming:
        """Write what waits; return the next method of the handshake.

        Raises ConnectionClosed where RabbitMQ refuses us.
        """
        await self._outgoing.flush()
        while not self._greetings:
            received = [incoming for _, incoming in await self._receive()]
            self._greetings.extend(incoming for incoming in received if not isinstance(incoming, Heartbeat))
        incoming = self._greetings.popleft()
        if isinstance(incoming, Methods.Close):
            self._say(Methods.CloseOk())
            with suppress(trio.BrokenResourceError):  # it need not wait for that
                await self._outgoing.flush()
            raise _closed_by(incoming)
        return incoming

    def _say(self, method: Method) -> None:
        self._outgoing.put(encode_method(0, method))

    def _channel(self, number: int) -> Channel:
        try:
            return self._channels[number]
        except KeyError:
            raise ProtocolError(f"RabbitMQ speaks on channel {number}, which is not open") from None

    def _handle(self, incoming: Incoming) -> None:
        """Take what is about the connection as a whole."""
        if isinstance(incoming, Methods.Close):
            self._say(Methods.CloseOk())
            raise _closed_by(incoming)
        if isinstance(incoming, Methods.Blocked | Methods.Unblocked):
            self._blocked = isinstance(incoming, Methods.Blocked)
            for channel in self._channels.values():
                channel.block(blocked=self._blocked)
        elif not isinstance(incoming, Heartbeat):
            raise ProtocolError(f"RabbitMQ sent {incoming!r} out of turn")

    def _fail(self, error: AmqpError) -> None:
        """The connection is of no more use, because of `error`; the first reason counts."""
        if self._error is None:
            self._error = error
            for channel in self._channels.values():
                channel.end(error)
            self._everything.cancel()

    async def _say_goodbye(self, error: AmqpError | None) -> None:
        if self._outgoing.broken or not (error is None or isinstance(error, ConnectionClosed)):
            return
        if error is None:
            self._say(Methods.Close(reply_code=REPLY_SUCCESS, reply_text="done", class_id=0, method_id=0))
        await self._outgoing.flush()
        while error is None:
            for number, incoming in await self._receive():
                if number == 0 and isinstance(incoming, Methods.Close | Methods.CloseOk):
                    return


def _closed_by(close: Methods.Close) -> ConnectionClosed:
    return ConnectionClosed(close.reply_code or 0, close.reply_text)


@contextmanager
def _in_time(address: Address) -> Iterator[None]:
    """Bounds the time to connect, and names the address in what goes wrong."""
    try:
        with trio.fail_after(address.connection_timeout):
            yield
    except trio.TooSlowError:
        raise ConnectionFailed(f"{address}: no connection within {address.connection_timeout:g} seconds") from None
    except ConnectionFailed:
        raise
    except (ConnectionLost, trio.BrokenResourceError) as error:
        raise ConnectionFailed(f"{address}: it ended the connection during the handshake: {error}") from error
    except AmqpError as error:
        raise ConnectionFailed(f"{address}: {error}") from error
