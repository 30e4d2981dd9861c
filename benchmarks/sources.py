"""From a source to the sockets of a hundred subscribers: what an event costs the broker, and how long it takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.broadcast import session
from benchmarks.load.amqp_publisher import AmqpPublisher
from benchmarks.load.session import Session
from benchmarks.peers.ours import PIPED, Ours
from benchmarks.processes import allow_many_files
from benchmarks.report import Report, Value
from benchmarks.scale import IN_FLIGHT, Scale, in_turns
from tests.system.rabbitmq import RabbitMQ, why_not

SCALE = Scale((100,))
COLUMNS = ("source", "in flight", "deliveries per CPU-second", "µs an event", "p50 ms", "p99 ms")
_QUEUE = "benchmark"
_AMQP = f"""
[[connectors.amqp]]
name = "benchmark"
url = {{ env = "BENCHMARK_AMQP_URL" }}
queue = "{_QUEUE}"
"""


def sources(scale: Scale = SCALE) -> Report:
    """A webhook, a pipe and, where there is RabbitMQ, a queue."""
    allow_many_files()
    (subscribers,) = scale.connections
    rows: list[Sequence[Value]] = []
    reason = why_not()
    with ExitStack() as stack:
        sessions = {
            "webhook": stack.enter_context(session(Ours(), subscribers)),
            "pipe": stack.enter_context(session(PIPED, subscribers)),
        }
        if reason is None:
            sessions["AMQP"] = stack.enter_context(_fed_by_rabbitmq(subscribers))
        for in_flight in (IN_FLIGHT, 1):
            outcomes = in_turns(sessions, lambda each: each.saturate(in_flight, scale.seconds), scale)  # noqa: B023
            for name, outcome in outcomes.items():
                costs = outcome.deliveries_per_cpu_second, 1_000_000 * outcome.cpu_per_event
                rows.append((name, in_flight, *costs, outcome.percentile(0.50), outcome.percentile(0.99)))
    if reason is not None:
        rows.append(("AMQP", *["-"] * (len(COLUMNS) - 1)))
    notes = [] if reason is None else [f"AMQP: {reason}"]
    return Report("sources", f"from a source to {subscribers} subscribers", COLUMNS, rows, notes)


@contextmanager
def _fed_by_rabbitmq(subscribers: int) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="rabbitmq-") as folder, RabbitMQ(Path(folder)) as node:
        url = node.url()
        ours = Ours(
            extra=_AMQP, environ={"BENCHMARK_AMQP_URL": url}, publisher=lambda _port, _token: AmqpPublisher(url, _QUEUE)
        )
        with session(ours, subscribers) as fed:
            yield fed
