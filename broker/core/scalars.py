"""Comparing strings, numbers and booleans of JSON as what they are: `true` is not 1, and "1" is not 1; 1 is 1.0."""

from __future__ import annotations

import math
from typing import Any

Scalar = str | int | float | bool

# A value with its kind beside it, so that Python's own equality and hash tell kinds apart.
Comparable = tuple[str, Scalar]


def comparable(value: Any) -> Comparable | None:
    """`value` in a form that `==` compares strictly, or None if it is no string, finite number or boolean."""
    if isinstance(value, str):
        return ("string", value)
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return ("number", value)
    return None


def as_text(value: Any) -> str | None:
    """`value` as the segment of a name could hold it: a string, or an integer in decimal; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def index_text(value: Any) -> str | None:
    """A text that is the same for all equal values (and perhaps for others); None for what is not comparable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return as_text(value)
