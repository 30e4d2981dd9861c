"""The data of messages as the application's own types, both ways. The only module here that knows cattrs.

Nothing is converted silently: a text is no number, and no list of its characters either.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import is_dataclass
from enum import Enum
from inspect import isabstract, isclass
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal

import attrs
from cattrs import Converter, transform_error
from cattrs.errors import ForbiddenExtraKeysError, StructureHandlerNotFoundError
from cattrs.gen import mapping_structure_factory

from broker.handlers.errors import BadData, BadHandler
from broker.handlers.texts import TEXTS, from_text, to_text

_MAX_FAULTS: Final = 10
_MAX_LENGTH: Final = 200  # of a complaint that may repeat what the client has sent
_SCALARS: Final = (str, int, float, bool)
_NOT_IN_JSON: Final = (bytes, bytearray, memoryview, Path)
_NAMES: Final[Mapping[type, str]] = {
    str: "a text", int: "an integer", float: "a number", bool: "true or false",
    NoneType: "null", list: "a list", dict: "an object", **TEXTS,
}  # fmt: skip

Read = Callable[[Any], Any]


def reader(kind: Any, where: str) -> Read:
    """What turns decoded JSON into a value of this type: an attrs class, a dataclass, a TypedDict, list[…], int …

    where: the handler, for the complaint.

    Raises BadHandler for a type that nothing can be turned into.
    """
    if kind is Any or kind is object:
        return lambda value: value
    try:
        hook = _converter.get_structure_hook(kind)
    except StructureHandlerNotFoundError as error:
        raise BadHandler(f"{where}: data can't be {_name(error.type_)}: nothing in JSON becomes that") from None
    except Exception as error:
        raise BadHandler(f"{where}: data can't be {_name(kind)}: {error}") from None

    def read(value: Any) -> Any:
        try:
            return hook(value, kind)
        except Exception as error:
            raise BadData(_complaint(error, kind)) from None

    return read


def plain(value: Any) -> Any:
    """The value as JSON can say it, where it is one of the application's types."""
    return value if value is None or isinstance(value, (*_SCALARS, bytes)) else _converter.unstructure(value)


class _Strict(Converter):
    """Takes nothing but an object for a class or a mapping, and nothing but a list for a collection."""

    def __init__(self) -> None:
        super().__init__(forbid_extra_keys=True, unstruct_collection_overrides={Set: list})
        self._unchecked: Any = None  # the type whose ordinary hook is being looked for
        self.register_structure_hook_factory(self._checks, self._checked)
        for kind in _SCALARS:
            self.register_structure_hook(kind, _scalar)
        for textual in TEXTS:
            self.register_structure_hook(textual, _of_text)
            self.register_unstructure_hook(textual, to_text)
        self.register_structure_hook(Enum, _chosen)
        self.register_structure_hook_func(_is_literal, _chosen)
        self.register_structure_hook_factory(_is_mixed, self._one_of)

    def get_structure_hook(self, type: Any, cache_result: bool = True) -> Any:  # noqa: A002
        """See `Converter`, which would make bytes of a number."""
        if isclass(type) and issubclass(type, _NOT_IN_JSON):
            raise StructureHandlerNotFoundError(f"{type} is not in JSON", type)
        return super().get_structure_hook(type, cache_result)

    def gen_structure_mapping(self, cl: Any) -> Any:
        """See `Converter`, which would keep the hook where it is found before the one that checks."""
        origin = typing.get_origin(cl) or cl
        return mapping_structure_factory(cl, self, dict if isabstract(origin) else origin)

    def _one_of(self, kind: Any) -> Callable[[Any, Any], Any]:
        """For a union: of all that it is made of, the one that JSON has this kind of value for."""
        parts = [each for each in typing.get_args(kind) if each is not NoneType]
        if sum(_is_text(each) for each in parts) > 1:
            raise TypeError(f"the texts of {kind} can't be told apart")
        simple = [(each, self.get_structure_hook(each)) for each in parts if _json_type(each) is None]
        deep = {}
        for wanted in (dict, list):
            of_this = [each for each in parts if _json_type(each) is wanted]
            if of_this:
                together: Any = typing.Union[tuple(of_this)]  # noqa: UP007
                if len(of_this) > 1 and _is_mixed(together):
                    raise StructureHandlerNotFoundError(f"{kind} can't be told apart", kind)
                deep[wanted] = (together, self.get_structure_hook(together))
        optional = len(parts) < len(typing.get_args(kind))

        def choose(value: Any, _kind: Any) -> Any:
            if value is None and optional:
                return None
            if type(value) in deep:
                together, hook = deep[type(value)]
                return hook(value, together)
            for each, hook in sorted(simple, key=lambda pair: pair[0] is not type(value)):
                try:
                    return hook(value, each)
                except _Unexpected:
                    pass
            raise _Unexpected(f"{_expected(kind)} is expected")

        return choose

    def _checks(self, kind: Any) -> bool:
        looked_for, self._unchecked = self._unchecked, None
        return kind is not looked_for and _json_type(kind) is not None

    def _checked(self, kind: Any) -> Callable[[Any, Any], Any]:
        self._unchecked = kind
        hook = self.get_structure_hook(kind, cache_result=False)
        wanted = _json_type(kind)

        def check(value: Any, _kind: Any) -> Any:
            if wanted is not None and not isinstance(value, wanted):
                raise _unexpected(wanted, value)
            return hook(value, kind)

        return check


