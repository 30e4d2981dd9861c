"""What the log on disk costs beside the one in memory, and how long it takes to open."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import trio

from benchmarks.processes import cpu_seconds
from benchmarks.report import Report
from broker.core.event import Event
from broker.core.relations import Learned
from broker.edge.retention import Retention
from broker.edge.sqlite_log import SqliteLog
from cli.http_client import EventsClient
from cli.target import Target
from examples.stage import running_broker

EVENTS = 100_000
HELD, FULLY_HELD = 100_000, 1_000_000
FACTS, FULL_FACTS = 10_000, 100_000
BATCH = 100
PUBLISHERS = 4
PAYLOAD = b'{"name":"Blitz","members":["ada","bob"],"rated":true,"notes":"%b"}' % (b"n" * 200)

Line = Callable[[int], bytes]


def publishing(events: int = EVENTS, held: int = HELD) -> Report:
    """The broker's processor time for each event that is published over HTTP, when the log has all that it retains."""
    kinds: dict[str, Line] = {
        "without ids": lambda number: b'{"event":"games.%d.created","data":%b}' % (number, PAYLOAD),
        "with ids": lambda number: b'{"event":"games.%d.created","data":%b,"id":"%b"}' % (number, PAYLOAD, _uuid()),
        "that teach": lambda number: b'{"event":"groups.%d.members.u%d.created","data":1}' % (number % 1000, number),
    }
    rows = []
    for name, line in kinds.items():
        memory, memory_wall = _publish(":memory:", line, events, held)
        with tempfile.TemporaryDirectory(prefix="broker-log-") as folder:
            file = Path(folder) / "log.db"
            _fill(file, held, with_ids=name == "with ids")
            disk, disk_wall = _publish(str(file), line, events, held)
        rows.append((f"{BATCH} at once, {name}", disk / memory, disk_wall / memory_wall))
    return Report(
        "log_publishing",
        f"the log on disk as a multiple of the log in memory, {held:,} events held",
        ("events", "processor time", "time"),
        rows,
    )


def opening(held: int = HELD, facts: int = FACTS) -> Report:
    """How long it takes until a log can be used."""
    with tempfile.TemporaryDirectory(prefix="broker-log-") as folder:
        file = Path(folder) / "log.db"
        _fill(file, held, with_ids=True, facts=facts)
        begin = time.perf_counter()
        with closing(SqliteLog(file, Retention(held))) as log:
            learned, behind = trio.run(log.recall)
            seconds = time.perf_counter() - begin
    assert (len(learned.members), len(behind)) == (facts, 0)
    return Report("log_opening", "seconds to open the log", ("events", "facts", "seconds"), [(held, facts, seconds)])


def _publish(log: str, line: Line, events: int, held: int) -> tuple[float, float]:
    """Processor time of the broker, and time on the wall, per event."""
    environ = {"BROKER_LOG__PATH": log, "BROKER_LOG__RETAIN_EVENTS": str(held)}
    with running_broker(Path(__file__).parent, environ=environ) as broker:
        target = Target(urlsplit(broker.url), broker.token("--publish", "**", "--ttl", "1h"))
        batches = [[line(at + number) for number in range(BATCH)] for at in range(0, events + 20 * BATCH, BATCH)]
        _send(target, batches[:20])
        before, begin = cpu_seconds(broker.pid), time.perf_counter()
        _send(target, batches[20:])
        return (cpu_seconds(broker.pid) - before) / events, (time.perf_counter() - begin) / events


def _send(target: Target, batches: Sequence[Sequence[bytes]]) -> None:
    waiting = iter(batches)

    def publish() -> None:
        with EventsClient(target) as client:
            for batch in waiting:
                answer = client.send(batch)
                if not answer.taken:
                    raise RuntimeError(answer.error)

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        for done in [pool.submit(publish) for _ in range(PUBLISHERS)]:
            done.result()


def _fill(file: Path, events: int, *, with_ids: bool, facts: int = 0) -> None:
    async def fill() -> None:
        with closing(SqliteLog(file, Retention(events))) as log:
            members = {("group", str(number // 10), f"user-{number}"): number + 1 for number in range(facts)}
            for at in range(0, events, 1000):
                await log.append(list(_events(at, min(1000, events - at), with_ids=with_ids)))
                log.learn(Learned(min(at + 1000, events), members))
                members = {}

    trio.run(fill)


def _events(first: int, number: int, *, with_ids: bool) -> Iterator[Event]:
    for at in range(first, first + number):
        yield Event(f"games.{at}.created", PAYLOAD, _uuid().decode() if with_ids else None, "webhook")


def _uuid() -> bytes:
    return uuid.UUID(bytes=os.urandom(16), version=4).hex.encode()
