"""From TOML to frozen classes: strict, and with every fault at once.

Nothing here knows the configuration itself: it reads any tree of attrs classes. Values are never coerced, except
that a whole number will do where a fraction may stand.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from broker.config.values import LiteralAllowed, OneAllowed, Range, Rule, RuleError, SecretSource
from broker.core.toml import Path as KeyPath

C = TypeVar("C")
Hook = Callable[[Any, Any], Any]

_SOURCE_KEYS = ["file", "generate", "env"]
_SOURCE_HINT = 'write { file = "…" } or { env = "…" }'


@attrs.frozen
class Problem:
    """Something wrong at a key path. `also`: the other keys on which that depends."""

    path: KeyPath
    message: str
    hint: str | None = None
    also: tuple[KeyPath, ...] = ()

    @property
    def key(self) -> KeyPath:
        """Its section and key there, without what is nested deeper."""
        return self.path[:2]


def structure(data: Mapping[str, Any], cls: type[C]) -> tuple[C, list[Problem]]:
    """Make a `cls` of `data`. Keys with a fault come back with their defaults, so that the others can be checked."""
    converter = _converter()
    try:
        return converter.structure(data, cls), []
    except BaseValidationError as error:
        problems = list(_problems(error, ()))
    spoiled = {problem.key for problem in problems}
    return converter.structure(_without(data, spoiled), cls), problems


def resolve(value: C, folder: Path) -> C:
    """The same value with every relative path in it taken from `folder`."""
    return cast("C", _resolved(value, folder))


def closest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the nearest known one, or all of them."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(words)}"


def _without(data: Mapping[str, Any], spoiled: set[KeyPath]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in table.items() if (name, key) not in spoiled}
        for name, table in data.items()
        if (name,) not in spoiled
    }


def _resolved(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, tuple):
        return tuple(_resolved(item, folder) for item in value)
    if isinstance(value, Mapping):
        return {key: _resolved(item, folder) for key, item in value.items()}
    if attrs.has(type(value)):
        return attrs.evolve(value, **{name: _resolved(item, folder) for name, item in _items(value)})
    return value


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(value, field.name)) for field in attrs.fields(type(value)))


def _problems(error: BaseException, path: KeyPath) -> Iterator[Problem]:
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from _problems(inner, (*path, *_step(inner)))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        for key in sorted(error.extra_fields):
            yield Problem((*path, key), "unknown key", closest(key, known))
    elif isinstance(error, KeyError):
        yield Problem(path, "is missing", "it has no default")
    elif isinstance(error, RuleError):
        yield Problem(path, str(error), error.hint)
    else:
        raise error


def _step(error: BaseException) -> KeyPath:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Path, lambda value, _: Path(_filled(_text(value, str))))
    converter.register_structure_hook_factory(attrs.has, _table)
    converter.register_structure_hook(SecretSource, _secret)
    converter.register_structure_hook_func(lambda cls: _origin(cls) is Literal, _choice)
    converter.register_structure_hook_factory(lambda cls: _origin(cls) is tuple, _list)
    converter.register_structure_hook_factory(lambda cls: _origin(cls) is Mapping, _named)
    converter.register_structure_hook_factory(_is_union, _either)
    converter.register_structure_hook_factory(lambda cls: _origin(cls) is Annotated, _ruled)
    return converter


def _is_union(cls: Any) -> bool:
    return _origin(cls) in (Union, UnionType)


def _origin(cls: Any) -> Any:
    return get_origin(cls)


def _boolean(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise RuleError(f"must be true or false, not {_kind(value)}", "without quotes")
    return value


def _integer(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RuleError(f"must be a whole number, not {_kind(value)}", "without quotes or a decimal point")
    return value


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RuleError(f"must be a number, not {_kind(value)}", "without quotes")
    if not math.isfinite(value):
        raise RuleError("must be a finite number", "a number of seconds, such as 30.0")
    return float(value)


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise RuleError(f"must be a text, not {_kind(value)}", 'in quotes: "…"')
    return value


def _filled(value: str) -> str:
    if not value.strip() or "\x00" in value:
        raise RuleError("is no path of a file", "name a file; a relative path is taken from this file's folder")
    return value


def _choice(value: Any, cls: Any) -> Any:
    choices = get_args(cls)
    if not isinstance(value, str):
        raise RuleError(f"must be a text, not {_kind(value)}", f"one of {', '.join(choices)}")
    if value not in choices:
        hint = "a token without a signature proves nothing" if value.lower() == "none" else closest(value, choices)
        raise RuleError(f'must be one of {", ".join(choices)}, not "{value}"', hint)
    return value


def _table(cls: Any, converter: Converter) -> Hook:
    read = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)

    def hook(value: Any, kind: Any) -> Any:
        return read(_as_table(value), kind)

    return hook


def _list(cls: Any, converter: Converter) -> Hook:
    item = get_args(cls)[0]

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise RuleError(f"must be a list, not {_kind(value)}", "in brackets: [ … ]")
        values, bad_values = _attempts(enumerate(value), item, converter)
        _check(bad_values, cls)
        return tuple(values)

    return hook


def _named(cls: Any, converter: Converter) -> Hook:
    name, item = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        table = _as_table(value)
        _, bad_names = _attempts(((key, key) for key in table), name, converter)
        values, bad_values = _attempts(table.items(), item, converter)
        _check(bad_names + bad_values, cls)
        return dict(zip(table, values, strict=True))

    return hook


def _attempts(
    items: Iterable[tuple[int | str, Any]], cls: Any, converter: Converter
) -> tuple[list[Any], list[Exception]]:
    """The values that could be made of the items, and what was wrong with the others."""
    values: list[Any] = []
    errors: list[Exception] = []
    for key, value in items:
        try:
            values.append(converter.structure(value, cls))
        except Exception as error:
            error.__notes__ = [IterableValidationNote(f"item {key!r}", key, cls)]
            errors.append(error)
    return values, errors


def _check(errors: list[Exception], cls: Any) -> None:
    if errors:
        raise IterableValidationError("items", errors, cls)


def _either(cls: Any, converter: Converter) -> Hook:
    """TOML has no null: None in a union only says that the key may be left out."""
    options = [option for option in get_args(cls) if option is not NoneType]
    listed = [option for option in options if get_origin(option) is tuple]
    single = [option for option in options if get_origin(option) is not tuple]

    def hook(value: Any, _: Any) -> Any:
        if listed and not isinstance(value, str | list):
            raise RuleError(f"must be a text or a list of texts, not {_kind(value)}", 'in quotes: "…" or ["…", "…"]')
        chosen = listed if listed and isinstance(value, list) else single
        return converter.structure(value, chosen[0])

    return hook


def _ruled(cls: Any, converter: Converter) -> Hook:
    inner, *marks = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        if any(isinstance(mark, LiteralAllowed) for mark in marks) and not isinstance(value, dict):
            return SecretSource(literal=_one_or_more(value))
        if any(isinstance(mark, OneAllowed) for mark in marks) and not isinstance(value, list):
            return (converter.structure(value, get_args(inner)[0]),)
        result = converter.structure(value, inner)
        for mark in marks:
            if isinstance(mark, Range | Rule):
                mark(result)
        return result

    return hook


def _one_or_more(value: Any) -> str:
    return " ".join(_text(item, str) for item in value) if isinstance(value, list) else _text(value, str)


def _secret(value: Any, _: Any) -> SecretSource:
    if isinstance(value, str):
        raise RuleError("a secret does not stand in this file", _SOURCE_HINT)
    table = _as_table(value)
    for key in table:
        if key not in _SOURCE_KEYS:
            raise RuleError(f'unknown key "{key}"', closest(key, _SOURCE_KEYS))
    if ("file" in table) == ("env" in table):
        raise RuleError('needs either "file" or "env"', _SOURCE_HINT)
    generate = _boolean(table.get("generate", False), bool)
    if "env" in table:
        if generate:
            raise RuleError('"generate" goes only with "file"', "take it out: a variable can't be generated")
        return SecretSource(env=_filled_name(_text(table["env"], str)))
    return SecretSource(file=Path(_filled(_text(table["file"], str))), generate=generate)


def _filled_name(value: str) -> str:
    if not value or "=" in value or "\x00" in value:
        raise RuleError("is no name of an environment variable", 'for example { env = "BROKER_JWT_SECRET" }')
    return value


def _as_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RuleError(f"must be a table, not {_kind(value)}", "[section] or { key = value }")
    return value


def _kind(value: Any) -> str:
    kinds = {bool: "a boolean", int: "a whole number", float: "a fraction", str: "a text", list: "a list"}
    return "a table" if isinstance(value, dict) else kinds.get(type(value), f"a {type(value).__name__}")
