"""WebSocket on one connection, by trio-websocket over our own stream. The only module that knows trio-websocket.

The library parses the protocol; everything it would write, it writes into the connection's outbox, through `Wire`.
So there is one writer, in whole frames, and nothing after a close frame. What the library gets wrong is kept away
from it or mended here (docs/decisions/0002-websocket.md): it sees a handshake that we wrote, its faults end in close
frames that we send, and whatever it raises ends its own connection and no other.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from broker.core.deflate import agree
from broker.core.errors import Close
from broker.core.frames import Breach, FrameScanner, close_frame, is_close
from broker.core.http import Request
from broker.core.unpacking import Unpacker
from broker.edge.http import BadRequest
from broker.edge.writing import write_out
from broker.runtime.outbox import Outbox
from broker.runtime.party import Ending, Party, PeerGone

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0  # for the last frames to leave
ANSWER_TIMEOUT = 2.0  # for the client to answer our close frame
_ABNORMAL = 1006  # there was no close frame (RFC 6455 section 7.1.5)


def wants_upgrade(request: Request) -> bool:
    """Whether the client asks for a WebSocket at all."""
    return "websocket" in request.header_tokens("upgrade")


def check_upgrade(request: Request) -> bytes:
    """Check the opening handshake (RFC 6455 section 4.2.1) and return its key.

    Raises BadRequest.
    """
    if request.method != "GET" or request.http_version != b"1.1":
        raise BadRequest(HTTPStatus.BAD_REQUEST, "a WebSocket begins with GET and HTTP/1.1")
    if "upgrade" not in request.header_tokens("connection"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the header `Connection: Upgrade` is missing")
    if request.header("sec-websocket-version") != "13":
        raise BadRequest(HTTPStatus.UPGRADE_REQUIRED, "the WebSocket version must be 13")
    if request.header("content-length") not in (None, "0") or request.header("transfer-encoding"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "a handshake has no body")
    key = request.header("sec-websocket-key") or ""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError
    except (binascii.Error, ValueError):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64") from None
    return key.encode()


def choose_subprotocol(request: Request, supported: Sequence[str]) -> str | None:
    """The first subprotocol that the client proposes and we support."""
    proposed = (request.header("sec-websocket-protocol") or "").split(",")
    return next((name for name in map(str.strip, proposed) if name in supported), None)


def choose_extension(request: Request) -> str | None:
    """The answer to the client's offers of compression; None: it makes none that we can take.

    Raises BadRequest.
    """
    try:
        return agree(request.header("sec-websocket-extensions") or "")
    except ValueError as error:
        raise BadRequest(HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Extensions: {error}") from None


@dataclass(frozen=True, slots=True)
class Handshake:
    """What remains of a checked opening handshake: its key, what was chosen of its offers, bytes that came right after.

    extension: the answer with which we agree to compression.
    """

    key: bytes
    subprotocol: str | None = None
    extension: str | None = None
    early: bytes = b""

    def canonical(self) -> bytes:
        """The handshake as the library shall see it: with nothing in it that a client could make it stumble over."""
        chosen = f"Sec-WebSocket-Protocol: {self.subprotocol}\r\n".encode() if self.subprotocol else b""
        return (
            b"GET / HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n"
        ) % (self.key, chosen)


class Wire(trio.abc.Stream):
    """What the library takes for the client: a clean handshake first, then the client's bytes, watched over.

    What the library sends after the handshake goes to the outbox. Closing it ends the library's reading only: the
    socket is closed by whoever opened it, when the last frame has gone.
    """

    __slots__ = (
        "_connected",
        "_early",
        "_ended",
        "_opening",
        "_party",
        "_scanner",
        "_stream",
        "_unpacker",
        "breach",
        "max_message_size",
    )

    def __init__(self, stream: trio.abc.Stream, handshake: Handshake, max_message_size: int) -> None:
        self._stream = stream
        self._opening: bytes | None = handshake.canonical()
        self._early = handshake.early
        self._unpacker = Unpacker(max_message_size) if handshake.extension else None
        self._scanner = FrameScanner(max_message_size)
        self.max_message_size = max_message_size
        self._ended = False
        self._party: Party | None = None
        self._connected = trio.Event()
        self.breach: Breach | None = None

    def connect(self, party: Party) -> None:
        """The handshake is done: from here on frames go to this party's outbox."""
        self._party = party
        self._connected.set()

    def expect_nothing(self) -> None:
        """Whatever comes now is too late, and not worth much work."""
        if self._unpacker is not None:
            self._unpacker.skip()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """The client's next bytes, with nothing compressed in them; none any more once it has broken a bound."""
        if self._ended:
            raise trio.ClosedResourceError
        if self._opening is not None:
            opening, self._opening = self._opening, None
            await trio.lowlevel.checkpoint()
            return opening
        # The library loses what it reads before it has answered the handshake, and a client may send that early.
        await self._connected.wait()
        early, self._early = self._early, b""
        data = self._watch(early)
        if data or self._ended:
            await trio.lowlevel.checkpoint()
        # In this one coroutine, since every idle connection has it.
        while not data and not self._ended:
            heard = bytes(await self._stream.receive_some(max_bytes))
            if self._party is not None:
                self._party.heard()
            if not heard:
                break
            data = self._watch(heard)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Take a frame of the library's: the answer to the handshake at once, everything else through the outbox."""
        frame = bytes(data)
        if self._party is None:
            await self._stream.send_all(frame)
            return
        await trio.lowlevel.checkpoint()
        if is_close(frame):
            self._party.outbox.finish(frame, discard=True)
        else:
            self._party.outbox.control(frame)

    async def wait_send_all_might_not_block(self) -> None:
        """Never blocks: the outbox answers at once."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End the library's reading."""
        self._ended = True
        await trio.lowlevel.checkpoint()

    def _watch(self, heard: bytes) -> bytes:
        """What the library may see of what has come; nothing: more is needed, or this was the end."""
        try:
            if self._unpacker is not None:
                self._unpacker.feed(heard)
                heard = self._unpacker.take()
            self._scanner.feed(heard)
        except Breach as breach:
            self.breach = breach
            self._ended = True
            return b""
        return heard


