"""Signs of life: when a silent client is pinged, and when it has been silent for too long."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Beat(Enum):
    """What to do about one connection now."""

    NOTHING = "nothing"
    PING = "ping"
    END = "end"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Ping after `interval` seconds of silence; end after `timeout` more. 0 means never."""

    interval: float = 30.0
    timeout: float = 10.0

    def decide(self, now: float, heard_at: float, pinged_at: float | None) -> Beat:
        """What the times, all on one clock, ask for."""
        if pinged_at is not None:
            return Beat.END if 0 < self.timeout <= now - pinged_at else Beat.NOTHING
        return Beat.PING if 0 < self.interval <= now - heard_at else Beat.NOTHING
