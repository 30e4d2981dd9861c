"""Frames: what we write is read by another library; what we watch is watched the same in whole and byte by byte."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, Opcode

from broker.core.errors import Close
from broker.core.frames import (
    BINARY,
    FINAL,
    MAX_FRAGMENTS,
    MAX_REASON_BYTES,
    PING,
    TEXT,
    Breach,
    FrameScanner,
    close_frame,
    frame,
    is_close,
    json_text,
)
from tests.core.parsing import parsed

LIMIT = 300
TOO_BIG = (Close.MESSAGE_TOO_BIG, "a message has at most 300 bytes")
TOO_MANY = (Close.POLICY_VIOLATION, "a message has at most 1024 fragments")

Verdict = tuple[Close, str] | None


def text_frame(payload: bytes) -> bytes:
    return frame(FINAL | TEXT, payload)


def from_client(opcode: int, payload: bytes = b"", *, final: bool = True, length: int | None = None) -> bytes:
    """A frame as a client sends it, masked with zeros; `length`: what its head says."""
    said = len(payload) if length is None else length
    if said < 126:
        extended = bytes([0x80 | said])
    else:
        extended = b"\xfe" + said.to_bytes(2, "big") if said < 65_536 else b"\xff" + said.to_bytes(8, "big")
    return bytes([opcode | (0x80 if final else 0)]) + extended + bytes(4) + payload


def in_parts(parts: list[bytes]) -> Verdict:
    scanner = FrameScanner(LIMIT)
    try:
        for part in parts:
            scanner.feed(part)
    except Breach as breach:
        return breach.code, breach.reason
    return None


def in_whole(stream: bytes) -> Verdict:
    return in_parts([stream])


frames = st.builds(
    lambda opcode, size, final: from_client(opcode, bytes(size), final=final),
    st.sampled_from([0, 0, 1, 2, 8, 9, 10, 3]),
    st.sampled_from([0, 1, 5, 125, 126, 127, 150, 299, 300, 301]),
    st.booleans(),
)
streams = st.lists(frames | st.binary(max_size=3), max_size=8).map(b"".join)


@given(st.text() | st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000]).map(lambda size: "x" * size))
def test_a_frame_is_read_by_another_library(text: str) -> None:
    assert parsed(text_frame(text.encode())) == [(Opcode.TEXT, text)]
    assert parsed(frame(FINAL | BINARY, text.encode())) == [(Opcode.BINARY, text.encode())]


def test_frames_can_stand_one_after_the_other() -> None:
    frames = text_frame(b"a") + PING + text_frame(b"b" * 200) + close_frame(1000)
    assert parsed(frames) == [
        (Opcode.TEXT, "a"),
        (Opcode.PING, b""),
        (Opcode.TEXT, "b" * 200),
        (Opcode.CLOSE, (CloseReason.NORMAL_CLOSURE, "")),
    ]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_a_json_text_holds_the_value(value: dict[str, Any]) -> None:
    [(opcode, text)] = parsed(text_frame(json_text(value)))
    assert opcode is Opcode.TEXT
    assert json.loads(text) == value


def test_a_json_text_is_utf8_whatever_it_holds() -> None:
    assert parsed(text_frame(json_text({"a": "é\ud800"}))) == [(Opcode.TEXT, '{"a":"é?"}')]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4008, 4999])
def test_a_close_frame_is_read_by_another_library(code: int) -> None:
    assert parsed(close_frame(code, "why not")) == [(Opcode.CLOSE, (code, "why not"))]


@given(st.text(max_size=200))
@example("é" * 62)
@example("x" * MAX_REASON_BYTES + "y")
def test_a_reason_is_cut_between_two_characters(reason: str) -> None:
    [(_, (_, sent))] = parsed(close_frame(1000, reason))
    encoded = reason.encode()
    assert reason.startswith(sent)
    assert sent == reason if len(encoded) <= MAX_REASON_BYTES else len(sent.encode()) > MAX_REASON_BYTES - 4


@pytest.mark.parametrize("code", [1005, 1006, 1015])
def test_a_code_that_never_travels_has_no_frame(code: int) -> None:
    assert close_frame(code, "x") == b""


@pytest.mark.parametrize(
    ("frame", "closes"), [(close_frame(1000), True), (PING, False), (text_frame(b""), False), (b"", False)]
)
def test_a_close_frame_is_known_from_others(frame: bytes, closes: bool) -> None:
    assert is_close(frame) == closes


@given(streams)
def test_a_stream_in_whole_and_byte_by_byte_gets_one_verdict(stream: bytes) -> None:
    assert in_whole(stream) == in_parts([bytes([byte]) for byte in stream])


@given(streams, st.lists(st.integers(0, 1000)))
def test_a_stream_in_any_parts_gets_one_verdict(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    parts = [stream[begin:end] for begin, end in pairwise(places)]
    assert in_whole(stream) == in_parts(parts)


@pytest.mark.parametrize(
    ("stream", "verdict"),
    [
        (from_client(1, bytes(300)), None),
        (from_client(1, bytes(301)), TOO_BIG),
        (from_client(2, bytes(301)), TOO_BIG),
        (from_client(1, length=1 << 40), TOO_BIG),
        (from_client(1, length=(1 << 64) - 1), TOO_BIG),
        (from_client(1, bytes(200), final=False) + from_client(0, bytes(100)), None),
        (from_client(1, bytes(200), final=False) + from_client(0, bytes(101)), TOO_BIG),
        (from_client(1, bytes(200)) + from_client(1, bytes(200)), None),
        (from_client(1, final=False) + from_client(0, final=False) * (MAX_FRAGMENTS - 1), None),
        (from_client(1, final=False) + from_client(0, final=False) * MAX_FRAGMENTS, TOO_MANY),
        (from_client(1) * (MAX_FRAGMENTS + 1), None),
    ],
)
def test_a_message_is_bounded_in_bytes_and_in_fragments(stream: bytes, verdict: Verdict) -> None:
    assert in_whole(stream) == verdict


def test_control_frames_between_fragments_count_for_nothing() -> None:
    pings = from_client(9, bytes(125)) * 2000
    assert in_whole(from_client(1, bytes(200), final=False) + pings + from_client(0, bytes(100))) is None


def test_a_message_too_big_is_known_by_its_head() -> None:
    assert in_whole(from_client(1, length=301)) == TOO_BIG


@pytest.mark.parametrize("violation", [b"\x81\x01x", b"\xc1\x80\x00\x00\x00\x00"], ids=["unmasked", "reserved bit"])
def test_what_no_client_may_send_is_left_to_the_library(violation: bytes) -> None:
    assert in_whole(violation) is None
    assert in_parts([violation, from_client(1, bytes(301))]) is None
