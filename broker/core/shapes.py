"""Shapes: names of events as people write them down, `groups.<groupId>.{created,updated}`.

A shape stands for one or more patterns: `{a,b}` is expanded, and a `<placeholder>` matches as `*` does. It knows
where in a name each placeholder's segment stands: counted from the left before the first `**`, from the right after
the last one.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.core.errors import BadName, BadPattern, OperatorError
from broker.core.event import RESERVED_PREFIX, check_name
from broker.core.patterns import MANY, ONE, parse_pattern

MAX_PATTERNS = 1000

_PLACEHOLDER = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_SPECIFICITY: Final = {ONE: 1, MANY: 2}
_END = 3


class ShapeError(OperatorError):
    """A text that is no shape, with what is wrong."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape as read.

    text: as it was written.
    patterns: what it expands to, in the order written.
    placeholders: for each name, the index of its segment in an event's name; negative: from the right.
    """

    text: str
    patterns: tuple[str, ...]
    placeholders: Mapping[str, int] = field(hash=False)


def parse_shape(text: str) -> Shape:
    """Read a shape.

    Raises ShapeError, with what is wrong with it.
    """
    segments = text.split(".")
    choices = [_alternatives(segment) for segment in segments]
    count = math.prod(len(choice) for choice in choices)
    if count > MAX_PATTERNS:
        raise ShapeError(f"stands for {count} patterns, more than {MAX_PATTERNS}")
    patterns = tuple(".".join(choice) for choice in itertools.product(*choices))
    for pattern in patterns:
        _check(pattern)
    return Shape(text, patterns, _placeholders(segments))


def placeholder_name(text: str) -> str | None:
    """The name in `<name>`, or None if `text` is not exactly a placeholder."""
    found = _PLACEHOLDER.fullmatch(text)
    return found[1] if found else None


def rank(pattern: str) -> tuple[int, ...]:
    """How specific a pattern is, the least first: literal, one segment, many segments, the end; left to right."""
    return (*(_SPECIFICITY.get(segment, 0) for segment in pattern.split(".")), _END)


def _alternatives(segment: str) -> Sequence[str]:
    if segment in (ONE, MANY):
        return (segment,)
    if _PLACEHOLDER.fullmatch(segment):
        return (ONE,)
    braces = _ALTERNATIVES.fullmatch(segment)
    literals = [literal.strip() for literal in braces[1].split(",")] if braces else [segment]
    for literal in literals:
        _check_literal(literal, segment)
    if len(set(literals)) < len(literals):
        raise ShapeError(f"{segment!r} names the same alternative twice")
    return literals


def _check_literal(literal: str, segment: str) -> None:
    try:
        check_name(literal)
    except BadName:
        raise ShapeError(_what_is_wrong(segment)) from None


def _what_is_wrong(segment: str) -> str:
    if not segment:
        return "a segment is empty"
    if "<" in segment or ">" in segment:
        return f"{segment!r}: a placeholder is a whole segment, `<name>`, its name of letters, digits and _"
    if any(mark in segment for mark in "{},"):
        return f"{segment!r}: alternatives are a whole segment, `{{one,other}}`, and literal"
    if ONE in segment:
        return f"{segment!r}: `*` and `**` stand for whole segments"
    return f"{segment!r} has white space or a control character, or is too long"


def _check(pattern: str) -> None:
    try:
        parse_pattern(pattern)
    except BadPattern as error:
        raise ShapeError(str(error)) from None
    wildcards = {ONE, MANY}.intersection(pattern.split("."))
    if wildcards and pattern.startswith(RESERVED_PREFIX):
        raise ShapeError(f"names that begin with {RESERVED_PREFIX!r} are matched by no wildcard")


def _placeholders(segments: Sequence[str]) -> Mapping[str, int]:
    many = [index for index, segment in enumerate(segments) if segment == MANY]
    first, last = (many[0], many[-1]) if many else (len(segments), -1)
    indexes: dict[str, int] = {}
    for index, segment in enumerate(segments):
        name = placeholder_name(segment)
        if name is None:
            continue
        if name in indexes:
            raise ShapeError(f"<{name}> stands twice")
        if first < index < last:
            raise ShapeError(f"<{name}> stands between two `**`, where nobody can tell which segment it is")
        indexes[name] = index if index < first else index - len(segments)
    return indexes
