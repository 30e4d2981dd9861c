"""An event as the policy reads it, and the values that can be taken from it: a segment of its name, a path's data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.core.errors import OperatorError
from broker.core.event import Event
from broker.core.payload import MISSING, read
from broker.core.scalars import as_text

_STEP = re.compile(r"([^\[\]]*)((?:\[\])*)")
_EACH = "[]"  # no object's key can be this one: keys have no brackets in the notation


class Happening:
    """An event as the policy reads it. Its payload is decoded at most once, and only if somebody asks."""

    __slots__ = ("_data", "_raw", "name", "segments")

    def __init__(self, event: Event) -> None:
        self.name = event.name
        self.segments = event.name.split(".")
        self._raw: bytes | None = event.data
        self._data: Any = MISSING

    @property
    def data(self) -> Any:
        """The payload, or MISSING if it can't be read."""
        if self._raw is not None:
            self._data = read(self._raw)
            self._raw = None
        return self._data


class UnreadableError(Exception):
    """The event does not hold the value, or holds one that can't be used. The text names the path, never the data."""


class PathError(OperatorError):
    """A text that is no path."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The segment that a `<placeholder>` stands for: `index` counts from the left, or, negative, from the right."""

    name: str
    index: int

    def __str__(self) -> str:
        return f"<{self.name}>"

    def segment(self, happening: Happening) -> str:
        """The segment of the event's name."""
        return happening.segments[self.index]

    def users(self, happening: Happening) -> frozenset[str]:
        """The one user whose id the segment is."""
        return frozenset((self.segment(happening),))

    def key(self, happening: Happening) -> str:
        """The segment, as the key of a relation."""
        return self.segment(happening)


@dataclass(frozen=True, slots=True)
class DataPath:
    """A way into the payload: through objects by key, over lists; `data.members[]._id`."""

    text: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return self.text

    def users(self, happening: Happening) -> frozenset[str]:
        """The user ids there: strings, in lists or not.

        Raises UnreadableError where anything else stands, or nothing.
        """
        users, _ = self.values(happening)
        for user in users:
            if not isinstance(user, str):
                raise UnreadableError(f"{self.text}: {_kind(user)} where a user's id is expected, which is a string")
        return frozenset(users)

    def key(self, happening: Happening) -> str:
        """The one string or integer there, as the key of a relation.

        Raises UnreadableError where anything else stands, or nothing.
        """
        key = as_text(self.value(happening))
        if key is None:
            raise UnreadableError(f"{self.text}: a string or an integer is expected")
        return key

    def value(self, happening: Happening) -> Any:
        """The one value there.

        Raises UnreadableError if there is none, or a list.
        """
        values, many = self.values(happening)
        if many:
            raise UnreadableError(f"{self.text}: a list where one value is expected")
        return values[0]

    def values(self, happening: Happening) -> tuple[list[Any], bool]:
        """All values that the path leads to, none of them a list, and whether it led over a list.

        Raises UnreadableError where the way is not there.
        """
        if happening.data is MISSING:
            raise UnreadableError(f"{self.text}: the payload can't be read")
        found: list[Any] = [happening.data]
        over_list = False
        for step in self.steps:
            if step == _EACH:
                found = self._elements(found)
                over_list = True
            else:
                over_list = over_list or _has_list(found)
                found = [self._entry(value, step) for value in _flat(found)]
        return _flat(found), over_list or _has_list(found)

    def _elements(self, found: list[Any]) -> list[Any]:
        elements: list[Any] = []
        for value in found:
            if not isinstance(value, list):
                raise UnreadableError(f"{self.text}: {_kind(value)} where `[]` expects a list")
            elements.extend(value)
        return elements

    def _entry(self, value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            raise UnreadableError(f"{self.text}: {_kind(value)} where an object with {key!r} is expected")
        if key not in value:
            raise UnreadableError(f"{self.text}: {key!r} is missing")
        return value[key]


def parse_path(text: str) -> DataPath:
    """Read a path such as `data.members[]._id`.

    Raises PathError, with what is wrong with it.
    """
    steps: list[str] = []
    for index, part in enumerate(text.split(".")):
        found = _STEP.fullmatch(part)
        if found is None:
            raise PathError(f"{part!r}: `[]` goes over the whole list, and stands at the end of a key")
        key, lists = found[1], found[2]
        if not key or (index == 0 and key != "data"):
            raise PathError("a path is `data`, or keys after it: `data.members`, `data.members[]._id`")
        steps.extend([key] if index else [])
        steps.extend([_EACH] * (len(lists) // 2))
    return DataPath(text, tuple(steps))


def _has_list(values: Iterable[Any]) -> bool:
    return any(isinstance(value, list) for value in values)


def _flat(values: Iterable[Any]) -> list[Any]:
    # Not recursive: a payload may nest deeper than Python likes to call.
    flat: list[Any] = []
    waiting = [iter(values)]
    while waiting:
        for value in waiting[-1]:
            if isinstance(value, list):
                waiting.append(iter(value))
                break
            flat.append(value)
        else:
            waiting.pop()
    return flat


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a string", type(None): "null"}
    return names.get(type(value), "a number")
