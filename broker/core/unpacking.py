"""A client's stream with its compressed messages turned into plain ones, for a library that knows no compression.

All frames that are not part of a compressed message are passed on as they came, and so is what is against the protocol:
the library ends such a connection. A compressed message is passed on when it is whole, as one frame. Control frames may
come between its fragments, and go before it.
"""

from __future__ import annotations

import sys
from typing import Final

from broker.core.deflate import CompressedMessage
from broker.core.errors import Close
from broker.core.frames import (
    BINARY,
    CLOSE,
    COMPRESSED,
    CONTINUATION,
    FINAL,
    RESERVED,
    TEXT,
    Breach,
    Head,
    frame,
    read_head,
)

_EVERYTHING: Final = sys.maxsize
_MESSAGES = frozenset((TEXT, BINARY))
_NO_MASK = bytes(4)  # a mask like any other; what is masked with it stays as it is


class Unpacker:
    """Turns compressed messages into plain ones.

    What is fed waits until it is taken, one message at a time: a few bytes may hold very many large ones.
    """

    __slots__ = ("_came", "_final", "_left", "_mask", "_max_message_size", "_message", "_passing", "_plain", "_skips")

    def __init__(self, max_message_size: int) -> None:
        self._max_message_size = max_message_size
        self._came = b""
        self._passing = 0  # bytes that are passed on as they come
        self._plain = False  # whether a message that is not compressed is under way
        self._message: CompressedMessage | None = None  # the compressed one that is under way
        self._mask = b""  # of its frame that is under way
        self._left = 0  # bytes of that frame which have not come yet
        self._final = False
        self._skips = False

    def feed(self, data: bytes) -> None:
        """These are the client's next bytes."""
        self._came += data

    def skip(self) -> None:
        """Inflate nothing any more: whatever comes is too late."""
        self._skips = True

    def take(self) -> bytes:
        """The next bytes for the library; none: more of the client's are needed.

        Raises Breach.
        """
        while True:
            if self._passing:
                passed = self._cut(self._passing)
                self._passing -= len(passed)
                return passed
            if self._message is not None and self._mask:
                self._inflate(self._message)
                if self._left:
                    return b""
                self._mask = b""
                if self._final and (whole := self._end(self._message)):
                    return whole
            elif not self._begin_frame():
                return b""

    def _begin_frame(self) -> bool:
        """Look at the next head; False: it is not all there."""
        head = read_head(self._came)
        if head is None:
            return False
        opcode = head.first & 0x0F
        if _is_the_last(head):
            self._passing = _EVERYTHING
        elif opcode in _MESSAGES:
            self._begin_message(opcode, head)
        elif opcode == CONTINUATION and self._message is not None:
            self._begin_fragment(self._message, head)
        else:
            self._pass(head)
            self._plain = self._plain and not (opcode == CONTINUATION and head.first & FINAL)
        return True

    def _begin_message(self, opcode: int, head: Head) -> None:
        if self._plain or self._message is not None:
            raise Breach(Close.PROTOCOL_ERROR, "a message began within another one")
        if head.first & COMPRESSED:
            self._message = CompressedMessage(opcode, self._max_message_size)
            self._begin_fragment(self._message, head)
        else:
            self._pass(head)
            self._plain = not head.first & FINAL

    def _begin_fragment(self, message: CompressedMessage, head: Head) -> None:
        extended = 0 if head.length < 126 else 2 if head.length < 65_536 else 8
        if head.begin != 2 + extended + len(_NO_MASK):
            raise Breach(Close.PROTOCOL_ERROR, "a length takes more bytes than it needs")
        message.begin_frame(head.length)
        self._mask = self._came[head.begin - len(_NO_MASK) : head.begin]
        self._left = head.length
        self._final = bool(head.first & FINAL)
        self._cut(head.begin)

    def _inflate(self, message: CompressedMessage) -> None:
        part = self._cut(self._left)
        self._left -= len(part)
        if not self._skips:
            message.add(_unmasked(part, self._mask))
        turn = len(part) % len(_NO_MASK)
        self._mask = self._mask[turn:] + self._mask[:turn]

    def _end(self, message: CompressedMessage) -> bytes:
        self._message = None
        if self._skips:
            return b""
        return _masked_frame(message.opcode, message.end())

    def _pass(self, head: Head) -> None:
        self._passing = head.begin + head.length

    def _cut(self, length: int) -> bytes:
        """The next bytes of what came, at most so many."""
        part, self._came = self._came[:length], self._came[length:]
        return part


def _is_the_last(head: Head) -> bool:
    """Whether nothing counts after this frame: it is a close frame, or the library ends the connection for it."""
    opcode = head.first & 0x0F
    wrongly_marked = head.first & COMPRESSED and opcode not in _MESSAGES
    return head.length < 0 or opcode == CLOSE or bool(wrongly_marked or head.first & RESERVED)


def _unmasked(data: bytes, mask: bytes) -> bytes:
    length = len(data)
    masks = (mask * (length // len(mask) + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(masks, "little")).to_bytes(length, "little")


def _masked_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame as a client sends it."""
    plain = frame(FINAL | opcode, payload)
    begin = len(plain) - len(payload)
    return b"%c%c%b%b%b" % (plain[0], plain[1] | 0x80, plain[2:begin], _NO_MASK, payload)
