"""A message's properties (AMQP 0-9-1 section 4.2.6.1), read as far as the broker has a use for them.

Publishers are not trusted: what can't be read is left out, and never an error. Values that we have no use for are
stepped over without being decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from pamqp import decode

_FLAGS = struct.Struct(">H").unpack_from
_LENGTH = struct.Struct(">I").unpack_from
_MAX_HEADERS = 1000
_NESTED = b"AF"

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = 1 << 15, 1 << 14, 1 << 13
_DELIVERY_MODE, _PRIORITY = 1 << 12, 1 << 11
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 1 << 10, 1 << 9, 1 << 8, 1 << 7


class Properties(NamedTuple):
    """content_type, message_id: None where the message has none that is UTF-8. headers: still encoded."""

    content_type: str | None = None
    message_id: str | None = None
    encoded_headers: bytes = b""

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers that can be decoded."""
        return _read_table(self.encoded_headers)


def read_properties(head: bytes) -> Properties:
    """Read a content header from its property flags on."""
    try:
        return _read(head)
    except (struct.error, IndexError):
        return Properties()


def _read(head: bytes) -> Properties:
    (flags,) = _FLAGS(head)
    at = 2
    more = flags
    while more & 1:  # further words of flags, of which AMQP 0-9-1 uses none
        (more,) = _FLAGS(head, at)
        at += 2
    content_type = message_id = None
    headers = b""
    if flags & _CONTENT_TYPE:
        content_type, at = _short_text(head, at)
    if flags & _CONTENT_ENCODING:
        at += 1 + head[at]
    if flags & _HEADERS:
        (length,) = _LENGTH(head, at)
        headers = head[at + 4 : at + 4 + length]
        at += 4 + length
    at += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)
    for flag in (_CORRELATION_ID, _REPLY_TO, _EXPIRATION):
        if flags & flag:
            at += 1 + head[at]
    if flags & _MESSAGE_ID:
        message_id, at = _short_text(head, at)
    return Properties(content_type, message_id, headers)


def _short_text(head: bytes, at: int) -> tuple[str | None, int]:
    end = at + 1 + head[at]
    try:
        return head[at + 1 : end].decode() if end <= len(head) else None, end
    except UnicodeDecodeError:
        return None, end


def _read_table(encoded: bytes) -> dict[str, Any]:
    """The fields up to the first that can't be decoded: how long that one is, nobody knows.

    Arrays and tables are stepped over. We have no use for them, and one that is made for it takes pamqp seconds.
    """
    table: dict[str, Any] = {}
    at = 0
    for _ in range(_MAX_HEADERS):
        if at >= len(encoded):
            break
        behind = at + 1 + encoded[at]
        try:
            if encoded[behind] in _NESTED:
                at = behind + 5 + _LENGTH(encoded, behind + 1)[0]
                continue
            used, value = decode.embedded_value(encoded[behind:])
        except Exception:  # whatever pamqp makes of bytes that a stranger chose
            break
        if behind + used > len(encoded):
            break
        table[encoded[at + 1 : behind].decode(errors="replace")] = value
        at = behind + used
    return table
