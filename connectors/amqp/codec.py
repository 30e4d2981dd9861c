"""AMQP 0-9-1 frames (section 2.3.5 of the specification): bytes to what they say, and back. No I/O.

The codec is pamqp's, but for what comes once a message: deliveries, acknowledgements and confirms are taken apart and
put together here, and a message's properties only when somebody asks (`properties.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, cast

from pamqp import frame as pamqp_frame
from pamqp.base import Frame as Method
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader, ProtocolHeader

from connectors.amqp.errors import AmqpError, ProtocolError
from connectors.amqp.properties import Properties, read_properties

__all__ = ["Basic", "Channel", "Confirm", "Connection", "Exchange", "Method", "Queue"]


class _AnyName:
    """Takes away what pamqp checks of names: to RabbitMQ any text of up to 255 bytes is one."""

    def validate(self) -> None:
        """Nothing: what AMQP can't say shows when it is encoded."""


class OpenVhost(_AnyName, Connection.Open):
    """`connection.open`, of any vhost."""


class DeclareExchange(_AnyName, Exchange.Declare):
    """`exchange.declare`, under any name."""


class DeclareQueue(_AnyName, Queue.Declare):
    """`queue.declare`, under any name."""


class BindQueue(_AnyName, Queue.Bind):
    """`queue.bind`, of any queue to any exchange."""


class Consume(_AnyName, Basic.Consume):
    """`basic.consume`, from any queue."""


class Publish(_AnyName, Basic.Publish):
    """`basic.publish`, to any exchange."""


MAX_FRAME_BYTES = 131_072  # RabbitMQ's own default for frame_max
FRAME_OVERHEAD = 8
PROTOCOL_HEADER = ProtocolHeader().marshal()
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END = 0xCE
_HEAD_BYTES = 7
_HEAD = struct.Struct(">BHI").unpack_from
_CONTENT = struct.Struct(">HHQ").unpack_from
_DELIVER_MIDDLE = struct.Struct(">QBB").unpack_from  # delivery-tag, redelivered, the length of the exchange's name
_TAG_AND_BITS = struct.Struct(">QB").unpack_from
_SETTLEMENT = struct.Struct(">BHIIQBB").pack  # frame head, method, delivery-tag, one bit, frame end

_DELIVER = b"\x00\x3c\x00\x3c"
_ACK = b"\x00\x3c\x00\x50"
_NACK = b"\x00\x3c\x00\x78"
_ACK_ID, _REJECT_ID = 0x003C0050, 0x003C005A

# What pamqp and struct make of values and of bytes that do not fit.
_UNFIT = (PAMQPException, struct.error, ValueError, TypeError, OverflowError)


class Delivery:
    """A message that RabbitMQ delivers.

    body: None where it is larger than we take; `size` tells how large it was said to be.
    """

    __slots__ = ("_head", "body", "consumer_tag", "exchange", "redelivered", "routing_key", "size", "tag")

    def __init__(self, consumer_tag: bytes, tag: int, redelivered: int, exchange: bytes, routing_key: bytes) -> None:
        self.consumer_tag = consumer_tag
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.size = 0
        self.body: bytes | None = b""
        self._head = b""

    def begin(self, head: bytes, size: int) -> None:
        """What the content header says: the properties, still encoded, and how many bytes follow."""
        self._head = head
        self.size = size

    @property
    def properties(self) -> Properties:
        """Those that we have a use for; decoded anew each time."""
        return read_properties(self._head)


class Returned(Delivery):
    """A message of ours that no queue wanted. It has no delivery tag."""

    __slots__ = ("reply_text",)

    def __init__(self, method: Basic.Return) -> None:
        super().__init__(b"", 0, 0, method.exchange.encode(), (method.routing_key or "").encode())
        self.reply_text = f"{method.reply_text} ({method.reply_code})"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """RabbitMQ has taken (or, with `taken` False, has not) what was published as number `tag`, or all up to it."""

    tag: int
    multiple: bool
    taken: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The peer is alive."""


Incoming: TypeAlias = Method | Delivery | Confirmed | Heartbeat


class Decoder:
    """Takes bytes as they come, gives what they say: pairs of channel number and `Incoming`.

    max_body: bytes of the largest body that is kept; of larger ones only the size is.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._parts: list[bytes] = []
        self._have = 0
        self._need = _HEAD_BYTES
        self._contents: dict[int, _Content] = {}

    def feed(self, data: bytes) -> list[tuple[int, Incoming]]:
        """What is complete by now.

        Raises ProtocolError; nothing that comes after it can be trusted.
        """
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        buffer = b"".join(self._parts) if len(self._parts) > 1 else data
        found: list[tuple[int, Incoming]] = []
        try:
            at = self._take(buffer, found)
        except AmqpError:
            raise
        except (*_UNFIT, IndexError, RecursionError) as error:
            raise ProtocolError(f"RabbitMQ sent a frame that can't be read: {error}") from error
        self._parts = [buffer[at:]]
        self._have = len(buffer) - at
        return found

    def _take(self, buffer: bytes, found: list[tuple[int, Incoming]]) -> int:
        """Read the whole frames of `buffer`; return where the first that is not whole begins."""
        at, end = 0, len(buffer)
        while end - at >= _HEAD_BYTES:
            kind, channel, size = _HEAD(buffer, at)
            stop = at + 7 + size
            if stop >= end:
                _check_head(buffer, at, size)
                self._need = FRAME_OVERHEAD + size
                return at
            if buffer[stop] != _END or size > MAX_FRAME_BYTES:
                _check_head(buffer, at, size)
                raise ProtocolError("RabbitMQ sent a frame without its end mark")
            incoming = self._frame(kind, channel, buffer[at + 7 : stop])
            if incoming is not None:
                found.append((channel, incoming))
            at = stop + 1
        self._need = _HEAD_BYTES
        return at

    def _frame(self, kind: int, channel: int, payload: bytes) -> Incoming | None:
        content = self._contents.get(channel)
        if kind == _BODY and content is not None:
            whole = content.add(payload)
        elif kind == _HEADER and content is not None:
            whole = content.begin(payload, self._max_body)
        elif kind == _METHOD and content is None:
            return self._method(channel, payload)
        elif kind == _HEARTBEAT:
            return Heartbeat()
        else:
            raise ProtocolError(f"RabbitMQ sent a frame of kind {kind} out of turn on channel {channel}")
        if not whole:
            return None
        del self._contents[channel]
        return content.delivery

    def _method(self, channel: int, payload: bytes) -> Incoming | None:
        method = payload[:4]
        if method == _DELIVER:
            self._contents[channel] = _Content(_delivery(payload))
            return None
        if method in (_ACK, _NACK):
            tag, bits = _TAG_AND_BITS(payload, 4)
            return Confirmed(tag, bool(bits & 1), method == _ACK)
        decoded = _unmarshal(payload)
        if isinstance(decoded, Basic.Return):
            self._contents[channel] = _Content(Returned(decoded))
            return None
        return decoded


