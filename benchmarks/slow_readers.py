"""One client in ten does not read: what the others feel of it, and what it takes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from urllib.request import urlopen

from benchmarks.load.crowd import connected
from benchmarks.load.messages import Plan
from benchmarks.load.session import Session
from benchmarks.peers.ours import NAME, Ours
from benchmarks.processes import allow_many_files, resident_kib
from benchmarks.report import Report
from benchmarks.scale import IN_FLIGHT, Scale, in_turns
from broker.config import Config

SCALE = Scale((180,), 9, 1.0)
EVENTS_PER_SECOND = 100
FILLING = 4 * Config().websocket.queue_size  # events: the queue of whoever does not read is full, and the kernel's
BOUND_KIB = 2 * Config().websocket.queue_bytes / 1024  # what waits for a client, and what is being written

_NOT_SENT = ("broker_deliveries_dropped_oldest_total ", "broker_deliveries_overflowed_total ")


@dataclass(frozen=True)
class _Server:
    """A broker in the middle of it; `resident_before`: before anything was sent."""

    session: Session
    port: int
    resident_before: int

    def grown_kib(self) -> int:
        return resident_kib(self.session.pid) - self.resident_before

    def not_sent(self) -> int:
        """The events that somebody did not get, or got disconnected for."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(float(line.split()[1])) for line in lines if line.startswith(_NOT_SENT))


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
        costs = {name: (server.not_sent(), server.grown_kib()) for name, server in servers.items()}
    usual = outcomes["nobody"].percentile(0.99)
    rows = [
        (name, outcome.percentile(0.50), outcome.percentile(0.99), outcome.percentile(0.99) / usual, *costs[name])
        for name, outcome in outcomes.items()
    ]
    return Report(
        "slow_readers",
        f"{readers} readers, {EVENTS_PER_SECOND} events a second, and {deaf} who do not read",
        ("those who do not read", "p50 ms", "p99 ms", "p99 to nobody", "frames not sent", "memory grown by KiB"),
        rows,
        [f"What waits for those who do not read may take {deaf * BOUND_KIB:,.0f} KiB more than for nobody."],
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
            yield _Server(session, server.port, resident_kib(server.pid))