def _json_type(kind: Any) -> type | None:
    """What JSON has for such a type, if it is no scalar."""
    origin = typing.get_origin(kind) or kind
    if not isclass(origin) or issubclass(origin, (*_SCALARS, bytes, Enum)):
        return None
    if _is_record(origin) or issubclass(origin, Mapping):
        return dict
    return list if issubclass(origin, Collection) else None


def _is_mixed(kind: Any) -> bool:
    """Whether this is a union in which not all are classes, which would be told apart by their fields."""
    return typing.get_origin(kind) in _UNIONS and not all(_is_record(each) for each in typing.get_args(kind))


def _is_record(kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    return isclass(origin) and (attrs.has(origin) or is_dataclass(origin))


def _is_text(kind: Any) -> bool:
    return getattr(kind, "__supertype__", kind) in (str, *TEXTS)  # of a NewType: what it is made of


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _chosen(value: Any, kind: Any) -> Any:
    """The member of an enum or of a `Literal`: True is not 1 there either."""
    for choice in typing.get_args(kind) or kind.__members__.values():
        said = choice.value if isinstance(choice, Enum) else choice
        if type(said) is type(value) and said == value:
            return choice
    raise _Unexpected(f"{_expected(kind)} is expected")


def _scalar(value: Any, kind: type) -> Any:
    if issubclass(kind, Enum):
        return _chosen(value, kind)
    if kind is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # 1e999 is JSON, and infinite once it is read
            raise _Unexpected("a finite number is expected")
        return float(value)
    if type(value) is not kind:
        raise _unexpected(kind, value)
    return value


def _of_text(value: Any, kind: Any) -> Any:
    if type(value) is not str:
        raise _unexpected(kind, value)
    try:
        return from_text(value, kind)
    except ValueError:
        raise _Unexpected(f"{_expected(kind)} is expected") from None


class _Unexpected(TypeError):
    """A complaint in words that are meant for the client."""


def _unexpected(kind: Any, value: Any) -> _Unexpected:
    return _Unexpected(f"{_expected(kind)} is expected, not {_expected(type(value))}")


def _complaint(error: Exception, kind: Any) -> str:
    try:
        return _faults(error, kind)
    except RecursionError:
        return "data: this is nested too deep"


def _faults(error: Exception, kind: Any) -> str:
    faults = transform_error(error, format_exception=lambda error, at: _explain(error, at or kind))
    shown = [_path_first(fault) for fault in faults[:_MAX_FAULTS]]
    return "; ".join(shown + (["…"] if len(faults) > _MAX_FAULTS else []))


def _path_first(fault: str) -> str:
    what, _, path = fault.rpartition(" @ $")
    return f"data{path}: {what}" if what else fault


def _explain(error: BaseException, kind: Any) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown fields: {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, _Unexpected):
        return str(error)
    if isinstance(error, TypeError | ValueError) and str(error) and typing.get_origin(kind) not in _UNIONS:
        return str(error)[:_MAX_LENGTH]
    return f"{_expected(kind)} is expected"


def _expected(kind: Any) -> str:
    choices = _choices(kind)
    if choices:
        return f"one of {', '.join(map(repr, choices))}"
    if typing.get_origin(kind) in _UNIONS:
        return " or ".join(dict.fromkeys(_expected(each) for each in typing.get_args(kind)))
    return _NAMES.get(_json_type(kind) or kind, _name(kind))


def _choices(kind: Any) -> Collection[Any]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    return [each.value for each in kind] if isclass(kind) and issubclass(kind, Enum) else ()


def _name(kind: Any) -> str:
    return kind.__name__ if isclass(kind) and not typing.get_args(kind) else str(kind)


_UNIONS: Final = (typing.Union, type(int | str))
_converter: Final = _Strict()
