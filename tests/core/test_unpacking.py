"""A client's stream with its compressed messages made plain, judged by a library that can inflate them itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import SERVER, Protocol
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from broker.core.errors import Close
from broker.core.frames import MAX_FRAGMENTS, Breach
from broker.core.unpacking import Unpacker

LIMIT = 1000
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 4, 2, 1
MASK = b"\x0a\x50\xf0\x0f"

Heard = list[tuple[int, bytes]]


def client_frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, mask: bytes = MASK, extended: int = 0
) -> bytes:
    """A frame as a client sends it; `extended`: more bytes of length than are needed."""
    length = len(payload)
    size = extended or (0 if length < 126 else 2 if length < 65_536 else 8)
    said = {2: b"\xfe", 8: b"\xff"}[size] + length.to_bytes(size, "big") if size else bytes([0x80 | length])
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([(0x80 if final else 0) | reserved << 4 | opcode]) + said + mask + masked


def packed(payload: bytes, level: int = 6) -> bytes:
    packing = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (packing.compress(payload) + packing.flush(zlib.Z_SYNC_FLUSH))[:-4]


def unpacked(pieces: Iterable[bytes]) -> tuple[bytes, Close | None]:
    """What the library is given, and the close code where the stream is in breach."""
    unpacker = Unpacker(LIMIT)
    passed = b""
    try:
        for piece in pieces:
            unpacker.feed(piece)
            while data := unpacker.take():
                passed += data
    except Breach as breach:
        return passed, breach.code
    return passed, None


def parsed(stream: bytes) -> tuple[Heard, int | None]:
    """What a library's server hears that knows no compression: control frames and whole messages, and what ends it."""
    protocol = FrameProtocol(client=False, extensions=[])
    heard: Heard = []
    parts: list[bytes] = []
    try:
        protocol.receive_bytes(stream)
        for frame in protocol.received_frames():
            said: Any = frame.payload
            if frame.opcode is Opcode.CLOSE:
                heard.append((CLOSE, b""))
            elif frame.opcode.iscontrol():
                heard.append((frame.opcode, bytes(said)))
            else:
                parts.append(said.encode() if isinstance(said, str) else bytes(said))
                if frame.message_finished:
                    heard.append((frame.opcode, b"".join(parts)))
                    parts.clear()
    except ParseFailed as fault:
        return heard, fault.code
    return heard, None


def through_us(pieces: Iterable[bytes]) -> tuple[Heard, int | None]:
    """As `parsed`, when we have unpacked it."""
    passed, breach = unpacked(pieces)
    heard, fault = parsed(passed)
    return heard, fault or breach


def inflated(stream: bytes) -> tuple[Heard, int | None]:
    """As `parsed`, by a library that inflates. (The other one does, too, but not where there is a ping in between.)"""
    protocol = Protocol(SERVER, max_size=None)
    protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
    protocol.receive_data(stream)
    heard: Heard = []
    parts: list[bytes] = []
    opcode = 0  # of the message under way
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (PING, PONG):
            heard.append((event.opcode, bytes(event.data)))
            continue
        opcode = event.opcode or opcode
        parts.append(bytes(event.data))
        if event.fin:
            heard.append((opcode, b"".join(parts)))
            parts.clear()
    if protocol.parser_exc is None:
        return heard, None
    assert protocol.close_sent is not None
    return heard, protocol.close_sent.code


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


cuts = st.lists(st.integers(0, 500), max_size=4)
masks = st.binary(min_size=4, max_size=4)
texts = st.text(max_size=30).map(str.encode) | st.integers(0, LIMIT).map(lambda size: b"x" * size)
control_frames = st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=masks)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """A good message in some frames, compressed or not, with control frames before each of them."""
    compressed, payload, opcode = draw(st.booleans()), draw(texts), draw(st.sampled_from([TEXT, BINARY]))
    parts = cut(packed(payload, draw(st.sampled_from([0, 1, 9]))) if compressed else payload, draw(cuts))
    frames = []
    for at, part in enumerate(parts):
        kind, reserved = (CONTINUATION, 0) if at else (opcode, RSV1 if compressed else 0)
        frames += draw(st.lists(control_frames, max_size=1))
        frames.append(client_frame(kind, part, final=at == len(parts) - 1, reserved=reserved, mask=draw(masks)))
    return frames


