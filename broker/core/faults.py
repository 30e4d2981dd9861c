"""Collecting the faults of a file that is read as a whole, so that its author learns all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from broker.core.errors import Fault, FaultyFile
from broker.core.toml import Document, show_path


class Faults:
    """The faults found in `document` so far. The same complaint about the same key counts once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[Fault, None] = {}

    def add(self, path: Sequence[str | int], message: str, hint: str | None = None) -> None:
        """Note a fault of the key at `path`."""
        self._found[Fault(show_path(path), message, self.line(path), hint)] = None

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of `path` in the file."""
        return self._document.line(path)

    def check_keys(self, path: Sequence[str | int], table: Mapping[str, Any], allowed: Collection[str]) -> None:
        """Note every key of `table`, which stands at `path`, that is not allowed there."""
        for key in table:
            if key not in allowed:
                self.add((*path, key), "there is no such key here", suggest(key, allowed) or _either(allowed))

    def raise_if_any(self) -> None:
        """End here if there were faults.

        Raises FaultyFile with all of them.
        """
        if self._found:
            raise FaultyFile(self._document.file, list(self._found))


def suggest(word: str, among: Collection[str]) -> str | None:
    """A hint for a misspelt word, or None if nothing is like it."""
    close = difflib.get_close_matches(word, sorted(among), n=1)
    return f"did you mean {close[0]!r}?" if close else None


def kind(value: object) -> str:
    """What TOML calls the type of `value`, for messages."""
    names = {dict: "a table", list: "a list", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a date or time")


def _either(words: Collection[str]) -> str:
    return "known are " + ", ".join(words)
