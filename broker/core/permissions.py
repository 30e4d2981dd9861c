"""What a publisher's token permits: the `publish` claim, a list of patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.core.errors import BadPattern
from broker.core.index import PatternIndex
from broker.core.patterns import parse_pattern


def publish_patterns(claims: Mapping[str, Any]) -> list[str] | None:
    """The patterns that the `publish` claim permits, or None for no right at all.

    A single pattern stands for a list of one. A claim that is ill-formed in any part gives no right: nothing is
    guessed about what its issuer may have meant.
    """
    claim = claims.get("publish")
    listed = [claim] if isinstance(claim, str) else claim
    if not isinstance(listed, list) or not listed:
        return None
    try:
        return [parse_pattern(item) for item in listed]
    except BadPattern:
        return None


def may_publish(patterns: Sequence[str], name: str) -> bool:
    """Whether one of `patterns` permits an event called `name`."""
    index = PatternIndex[None]()  # not `matches`: its time grows without bound with the `**` in a pattern
    for pattern in patterns:
        index.add(pattern, None)
    return bool(index.match(name))
