"""Reading what stands in `visible_to` into conditions, noting every fault."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from broker.core.audience import AUTHENTICATED, EVERYONE, NOBODY, Audience
from broker.core.conditions import (
    AllCondition,
    AnyCondition,
    Claimed,
    Condition,
    Fixed,
    NotCondition,
    Related,
    Source,
    Test,
    UsersAt,
)
from broker.core.faults import Faults, kind, suggest
from broker.core.happening import PathError, Placeholder, parse_path
from broker.core.scalars import comparable
from broker.core.shapes import Shape, placeholder_name
from broker.core.toml import Path

MAX_NESTING = 16

# What is taken where a fault was noted: the file will be refused, so it never counts.
_FAULTY: Final = Fixed("nobody", NOBODY)
_WORDS: Final[Mapping[str, Audience]] = {"everyone": EVERYONE, "authenticated": AUTHENTICATED, "nobody": NOBODY}
_TESTS: Final[tuple[Test, ...]] = ("equals", "contains", "in")
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "users": ("users",),
    "relation": ("relation", "key"),
    "claim": ("claim", *_TESTS),
    "any": ("any",),
    "all": ("all",),
    "not": ("not",),
}
_ALL_KEYS: Final = tuple(dict.fromkeys(key for keys in _KEYS.values() for key in keys))


class ConditionReader:
    """Reads conditions of one file.

    faults: takes what is wrong.
    relations: the names of the relations that there are.
    """

    def __init__(self, faults: Faults, relations: Collection[str]) -> None:
        self._faults = faults
        self._relations = relations

    def read(self, value: Any, path: Path, shape: Shape | None, depth: int = 0) -> Condition:
        """The condition that stands at `path`; `shape` has the placeholders (None: unknown, so any will do)."""
        if isinstance(value, str):
            return self._word(value, path)
        if not isinstance(value, dict):
            self._faults.add(path, f"a condition is a word or a table, not {kind(value)}")
            return _FAULTY
        if depth >= MAX_NESTING:
            self._faults.add(path, f"conditions nest at most {MAX_NESTING} deep")
            return _FAULTY
        return self._table(value, path, shape, depth)

    def _word(self, word: str, path: Path) -> Condition:
        fixed = _WORDS.get(word)
        if fixed is None:
            self._faults.add(path, f"{word!r} is none of {', '.join(_WORDS)}", suggest(word, _WORDS))
            return _FAULTY
        return Fixed(word, fixed)

    def _table(self, table: Mapping[str, Any], path: Path, shape: Shape | None, depth: int) -> Condition:
        forms = [form for form in _KEYS if form in table]
        if len(forms) > 1:
            self._faults.add(path, f"{' and '.join(forms)} can't stand side by side", "combine them in `all` or `any`")
            return _FAULTY
        if not forms:
            self._faults.check_keys(path, table, _ALL_KEYS)
            self._faults.add(path, f"one of {', '.join(_KEYS)} is needed")
            return _FAULTY
        form = forms[0]
        self._faults.check_keys(path, table, _KEYS[form])
        if form == "users":
            users = read_source(self._faults, table["users"], (*path, "users"), shape)
            return UsersAt(users) if users else _FAULTY
        if form == "relation":
            return self._related(table, path, shape)
        if form == "claim":
            return self._claimed(table, path, shape)
        if form == "not":
            return NotCondition(self.read(table["not"], (*path, "not"), shape, depth + 1))
        parts = self._parts(table[form], (*path, form), shape, depth)
        return AnyCondition(parts) if form == "any" else AllCondition(parts)

    def _parts(self, values: Any, path: Path, shape: Shape | None, depth: int) -> tuple[Condition, ...]:
        if not isinstance(values, list) or not values:
            self._faults.add(path, "a list of at least one condition is expected")
            return ()
        return tuple(self.read(value, (*path, index), shape, depth + 1) for index, value in enumerate(values))

    def _related(self, table: Mapping[str, Any], path: Path, shape: Shape | None) -> Condition:
        name = table["relation"]
        if not isinstance(name, str):
            self._faults.add((*path, "relation"), f"the name of a relation is expected, not {kind(name)}")
        elif name not in self._relations:
            hint = suggest(name, self._relations) or f"declare it: [relations.{name}]"
            self._faults.add((*path, "relation"), f"there is no relation {name!r}", hint)
        if "key" not in table:
            self._faults.add(path, "`key` is missing: of which one?", 'such as key = "<groupId>"')
            return _FAULTY
        key = read_source(self._faults, table["key"], (*path, "key"), shape)
        return Related(str(name), key) if key else _FAULTY

    def _claimed(self, table: Mapping[str, Any], path: Path, shape: Shape | None) -> Condition:
        name = table["claim"]
        if not isinstance(name, str) or not name:
            self._faults.add((*path, "claim"), "the name of a claim is expected")
        tests = [test for test in _TESTS if test in table]
        if len(tests) != 1:
            self._faults.add(path, "beside `claim`, exactly one of equals, contains, in is needed")
            return _FAULTY
        test = tests[0]
        right = self._right(test, table[test], (*path, test), shape)
        shown = json.dumps(table[test], ensure_ascii=False, default=str)
        return Claimed(str(name), test, right, shown) if right else _FAULTY

    def _right(self, test: Test, value: Any, path: Path, shape: Shape | None) -> Source | tuple[Any, ...] | None:
        if _is_source(value):
            source = read_source(self._faults, value, path, shape)
            if test == "in" and isinstance(source, Placeholder):
                self._faults.add(path, "a placeholder is one value, `in` expects a list", "use `equals`")
            return source
        if test == "in" and (not isinstance(value, list) or not value):
            self._faults.add(
                path, f"a list of values is expected, not {kind(value) if value != [] else 'an empty one'}"
            )
            return None
        values = value if test == "in" else [value]
        for item in values:
            if comparable(item) is None:
                self._faults.add(path, f"a claim is compared with strings, numbers and booleans, not {kind(item)}")
            elif test == "in" and _is_source(item):
                self._faults.add(path, f"{item!r} can't stand in a list", "use `any` with `equals`, or `contains`")
        return tuple(values)


def read_source(faults: Faults, value: Any, path: Path, shape: Shape | None) -> Source | None:
    """A `<placeholder>` of `shape`, or a path into the data; None after a fault."""
    if not isinstance(value, str):
        faults.add(path, f'a path such as "data.members" or a <placeholder> is expected, not {kind(value)}')
        return None
    name = placeholder_name(value)
    if name is not None:
        return _placeholder(faults, name, path, shape)
    if "<" in value or not value.startswith("data"):
        hint = f"did you mean 'data.{value}'?" if value.isidentifier() else None
        faults.add(path, f"{value!r} is neither a path, which begins with `data`, nor a <placeholder>", hint)
        return None
    try:
        return parse_path(value)
    except PathError as error:
        faults.add(path, f"{value!r} is no path: {error}")
        return None


def _placeholder(faults: Faults, name: str, path: Path, shape: Shape | None) -> Placeholder | None:
    if shape is None:
        return Placeholder(name, 0)
    if name not in shape.placeholders:
        among = [f"<{other}>" for other in shape.placeholders]
        known = f"there are {', '.join(among)}" if among else None
        where = f"does not stand in {shape.text!r}" if shape.text else "stands for nothing: there are no `events` here"
        faults.add(path, f"<{name}> {where}", suggest(f"<{name}>", among) or known)
        return None
    return Placeholder(name, shape.placeholders[name])


def _is_source(value: Any) -> bool:
    return isinstance(value, str) and (placeholder_name(value) is not None or value.startswith("data."))
