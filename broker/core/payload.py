"""What a payload must be beyond the grammar of JSON, checked once on the way in; and reading one for the policy.

Grammar is the decoder's business (`connectors/decode.py`). Here: UTF-8 throughout, no lone surrogates, no
nesting that another decoder would choke on. Numbers may be of any size: they are forwarded, not understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from broker.core.errors import BadPayload

MAX_DEPTH = 128


class Missing:
    """The type of `MISSING`: what stands for a payload or value that could not be read."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SHALLOW = 2 * MAX_DEPTH  # bytes: each level is at least two brackets
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DEEPER = frozenset(b"[{")


def check_text(raw: bytes) -> None:
    """Check grammatical JSON text `raw` for what the grammar does not say.

    Raises BadPayload where it is not UTF-8, escapes a lone surrogate, or nests deeper than 128 (RFC 8259 sections
    8.1, 8.2 and 9 leave these to the implementation).
    """
    # Most payloads are short ASCII without escapes; each of these asks first what says so at the speed of memory.
    if not raw.isascii():
        _check_encoding(raw)
    if b"\\" in raw and _SURROGATE.search(raw) is not None:
        _check_surrogates(raw)
    if len(raw) > _SHALLOW and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(raw)


def check_texts(parts: Iterable[bytes], whole: bytes) -> None:
    """As `check_text` for each of the parts of a text.

    Raises BadPayload.
    """
    plain = whole.isascii() and b"\\" not in whole
    for raw in parts:
        if not plain or len(raw) > _SHALLOW:
            check_text(raw)


def encode(value: Any) -> bytes:
    """A value as a payload.

    Raises TypeError or ValueError for what JSON can't say, BadPayload for what a payload may not be.
    """
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(errors="surrogatepass")
    check_text(raw)
    return raw


def read(raw: bytes) -> Any:
    """The value of a checked payload, or MISSING if this decoder can't hold it. Huge numbers come out as infinite."""
    try:
        return json.loads(raw)
    except RecursionError:
        return MISSING
    except ValueError:
        # int() refuses thousands of digits; such a number can't name anybody, so its value does not matter.
        try:
            return json.loads(raw, parse_int=float)
        except ValueError:
            return MISSING


def _check_encoding(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise BadPayload(f"the JSON text is not UTF-8: {error.reason} at byte {error.start}") from None


def _check_surrogates(raw: bytes) -> None:
    expected_at = -1  # where the low half of a pair must begin
    for escape in _ESCAPE.finditer(raw):
        unit = int(escape[1], 16) if escape[1] else 0
        if 0xDC00 <= unit <= 0xDFFF:
            if escape.start() != expected_at:
                raise BadPayload(f"a lone surrogate at byte {escape.start()}")
            expected_at = -1
        elif expected_at >= 0:
            break
        elif 0xD800 <= unit <= 0xDBFF:
            expected_at = escape.end()
    if expected_at >= 0:
        raise BadPayload(f"a lone surrogate before byte {expected_at}")


def _check_depth(raw: bytes) -> None:
    depth = 0
    for bracket in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in _DEEPER else -1
        if depth > MAX_DEPTH:
            raise BadPayload(f"nested deeper than {MAX_DEPTH}")
