"""WebSocket frames as the server writes them, and a watch over those that a client sends (RFC 6455 section 5).

What comes from a client is parsed by the library; the scanner only counts what the library does not bound.
"""

from __future__ import annotations

import json
from struct import Struct
from typing import Any, NamedTuple

from broker.core.errors import Close

CONTINUATION, TEXT, BINARY, CLOSE = 0x0, 0x1, 0x2, 0x8  # opcodes
FINAL, COMPRESSED, RESERVED = 0x80, 0x40, 0x30  # the bits beside them; COMPRESSED is RSV1 (RFC 7692 section 6)

PING = b"\x89\x00"
PONG = b"\x8a\x00"
MAX_FRAGMENTS = 1024
MAX_REASON_BYTES = 123

_SMALL, _MEDIUM, _LARGE = Struct(">BB").pack, Struct(">BBH").pack, Struct(">BBQ").pack  # heads (section 5.2)
_DATA = frozenset((CONTINUATION, TEXT, BINARY))
_NEVER_SENT = frozenset((1005, 1006, 1015))


class Breach(Exception):
    """A client's frames that end its connection; carries close code and reason."""

    def __init__(self, code: Close, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def too_big(max_message_size: int) -> Breach:
    """A message has too many bytes."""
    return Breach(Close.MESSAGE_TOO_BIG, f"a message has at most {max_message_size} bytes")


def too_many_fragments() -> Breach:
    """A message comes in too many parts."""
    return Breach(Close.POLICY_VIOLATION, f"a message has at most {MAX_FRAGMENTS} fragments")


def frame(first: int, payload: bytes) -> bytes:
    """One frame around `payload`, which begins with these bits and opcode."""
    return frame_head(first, len(payload)) + payload


def frame_head(first: int, length: int) -> bytes:
    """What stands before a payload of so many bytes."""
    if length < 126:
        return _SMALL(first, length)
    if length < 65_536:
        return _MEDIUM(first, 126, length)
    return _LARGE(first, 127, length)


def json_text(value: Any) -> bytes:
    """`value` as JSON, for a text frame."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; `reason` is cut to the 123 bytes that fit. Nothing for codes that never travel (section 7.4.1)."""
    if code in _NEVER_SENT:
        return b""
    text = reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return b"\x88%c%b%b" % (2 + len(text), code.to_bytes(2, "big"), text)


def is_close(frame: bytes) -> bool:
    """Whether these bytes begin a close frame."""
    return bool(frame) and frame[0] & 0x0F == CLOSE


class FrameScanner:
    """Counts the bytes and fragments of each message in a client's stream, before anything is buffered for it.

    The library measures messages in characters, and not at all by fragments: a flood of empty ones evades it.
    What is wrong in any other way is left to the library, which knows the whole protocol.
    """

    __slots__ = ("_blind", "_fragments", "_head", "_max_message_size", "_size", "_skip")

    def __init__(self, max_message_size: int) -> None:
        self._max_message_size = max_message_size
        self._head = b""
        self._skip = 0
        self._size = 0
        self._fragments = 0
        self._blind = False

    def feed(self, data: bytes) -> None:
        """Look at the next bytes.

        Raises Breach where a bound is broken.
        """
        if self._blind:
            return
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        view = self._head + data[self._skip :]
        self._skip = 0
        at = 0
        while (head := read_head(view, at)) is not None:
            if head.length < 0 or head.first & (COMPRESSED | RESERVED):  # the library will end this connection
                self._blind = True
                return
            if head.first & 0x0F in _DATA:
                self._count(head.length, final=bool(head.first & FINAL))
            at = head.begin + head.length
            if at >= len(view):
                self._skip, self._head = at - len(view), b""
                return
        self._head = view[at:]

    def _count(self, length: int, *, final: bool) -> None:
        self._size += length
        self._fragments += 1
        if self._size > self._max_message_size:
            raise too_big(self._max_message_size)
        if self._fragments > MAX_FRAGMENTS:
            raise too_many_fragments()
        if final:
            self._size = self._fragments = 0


class Head(NamedTuple):
    """The head of a client's frame: bits and opcode, bytes of the payload, and where that begins.

    length: -1 where there is no mask, which no client may leave out.
    """

    first: int
    length: int
    begin: int


def read_head(data: bytes, at: int = 0) -> Head | None:
    """The head that begins at `at`; None: not all of it is there."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    if not second & 0x80:
        return Head(first, -1, at)
    length = second & 0x7F
    extra = {126: 2, 127: 8}.get(length, 0)
    begin = at + 2 + extra + 4
    if len(data) < begin:
        return None
    if extra:
        length = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
    return Head(first, length, begin)
