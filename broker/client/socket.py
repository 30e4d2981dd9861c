"""One WebSocket, by wsproto over a Trio stream. The only module that knows wsproto; its errors end here.

There is no task in it: pings are answered and silence is noticed by whoever waits in `receive`. So who does not
receive does not read, which is the back pressure that the client promises.
"""

from __future__ import annotations

import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import AnyStr

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from broker.client.address import Address
from broker.client.errors import Disconnected, NotConnected, Refused, no_answer_within
from broker.client.options import Options
from broker.core.errors import Close

ABNORMAL = 1006  # there was no close frame (RFC 6455 section 7.1.5)
SILENCE = 60.0  # seconds without a byte of the broker, which answers us every 30
WRITE_TIMEOUT = 30.0
GOODBYE_SECONDS = 1.0
_READ_BYTES = 65_536
_MAX_REFUSAL_BYTES = 16_384
_NO_HTTP = (ProtocolError, UnicodeError, ValueError)  # what wsproto makes of an answer that is none


class _NoBroker(Exception):
    """Whoever answers the handshake is none."""


@asynccontextmanager
async def open_socket(
    address: Address, get_token: Callable[[], Awaitable[str | None]], options: Options
) -> AsyncIterator[Socket]:
    """Get a token, connect and shake hands, within the time of the options; say goodbye when the block is left.

    Raises NotConnected or Refused, and what `get_token` raises.
    """
    with _in_time(address, options.connect_timeout):
        token = await get_token()
        stream = await open_stream(address, options.tls)
        socket = Socket(stream, options.max_message_size)
        try:
            await socket.shake_hands(address, token)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    try:
        yield socket
    finally:
        await socket.leave()