async def converse(handshake: Handshake, party: Party, max_message_size: int, stream: trio.abc.Stream) -> Ending:
    """Finish the handshake on `stream`, let `party` talk, and see its last frame off.

    max_message_size: bytes that one message of the client may have.
    Returns code and reason of the end. The stream stays open: it is the caller's to close.
    """
    wire = Wire(stream, handshake, max_message_size)
    ending: Ending = (Close.INTERNAL_ERROR, "")
    outbox = party.outbox
    async with trio.open_nursery() as writing:
        try:
            async with trio.open_nursery() as reading:
                socket = await _shake_hands(reading, wire, handshake)
                wire.connect(party)
                writing.start_soon(write_out, party, stream)
                ending = await party.run(partial(_receive, socket, wire))
                await _hear_out(socket, wire, outbox)
                reading.cancel_scope.cancel()
        except* PeerGone:
            outbox.finish(b"", discard=True)
            ending = (_ABNORMAL, "the client went away during the handshake")
        except* Exception:
            logger.exception("connection.failed")
            outbox.finish(close_frame(Close.INTERNAL_ERROR), discard=True)
        if writing.child_tasks:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await outbox.finished.wait()
        writing.cancel_scope.cancel()
    return ending


async def _shake_hands(nursery: trio.Nursery, wire: Wire, handshake: Handshake) -> WebSocketConnection:
    with trio.move_on_after(HANDSHAKE_TIMEOUT):
        request = await wrap_server_stream(nursery, wire, max_message_size=wire.max_message_size)
        try:
            headers = [(b"Sec-WebSocket-Extensions", handshake.extension.encode())] if handshake.extension else []
            return await request.accept(subprotocol=handshake.subprotocol, extra_headers=headers)
        except ConnectionClosed:
            raise PeerGone(_ABNORMAL) from None
    raise PeerGone(_ABNORMAL)


async def _receive(socket: WebSocketConnection, wire: Wire) -> str | bytes:
    try:
        return await socket.get_message()
    except ConnectionClosed as closed:
        if wire.breach is not None:
            raise PeerGone(wire.breach.code, wire.breach.reason) from None
        code, reason = (closed.reason.code, closed.reason.reason or "") if closed.reason else (_ABNORMAL, "")
        raise PeerGone(code, reason) from None


async def _hear_out(socket: WebSocketConnection, wire: Wire, outbox: Outbox) -> None:
    """Wait for the client to answer our close frame or to go away; what it still says has come too late."""
    wire.expect_nothing()
    with trio.move_on_after(CLOSE_TIMEOUT):
        await outbox.finished.wait()
    with trio.move_on_after(ANSWER_TIMEOUT), suppress(PeerGone):
        while not outbox.broken:
            await _receive(socket, wire)
