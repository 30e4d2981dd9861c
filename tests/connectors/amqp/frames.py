"""What a RabbitMQ may send, as frames of pamqp's: strategies, and the bytes that they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from hypothesis import strategies as st
from pamqp import frame as pamqp_frame
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat as PamqpHeartbeat

from connectors.amqp.codec import Basic, Channel, Connection, Exchange, Queue

Frames = list[tuple[int, FrameTypes]]

SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.text("ab0-_.:/ ", max_size=20)  # of exchanges and queues; pamqp marshals no others
TAGS = st.integers(0, 2**64 - 1).filter(lambda tag: tag < 2**63)  # pamqp packs them with a sign
PROPERTIES = st.builds(Basic.Properties, message_id=st.none() | SHORT, content_type=st.none() | SHORT)
BODIES = st.lists(st.binary(min_size=1, max_size=20), max_size=4)

METHODS = st.one_of(
    st.sampled_from([Channel.OpenOk(), Channel.CloseOk(), Basic.QosOk(), Exchange.DeclareOk(), Connection.Unblocked()]),
    st.builds(Queue.DeclareOk, NAMES, st.integers(0, 2**31), st.integers(0, 2**31)),
    st.builds(Channel.Close, st.integers(200, 600), SHORT, st.just(0), st.just(0)),
    st.builds(Connection.Blocked, SHORT),
    st.builds(Basic.ConsumeOk, SHORT),
    st.builds(Basic.Ack, TAGS, st.booleans()),
    st.builds(Basic.Nack, TAGS, st.booleans(), st.booleans()),
)
CONTENTS = st.one_of(
    st.builds(Basic.Deliver, SHORT, TAGS, st.booleans(), NAMES, SHORT),
    st.builds(Basic.Return, st.integers(300, 320), SHORT, NAMES, SHORT),
)


@st.composite
def messages(draw: st.DrawFn) -> Sequence[FrameTypes]:
    """The frames of one message."""
    body = draw(BODIES)
    header = ContentHeader(body_size=sum(map(len, body)), properties=draw(PROPERTIES))
    return [draw(CONTENTS), header, *map(ContentBody, body)]


HEARTBEATS = st.just([PamqpHeartbeat()])


@st.composite
def conversations(draw: st.DrawFn) -> Frames:
    """What a server sends on some channels, whose frames come in between one another."""
    talk = st.lists(messages() | METHODS.map(lambda method: [method]) | HEARTBEATS, max_size=4)
    waiting = {number: [frame for frames in draw(talk) for frame in frames] for number in (0, 1, 2)}
    whose = Random(draw(st.integers()))
    found: Frames = []
    while any(waiting.values()):
        number = whose.choice([number for number, frames in waiting.items() if frames])
        found.append((number, waiting[number].pop(0)))
    return found


def deliver(tag: int = 1) -> Basic.Deliver:
    return Basic.Deliver("c", tag, False, "e", "r")


def encoded(frames: Frames) -> bytes:
    return b"".join(pamqp_frame.marshal(frame, number) for number, frame in frames)


def in_chunks(data: bytes, seed: int) -> Iterator[bytes]:
    cut = Random(seed)
    while data:
        length = cut.choice([1, 2, 7, 8, 9, cut.randint(1, len(data))])
        yield data[:length]
        data = data[length:]


def unmarshalled(data: bytes) -> Frames:
    found: Frames = []
    while data:
        length, number, frame = pamqp_frame.unmarshal(data)
        found.append((number, frame))
        data = data[length:]
    return found


def raw_frame(kind: int, number: int, payload: bytes) -> bytes:
    return bytes((kind,)) + number.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def payload_of(frame: FrameTypes) -> bytes:
    return pamqp_frame.marshal(frame, 1)[7:-1]
