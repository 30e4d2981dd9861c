"""What functions of the application raise, and how it comes out: nothing of theirs may end the broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class NotAnException(Exception):
    """It raised what means the end of a program elsewhere, such as `sys.exit()` or asyncio's CancelledError."""


@contextmanager
def contained() -> Iterator[None]:
    """Of what is raised in the block only exceptions come out, and Trio's cancellation.

    A group of one, as nurseries make them, comes out as that one: who raises `Refused` in a nursery means it.
    """
    try:
        yield
    except BaseException as error:
        outcome = _contained(error)
        if outcome is error:
            raise
        raise outcome from outcome.__cause__


def _contained(error: BaseException) -> BaseException:
    leaves = list(_leaves(error))
    if not all(isinstance(leaf, (Exception, trio.Cancelled, GeneratorExit)) for leaf in leaves):
        cancelled = error.split(trio.Cancelled)[0] if isinstance(error, BaseExceptionGroup) else None
        return cancelled or NotAnException(", ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves))
    alone = leaves[0] if len(leaves) == 1 else None
    return alone if isinstance(alone, Exception) else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
