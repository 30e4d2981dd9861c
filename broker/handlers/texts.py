"""Values that JSON has no word for, and that travel as texts: points in time, days, UUIDs, exact numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

TEXTS: Final[Mapping[type, str]] = {
    datetime: "a date and time", date: "a date", UUID: "a UUID", Decimal: "a decimal number in a text",
}  # fmt: skip

# As JSON writes numbers: `Decimal` would take spaces, underscores and NaN as well. The exponents are those of IEEE's
# decimals; with longer ones a few bytes are a number that fills the memory when it becomes an int.
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")


def from_text(text: str, kind: Any) -> Any:
    """The value of this kind, one of `TEXTS`, that the text stands for.

    Raises ValueError where it stands for none.
    """
    if issubclass(kind, date):  # a datetime is one too
        return kind.fromisoformat(text)
    return _uuid(text, kind) if issubclass(kind, UUID) else _decimal(text, kind)


def to_text(value: Any) -> str:
    """The text that stands for the value.

    Raises ValueError for what could not be read again.
    """
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError(f"{value} is no finite number")
    return str(value)


def _uuid(text: str, kind: Any) -> Any:
    found = kind(text)
    if text.lower() not in (str(found), found.hex):  # it would take braces, and hyphens anywhere
        raise ValueError(text)
    return found


def _decimal(text: str, kind: Any) -> Any:
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(text)
    return kind(text)
