"""What the workers and their parent tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.load.dialects import Subscriber


@dataclass(frozen=True)
class Plan:
    """Who connects where. done: when an event has come to all of them, or to any one of them."""

    port: int
    dialect: str
    subscribers: Sequence[Subscriber]
    done: Literal["all", "any"] = "all"


@dataclass(frozen=True)
class Begin:
    """Measure from event `first` on; nothing is under way."""

    first: int


@dataclass(frozen=True)
class Report:
    """Tell what was measured since the last Begin."""


@dataclass(frozen=True)
class Ready:
    """All are subscribed; or what was measured before is forgotten."""


@dataclass(frozen=True)
class Progress:
    """How many events are done."""

    events: int


@dataclass(frozen=True)
class Failed:
    """It can't go on."""

    why: str
