"""WebSocket frames as the server writes them, and a watch over those that a client sends (RFC 6455 section 5).

What comes from a client is parsed by the library; the scanner only counts what the library does not bound.
"""

from __future__ import annotations

import json
from typing import Any

from broker.core.errors import Close

PING = b"\x89\x00"
MAX_FRAGMENTS = 1024
MAX_REASON_BYTES = 123

_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_DATA = frozenset((_CONTINUATION, _TEXT, _BINARY))
_CLOSE = 0x8
_NEVER_SENT = frozenset((1005, 1006, 1015))


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame around `payload`."""
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 65_536:
        return b"\x81\x7e%b%b" % (length.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (length.to_bytes(8, "big"), payload)


def json_frame(value: Any) -> bytes:
    """One text frame that holds `value` as JSON."""
    return text_frame(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; `reason` is cut to the 123 bytes that fit. Nothing for codes that never travel (section 7.4.1)."""
    if code in _NEVER_SENT:
        return b""
    text = reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return b"\x88%c%b%b" % (2 + len(text), code.to_bytes(2, "big"), text)


def is_close(frame: bytes) -> bool:
    """Whether these bytes begin a close frame."""
    return bool(frame) and frame[0] & 0x0F == _CLOSE


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

    def feed(self, data: bytes) -> tuple[Close, str] | None:
        """Look at the next bytes; returns the close code and reason where a bound is broken."""
        if self._blind:
            return None
        if self._skip >= len(data):
            self._skip -= len(data)
            return None
        view = self._head + data[self._skip :]
        self._skip = 0
        at = 0
        while (head := _read_head(view, at)) is not None:
            opcode, final, length, at = head
            if opcode < 0:  # the library will end this connection
                self._blind = True
                return None
            if opcode in _DATA and (broken := self._count(length, final=final)) is not None:
                return broken
            at += length
            if at >= len(view):
                self._skip, self._head = at - len(view), b""
                return None
        self._head = view[at:]
        return None

    def _count(self, length: int, *, final: bool) -> tuple[Close, str] | None:
        self._size += length
        self._fragments += 1
        if self._size > self._max_message_size:
            return Close.MESSAGE_TOO_BIG, f"a message has at most {self._max_message_size} bytes"
        if self._fragments > MAX_FRAGMENTS:
            return Close.POLICY_VIOLATION, f"a message has at most {MAX_FRAGMENTS} fragments"
        if final:
            self._size = self._fragments = 0
        return None


def _read_head(data: bytes, at: int) -> tuple[int, bool, int, int] | None:
    """Opcode (-1 for what no client may send), FIN, payload length, where the payload begins; None: not all there."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    if first & 0x70 or not second & 0x80:
        return -1, True, 0, at
    length = second & 0x7F
    extra = {126: 2, 127: 8}.get(length, 0)
    begin = at + 2 + extra + 4
    if len(data) < begin:
        return None
    if extra:
        length = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
    return first & 0x0F, bool(first & 0x80), length, begin
