"""What is at which path; in those of a table `<name>` stands for a segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar
from urllib.parse import unquote

V = TypeVar("V")


class Paths(Generic[V]):
    """Values by path. Of several that match, one without placeholders counts, else the first."""

    def __init__(self, values: Mapping[str, V]) -> None:
        self._values = values
        self._shaped = [(path.split("/"), value) for path, value in values.items() if "<" in path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def find(self, path: str) -> tuple[V, Mapping[str, str]] | None:
        """The value at this path and what stands for the placeholders, decoded; or None."""
        value = self._values.get(path)
        if value is not None and "<" not in path:
            return value, {}
        segments = path.split("/")
        for shape, value in self._shaped:
            params = _params(shape, segments)
            if params is not None:
                return value, params
        return None


def _params(shape: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    if len(shape) != len(segments):
        return None
    params: dict[str, str] = {}
    for wanted, segment in zip(shape, segments, strict=True):
        if wanted.startswith("<") and segment:
            params[wanted.strip("<>")] = unquote(segment)
        elif wanted != segment:
            return None
    return params