good_streams = st.lists(messages(), max_size=4).map(lambda found: b"".join(chain.from_iterable(found)))
some_frames = st.builds(
    client_frame,
    st.sampled_from([CONTINUATION, CONTINUATION, TEXT, BINARY, PING, 3, 11]),
    st.sampled_from([b"", packed(b"Hello"), packed(b"") + b"\0\0\xff\xff", b"\0"]),
    final=st.booleans(),
    reserved=st.sampled_from([0, 0, 0, RSV1, RSV1, RSV2, RSV3, 7]),
)
some_streams = st.lists(some_frames, max_size=8).map(b"".join)


@given(good_streams)
def test_a_good_stream_says_the_same_with_and_without_a_library_that_inflates(stream: bytes) -> None:
    heard, fault = through_us([stream])
    assert fault is None
    assert (heard, fault) == inflated(stream)


@given(some_streams)
@example(client_frame(TEXT, packed(b"a"), reserved=RSV1, final=False) + client_frame(TEXT, b"b"))
@example(client_frame(TEXT, b"a", final=False) + client_frame(TEXT, packed(b"b"), reserved=RSV1))
def test_a_stream_with_faults_ends_with_the_same_code(stream: bytes) -> None:
    heard, fault = through_us([stream])
    expected, code = inflated(stream)
    if fault == Close.INVALID_PAYLOAD:  # the other one has another code for it, or does not notice
        assert heard == expected[: len(heard)]
    else:
        assert (heard, fault) == (expected, code)


@given(good_streams | some_streams | st.binary(max_size=60), st.lists(st.integers(0, 1000)))
def test_a_stream_in_any_parts_becomes_the_same(stream: bytes, places: list[int]) -> None:
    assert unpacked(cut(stream, places)) == unpacked([stream])


@given(good_streams | some_streams | st.binary(max_size=60))
def test_a_stream_byte_by_byte_becomes_the_same(stream: bytes) -> None:
    assert unpacked(bytes([byte]) for byte in stream) == unpacked([stream])


@given(st.lists(control_frames | messages().map(b"".join), max_size=3).map(b"".join))
def test_what_is_not_compressed_is_passed_on_as_it_came(stream: bytes) -> None:
    plain = client_frame(TEXT, b"a") + client_frame(BINARY, b"b" * 300, final=False) + client_frame(CONTINUATION)
    assert unpacked([plain]) == (plain, None)
    assert unpacked([plain, stream])[0].startswith(plain)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 500, LIMIT])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_any_size_becomes_one_frame(size: int, opcode: int) -> None:
    stream = client_frame(opcode, packed(b"x" * size), reserved=RSV1)
    assert unpacked([stream]) == (client_frame(opcode, b"x" * size, mask=bytes(4)), None)


def test_long_messages_become_frames_with_a_long_length() -> None:
    unpacker = Unpacker(100_000)
    unpacker.feed(client_frame(TEXT, packed(b"x" * 70_000), reserved=RSV1))
    assert unpacker.take() == client_frame(TEXT, b"x" * 70_000, mask=bytes(4))


def test_a_control_frame_between_fragments_goes_before_the_message() -> None:
    data = packed(b"Hello")
    stream = [
        client_frame(TEXT, data[:3], reserved=RSV1, final=False),
        client_frame(PING, b"there?"),
        client_frame(CONTINUATION, data[3:]),
    ]
    passed, _ = unpacked(stream)
    assert passed == client_frame(PING, b"there?") + client_frame(TEXT, b"Hello", mask=bytes(4))


