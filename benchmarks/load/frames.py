"""WebSocket frames as a client writes and reads them (RFC 6455 section 5, RFC 7692), parsed just enough."""

from __future__ import annotations

import zlib

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
COMPRESSED = 0x40  # the bit beside the opcode
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"  # as browsers make it
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


class Inflater:
    """What a connection remembers of the messages before, where these are compressed."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(self, content: bytes) -> bytes:
        """What a compressed message says."""
        return self._inflater.decompress(content + b"\x00\x00\xff\xff")
