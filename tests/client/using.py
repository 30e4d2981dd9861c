"""How tests use the client: what comes next, and what comes out of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from broker.client import Subscription

URL = "http://broker.example"

E = TypeVar("E", bound=BaseException)


async def names(subscription: Subscription, number: int) -> list[str]:
    """The names of the next events."""
    return [(await anext(subscription)).name for _ in range(number)]


@contextmanager
def out_of_the_block(kind: type[E], match: str | None = None) -> Iterator[pytest.ExceptionInfo[E]]:
    """This very error comes out of a whole block of the client's, whichever of its lines it was that met it."""
    with pytest.raises(kind, match=match) as raised:
        yield raised
