"""Deliveries per second of the server's processor time, beside a server that sends each event to each socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trio

from benchmarks.report import Report
from benchmarks.sockets import RawClient, allow_many_files, cpu_seconds
from broker.core.frames import text_frame
from cli.http_client import EventsClient
from cli.target import Target
from examples.stage import running_broker

SUBSCRIBERS = (100, 1_000)
DELIVERIES = 100_000
BURSTS = (1, 20)
PATIENCE = 300.0
EVENT = {"event": "games.42.created", "data": {"name": "Blitz", "members": ["ada", "bob"], "rated": True}}
_TEXT = json.dumps(EVENT, separators=(",", ":")).encode()

Publish = Callable[[int], Awaitable[None]]


def run(subscribers: Sequence[int] = SUBSCRIBERS, deliveries: int = DELIVERIES) -> Report:
    """Measure it. Both serve the same clients the same events, one after the other."""
    allow_many_files()
    rows = []
    for number in subscribers:
        for burst in BURSTS:
            ours = _broker(number, deliveries, burst)
            naive = _naive(number, deliveries, burst)
            rows.append((number, burst, ours / naive))
    return Report(
        "broadcast",
        "deliveries per second of processor time, as a multiple of a server with one `send_message` a delivery",
        ("subscribers", "events at once", "ratio"),
        rows,
    )


def _broker(subscribers: int, deliveries: int, burst: int) -> float:
    with running_broker(Path(__file__).parent) as broker:
        port = urlsplit(broker.url).port or 0
        token = broker.token("--publish", "**", "--user", "watcher", "--ttl", "1h")
        tokens = [broker.token("--user", f"user-{number}") for number in range(subscribers // 100 + 1)]
        with EventsClient(Target(urlsplit(broker.url), token)) as client:

            async def publish(events: int) -> None:
                answer = await trio.to_thread.run_sync(client.send, [_TEXT] * events)
                if not answer.taken:
                    raise RuntimeError(answer.error)

            async def connect(number: int) -> RawClient:
                return await RawClient.connect(port, tokens[number % len(tokens)])

            return trio.run(_measure, broker.pid, connect, subscribers, deliveries, burst, publish)


def _naive(subscribers: int, deliveries: int, burst: int) -> float:
    with _naive_server() as (pid, port):
        publisher: list[RawClient] = []

        async def publish(events: int) -> None:
            await publisher[0].send({"event": "publish", "data": [EVENT] * events, "id": 7})
            await publisher[0].skip_until(b'{"reply":7,"data":null}')
            publisher[0].unread = b""

        async def connect(number: int) -> RawClient:
            if number == 0:
                publisher.append(await RawClient.connect(port))
            return await RawClient.connect(port)

        async def measure() -> float:
            try:
                return await _measure(pid, connect, subscribers, deliveries, burst, publish)
            finally:
                await publisher[0].close()

        return trio.run(measure)


@contextmanager
def _naive_server() -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "benchmarks.naive_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


async def _measure(
    pid: int,
    connect: Callable[[int], Awaitable[RawClient]],
    subscribers: int,
    deliveries: int,
    burst: int,
    publish: Publish,
) -> float:
    clients: list[RawClient] = []
    for number in range(subscribers):
        client = await connect(number)
        await client.subscribe("games.*.created")
        clients.append(client)
    await _round(clients, publish, 5 * burst, burst)  # what is loaded late is loaded now
    events = deliveries // subscribers // burst * burst
    before = cpu_seconds(pid)
    await _round(clients, publish, events, burst)
    spent = cpu_seconds(pid) - before
    for client in clients:
        await client.close()
    return events * subscribers / spent


async def _round(clients: Sequence[RawClient], publish: Publish, events: int, burst: int) -> None:
    size = len(text_frame(_TEXT))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.read, events * size)
            for _ in range(events // burst):
                await publish(burst)
