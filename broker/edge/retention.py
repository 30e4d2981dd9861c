"""How much a log holds: the oldest events go when any of the bounds is reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Retention:
    """events: how many. seconds: for how long. bytes: how much room they may take, as the log in question counts it."""

    events: int = 1_000_000
    seconds: float = 86_400
    bytes: int = 1_073_741_824


def steady(since: float, day: Clock = time.time, ticks: Clock = time.monotonic) -> Clock:
    """The time by which events age: that of the day when it begins, and then the seconds that pass.

    A clock that is put right, forward or back, neither drops events nor keeps them. since: what it was before.
    """
    begun = max(day(), since) - ticks()
    return lambda: begun + ticks()
