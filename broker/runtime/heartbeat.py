"""Signs of life: one task for all connections pings those that are silent, and ends those that stay so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import trio

from broker.core.errors import Close
from broker.runtime.connection import Connection

_LONGEST_TICK = 1.0
_TICKS = 4  # how often within the shorter of the two times everybody is looked at


class Beat(Enum):
    """What to do about one connection now."""

    NOTHING = "nothing"
    PING = "ping"
    END = "end"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Ping after `interval` seconds of silence; end after `timeout` more. An interval of 0 means never."""

    interval: float = 30.0
    timeout: float = 10.0

    def decide(self, now: float, heard_at: float, pinged_at: float | None) -> Beat:
        """What the times, all on one clock, ask for."""
        if pinged_at is not None:
            return Beat.END if now - pinged_at >= self.timeout else Beat.NOTHING
        return Beat.PING if now - heard_at >= self.interval else Beat.NOTHING

    async def run(self, connections: Iterable[Connection]) -> None:
        """Look after `connections`, which is walked anew at each tick, for ever."""
        if self.interval <= 0:
            await trio.sleep_forever()
        tick = min(_LONGEST_TICK, self.interval / _TICKS, self.timeout / _TICKS)
        while True:
            await trio.sleep(tick)
            now = trio.current_time()
            for connection in connections:
                match self.decide(now, connection.heard_at, connection.pinged_at):
                    case Beat.PING:
                        connection.ping()
                    case Beat.END:
                        connection.close(Close.HEARTBEAT_MISSED, "no sign of life")
