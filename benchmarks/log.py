"""What the log on disk costs beside the one in memory, and how long it takes to open.

Two brokers that differ in nothing but their log are measured in turns. The disk's holds all that it retains, so that
each event that comes drops one.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median
from unittest.mock import patch

import trio
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from benchmarks.load.amqp_publisher import AmqpPublisher
from benchmarks.load.publishers import WebhookPublisher
from benchmarks.peers import Running
from benchmarks.peers.ours import Ours
from benchmarks.processes import cpu_seconds, load_cores, on_cores
from benchmarks.report import Report, Value
from broker.core.event import Event
from broker.core.relations import Learned
from broker.edge import segments
from broker.edge.retention import Retention
from broker.edge.segments import SEGMENT_EVENTS
from broker.edge.sqlite_log import SqliteLog
from tests.system.rabbitmq import RabbitMQ, why_not

HELD, FULLY_HELD = 100_000, 1_000_000
FACTS, FULL_FACTS = 10_000, 100_000
PAYLOAD = b'{"name":"Blitz","members":["ada","bob"],"rated":true,"notes":"%b"}' % (b"n" * 200)
PREFETCH = 1024
_PATIENCE = 120.0
_TICK = 0.01
_AMQP = """
[[connectors.amqp]]
name = "benchmark"
url = {{ env = "BENCHMARK_AMQP_URL" }}
queue = "{queue}"
prefetch = {prefetch}
"""


@dataclass(frozen=True)
class Target:
    """A broker, and where its log is."""

    log: str
    broker: Running


Line = Callable[[int], bytes]
Load = Callable[[Target, Sequence[bytes]], None]  # brings the events of these lines in


@dataclass(frozen=True)
class Scale:
    """held: events in the log on disk. events: in each of the rounds, where they come many at once."""

    held: int = HELD
    events: int = 20_000
    rounds: int = 5
    rabbitmq: bool = True


def publishing(scale: Scale | None = None) -> Report:
    """The broker's processor time for each event, and the time on the wall, as ratios."""
    scale = scale or Scale()
    reason = None if not scale.rabbitmq else why_not()
    rows: list[Sequence[Value]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-log-")))
        fill(folder / "log.db", scale.held)
        url = None
        if scale.rabbitmq and reason is None:
            node = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitmq-")))
            url = stack.enter_context(RabbitMQ(node)).url()
        targets = [
            Target(log, stack.enter_context(_broker(log, scale.held, url).running()))
            for log in (":memory:", str(folder / "log.db"))
        ]
        numbers = count(1)
        for name, line, load, part in _loads(url):
            lines = map(line, numbers)
            rows.append((name, *_in_turns(targets, load, lines, scale.events // part, scale.rounds)))
    return Report(
        "log_publishing",
        f"the log on disk as a multiple of the log in memory, {scale.held:,} events held",
        ("events", "µs an event on disk", "processor time", "time"),
        rows,
        [f"RabbitMQ: {reason}"] if reason else [],
    )


def opening(held: int = HELD, facts: int = FACTS) -> Report:
    """How long it takes until a log can be used: with long segments, and with short ones, as events come alone."""
    rows = []
    for segment in (SEGMENT_EVENTS, 1):
        with tempfile.TemporaryDirectory(prefix="broker-log-") as folder:
            file = Path(folder) / "log.db"
            with patch.object(segments, "SEGMENT_EVENTS", segment):
                fill(file, held, facts)
            begin = time.perf_counter()
            with closing(SqliteLog(file, Retention(held))) as log:
                learned, behind = trio.run(log.recall)
                seconds = time.perf_counter() - begin
        assert (len(learned.members), len(behind)) == (facts, 0)
        rows.append((held, segment, facts, seconds))
    return Report("log_opening", "seconds to open the log", ("events", "in segments of", "facts", "seconds"), rows)


def fill(file: Path, events: int, facts: int = 0) -> None:
    """A log that holds so many events, each with an id of its own, and facts."""

    async def append() -> None:
        with closing(SqliteLog(file, Retention(events))) as log:
            members = {("group", str(number // 10), f"user-{number}"): number + 1 for number in range(facts)}
            for at in range(0, events, 1000):
                batch = [_event(number) for number in range(at, min(at + 1000, events))]
                await log.append(batch)
                log.learn(Learned(at + len(batch), members))
                members = {}

    trio.run(append)


def _loads(url: str | None) -> Iterator[tuple[str, Line, Load, int]]:
    """What the events are, how they come, and what part of the number is measured, since they cost more alone."""
    kinds: Mapping[str, Line] = {
        "without ids": lambda number: b'{"event":"games.%d.created","data":%b}' % (number, PAYLOAD),
        "with ids": lambda number: b'{"event":"games.%d.created","data":%b,"id":"%b"}' % (number, PAYLOAD, _uuid()),
        "that teach": lambda number: b'{"event":"groups.%d.members.u%d.created","data":1}' % (number % 1000, number),
    }
    for name, line in kinds.items():
        yield f"100 at once over HTTP, {name}", line, partial(_post, 100, 4), 1
    line = kinds["with ids"]
    for publishers in (4, 16):
        yield f"one at a time over HTTP, {publishers} publishers, with ids", line, partial(_post, 1, publishers), 8
    if url is not None:
        yield f"from RabbitMQ, prefetch {PREFETCH:,}, with ids", line, partial(_send, url), 1


def _in_turns(
    targets: Sequence[Target], load: Load, lines: Iterator[bytes], events: int, rounds: int
) -> tuple[float, float, float]:
    """Of all rounds the median: microseconds of an event on disk, and the ratios of processor time and time."""
    taken: list[tuple[float, float, float]] = []
    with on_cores(load_cores()):
        for _ in range(rounds + 1):
            measured = [_measured(target, load, list(islice(lines, events))) for target in targets]
            (memory_cpu, memory_wall), (cpu, wall) = measured
            taken.append((1_000_000 * cpu / events, cpu / memory_cpu, wall / memory_wall))
    cpu, by_cpu, by_wall = (median(column) for column in zip(*taken[1:], strict=True))  # the first one warms up
    return cpu, by_cpu, by_wall


def _measured(target: Target, load: Load, lines: Sequence[bytes]) -> tuple[float, float]:
    """Processor time and time on the wall."""
    before, begin = cpu_seconds(target.broker.pid), time.perf_counter()
    load(target, lines)
    return max(cpu_seconds(target.broker.pid) - before, _TICK), time.perf_counter() - begin


def _broker(log: str, held: int, url: str | None) -> Ours:
    environ = {"BROKER_LOG__PATH": log, "BROKER_LOG__RETAIN_EVENTS": str(held)}
    if url is None:
        return Ours(environ=environ, publisher=_Poster)
    extra = _AMQP.format(queue=_queue(log), prefetch=PREFETCH)
    return Ours(environ={**environ, "BENCHMARK_AMQP_URL": url}, extra=extra, publisher=_Poster)


def _queue(log: str) -> str:
    return "memory" if log == ":memory:" else "disk"


class _Poster(WebhookPublisher):
    """POSTs lines, and waits for the answer."""

    def post(self, lines: Sequence[bytes]) -> None:
        body = b"\n".join(lines)
        self._socket.sendall(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        self.ready = False
        while not self.ready:
            self.hear()


class _Sender(AmqpPublisher):
    """Sends what are bodies already; they have no names."""

    def _message(self, name: str, payload: bytes) -> bytes:  # noqa: ARG002
        parts = (Basic.Publish(routing_key=self._queue), ContentHeader(body_size=len(payload)), ContentBody(payload))
        return b"".join(frame.marshal(part, 1) for part in parts)


def _post(at_once: int, publishers: int, target: Target, lines: Sequence[bytes]) -> None:
    batches = iter([lines[at : at + at_once] for at in range(0, len(lines), at_once)])

    def publish() -> None:
        with closing(target.broker.publisher()) as poster:
            assert isinstance(poster, _Poster)
            for batch in batches:
                poster.post(batch)

    with ThreadPoolExecutor(publishers) as pool:
        for done in [pool.submit(publish) for _ in range(publishers)]:
            done.result()


def _send(url: str, target: Target, lines: Sequence[bytes]) -> None:
    """Through a queue, until the broker has taken all of them."""
    goal = _taken(target.broker) + len(lines)
    with closing(_Sender(url, _queue(target.log))) as publisher:
        publisher.publish([("", line) for line in lines])
        end = time.monotonic() + _PATIENCE
        while _taken(target.broker) < goal:
            if time.monotonic() > end:
                raise TimeoutError("the broker does not take what RabbitMQ has for it")
            time.sleep(0.1)


def _taken(broker: Running) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.port}/metrics", timeout=_PATIENCE) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("broker_events_total "))


def _event(number: int) -> Event:
    return Event(f"games.{number}.created", PAYLOAD, _uuid().decode(), "webhook")


def _uuid() -> bytes:
    return uuid.UUID(bytes=os.urandom(16), version=4).hex.encode()
