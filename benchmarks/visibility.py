"""Every event is for one user, and everybody is subscribed to everything: what an event costs as the crowd grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from benchmarks.load.crowd import connected
from benchmarks.load.messages import Plan
from benchmarks.load.session import Session
from benchmarks.peers.ours import Ours
from benchmarks.processes import allow_many_files
from benchmarks.report import Report, Value
from benchmarks.scale import Scale, in_turns

SCALE = Scale((50, 5_000))
BATCHES = (50, 256)  # events in one NDJSON body; with as many as there are users, each event takes a write of its own
COLUMNS = ("NDJSON of", "connections", "events per CPU-second", "µs an event", "to the fewest")


def per_user(scale: Scale = SCALE) -> Report:
    """The users take turns, so that each event goes to another one."""
    allow_many_files()
    rows: list[Sequence[Value]] = []
    with ExitStack() as stack:
        sessions = {str(number): stack.enter_context(_session(number)) for number in scale.connections}
        for batch in BATCHES:
            outcomes = in_turns(sessions, lambda session: session.saturate(batch, scale.seconds, batch), scale)  # noqa: B023
            costs = [outcome.cpu_per_event for outcome in outcomes.values()]
            for connections, cost in zip(scale.connections, costs, strict=True):
                rows.append((batch, connections, 1 / cost, 1_000_000 * cost, cost / costs[0]))
    return Report("visibility", "each event visible to one user, all subscribed to **", COLUMNS, rows)


@contextmanager
def _session(connections: int) -> Iterator[Session]:
    with Ours(patterns=lambda _: ("**",)).running() as server:
        subscribers = [
            replace(subscriber, first=user, stride=connections)
            for user, subscriber in enumerate(server.subscribers(connections))
        ]
        with connected(Plan(server.port, server.dialect, subscribers, done="any")) as crowd:
            yield Session(server.pid, crowd, server.publisher, lambda number: f"users.user-{number % connections}.told")
