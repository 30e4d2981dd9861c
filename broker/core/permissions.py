"""What a publisher may publish: the `publish` claim of its token, a list of patterns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from broker.core.errors import BadPattern
from broker.core.event import RESERVED_PREFIX
from broker.core.index import PatternIndex
from broker.core.patterns import MANY, parse_pattern

_REMEMBERED_NAMES = 16
_REMEMBERED = 256  # claims; a publisher brings the same one with each request


class Permission:
    """The right to publish events whose names match one of `patterns`."""

    __slots__ = ("_all", "_index")

    def __init__(self, patterns: Collection[str]) -> None:
        self._index = PatternIndex[None](remember=_REMEMBERED_NAMES)
        self._all = MANY in patterns
        for pattern in patterns:
            self._index.add(pattern, None)

    def covers(self, name: str) -> bool:
        """Whether an event of this name may be published."""
        if self._all and not name.startswith(RESERVED_PREFIX):
            return True
        return bool(self._index.match(name))


def permission_of(claims: Mapping[str, Any]) -> Permission | None:
    """The right that the `publish` claim gives, or None for no right at all.

    A single pattern stands for a list of one. A claim that is ill-formed in any part gives no right: nothing is
    guessed about what its issuer may have meant.
    """
    claim = claims.get("publish")
    listed = [claim] if isinstance(claim, str) else claim
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        return None
    return _permission(tuple(listed))


@lru_cache(_REMEMBERED)
def _permission(patterns: tuple[str, ...]) -> Permission | None:
    try:
        return Permission([parse_pattern(item) for item in patterns]) if patterns else None
    except BadPattern:
        return None
