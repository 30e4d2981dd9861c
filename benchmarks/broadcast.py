"""Every event to every subscriber: what a delivery costs a server and how long it takes, ours beside others.

All servers run at the same time, with all their subscribers connected, and are measured in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.load.crowd import connected
from benchmarks.load.messages import Plan
from benchmarks.load.payload import Payload, payload
from benchmarks.load.session import Outcome, Rounds, Session
from benchmarks.peers import Peer
from benchmarks.peers.ours import NAME, PIPED, Ours
from benchmarks.peers.packaged import Nats, Nchan
from benchmarks.peers.python_servers import NAIVE, SOCKETIO, WEBSOCKETS
from benchmarks.processes import allow_many_files
from benchmarks.report import Report, Value
from benchmarks.scale import IN_FLIGHT, Scale, in_turns

PEERS: Sequence[Peer] = (Ours(), PIPED, Nats(), Nchan(), WEBSOCKETS, SOCKETIO, NAIVE)
EVENTS_PER_SECOND = 20
SCALE = Scale()
STEADY = Scale((1_000,), 7, 2.0)
COLUMNS = (
    "subscribers",
    "server",
    "deliveries per CPU-second",
    "ours to this",
    "CPU-seconds per million",
    "p50 ms",
    "p99 ms",
)
_NOT_MEASURED = ("-",) * (len(COLUMNS) - 2)

Measure = Callable[[Session], Outcome]


def saturated(scale: Scale = SCALE, peers: Sequence[Peer] = PEERS) -> Report:
    """One publisher, 64 events in flight."""

    def measure(session: Session) -> Outcome:
        return session.saturate(IN_FLIGHT, scale.seconds)

    return compare("broadcast", f"one publisher, {IN_FLIGHT} events in flight", scale, peers, measure)


def one_at_a_time(scale: Scale = SCALE, peers: Sequence[Peer] = PEERS) -> Report:
    """The next event is sent when the last one has come to everybody."""

    def measure(session: Session) -> Outcome:
        return session.saturate(1, scale.seconds)

    return compare("one_at_a_time", "one publisher, one event in flight at a time", scale, peers, measure)


def steady(scale: Scale = STEADY, peers: Sequence[Peer] = PEERS) -> Report:
    """A few events a second, and time to spare."""

    def measure(session: Session) -> Outcome:
        return session.pace(EVENTS_PER_SECOND, scale.seconds)

    return compare("steady", f"{EVENTS_PER_SECOND} events a second", scale, peers, measure)


def compare(
    name: str, title: str, scale: Scale, peers: Sequence[Peer], measure: Measure, payload: Payload = payload
) -> Report:
    """Measure all of them, in turns, and set them beside ours."""
    allow_many_files()
    reasons = {peer.name: reason for peer in peers if (reason := peer.why_not())}
    rows: list[Sequence[Value]] = []
    for subscribers in scale.connections:
        with ExitStack() as stack:
            sessions = {
                peer.name: stack.enter_context(session(peer, subscribers, payload))
                for peer in peers
                if peer.name not in reasons
            }
            outcomes = in_turns(sessions, measure, scale)
        ours = outcomes[Ours.name].deliveries_per_cpu_second
        for peer in peers:
            outcome = outcomes.get(peer.name)
            rows.append((subscribers, peer.name, *(_NOT_MEASURED if outcome is None else _row(outcome, ours))))
    notes = [f"{peer}: {reason}" for peer, reason in reasons.items()]
    return Report(name, title, COLUMNS, rows, notes, chart=COLUMNS[2])


@contextmanager
def session(peer: Peer, subscribers: int, payload: Payload = payload) -> Iterator[Session]:
    """A server with so many subscribers, for the length of the block."""
    with (
        peer.running() as server,
        connected(Plan(server.port, server.dialect, server.subscribers(subscribers))) as crowd,
    ):
        yield Session(server.pid, crowd, server.publisher, lambda _: NAME, payload=payload)


def _row(outcome: Rounds, ours: float) -> Sequence[Value]:
    return (
        outcome.deliveries_per_cpu_second,
        ours / outcome.deliveries_per_cpu_second,
        1_000_000 / outcome.deliveries_per_cpu_second,
        outcome.percentile(0.50),
        outcome.percentile(0.99),
    )
