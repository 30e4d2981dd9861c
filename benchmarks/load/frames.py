"""WebSocket frames as a client writes and reads them (RFC 6455 section 5), parsed just enough."""

from __future__ import annotations

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_NO_MASK = b"\x00\x00\x00\x00"  # a key like any other, and what is masked with it stays as it is


def client_frame(content: bytes, opcode: int = TEXT) -> bytes:
    """One whole frame from a client."""
    length = len(content)
    if length < 126:
        return b"%c%c%b%b" % (0x80 | opcode, 0x80 | length, _NO_MASK, content)
    if length < 65_536:
        return b"%c\xfe%b%b%b" % (0x80 | opcode, length.to_bytes(2, "big"), _NO_MASK, content)
    return b"%c\xff%b%b%b" % (0x80 | opcode, length.to_bytes(8, "big"), _NO_MASK, content)


def next_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Opcode, and where the content of the server's frame at `at` begins and ends; None while it is not all there."""
    have = len(data) - at
    if have < 2:
        return None
    length = data[at + 1]
    begin = at + 2
    if length == 126:
        if have < 4:
            return None
        length = data[at + 2] << 8 | data[at + 3]
        begin = at + 4
    elif length == 127:
        if have < 10:
            return None
        length = int.from_bytes(data[at + 2 : at + 10], "big")
        begin = at + 10
    end = begin + length
    return None if end > len(data) else (data[at] & 0x0F, begin, end)
