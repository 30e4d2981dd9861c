"""What a function of the application takes, read once when it is registered."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from broker.handlers.containing import contained
from broker.handlers.errors import BadHandler

Function = Callable[..., Awaitable[Any]]

_TYPED: Final = ("data", "message")  # the arguments whose types say what they are made of


@dataclass(frozen=True, slots=True)
class Signature:
    """A function, and the arguments by name that it wants. annotations: the types of what clients send."""

    function: Function
    wants: frozenset[str]
    annotations: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What logs call it."""
        return name_of(self.function)

    async def call(self, offered: Mapping[str, Any]) -> Any:
        """Call it with what it wants of what there is. Nothing but exceptions and cancellation comes out."""
        with contained():
            return await self.function(**{name: offered[name] for name in self.wants})


def read_signature(function: Function, offered: Collection[str]) -> Signature:
    """Read what `function` takes; `offered`: the names that it can have.

    Raises BadHandler.
    """
    where = name_of(function)
    if not inspect.iscoroutinefunction(function):
        raise BadHandler(f"{where}: must be a coroutine function, `async def`")
    wants = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadHandler(f"{where}: takes *{name}, but arguments come by their names")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise BadHandler(f"{where}: {name!r} is positional only, but arguments come by their names")
        if name in offered:
            wants.add(name)
        elif parameter.default is parameter.empty:
            raise BadHandler(f"{where}: takes {name!r}; there are {', '.join(sorted(offered))}")
    try:
        annotations = _types(function)
    except Exception as error:
        raise BadHandler(f"{where}: {error}; a type in an annotation must be known where the function is") from None
    return Signature(function, frozenset(wants), annotations)


def name_of(function: object) -> str:
    """What logs and complaints call a function."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"


def _types(function: Function) -> Mapping[str, Any]:
    """Of the types in the annotations those that count; others may be known to type checkers only."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, partial):
        inner = inner.func
    said = {name: kind for name, kind in getattr(inner, "__annotations__", {}).items() if name in _TYPED}
    return typing.get_type_hints(SimpleNamespace(__annotations__=said), getattr(inner, "__globals__", {}))
