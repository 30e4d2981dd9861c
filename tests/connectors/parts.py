"""Texts that are read in parts, read as a whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import ParamSpec

from broker.core.event import Event
from connectors.decode import Parts

P = ParamSpec("P")


def whole(read: Callable[P, Parts]) -> Callable[P, list[Event]]:
    """The same, but all parts in one."""

    def read_all(*args: P.args, **kwargs: P.kwargs) -> list[Event]:
        return [*chain.from_iterable(read(*args, **kwargs))]

    return read_all
