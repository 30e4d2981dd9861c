"""Bytes that no RabbitMQ sends: refused as such, or read, but never anything else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from connectors.amqp.codec import (
    HEARTBEAT,
    MAX_FRAME_BYTES,
    Basic,
    Channel,
    Connection,
    Decoder,
    Delivery,
    Method,
    Queue,
)
from connectors.amqp.errors import ProtocolError
from tests.connectors.amqp.frames import Frames, conversations, deliver, encoded, in_chunks, payload_of, raw_frame

MAX_BODY = MAX_FRAME_BYTES


def read(*chunks: bytes) -> list[object]:
    """Feed it, and look at all that comes of it."""
    decoder = Decoder(MAX_BODY)
    found = [incoming for chunk in chunks for _, incoming in decoder.feed(chunk)]
    return [(each.body, each.properties.headers) if isinstance(each, Delivery) else each for each in found]


def refusal(*chunks: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        read(*chunks)
    return str(caught.value)


def read_or_refused(*chunks: bytes) -> None:
    """Feed it; nothing but ProtocolError may come of it."""
    with suppress(ProtocolError):
        read(*chunks)


@given(st.binary(max_size=200), st.integers())
def test_random_bytes_are_read_or_refused(data: bytes, seed: int) -> None:
    read_or_refused(*in_chunks(data, seed))


@given(conversations(), st.data())
def test_streams_that_were_tampered_with_are_read_or_refused(frames: Frames, data: st.DataObject) -> None:
    stream = bytearray(encoded(frames))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream)))
        stream[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_or_refused(bytes(stream))


@given(st.integers(0, 255), st.sampled_from([1, 2, 3, 8]), st.binary(max_size=60))
def test_frames_that_hold_anything_are_read_or_refused(number: int, kind: int, payload: bytes) -> None:
    read_or_refused(raw_frame(kind, number, payload))


@pytest.mark.parametrize(
    "frame",
    [
        Basic.Deliver("consumer", 7, True, "exchange", "routing"),
        Basic.Return(312, "NO_ROUTE", "exchange", "routing"),
        Basic.Ack(7, True),
        Basic.Nack(7, True),
        Queue.DeclareOk("queue", 3, 4),
        Channel.Close(404, "NOT_FOUND", 60, 40),
        Connection.Start(server_properties={"product": "RabbitMQ", "capabilities": {"basic.nack": True}}),
    ],
)
def test_a_method_that_is_cut_off_anywhere_is_read_or_refused(frame: Method) -> None:
    payload = payload_of(frame)
    for length in range(len(payload)):
        read_or_refused(raw_frame(1, 1, payload[:length]))


@pytest.mark.parametrize("length", range(12))
def test_a_content_header_that_is_cut_off_is_refused(length: int) -> None:
    begin = encoded([(1, deliver())])
    assert "can't be read" in refusal(begin, raw_frame(2, 1, payload_of(ContentHeader(body_size=1))[:length]))


def test_a_delivery_with_more_behind_its_texts_is_refused() -> None:
    payload = payload_of(Basic.Deliver("c", 1, False, "e", "r"))
    assert "do not fill its frame" in refusal(raw_frame(1, 1, payload + b"x"))
    assert "do not fill its frame" in refusal(raw_frame(1, 1, payload[:-2] + b"\x05r"))


def test_a_table_that_is_nested_without_end_is_refused() -> None:
    table = b""
    for _ in range(5000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    start = b"\x00\x0a\x00\x0a\x00\x09" + len(table).to_bytes(4, "big") + table
    assert "can't be read" in refusal(raw_frame(1, 0, start))


OUT_OF_TURN: dict[str, Frames] = {
    "a header without a method": [(1, ContentHeader(body_size=1))],
    "a body without a method": [(1, ContentBody(b"x"))],
    "a body without a header": [(1, deliver()), (1, ContentBody(b"x"))],
    "an empty body without a header": [(1, deliver()), (1, ContentBody(b""))],
    "two headers": [(1, deliver()), (1, ContentHeader(body_size=1)), (1, ContentHeader(body_size=1))],
    "a method within a message": [(1, deliver()), (1, Channel.OpenOk())],
    "a body that is too long": [(1, deliver()), (1, ContentHeader(body_size=1)), (1, ContentBody(b"xy"))],
    "a body after all": [(1, deliver()), (1, ContentHeader(body_size=0)), (1, ContentBody(b"x"))],
    "the header of another channel": [(1, deliver()), (2, ContentHeader(body_size=1))],
}


@pytest.mark.parametrize("frames", OUT_OF_TURN.values(), ids=OUT_OF_TURN)
def test_frames_out_of_turn_are_refused(frames: Frames) -> None:
    message = refusal(encoded(frames))
    assert "out of turn" in message or "two headers" in message or "without a header" in message


@pytest.mark.parametrize("kind", [0, 4, 5, 9, 255])
def test_a_frame_of_no_known_kind_is_refused(kind: int) -> None:
    assert refusal(raw_frame(kind, 1, b"")) == f"RabbitMQ sent a frame of kind {kind} out of turn on channel 1"


def test_a_frame_of_an_unknown_method_is_refused() -> None:
    assert "can't be read" in refusal(raw_frame(1, 0, b"\x00\x0a\x0f\xff"))


def test_a_frame_without_its_end_mark_is_refused() -> None:
    assert refusal(HEARTBEAT[:-1] + b"\xcd") == "RabbitMQ sent a frame without its end mark"


def test_a_frame_that_is_too_large_is_refused_before_it_has_come() -> None:
    head = b"\x03\x00\x01" + (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    assert "does not speak AMQP" in refusal(head)
    assert "does not speak AMQP" in refusal(raw_frame(3, 1, b"x" * (MAX_FRAME_BYTES + 1)))


def test_a_frame_of_the_largest_size_is_taken() -> None:
    body = b"x" * MAX_FRAME_BYTES
    frames: Frames = [(1, deliver()), (1, ContentHeader(body_size=len(body))), (1, ContentBody(body))]
    assert read(encoded(frames)) == [(body, {})]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"AMQP\x00\x01\x00\x00", "the server speaks another AMQP than 0-9-1 (0.1.0)"),
        (b"AMQP\x01\x01\x00\x09", "the server speaks another AMQP than 0-9-1 (1.1.0)"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "does not speak AMQP: is this its port, and does it want amqps:// there?",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak AMQP"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "does not speak AMQP"),  # a TLS alert, after which comes nothing
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak AMQP"),
    ],
)
def test_another_protocol_is_told_by_its_first_words(said: bytes, message: str) -> None:
    assert message in refusal(said)
    assert message in refusal(*(bytes([byte]) for byte in said))
