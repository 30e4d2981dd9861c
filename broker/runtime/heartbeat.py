"""One task for all connections, which pings those that are silent, and ends those that stay so."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import trio

from broker.core.errors import Close
from broker.core.heartbeat import Beat, Heartbeat
from broker.runtime.connection import Connection

_LONGEST_TICK = 1.0
_TICKS = 4  # how often within the shortest of the times everybody is looked at


async def keep_alive(connections: Iterable[Connection], heartbeats: Collection[Heartbeat]) -> None:
    """Look after `connections`, which is walked anew at each tick, for ever. `heartbeats`: all that they may have."""
    beating = [each for each in heartbeats if each.interval > 0]
    times = [time for each in beating for time in (each.interval, each.timeout) if time > 0]
    # Without any, handlers may ping all the same, and who does not answer is ended.
    tick = min([_LONGEST_TICK, *(time / _TICKS for time in times)])
    while True:
        await trio.sleep(tick)
        now = trio.current_time()
        for connection in connections:
            match connection.limits.heartbeat.decide(now, connection.heard_at, connection.pinged_at):
                case Beat.PING:
                    connection.ping()
                case Beat.END:
                    connection.close(Close.HEARTBEAT_MISSED, "no sign of life")
