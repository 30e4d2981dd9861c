"""Compression of WebSocket messages: permessage-deflate (RFC 7692), without context takeover.

Theory. Each message is compressed by itself. So nothing is kept for a connection between two messages, and an event is
compressed once: what comes out is good for everybody who has agreed to compression. All of them agree to one window,
which is small enough for those who ask for a smaller one than usual, and large enough for JSON.

A message is raw DEFLATE data that ends in an empty stored block, the last four bytes of which do not travel.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final

from broker.core.errors import Close
from broker.core.frames import MAX_FRAGMENTS, Breach, too_big, too_many_fragments

WINDOW_BITS: Final = 12
BYTES_A_FRAGMENT: Final = 16  # that a message may have beside twice what it says, for each fragment there may be
EXTENSION: Final = "permessage-deflate"
MAX_OFFERS_LENGTH: Final = 1024  # of all that a client offers; browsers need less than a hundred

# Time and size at each setting: docs/decisions/0009-compression.md.
_LEVEL = 2
_MEMORY_LEVEL = 7
_LEAST_WINDOW_BITS = 9
_WIDEST_WINDOW_BITS = 15
_WIDEST_WINDOW = 1 << _WIDEST_WINDOW_BITS

_TAIL = b"\x00\x00\xff\xff"
_LAST_BLOCK = b"\x01" + _TAIL

_TOKEN_CHARACTER = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # noqa: S105 - RFC 9110 section 5.6.2
_NAME = re.compile(rf"{_TOKEN_CHARACTER}+")
_PARAMETER = re.compile(
    rf"[ \t]*;[ \t]*({_TOKEN_CHARACTER}+)"
    rf'(?:[ \t]*=[ \t]*(?:({_TOKEN_CHARACTER}+)|"((?:\\?{_TOKEN_CHARACTER})+)"))?'
)
_COMMA = re.compile(r"[ \t]*(?:,[ \t,]*|\Z)")

_ANSWER = f"{EXTENSION}; server_no_context_takeover; client_no_context_takeover"
_ANSWER_WITH_WINDOW = f"{_ANSWER}; server_max_window_bits={WINDOW_BITS}"
_MAY_BE_OFFERED: Mapping[str, Collection[str | None]] = {
    "server_no_context_takeover": (None,),
    "client_no_context_takeover": (None,),
    "server_max_window_bits": [str(bits) for bits in range(WINDOW_BITS, 16)],  # fewer than we have: declined
    "client_max_window_bits": [None, *(str(bits) for bits in range(8, 16))],
}

Parameter = tuple[str, str | None]


def agree(offers: str) -> str | None:
    """Answer what a client offers in `Sec-WebSocket-Extensions`: the first offer that we can take; None: there is none.

    Raises ValueError where that is not of the form that RFC 6455 section 9.1 has for it, or very long.
    """
    if len(offers) > MAX_OFFERS_LENGTH:
        raise ValueError(f"a list of extensions has at most {MAX_OFFERS_LENGTH} characters")
    answers = [_answer(parameters) for name, parameters in _parse(offers) if name == EXTENSION]
    return next(filter(None, answers), None)


def deflate(payload: bytes) -> bytes:
    """A message's payload, compressed."""
    bits = min(max(len(payload).bit_length(), _LEAST_WINDOW_BITS), WINDOW_BITS)
    packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, _MEMORY_LEVEL)
    return (packing.compress(payload) + packing.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


class CompressedMessage:
    """A compressed message on its way in: inflated as it comes, and not further than a byte beyond its bound.

    A sender may end its DEFLATE data within a message and begin anew (RFC 7692 section 7.2.3.4), here once a frame.
    """

    __slots__ = ("_announced", "_ends", "_frames", "_inflater", "_max_size", "_plain", "opcode")

    def __init__(self, opcode: int, max_size: int) -> None:
        self.opcode = opcode
        self._max_size = max_size
        self._inflater = zlib.decompressobj(-_WIDEST_WINDOW_BITS)
        self._plain = bytearray()
        self._announced = 0  # bytes of all frames so far, as their heads say
        self._frames = 0
        self._ends = 0

    def begin_frame(self, length: int) -> None:
        """One more frame comes, with so many bytes.

        Raises Breach.
        """
        self._frames += 1
        self._announced += length
        if self._frames > MAX_FRAGMENTS:
            raise too_many_fragments()
        # What can't be compressed grows a little, and more if each fragment ends in a block of its own.
        if self._announced > 2 * self._max_size + BYTES_A_FRAGMENT * MAX_FRAGMENTS:
            raise too_big(self._max_size)

    def add(self, data: bytes) -> None:
        """More of it has come, unmasked.

        Raises Breach.
        """
        while data:
            if self._inflater.eof:
                self._begin_anew()
            try:
                self._plain += self._inflater.decompress(data, self._max_size + 1 - len(self._plain))
            except zlib.error:
                raise _broken() from None
            if len(self._plain) > self._max_size:
                raise too_big(self._max_size)
            data = self._inflater.unused_data

    def end(self) -> bytes:
        """All of it has come; this is what it says.

        Raises Breach.
        """
        # Some send nothing for nothing, and no block behind the last.
        if self._announced and not self._inflater.eof and not self._stops_between_blocks():
            raise _broken()
        return bytes(self._plain)

    def _stops_between_blocks(self) -> bool:
        """Whether what has not travelled, and then a last block, can follow, and say nothing."""
        said = len(self._plain)
        with suppress(Breach):
            self.add(_TAIL)
            if not self._inflater.eof:
                self.add(_LAST_BLOCK)
        return self._inflater.eof and len(self._plain) == said

    def _begin_anew(self) -> None:
        self._ends += 1
        if self._ends > self._frames:
            raise Breach(Close.POLICY_VIOLATION, "compressed data ends at most once a frame")
        self._inflater = zlib.decompressobj(-_WIDEST_WINDOW_BITS, zdict=bytes(self._plain[-_WIDEST_WINDOW:]))


def _broken() -> Breach:
    return Breach(Close.INVALID_PAYLOAD, "a compressed message can't be read")


def _answer(parameters: list[Parameter]) -> str | None:
    """The answer to one offer; None: it is declined (RFC 7692 section 7.1)."""
    values = dict(parameters)
    if len(values) < len(parameters) or not all(
        value in _MAY_BE_OFFERED.get(name, ()) for name, value in values.items()
    ):
        return None
    return _ANSWER_WITH_WINDOW if "server_max_window_bits" in values else _ANSWER


def _parse(header: str) -> Iterator[tuple[str, list[Parameter]]]:
    """Extensions with their parameters, in order."""
    at = len(header) - len(header.lstrip(" \t,"))
    while at < len(header):
        name = _match(_NAME, header, at)
        at = name.end()
        parameters: list[Parameter] = []
        while (parameter := _PARAMETER.match(header, at)) is not None:
            key, token, quoted = parameter.groups()
            parameters.append((key, token if quoted is None else quoted.replace("\\", "")))
            at = parameter.end()
        at = _match(_COMMA, header, at).end()
        yield name.group(), parameters


def _match(pattern: re.Pattern[str], header: str, at: int) -> re.Match[str]:
    found = pattern.match(header, at)
    if found is None:
        raise ValueError("this is no list of extensions")
    return found
