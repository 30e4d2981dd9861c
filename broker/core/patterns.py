"""Patterns of names: how they are written, and a slow, obvious way to match them.

A pattern is a name whose segments may be `*`, which stands for exactly one segment, or `**`, which stands for one
or more. The index (`core/index.py`) does the same fast; this module is what the index is held against.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.core.errors import BadName, BadPattern
from broker.core.event import MAX_NAME_BYTES, RESERVED_PREFIX, check_name, utf8_length

ONE = "*"
MANY = "**"


def parse_pattern(text: object) -> str:
    """Return `text` if it is a pattern.

    Raises BadPattern, with what is wrong, otherwise.
    """
    if not isinstance(text, str):
        raise BadPattern(f'a pattern is a text such as "games.*.created", not {_kind(text)}')
    length = utf8_length(text)
    if length is None or length > MAX_NAME_BYTES:
        raise BadPattern(f"a pattern is valid Unicode of at most {MAX_NAME_BYTES} bytes")
    if any(mark in text for mark in "<>{},"):
        raise BadPattern(f"{text!r}: only * and ** are special in a subscription; < > {{ }} , can't be in a name")
    literal = ".".join("x" if segment in (ONE, MANY) else segment for segment in text.split("."))
    try:
        check_name(literal)
    except BadName as error:
        raise BadPattern(f"{text!r} is no pattern: {error}; * and ** stand for whole segments") from error
    return text


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` matches `name`. Names that begin with `broker.` are matched by no wildcard."""
    if name.startswith(RESERVED_PREFIX):
        return pattern == name
    return segments_match(pattern.split("."), name.split("."))


def segments_match(pattern: Sequence[str], name: Sequence[str]) -> bool:
    """Whether the segments of a pattern match the segments of a name, wildcards meaning what they say."""
    if not pattern or not name:
        return not pattern and not name
    head, rest = pattern[0], pattern[1:]
    if head == MANY:
        return any(segments_match(rest, name[taken:]) for taken in range(1, len(name) + 1))
    return head in (ONE, name[0]) and segments_match(rest, name[1:])


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
