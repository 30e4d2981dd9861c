"""What an idle connection costs in memory: a token of its own and two subscriptions each, compression agreed on."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.load.crowd import connected
from benchmarks.load.frames import OFFER
from benchmarks.load.messages import Plan
from benchmarks.peers import Running
from benchmarks.peers.ours import Ours
from benchmarks.processes import allow_many_files, resident_kib
from benchmarks.report import Report, Value

SIZES = ((1_000,), (1_000, 10_000))  # usually, and in full
WARM_UP = 50  # connections before the first look: code is loaded and caches are filled by then
BOUND_KIB = 32.0


def run(sizes: Sequence[int] = SIZES[0]) -> Report:
    """Measure it, with a new broker for each number of connections."""
    allow_many_files()
    rows = []
    for connections in sizes:
        with Ours(patterns=_patterns, headers=OFFER).running() as broker:
            rows.append(_row(broker, connections))
    return Report(
        "idle_memory",
        "resident memory of idle connections, 2 subscriptions each",
        ("connections", "KiB before", "KiB after", "KiB each", "bound", "of the bound"),
        rows,
    )


def _patterns(user: int) -> Sequence[str]:
    return f"users.user-{user}.**", "games.*.created"


def _row(broker: Running, connections: int) -> Sequence[Value]:
    subscribers = broker.subscribers(WARM_UP + connections)
    with connected(Plan(broker.port, broker.dialect, subscribers[:WARM_UP])):
        before = resident_kib(broker.pid)
        with connected(Plan(broker.port, broker.dialect, subscribers[WARM_UP:])):
            after = resident_kib(broker.pid)
    each = (after - before) / connections
    return connections, before, after, each, BOUND_KIB, each / BOUND_KIB
