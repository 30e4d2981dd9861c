"""How much a log holds: the oldest events go when any of the bounds is reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retention:
    """events: how many. seconds: for how long. bytes: how much room they may take, as the log in question counts it."""

    events: int = 1_000_000
    seconds: float = 86_400
    bytes: int = 1_073_741_824
