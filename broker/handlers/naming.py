"""Names of commands and channels, with placeholders in them: `chat.<room>.say`, or `chat:<room>` for who likes colons.

A placeholder stands between dots. Where a name puts one beside a colon, colons part that name as well: the index sees
a segment `:` for each, so that `chat:<room>` is not the same as `chat.<room>`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar

from broker.core.index import PatternIndex
from broker.core.shapes import ShapeError, parse_shape, rank
from broker.handlers.errors import BadHandler

T = TypeVar("T")

_COLON: Final = ".:."
_BESIDE_COLON: Final = re.compile(r":<|>:")
_PARTS: Final = re.compile(r"[.:]")


class Template:
    """A name with placeholders.

    text: as it was written. parted: whether colons part it as dots do. patterns: what it matches, as the index sees it.

    Raises BadHandler.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.parted = _BESIDE_COLON.search(text) is not None
        try:
            shape = parse_shape(self._seen(text))
        except ShapeError as error:
            raise BadHandler(f"{text!r}: {error}") from None
        self.patterns = shape.patterns
        self._segments = shape.text.split(".")
        self._places = shape.placeholders

    @property
    def placeholders(self) -> Collection[str]:
        """Their names."""
        return self._places.keys()

    def read(self, name: str) -> Mapping[str, str]:
        """What stands for each placeholder in a name that matches."""
        segments = self._seen(name).split(".")
        return {placeholder: segments[place] for placeholder, place in self._places.items()}

    def fill(self, placeholders: Mapping[str, object]) -> str:
        """The name with these in the place of the placeholders.

        Raises ValueError for others than it has, and for what can't stand there.
        """
        if placeholders.keys() != self._places.keys():
            raise ValueError(f"{self.text} needs {', '.join(self._places) or 'no placeholders'}")
        segments = [*self._segments]
        for placeholder, place in self._places.items():
            value = segments[place] = str(placeholders[placeholder])
            if not value or "." in value or (self.parted and ":" in value):
                raise ValueError(f"{value!r} can't be the <{placeholder}> of {self.text}: it is no single segment")
        return _joined(segments)

    def beginning_of(self, name: str) -> str:
        """As much of a name as this covers, if it begins so."""
        return _joined(self._seen(name).split(".")[: len(self._segments)])

    def _seen(self, name: str) -> str:
        return name.replace(":", _COLON) if self.parted else name


class Names(Generic[T]):
    """Values by name; of several templates that match the most specific one counts.

    Raises BadHandler where two are the same.
    """

    def __init__(self, pairs: Sequence[tuple[Template, T]]) -> None:
        self._parted = _Index([pair for pair in pairs if pair[0].parted])
        self._others = _Index([pair for pair in pairs if not pair[0].parted])

    def find(self, name: str) -> T | None:
        """The value for this name, or None."""
        found = self._parted.find(name.replace(":", _COLON)) if ":" in name and all(_PARTS.split(name)) else None
        return self._others.find(name) if found is None else found


class _Index(Generic[T]):
    def __init__(self, pairs: Sequence[tuple[Template, T]]) -> None:
        ranked = sorted(
            ((pattern, template, value) for template, value in pairs for pattern in template.patterns),
            key=lambda entry: rank(entry[0]),
        )
        self._values = [value for _, _, value in ranked]
        self._index: PatternIndex[int] = PatternIndex()
        seen: dict[str, str] = {}
        for place, (pattern, template, _) in enumerate(ranked):
            if pattern in seen:
                raise BadHandler(f"{template.text!r} and {seen[pattern]!r} are the same name: it has two handlers")
            seen[pattern] = template.text
            self._index.add(pattern, place)

    def find(self, name: str) -> T | None:
        found = self._index.match(name)
        return self._values[min(min(places) for places in found)] if found else None


def _joined(segments: Sequence[str]) -> str:
    return ".".join(segments).replace(_COLON, ":")
