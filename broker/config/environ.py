"""What the environment overrides: `BROKER_SERVER__PORT=9000` stands for `port` in `[server]`, typed by that field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import attrs

from broker.config.reading import Problem, closest
from broker.config.values import RuleError, SecretSource
from broker.core.toml import Path as KeyPath

_PREFIX = "BROKER_"
_BOOLEANS = {"true": True, "false": False}
_NO_SCALAR = "holds more than one value"


@attrs.frozen
class Overridden:
    """The data with the environment laid over it, which variable each overridden key comes from, and what is wrong."""

    data: dict[str, Any]
    origins: dict[KeyPath, str]
    problems: list[Problem]


def override(data: Mapping[str, Any], cls: type[Any], environ: Mapping[str, str]) -> Overridden:
    """Lay every `BROKER_SECTION__KEY` of `environ` over `data`, which is left as it is.

    An override within a secret's source replaces the whole source: `{ file, generate }` and `{ env }` exclude each
    other, and nobody could get from one to the other key by key.
    """
    result = Overridden(_copy(data), {}, [])
    replaced: set[KeyPath] = set()
    for path, variable in _variables(environ):
        result.origins[path] = variable
        try:
            kind, secret = _find(cls, path)
            value = _read(environ[variable], kind)
        except RuleError as error:
            result.problems.append(Problem(path, str(error), error.hint))
            continue
        if secret and secret not in replaced:
            replaced.add(secret)
            result.origins.setdefault(secret, variable)
            _put(result.data, secret, {})
        _put(result.data, path, value)
    return result


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[KeyPath, str]]:
    for variable in sorted(environ):
        name = variable.removeprefix(_PREFIX)
        if name != variable and "__" in name:
            yield tuple(name.lower().split("__")), variable


def _find(cls: Any, path: KeyPath) -> tuple[Any, KeyPath]:
    """The type of the field at `path`, and the path of the secret's source that it is part of, or ()."""
    kind: Any = cls
    secret: KeyPath = ()
    for depth, key in enumerate(path):
        if not attrs.has(kind):
            above = ".".join(map(str, path[:depth]))
            raise RuleError("there is no such key", f"the environment can set nothing beneath {above}")
        if kind is SecretSource:
            secret = path[:depth]
        known = _fields(kind)
        if key not in known:
            raise RuleError("there is no such key", closest(str(key), known))
        kind = _bare(known[str(key)])
    return kind, secret


def _fields(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in hints if not (cls is SecretSource and name == "literal")}


def _bare(kind: Any) -> Any:
    """The type itself: without rules, and of a union the member that one value can be."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _bare(next(option for option in get_args(kind) if option is not NoneType))
    return kind


def _read(text: str, kind: Any) -> Any:
    if attrs.has(kind) or get_origin(kind) in (tuple, Mapping):
        raise RuleError(f"this key {_NO_SCALAR}", "set it in the file")
    if kind is bool:
        return _boolean(text)
    if kind in (int, float):
        return _number(text, kind)
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise RuleError("must be true or false", "set it to true or to false")
    return _BOOLEANS[text.lower()]


def _number(text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        raise RuleError(f"must be a {'whole ' if kind is int else ''}number", "digits only, without a unit") from None


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    table = data
    for key in path[:-1]:
        inner = table.setdefault(str(key), {})
        if not isinstance(inner, dict):
            return  # the file has something else there, which is a fault of its own
        table = inner
    table[str(path[-1])] = value


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in data.items()}
