"""permessage-deflate: what is agreed to, and messages that other libraries compress and inflate."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import parse_extension
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from broker.core.deflate import WINDOW_BITS, CompressedMessage, agree, deflate
from broker.core.errors import Close
from broker.core.frames import BINARY, COMPRESSED, FINAL, MAX_FRAGMENTS, TEXT, Breach, frame

ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
WITH_WINDOW = f"{ANSWER}; server_max_window_bits=12"

# What is agreed to.

ACCEPTED = [
    ("permessage-deflate", ANSWER),
    ("permessage-deflate; client_max_window_bits", ANSWER),
    ("permessage-deflate; client_max_window_bits=8", ANSWER),
    ("permessage-deflate; client_max_window_bits=15", ANSWER),
    ('permessage-deflate; client_max_window_bits="10"', ANSWER),
    ('permessage-deflate; client_max_window_bits="1\\0"', ANSWER),
    ("permessage-deflate; server_no_context_takeover", ANSWER),
    ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", ANSWER),
    ("permessage-deflate; server_max_window_bits=15", WITH_WINDOW),
    ("permessage-deflate; server_max_window_bits=12", WITH_WINDOW),
    ('permessage-deflate; server_max_window_bits="13"; client_max_window_bits', WITH_WINDOW),
    ("permessage-deflate;server_max_window_bits=15;client_max_window_bits=15", WITH_WINDOW),
    ("permessage-deflate ;\tclient_max_window_bits = 9", ANSWER),
    ("x-webkit-deflate-frame, permessage-deflate", ANSWER),
    ('permessage-bzip2; level="9"; x, permessage-deflate', ANSWER),
    ("permessage-deflate; unheard_of, permessage-deflate", ANSWER),
    ("permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=14", WITH_WINDOW),
    ("permessage-deflate; server_max_window_bits=12, permessage-deflate", WITH_WINDOW),
    ("permessage-deflate, permessage-deflate; server_max_window_bits=12", ANSWER),
    (" ,, permessage-deflate , ,", ANSWER),
]
DECLINED = [
    "",
    " , ,",
    "permessage-bzip2",
    "Permessage-Deflate",
    "permessage-deflate2",
    "permessage-deflate; unheard_of",
    "permessage-deflate; unheard_of=1",
    "permessage-deflate; Client_Max_Window_Bits",
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=12; server_max_window_bits=12",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=true",
    'permessage-deflate; client_no_context_takeover="x"',
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=11",
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=015",
    "permessage-deflate; server_max_window_bits=+15",
    "permessage-deflate; server_max_window_bits=15.0",
    "permessage-deflate; server_max_window_bits=99999999999999999999",
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; client_max_window_bits=08",
    "permessage-deflate; client_max_window_bits=x",
]
MALFORMED = [
    "permessage-deflate;",
    ";",
    "; client_max_window_bits",
    "permessage deflate",
    "permessage-deflate; =15",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate; client_max_window_bits==9",
    "permessage-deflate; client_max_window_bits=9 9",
    'permessage-deflate; client_max_window_bits="',
    'permessage-deflate; client_max_window_bits=""',
    'permessage-deflate; client_max_window_bits="9',
    'permessage-deflate; client_max_window_bits="9"9',
    'permessage-deflate; client_max_window_bits="9 "',
    'permessage-deflate; client_max_window_bits="\\"',
    '"permessage-deflate"',
    "permessage-deflate, \xff",
    "permessage-deflate; client_max_window_bits=99999, \xff",
    "permessage-deflate\n",
    "permessage-deflate\x0b",
    "(permessage-deflate)",
]


@pytest.mark.parametrize(("offers", "answer"), ACCEPTED)
def test_the_first_offer_that_can_be_taken_is_taken(offers: str, answer: str) -> None:
    assert agree(offers) == answer


@pytest.mark.parametrize("offers", DECLINED)
def test_an_offer_that_can_t_be_taken_is_declined(offers: str) -> None:
    assert agree(offers) is None


@pytest.mark.parametrize("offers", MALFORMED)
def test_what_is_no_list_of_extensions_is_an_error(offers: str) -> None:
    with pytest.raises(ValueError, match="list of extensions"):
        agree(offers)


def test_a_list_is_not_read_that_is_very_long() -> None:
    offers = "permessage-deflate" + ", a" * 335
    assert agree(offers + " ") == ANSWER
    with pytest.raises(ValueError, match="at most 1024"):
        agree(offers + "  ")


def test_an_error_behind_a_good_offer_is_one_too() -> None:
    with pytest.raises(ValueError, match="list of extensions"):
        agree("permessage-deflate, permessage-deflate; =")


PIECES = ["permessage-deflate", "a", "server_max_window_bits", "=", ";", ",", " ", "\t", '"', "\\", "12", "\xff", "("]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
def test_another_library_finds_the_same_headers_malformed(header: str) -> None:
    if not header.strip(" \t,"):
        assert agree(header) is None  # nothing is offered; the other one wants something
        return
    try:
        parse_extension(header.strip(" \t"))
    except InvalidHeader:
        with pytest.raises(ValueError, match="list of extensions"):
            agree(header)
    else:
        agree(header)


bits = st.none() | st.integers(9, 15)


@given(st.booleans(), st.booleans(), bits, bits | st.just(True))
def test_the_client_of_another_library_agrees_to_our_answer(
    server_forgets: bool, client_forgets: bool, server_window: int | None, client_window: int | None
) -> None:
    client = ClientPerMessageDeflateFactory(server_forgets, client_forgets, server_window, client_window)
    offer = [name if value is None else f"{name}={value}" for name, value in client.get_request_params()]
    answer = agree("; ".join(["permessage-deflate", *offer]))
    assert (answer is None) == (server_window is not None and server_window < WINDOW_BITS)
    if answer is not None:
        [(name, parameters)] = parse_extension(answer)
        agreed = client.process_response_params(parameters, [])
        assert name == client.name
        assert agreed.local_no_context_takeover
        assert agreed.remote_no_context_takeover


def test_a_client_of_another_library_would_not_agree_to_a_larger_window_than_it_asked_for() -> None:
    client = ClientPerMessageDeflateFactory(server_max_window_bits=12)
    [(_, parameters)] = parse_extension(WITH_WINDOW.replace("12", "13"))
    with pytest.raises(NegotiationError):
        client.process_response_params(parameters, [])


# On the way out.

JSON = b'{"id":"68f0c1","author":{"name":"Ada","roles":["admin"]},"text":"hello there, hello again"},' * 1000
payloads = st.binary(max_size=300) | st.integers(0, len(JSON)).map(lambda size: JSON[:size])


def inflated(data: bytes) -> bytes:
    """As the RFC has it, with a window no larger than the one agreed to."""
    return zlib.decompressobj(-WINDOW_BITS).decompress(data + b"\x00\x00\xff\xff")


@given(payloads)
def test_what_is_deflated_can_be_inflated_with_the_window_agreed_to(payload: bytes) -> None:
    assert inflated(deflate(payload)) == payload


def test_what_is_deflated_is_smaller() -> None:
    assert len(deflate(JSON[:1024])) < 300
    assert len(deflate(JSON)) < len(JSON) // 20


@given(payloads)
def test_a_client_of_another_library_reads_what_is_deflated(payload: bytes) -> None:
    extension = PerMessageDeflate()
    extension.finalize(ANSWER)
    protocol = FrameProtocol(client=True, extensions=[extension])
    for _ in range(2):  # nothing is remembered from one message to the next
        protocol.receive_bytes(frame(FINAL | COMPRESSED | BINARY, deflate(payload)))
        parts: list[Any] = list(protocol.received_frames())
        assert {part.opcode for part in parts} == {Opcode.BINARY}
        assert b"".join(part.payload for part in parts) == payload


# On the way in.

LIMIT = 1000


def read(*frames: bytes, size: int = LIMIT, piece: int = 100) -> bytes:
    """What a message says that came in these frames, each of them piece by piece."""
    message = CompressedMessage(TEXT, size)
    for each in frames:
        message.begin_frame(len(each))
        for at in range(0, len(each), piece):
            message.add(each[at : at + piece])
    return message.end()


def code(*frames: bytes, size: int = LIMIT) -> Close:
    """The close code that these frames cost."""
    with pytest.raises(Breach) as caught:
        read(*frames, size=size)
    return caught.value.code


def packed(payload: bytes, level: int = 6, flush: int = zlib.Z_SYNC_FLUSH, window: int = 15) -> bytes:
    packing = zlib.compressobj(level, zlib.DEFLATED, -window)
    return packing.compress(payload) + packing.flush(flush)


def ended(payload: bytes) -> bytes:
    """Compressed, with BFINAL in its last block."""
    return packed(payload, flush=zlib.Z_FINISH)


@given(payloads.filter(lambda payload: len(payload) <= LIMIT), st.lists(st.integers(0, 2000)), st.integers(1, 50))
def test_a_message_is_read_however_it_comes(payload: bytes, cuts: list[int], piece: int) -> None:
    data = deflate(payload)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert read(*(data[begin:end] for begin, end in pairwise(places)), piece=piece) == payload


# RFC 7692 section 7.2.3, and what else there is; `hello` is the example of the RFC.
WHOLE = {
    "one block": (bytes.fromhex("f248cdc9c90700"), b"Hello"),
    "no compression": (bytes.fromhex("000500faff48656c6c6f00"), b"Hello"),
    "a last block, and an empty one": (bytes.fromhex("f348cdc9c9070000"), b"Hello"),
    "a last block, and nothing": (bytes.fromhex("f348cdc9c90700"), b"Hello"),
    "two blocks": (bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")), b"Hello"),
    "an empty message": (b"\x00", b""),
    "an empty message in two blocks": (b"\x02\x00", b""),
    "nothing at all": (b"", b""),
    "an empty last block": (b"\x03\x00", b""),
    "an empty last block without compression": (b"\x01", b""),
    "empty blocks": (packed(b"") * 50 + bytes.fromhex("f248cdc9c90700"), b"Hello"),
    "two messages' data": (packed(b"Hel") + packed(b"lo")[:-4], b"Hello"),
    "data that ends and begins again": (ended(b"Hel") + packed(b"lo")[:-4], b"Hello"),
    "data that ends and ends again": (ended(b"Hel") + ended(b"lo"), b"Hello"),
    "flushed at each byte": (b"".join(packed(b"%c" % byte) for byte in b"Hello")[:-4], b"Hello"),
    "the smallest window": (packed(b"abc" * 300, window=9)[:-4], b"abc" * 300),
    "Huffman codes of its own": (packed(JSON[:1000], level=9)[:-4], JSON[:1000]),
}


@pytest.mark.parametrize(("data", "said"), WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_every_way_to_compress_a_message_is_read(data: bytes, said: bytes, piece: int) -> None:
    assert read(data, piece=piece) == said


def test_data_that_begins_again_goes_on_with_its_window() -> None:
    first = random.Random(1).randbytes(400)
    packing = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=first)
    assert read(ended(first), packing.compress(first) + packing.flush()) == first + first


def test_data_may_begin_again_in_every_frame() -> None:
    assert read(*(ended(b"%d," % number) for number in range(100))) == b"".join(b"%d," % n for n in range(100))


def test_data_that_ends_more_often_than_once_a_frame_is_not_read() -> None:
    assert read(ended(b"") + ended(b"Hello")) == b"Hello"
    assert code(ended(b"") * 2 + ended(b"Hello")) == Close.POLICY_VIOLATION


BROKEN = {
    "a reserved kind of block": b"\x06",
    "a reserved kind of block later": packed(b"Hello") + b"\x06",
    "lengths that do not agree": bytes.fromhex("000500ffff48656c6c6f00"),
    "a distance too far back": bytes.fromhex("4a044200"),
    "garbage": b"\xff" * 50,
    "cut in a block": packed(JSON[:1000])[:50],
    "cut in what is not compressed": packed(b"x" * 100, level=0)[:50],
    "cut so that the tail would be part of it": packed(b"x" * 100, level=0)[:101],
    "cut behind a head": bytes.fromhex("0005"),
    "the empty block whole": packed(b"Hello"),
    "garbage behind the end": ended(b"Hello") + b"\x06",
    "cut behind the end": ended(b"Hello") + packed(JSON[:1000])[:50],
    "a zlib header": zlib.compress(b"Hello"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_data_that_can_t_be_inflated_is_told_so(data: bytes) -> None:
    assert code(data) == Close.INVALID_PAYLOAD


def test_a_message_that_is_cut_anywhere_is_not_read() -> None:
    data = deflate(JSON[:1000])
    codes = {code(data[:length]) for length in range(1, len(data) - 1)}
    assert codes == {Close.INVALID_PAYLOAD}


@given(st.binary(max_size=100), st.integers(1, 40))
def test_any_bytes_are_a_message_or_broken(data: bytes, piece: int) -> None:
    with suppress(Breach):
        assert len(read(data, piece=piece)) <= LIMIT


# Bounds.


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_a_message_has_as_many_bytes_as_it_may(size: int) -> None:
    assert read(deflate(b"x" * size)) == b"x" * size
    assert read(deflate(b"x" * size), size=size) == b"x" * size


@pytest.mark.parametrize("size", [1001, 2000, 10**7])
def test_a_message_with_more_bytes_is_too_big(size: int) -> None:
    assert code(deflate(b"x" * size)) == Close.MESSAGE_TOO_BIG


def test_a_bomb_is_not_inflated() -> None:
    bomb = packed(bytes(10**7), level=9)
    message = CompressedMessage(TEXT, LIMIT)
    message.begin_frame(len(bomb))
    tracemalloc.start()
    try:
        with pytest.raises(Breach):
            message.add(bomb)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000


def test_what_can_t_be_compressed_may_be_as_long_as_what_can() -> None:
    noise = random.Random(1).randbytes(LIMIT)
    assert read(packed(noise, level=0)[:-4]) == noise
    singly = [packed(noise[at : at + 1], level=0) for at in range(LIMIT)]
    assert read(*singly[:-1], singly[-1][:-4]) == noise


def test_a_message_may_have_so_many_frames() -> None:
    assert read(*[b""] * (MAX_FRAGMENTS - 1), b"\x00") == b""
    assert code(*[b""] * MAX_FRAGMENTS, b"\x00") == Close.POLICY_VIOLATION


def test_a_message_that_says_nothing_at_length_is_too_big() -> None:
    assert code(packed(b"") * 10_000) == Close.MESSAGE_TOO_BIG


def test_a_frame_that_announces_too_much_is_known_by_its_head() -> None:
    message = CompressedMessage(TEXT, LIMIT)
    with pytest.raises(Breach):
        message.begin_frame(2**62)