FAULTS: dict[str, tuple[Sequence[bytes], Close]] = {
    "RSV1 on a continuation": (
        [client_frame(TEXT, packed(b"a"), reserved=RSV1, final=False), client_frame(CONTINUATION, b"", reserved=RSV1)],
        Close.PROTOCOL_ERROR,
    ),
    "RSV1 on a continuation of nothing": ([client_frame(CONTINUATION, b"", reserved=RSV1)], Close.PROTOCOL_ERROR),
    "RSV1 on a ping": ([client_frame(PING, b"", reserved=RSV1)], Close.PROTOCOL_ERROR),
    "RSV1 on a close": ([client_frame(CLOSE, b"", reserved=RSV1)], Close.PROTOCOL_ERROR),
    "RSV1 on an unknown opcode": ([client_frame(5, packed(b"a"), reserved=RSV1)], Close.PROTOCOL_ERROR),
    "RSV2": ([client_frame(TEXT, packed(b"a"), reserved=RSV2)], Close.PROTOCOL_ERROR),
    "RSV1 and RSV3": ([client_frame(TEXT, packed(b"a"), reserved=RSV1 | RSV3)], Close.PROTOCOL_ERROR),
    "no mask": ([b"\xc1\x01\x00"], Close.PROTOCOL_ERROR),
    "no mask on a fragment": (
        [client_frame(TEXT, b"", reserved=RSV1, final=False), b"\x80\x01\x00"],
        Close.PROTOCOL_ERROR,
    ),
    "a message within a compressed one": (
        [client_frame(TEXT, b"", reserved=RSV1, final=False), client_frame(TEXT, b"a")],
        Close.PROTOCOL_ERROR,
    ),
    "a compressed message within a message": (
        [client_frame(TEXT, b"a", final=False), client_frame(TEXT, packed(b"a"), reserved=RSV1)],
        Close.PROTOCOL_ERROR,
    ),
    "a length of two bytes for one": (
        [client_frame(TEXT, packed(b"a"), reserved=RSV1, extended=2)],
        Close.PROTOCOL_ERROR,
    ),
    "a length of eight bytes for two": (
        [client_frame(TEXT, bytes(200), reserved=RSV1, extended=8)],
        Close.PROTOCOL_ERROR,
    ),
    "a length without end": ([b"\xc1\xff" + b"\xff" * 8 + MASK], Close.MESSAGE_TOO_BIG),
    "garbage": ([client_frame(TEXT, b"\xff" * 9, reserved=RSV1)], Close.INVALID_PAYLOAD),
    "half a message": ([client_frame(TEXT, packed(b"Hello")[:4], reserved=RSV1)], Close.INVALID_PAYLOAD),
    "no UTF-8": ([client_frame(TEXT, packed(b"\xff"), reserved=RSV1)], Close.INVALID_PAYLOAD),
    "too big": ([client_frame(TEXT, packed(b"x" * (LIMIT + 1)), reserved=RSV1)], Close.MESSAGE_TOO_BIG),
    "too big in parts": (
        [
            client_frame(TEXT, packed(b"x" * LIMIT) + b"\0\0\xff\xff", reserved=RSV1, final=False),
            client_frame(CONTINUATION, packed(b"x")),
        ],
        Close.MESSAGE_TOO_BIG,
    ),
    "a flood of fragments": (
        [
            client_frame(TEXT, reserved=RSV1, final=False),
            client_frame(CONTINUATION, final=False) * MAX_FRAGMENTS,
        ],
        Close.POLICY_VIOLATION,
    ),
}


@pytest.mark.parametrize(("frames", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_ends_the_connection_with_its_code(frames: Sequence[bytes], code: Close) -> None:
    before = client_frame(TEXT, packed(b"before"), reserved=RSV1)
    assert through_us([before, *frames]) == ([(TEXT, b"before")], code)


def test_a_message_behind_many_others_is_no_message_within_one() -> None:
    plain = client_frame(TEXT, b"a", final=False) + client_frame(PING) + client_frame(CONTINUATION, b"b")
    stream = (plain + client_frame(BINARY, packed(b"c"), reserved=RSV1)) * 3
    assert through_us([stream]) == ([(PING, b""), (TEXT, b"ab"), (BINARY, b"c")] * 3, None)


def test_nothing_that_comes_behind_a_close_frame_is_looked_at() -> None:
    goodbye = client_frame(CLOSE, b"\x03\xe8") + client_frame(TEXT, b"\xff" * 9, reserved=RSV1)
    assert unpacked([goodbye]) == (goodbye, None)


# Bounds.


def test_bombs_are_unpacked_one_at_a_time() -> None:
    bomb = client_frame(TEXT, packed(b"x" * LIMIT), reserved=RSV1)
    unpacker = Unpacker(LIMIT)
    unpacker.feed(bomb * 1000)
    sizes = [len(unpacker.take()) for _ in range(1000)]
    assert sizes == [len(client_frame(TEXT, b"x" * LIMIT))] * 1000
    assert unpacker.take() == b""


def test_what_has_come_too_late_is_not_inflated() -> None:
    data = packed(b"Hello")
    begun = client_frame(TEXT, data[:3], reserved=RSV1, final=False)
    rest = client_frame(CONTINUATION, b"\xff" * 20) + client_frame(TEXT, b"\xff" * 20, reserved=RSV1)
    unpacker = Unpacker(LIMIT)
    unpacker.feed(begun)
    assert unpacker.take() == b""
    unpacker.skip()
    unpacker.feed(rest + client_frame(CLOSE, b"\x03\xe8"))
    assert unpacker.take() == client_frame(CLOSE, b"\x03\xe8")
