"""One client in ten does not read: what the others feel of it, and what it takes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from benchmarks.load.crowd import connected
from benchmarks.load.messages import Plan
from benchmarks.load.session import Session
from benchmarks.peers.ours import NAME, Ours
from benchmarks.processes import allow_many_files, resident_kib
from benchmarks.report import Report
from benchmarks.scale import IN_FLIGHT, Scale, in_turns
from broker.config import Config

SCALE = Scale((180,), 5, 1.5)
EVENTS_PER_SECOND = 100
FILLING = 4 * Config().websocket.queue_size  # events that fill the queue of whoever does not read, and the kernel's
BOUND_KIB = 2 * Config().websocket.queue_bytes / 1024  # what waits for a client, and what is being written


@dataclass(frozen=True)
class _Server:
    """A broker in the middle of it; `resident_before`: before anything was sent."""

    session: Session
    pid: int
    deaf: int
    resident_before: int

    def grown_kib(self) -> int:
        return resident_kib(self.pid) - self.resident_before


def slow_readers(scale: Scale = SCALE) -> Report:
    """As many readers each time, beside them nobody, or those who do not read: they stay, or are disconnected."""
    allow_many_files()
    (readers,) = scale.connections
    deaf = readers // 9
    with ExitStack() as stack:
        servers = {
            "nobody": stack.enter_context(_server(readers, 0, "drop_oldest")),
            "drop_oldest": stack.enter_context(_server(readers, deaf, "drop_oldest")),
            "disconnect": stack.enter_context(_server(readers, deaf, "disconnect")),
        }
        sessions = {name: server.session for name, server in servers.items()}
        for session in sessions.values():
            session.deliver(FILLING, IN_FLIGHT)
        outcomes = in_turns(sessions, lambda session: session.pace(EVENTS_PER_SECOND, scale.seconds), scale)
        alone = servers["nobody"].grown_kib()
        grown = {name: (server.grown_kib() - alone) / max(server.deaf, 1) for name, server in servers.items()}
    usual = outcomes["nobody"].percentile(0.99)
    rows = [
        (name, outcome.percentile(0.50), outcome.percentile(0.99), outcome.percentile(0.99) / usual, grown[name])
        for name, outcome in outcomes.items()
    ]
    return Report(
        "slow_readers",
        f"{readers} readers, {EVENTS_PER_SECOND} events a second, and {deaf} who do not read",
        ("those who do not read", "p50 ms", "p99 ms", "p99 to nobody", "KiB each"),
        rows,
        [f"The bound is {BOUND_KIB:,.0f} KiB each."],
    )


@contextmanager
def _server(readers: int, deaf: int, overflow: str) -> Iterator[_Server]:
    with Ours(environ={"BROKER_WEBSOCKET__OVERFLOW": overflow}).running() as server:
        subscribers = [
            replace(subscriber, deaf=number >= readers)
            for number, subscriber in enumerate(server.subscribers(readers + deaf))
        ]
        with connected(Plan(server.port, server.dialect, subscribers)) as crowd:
            session = Session(server.pid, crowd, server.publisher, lambda _: NAME)
            yield _Server(session, server.pid, deaf, resident_kib(server.pid))