class _Content:
    """A message whose header or body is still coming."""

    __slots__ = ("_chunks", "_expected", "delivery")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self._chunks: list[bytes] | None = []
        self._expected = -1  # no header yet

    def begin(self, header: bytes, max_body: int) -> bool:
        """Take the content header; whether the message is whole."""
        if self._expected >= 0:
            raise ProtocolError("RabbitMQ sent two headers for one message")
        _class, _weight, size = _CONTENT(header)
        self.delivery.begin(header[12:], size)
        self._expected = size
        if size > max_body:
            self._chunks = None
            self.delivery.body = None
        return bool(size == 0)

    def add(self, payload: bytes) -> bool:
        """Take a piece of the body; whether the message is whole."""
        self._expected -= len(payload)
        if self._expected < 0:
            raise ProtocolError("RabbitMQ sent a body without a header, or one that is longer than it said")
        if self._chunks is not None:
            if not self._chunks and not self._expected:
                self.delivery.body = payload
                return True
            self._chunks.append(payload)
            if not self._expected:
                self.delivery.body = b"".join(self._chunks)
        return not self._expected


def _check_head(buffer: bytes, at: int, size: int) -> None:
    if buffer[at : at + 4] == b"AMQP":
        version = ".".join(map(str, buffer[at + 4 : at + 7]))
        raise ProtocolError(f"the server speaks another AMQP than 0-9-1 ({version})")
    if size > MAX_FRAME_BYTES:
        raise ProtocolError("the server does not speak AMQP: is this its port, and does it want amqps:// there?")


def _delivery(payload: bytes) -> Delivery:
    at = 5 + payload[4]
    tag, redelivered, length = _DELIVER_MIDDLE(payload, at)
    behind = at + 10 + length
    end = behind + 1 + payload[behind]
    if end != len(payload):
        raise ProtocolError("RabbitMQ sent a delivery whose texts do not fill its frame")
    return Delivery(payload[5:at], tag, redelivered, payload[at + 10 : behind], payload[behind + 1 : end])


def _unmarshal(payload: bytes) -> Method:
    head = _METHOD.to_bytes() + b"\x00\x00" + len(payload).to_bytes(4)
    _, _, method = pamqp_frame.unmarshal(head + payload + b"\xce")
    return cast("Method", method)


def encode_method(channel: int, method: Method) -> bytes:
    """A method as a frame.

    Raises AmqpError for what AMQP can't say, such as a name of more than 255 bytes.
    """
    with _sayable():
        return pamqp_frame.marshal(method, channel)


def encode_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """`basic.ack`: of one delivery, or of all up to it that are still open."""
    return _SETTLEMENT(_METHOD, channel, 13, _ACK_ID, tag, multiple, _END)


def encode_reject(channel: int, tag: int, *, requeue: bool) -> bytes:
    """`basic.reject`: of one delivery."""
    return _SETTLEMENT(_METHOD, channel, 13, _REJECT_ID, tag, requeue, _END)


def encode_publish(channel: int, method: Basic.Publish, properties: Basic.Properties, body: bytes, room: int) -> bytes:
    """`basic.publish` with its content, as frames of at most `room` bytes of payload.

    Raises AmqpError for what AMQP can't say.
    """
    header = ContentHeader(body_size=len(body), properties=properties)
    pieces = [body[at : at + room] for at in range(0, len(body), room)]
    parts: list[pamqp_frame.FrameTypes] = [method, header, *(ContentBody(piece) for piece in pieces)]
    with _sayable():
        encoded = [pamqp_frame.marshal(part, channel) for part in parts]
        if len(encoded[1]) > room + FRAME_OVERHEAD:
            raise ValueError(f"the properties do not fit into a frame of {room + FRAME_OVERHEAD} bytes")
    return b"".join(encoded)


@contextmanager
def _sayable() -> Iterator[None]:
    """Raise AmqpError for what AMQP can't say."""
    try:
        yield
    except _UNFIT as error:
        raise AmqpError(f"this can't be said in AMQP 0-9-1: {error}") from error
