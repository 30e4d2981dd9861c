"""Frames: the same in pieces of any size, what pamqp says as the model, and what we say in turn."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame as pamqp_frame
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat as PamqpHeartbeat

from connectors.amqp.codec import (
    FRAME_OVERHEAD,
    HEARTBEAT,
    PROTOCOL_HEADER,
    Basic,
    Confirmed,
    Decoder,
    Delivery,
    Heartbeat,
    Incoming,
    Method,
    Queue,
    Returned,
    encode_ack,
    encode_method,
    encode_publish,
    encode_reject,
)
from connectors.amqp.errors import AmqpError
from tests.connectors.amqp.frames import (
    PROPERTIES,
    TAGS,
    Frames,
    conversations,
    deliver,
    encoded,
    in_chunks,
    raw_frame,
    unmarshalled,
)

MAX_BODY = 30

Found = list[tuple[int, Any]]


# --- What is found ---------------------------------------------------------------------------------------------------


def decoded(chunks: Iterator[bytes] | Sequence[bytes], max_body: int = MAX_BODY) -> Found:
    decoder = Decoder(max_body)
    return [(number, shown(incoming)) for chunk in chunks for number, incoming in decoder.feed(chunk)]


def shown(incoming: Incoming) -> Any:
    """As a value that can be compared."""
    if isinstance(incoming, Returned):
        return incoming.reply_text, incoming.exchange, incoming.routing_key, *content_of(incoming)
    if isinstance(incoming, Delivery):
        at = incoming.consumer_tag, incoming.tag, bool(incoming.redelivered), incoming.exchange, incoming.routing_key
        return *at, *content_of(incoming)
    if isinstance(incoming, Method):
        return incoming.name, dict(incoming)
    return incoming


def content_of(delivery: Delivery) -> tuple[object, ...]:
    properties = delivery.properties
    return delivery.size, delivery.body, properties.content_type, properties.message_id


@dataclass
class SlowMessage:
    """A message as pamqp has it."""

    method: Any
    header: ContentHeader | None = None
    body: list[bytes] = field(default_factory=list)

    def shown(self, max_body: int) -> tuple[Any, ...] | None:
        if self.header is None or sum(map(len, self.body)) < self.header.body_size:
            return None
        size, properties = self.header.body_size, self.header.properties
        body = None if size > max_body else b"".join(self.body)
        method = self.method
        at: tuple[Any, ...] = (method.exchange.encode(), method.routing_key.encode())
        if isinstance(method, Basic.Return):
            at = (f"{method.reply_text} ({method.reply_code})", *at)
        else:
            at = (method.consumer_tag.encode(), method.delivery_tag, method.redelivered, *at)
        return *at, size, body, properties.content_type, properties.message_id


def slowly_decoded(data: bytes, max_body: int = MAX_BODY) -> Found:
    """The model: pamqp takes the frames apart, one by one, and what they are is put together in the plainest way."""
    found: Found = []
    open_messages: dict[int, SlowMessage] = {}
    for number, frame in unmarshalled(data):
        if isinstance(frame, Basic.Deliver | Basic.Return):
            open_messages[number] = SlowMessage(frame)
        elif isinstance(frame, ContentHeader | ContentBody):
            message = open_messages[number]
            if isinstance(frame, ContentHeader):
                message.header = frame
            else:
                message.body.append(frame.value or b"")
            whole = message.shown(max_body)
            if whole is not None:
                found.append((number, whole))
        else:
            found.append((number, slowly_shown(frame)))
    return found


def slowly_shown(frame: FrameTypes) -> Any:
    match frame:
        case Basic.Ack() | Basic.Nack():
            return Confirmed(frame.delivery_tag or 0, frame.multiple, taken=isinstance(frame, Basic.Ack))
        case Method():
            return frame.name, dict(frame)
        case _:
            return Heartbeat()


# --- Decoding --------------------------------------------------------------------------------------------------------


@given(conversations())
def test_what_comes_is_what_pamqp_says_it_is(frames: Frames) -> None:
    data = encoded(frames)
    assert decoded([data]) == slowly_decoded(data)


@given(conversations(), st.integers())
def test_it_is_the_same_in_pieces_of_any_size(frames: Frames, seed: int) -> None:
    data = encoded(frames)
    whole = decoded([data])
    assert decoded([bytes([byte]) for byte in data]) == whole
    assert decoded(in_chunks(data, seed)) == whole


def delivery(size: int, *bodies: bytes, max_body: int = MAX_BODY) -> Delivery:
    """What comes of a delivery that announces a body of this size."""
    frames: Frames = [(1, Basic.Deliver("c", 7, True, "e", "r")), (1, ContentHeader(body_size=size))]
    found = Decoder(max_body).feed(encoded(frames + [(1, ContentBody(body)) for body in bodies]))
    ((number, incoming),) = found
    assert number == 1
    assert isinstance(incoming, Delivery)
    return incoming


def test_an_empty_body_has_no_frame_of_its_own() -> None:
    assert (delivery(0).size, delivery(0).body) == (0, b"")


def test_a_body_may_come_in_several_frames() -> None:
    assert delivery(6, b"abc", b"", b"d", b"ef").body == b"abcdef"


def test_a_body_of_the_largest_size_is_kept_and_a_larger_one_only_counted() -> None:
    assert delivery(6, b"abc", b"def", max_body=6).body == b"abcdef"
    assert delivery(6, b"abcdef", max_body=6).body == b"abcdef"
    too_large = delivery(7, b"abc", b"defg", max_body=6)
    assert (too_large.size, too_large.body) == (7, None)


def test_nothing_is_kept_of_a_body_that_is_too_large() -> None:
    decoder = Decoder(max_body=6)
    decoder.feed(encoded([(1, deliver()), (1, ContentHeader(body_size=10_000_000))]))
    piece = encoded([(1, ContentBody(b"x" * 100_000))])
    tracemalloc.start()
    try:
        for _ in range(99):
            assert decoder.feed(piece) == []
        assert tracemalloc.get_traced_memory()[0] < 2 * len(piece)
    finally:
        tracemalloc.stop()


def test_a_delivery_after_one_that_was_too_large_is_whole() -> None:
    frames: Frames = [(1, deliver()), (1, ContentHeader(body_size=7)), (1, ContentBody(b"too big"))]
    frames += [(1, deliver(2)), (1, ContentHeader(body_size=2)), (1, ContentBody(b"ok"))]
    assert [incoming[6] for _, incoming in decoded([encoded(frames)], max_body=6)] == [None, b"ok"]


def test_a_heartbeat_may_come_in_the_middle_of_a_message() -> None:
    begin: Frames = [(1, deliver()), (1, ContentHeader(body_size=2)), (1, ContentBody(b"o"))]
    decoder = Decoder(MAX_BODY)
    assert decoder.feed(encoded(begin)) == []
    assert decoder.feed(HEARTBEAT) == [(0, Heartbeat())]
    ((_, incoming),) = decoder.feed(encoded([(1, ContentBody(b"k"))]))
    assert isinstance(incoming, Delivery)
    assert incoming.body == b"ok"


def test_texts_need_not_be_utf_8() -> None:
    payload = b"\x00\x3c\x00\x3c\x01\xff" + bytes(7) + b"\x09\x00\x01\xfe\x02\xfd."
    frames = raw_frame(1, 1, payload) + encoded([(1, ContentHeader(body_size=0))])
    ((_, incoming),) = Decoder(MAX_BODY).feed(frames)
    assert isinstance(incoming, Delivery)
    assert (incoming.consumer_tag, incoming.exchange, incoming.routing_key) == (b"\xff", b"\xfe", b"\xfd.")


# --- Encoding --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 65_535), TAGS, st.booleans())
def test_settlements_are_what_pamqp_makes_of_them(number: int, tag: int, bit: bool) -> None:
    assert encode_ack(number, tag, multiple=bit) == pamqp_frame.marshal(Basic.Ack(tag, bit), number)
    assert encode_reject(number, tag, requeue=bit) == pamqp_frame.marshal(Basic.Reject(tag, bit), number)


@given(st.integers(1, 65_535), st.binary(max_size=600), PROPERTIES, st.integers(200, 400))
def test_a_published_message_comes_out_as_it_went_in(
    number: int, body: bytes, properties: Basic.Properties, room: int
) -> None:
    method = Basic.Publish(exchange="e", routing_key="r", mandatory=True)
    frames = unmarshalled(encode_publish(number, method, properties, body, room))
    (_, published), (_, header), *bodies = frames
    assert {channel for channel, _ in frames} == {number}
    assert isinstance(published, Basic.Publish)
    assert dict(published) == dict(method)
    assert isinstance(header, ContentHeader)
    assert (header.body_size, header.properties) == (len(body), unmarshalled_properties(properties))
    assert b"".join(frame.value or b"" for _, frame in bodies if isinstance(frame, ContentBody)) == body


def unmarshalled_properties(properties: Basic.Properties) -> Basic.Properties:
    """To pamqp an empty text is none."""
    return Basic.Properties(**{name: value for name, value in properties if value})  # type: ignore[arg-type]


def test_a_body_is_cut_into_frames_as_large_as_may_be() -> None:
    frames = unmarshalled(encode_publish(1, Basic.Publish(), Basic.Properties(), b"x" * 250, 100))
    assert [len(frame.value or b"") for _, frame in frames if isinstance(frame, ContentBody)] == [100, 100, 50]


def test_an_empty_body_is_published_without_a_frame() -> None:
    assert len(unmarshalled(encode_publish(1, Basic.Publish(), Basic.Properties(), b"", 100))) == 2


@pytest.mark.parametrize(
    "properties",
    [
        Basic.Properties(message_id="x" * 256),
        Basic.Properties(priority=256),
        Basic.Properties(priority=-1),
        Basic.Properties(headers={"n": 2**64}),
        Basic.Properties(headers={"f": 1e39}),
        Basic.Properties(headers={"o": object()}),  # type: ignore[dict-item]
        Basic.Properties(message_id="\ud800"),
    ],
)
def test_what_amqp_can_not_say_is_an_error_of_ours(properties: Basic.Properties) -> None:
    with pytest.raises(AmqpError, match=r"this can't be said in AMQP 0-9-1"):
        encode_publish(1, Basic.Publish(), properties, b"", 4088)


def test_properties_that_fit_into_no_frame_are_an_error_of_ours() -> None:
    properties = Basic.Properties(headers={"h": "x" * 4096})
    with pytest.raises(AmqpError, match=r"this can't be said in AMQP 0-9-1: .*4096"):
        encode_publish(1, Basic.Publish(), properties, b"", 4096 - FRAME_OVERHEAD)


@pytest.mark.parametrize("method", [Queue.Declare(queue="x" * 256), Queue.Declare(queue="q", arguments={"n": 2**64})])
def test_a_method_that_amqp_can_not_say_is_an_error_of_ours(method: Method) -> None:
    with pytest.raises(AmqpError, match=r"this can't be said in AMQP 0-9-1"):
        encode_method(1, method)


def test_the_first_words_and_the_heartbeat_are_pamqp_s() -> None:
    assert ProtocolHeader().marshal() == PROTOCOL_HEADER
    assert PamqpHeartbeat().marshal() == HEARTBEAT
