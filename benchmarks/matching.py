"""What finding the subscribers of an event costs, as subscriptions that do not match, and onlookers, grow in number.

All sizes are measured in one run, one after the other in many rounds, so that whatever else the machine does
concerns all of them alike; the median of the rounds counts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.report import Report
from broker.core.audience import Users
from broker.core.index import PatternIndex
from broker.runtime.registry import Registry
from broker.runtime.routing import recipients

SIZES = (10, 1_000, 100_000)
FULL_SIZES = (*SIZES, 1_000_000)
ROUNDS = 51
CALLS = 500
CROWDS = (100, 1_000, 100_000)
NAME = "games.42.members.ada.created"
MATCHING = ("games.42.**", "games.*.members.*.created", "**")


def index(sizes: Sequence[int] = SIZES) -> Report:
    """The index alone: three patterns match, `size` others do not."""
    calls = []
    for size in sizes:
        filled: PatternIndex[int] = PatternIndex()
        for number, pattern in enumerate(_others(size)):
            filled.add(pattern, number)
        for pattern in MATCHING:
            filled.add(pattern, -1)
        assert len(filled.match(NAME)) == len(MATCHING)
        calls.append(lambda filled=filled: filled.match(NAME))
    return Report(
        "matching",
        "time of one match, 3 patterns matching, as the subscriptions that do not match grow",
        ("subscriptions", "ratio"),
        list(zip(sizes, _ratios(calls), strict=True)),
    )


def audience(sizes: Sequence[int] = CROWDS) -> Report:
    """The choice of recipients: ten members may see the event, and everybody is subscribed to `**`."""
    calls = []
    members = Users(frozenset(f"user-{number}" for number in range(10)))
    for size in sizes:
        registry = _crowd(size)
        assert len(_members_of(registry, members)) == 10
        calls.append(lambda registry=registry: _members_of(registry, members))
    return Report(
        "audience",
        "time to find the 10 who may see an event, as the connections subscribed to ** grow",
        ("connections", "ratio"),
        list(zip(sizes, _ratios(calls), strict=True)),
    )


def _members_of(registry: Registry[Any], users: Users) -> Collection[Any]:
    return recipients(registry.matching(NAME), users.reach(registry.directory), users)


@dataclass(eq=False)
class _Onlooker:
    user: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    patterns: Collection[str] = ("**",)


def _crowd(size: int) -> Registry[Any]:
    registry: Registry[Any] = Registry(max_per_user=1)
    for number in range(size):
        onlooker = _Onlooker(f"user-{number}")
        registry.directory.add(onlooker, onlooker.user, onlooker.claims)
        registry.patterns.add("**", onlooker)
    return registry


def _others(size: int) -> Iterator[str]:
    """Patterns as clients hold them, of several kinds, none of which matches NAME."""
    kinds = ("games.{}.created", "users.{}.**", "games.other-{}.members.*.created", "*.{}.messages.*.created")
    for number in range(size):
        yield kinds[number % len(kinds)].format(f"n{number}")


def _ratios(calls: Sequence[Callable[[], object]]) -> list[float]:
    taken: list[list[int]] = [[] for _ in calls]
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for times, call in zip(taken, calls, strict=True):
                begin = time.perf_counter_ns()
                for _ in range(CALLS):
                    call()
                times.append(time.perf_counter_ns() - begin)
    finally:
        gc.enable()
    least = median(taken[0])
    return [median(times) / least for times in taken]