async def open_stream(address: Address, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """A connection over TCP, and with TLS where the address says so.

    Raises OSError or trio.BrokenResourceError.
    """
    plain = await trio.open_tcp_stream(address.host, address.port)
    if not address.tls:
        return plain
    context = tls or ssl.create_default_context()
    stream = trio.SSLStream(plain, context, server_hostname=address.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class Socket:
    """Whole messages in, whole messages out. One task may receive, any may send."""

    def __init__(self, stream: trio.abc.Stream, max_message_size: int) -> None:
        self._stream = stream
        self._max_message_size = max_message_size
        self._websocket = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()
        self._texts: list[str] = []  # the parts of a message that is not whole yet
        self._chunks: list[bytes] = []
        self._size = 0
        self._writing = trio.Lock()
        self._unfinished = False  # a write was cut short, so nothing may follow it
        self._over = False

    async def shake_hands(self, address: Address, token: str | None) -> None:
        """Ask for a WebSocket; `open_socket` makes sense of what is raised."""
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        request = Request(host=address.authority, target=address.target, extra_headers=headers)
        await self._stream.send_all(self._websocket.send(request))
        answer = await self._next_answer()
        if isinstance(answer, RejectConnection):
            body = await self._refusal() if answer.has_body else b""
            raise Refused(answer.status_code, _error_text(body))

    async def receive(self) -> str | bytes:
        """The next message.

        Raises Disconnected.
        """
        while True:
            while self._events:
                message = await self._handle(self._events.popleft())
                if message is not None:
                    return message
            await self._read()

    async def send(self, texts: Sequence[str]) -> None:
        """Send these messages.

        Raises Disconnected.
        """
        await self._write(*[TextMessage(data=text) for text in texts])

    async def ping(self) -> None:
        """Ask for a sign of life.

        Raises Disconnected.
        """
        await self._write(Ping())

    async def break_off(self) -> None:
        """End it without a word; who receives is told."""
        self._over = True
        await trio.aclose_forcefully(self._stream)

    async def leave(self) -> None:
        """Say goodbye where that is still possible, wait a little for the answer, and close."""
        with trio.move_on_after(GOODBYE_SECONDS) as limit:
            limit.shield = True
            with suppress(Disconnected):
                if not (self._over or self._unfinished):
                    await self._write(CloseConnection(code=Close.NORMAL))
                    while True:
                        await self.receive()
        await trio.aclose_forcefully(self._stream)

    # -- inside

    async def _read(self) -> None:
        with trio.move_on_after(SILENCE) as patience:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise self._ended(ABNORMAL, "the connection broke") from None
        if patience.cancelled_caught:
            raise self._ended(ABNORMAL, f"nothing was heard of the broker for {SILENCE:g} seconds")
        if not data:
            raise self._ended(ABNORMAL, "the connection ended without a word")
        self._websocket.receive_data(bytes(data))
        self._events.extend(self._websocket.events())

    async def _handle(self, event: Event) -> str | bytes | None:
        match event:
            case TextMessage(data=text, message_finished=finished):
                return await self._part(self._texts, text, finished=finished)
            case BytesMessage(data=data, message_finished=finished):
                return await self._part(self._chunks, bytes(data), finished=finished)
            case Ping():
                with suppress(Disconnected):  # there may still be a close frame to be read, which says more
                    await self._write(event.response())
            case CloseConnection(code=code, reason=reason):
                broken = self._websocket.state is ConnectionState.OPEN  # then it is wsproto that wants it closed
                with suppress(Disconnected):
                    await self._write(event.response())
                if broken:
                    raise self._ended(ABNORMAL, f"the broker broke the protocol: {reason}")
                raise self._ended(code, reason or "")
        return None

    async def _part(self, parts: list[AnyStr], data: AnyStr, *, finished: bool) -> AnyStr | None:
        self._size += len(data)
        if self._size > self._max_message_size:
            unit = "characters" if isinstance(data, str) else "bytes"
            reason = f"a message has more than {self._max_message_size} {unit}"
            with suppress(Disconnected):
                await self._write(CloseConnection(code=Close.MESSAGE_TOO_BIG, reason=reason))
            self._over = True
            raise Disconnected(Close.MESSAGE_TOO_BIG, reason, "give the client a larger `max_message_size`")
        if data:
            parts.append(data)
        if not finished:
            return None
        message = data[:0].join(parts)
        parts.clear()
        self._size = 0
        return message

    async def _write(self, *events: Event) -> None:
        with trio.move_on_after(WRITE_TIMEOUT) as patience:
            async with self._writing:
                if self._unfinished:
                    raise self._ended(ABNORMAL, "the connection broke")
                await trio.lowlevel.checkpoint_if_cancelled()  # while nothing is written yet
                self._unfinished = True
                try:
                    await self._stream.send_all(b"".join([self._websocket.send(event) for event in events]))
                except (ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
                    raise self._ended(ABNORMAL, "the connection broke while writing") from None
                self._unfinished = False
        if patience.cancelled_caught:
            raise self._ended(ABNORMAL, f"a write did not end within {WRITE_TIMEOUT:g} seconds")

    def _ended(self, code: int, reason: str) -> Disconnected:
        self._over = True
        return Disconnected(code, reason)

    async def _next_answer(self) -> Event:
        """What comes next during the handshake."""
        while not self._events:
            data = await self._stream.receive_some(_READ_BYTES)
            if not data:
                raise _NoBroker("it hung up without an answer")
            try:
                self._websocket.receive_data(bytes(data))
                self._events.extend(self._websocket.events())
            except _NO_HTTP:
                raise _NoBroker("its answer is none of a broker") from None
        return self._events.popleft()

    async def _refusal(self) -> bytes:
        body = bytearray()
        finished = False
        with suppress(_NoBroker, trio.BrokenResourceError):
            while not finished and len(body) < _MAX_REFUSAL_BYTES:
                event = await self._next_answer()
                if isinstance(event, RejectData):
                    body += event.data
                    finished = event.body_finished
        return bytes(body)


@contextmanager
def _in_time(address: Address, timeout: float) -> Iterator[None]:
    """Bounds the time to connect, and makes one kind of error of all that can happen."""
    try:
        with trio.fail_after(timeout):
            yield
    except trio.TooSlowError:
        raise NotConnected(no_answer_within(address, timeout)) from None
    except (_NoBroker, OSError, trio.BrokenResourceError) as error:
        raise NotConnected(f"no broker answers at {address}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What is behind an error of Trio's: it has tried several addresses, or TLS."""
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "the connection broke"


def _error_text(body: bytes) -> str:
    """The text of an error in the broker's form; nothing where it has another one."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
