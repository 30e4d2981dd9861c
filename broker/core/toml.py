"""TOML with the lines: the standard library's parser for the values, and a scanner that finds where each key stands.

`tomllib` does not tell lines, and a fault without its line is half a fault. The scanner runs only over text that
`tomllib` has accepted, so it may trust the grammar.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.core.errors import Fault, FaultyFile

Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[\s,]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'",
    re.DOTALL,
)


@dataclass(frozen=True)
class Document:
    """A TOML file as read: its name for messages, its values, and the line of each key path."""

    file: str
    data: Mapping[str, Any]
    lines: Mapping[Path, int]

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of `path`, or of the nearest key above it that stands in the file."""
        for end in range(len(path), 0, -1):
            found = self.lines.get(tuple(path[:end]))
            if found is not None:
                return found
        return None


def parse(text: str, file: str) -> Document:
    """Read TOML `text`; `file` is the name that errors show.

    Raises FaultyFile where it is no TOML.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        message = re.sub(r" \(at .*\)$", "", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise FaultyFile(file, [Fault("", f"this is no TOML: {message}", line)]) from None
    except RecursionError:
        raise FaultyFile(file, [Fault("", "this is no TOML for us: nested too deep")]) from None
    return Document(file, data, _Scanner(text).scan())


def show_path(path: Sequence[str | int]) -> str:
    """A key path as people write it: `rules[2].visible_to.users`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += ("." if shown else "") + (part if _BARE_KEY.fullmatch(part) else f'"{part}"')
    return shown


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted_to = 0
        self._lines: dict[Path, int] = {}
        self._tables: dict[Path, int] = {}  # arrays of tables: the index of the latest

    def scan(self) -> Mapping[Path, int]:
        table: Path = ()
        while self._skip(_GAP) < len(self._text):
            table = self._header() if self._text[self._at] == "[" else self._pair(table)
        return self._lines

    def _header(self) -> Path:
        line = self._here()
        repeated = self._text.startswith("[[", self._at)
        self._at += 2 if repeated else 1
        keys = self._key()
        self._at += 2 if repeated else 1
        if not repeated:
            path = self._resolve(keys)
        else:
            stem = self._resolve(keys[:-1]) + keys[-1:]
            self._tables[stem] = self._tables.get(stem, -1) + 1
            path = (*stem, self._tables[stem])
        for end in range(1, len(path)):  # tables that are only implied; a header of their own may follow
            self._lines.setdefault(path[:end], line)
        self._lines[path] = line
        return path

    def _resolve(self, keys: Path) -> Path:
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self._tables:
                path = (*path, self._tables[path])
        return path

    def _pair(self, table: Path) -> Path:
        line = self._here()
        path = table + self._key()
        for end in range(len(table) + 1, len(path) + 1):
            self._lines.setdefault(path[:end], line)
        self._at += 1  # the equals sign
        self._value(path)
        return table

    def _key(self) -> Path:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            quoted = _STRING.match(self._text, self._at)
            found = quoted or self._match(_BARE_KEY)
            keys.append(str(next(iter(tomllib.loads(f"{found[0]} = 0")))) if quoted else found[0])
            self._at = found.end()
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return tuple(keys)
            self._at += 1

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        opening = self._text[self._at]
        if opening == "[":
            self._items(path)
        elif opening == "{":
            self._at += 1
            while self._text[self._skip(_GAP)] != "}":
                self._pair(path)
            self._at += 1
        else:
            found = _STRING.match(self._text, self._at) or self._match(_BARE_VALUE)
            self._at = found.end()

    def _items(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip(_GAP)] != "]":
            self._lines.setdefault((*path, index), self._here())
            self._value((*path, index))
            index += 1
        self._at += 1

    def _skip(self, gap: re.Pattern[str]) -> int:
        self._at = self._match(gap).end()
        return self._at

    def _match(self, expected: re.Pattern[str]) -> re.Match[str]:
        found = expected.match(self._text, self._at)
        if found is None:
            raise AssertionError(f"tomllib has accepted what this scanner does not understand, at line {self._here()}")
        return found

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
