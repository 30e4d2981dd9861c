"""Clients that come back all at once: what those who stayed feel of it, and how long it takes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.load.crowd import connected
from benchmarks.load.dialects import command
from benchmarks.load.frames import client_frame, next_frame
from benchmarks.load.messages import Plan
from benchmarks.load.opening import more, subscribed
from benchmarks.load.payload import payload
from benchmarks.load.publishers import Publisher
from benchmarks.load.session import Outcome, Session
from benchmarks.load.storm import Storm
from benchmarks.peers import Running
from benchmarks.peers.ours import NAME, Ours
from benchmarks.processes import allow_many_files, load_cores, on_cores
from benchmarks.report import Report
from benchmarks.scale import Scale

SCALE = Scale((1_000,), 5, 4.0)
MISSED = 500
EVENTS_PER_SECOND = 20

_MISSED_NAME = "games.missed.created"
_AT_ONCE = 100


def resuming(scale: Scale = SCALE, missed: int = MISSED) -> Report:
    """As many come back as have stayed."""
    allow_many_files()
    (connections,) = scale.connections
    rows = []
    for log in (":memory:", "log.db"):
        ours = Ours(patterns=lambda _: (NAME,), environ={"BROKER_LOG__PATH": log})
        with ours.running() as server, _stayed(server, connections) as session:
            _, place = _resumed(server, None)
            _publish(server.publisher(), missed)
            frames, _ = _resumed(server, place)
            storm = Storm(
                server.port, [each.handshake() + _resume(place) for each in server.subscribers(connections)], frames
            )
            quiet: list[Outcome] = []
            stormy: list[Outcome] = []
            seconds: list[float] = []
            for _ in range(scale.rounds):
                session.saturate(1, 1.0)  # also until those who came in the last round have gone
                quiet.append(session.pace(EVENTS_PER_SECOND, scale.seconds))
                with _coming_back(storm) as process:
                    stormy.append(session.pace(EVENTS_PER_SECOND, scale.seconds))
                    assert process.stdout is not None
                    seconds.append(float(process.stdout.readline()))
        before, during = _percentile(quiet), _percentile(stormy)
        rows.append((log, before, during, during / before, max(seconds)))
    return Report(
        "resuming",
        f"{connections} clients come back at once, {missed} events behind, beside {connections} who stayed",
        ("log", "p99 ms before", "p99 ms meanwhile", "meanwhile to before", "seconds until all have caught up"),
        rows,
    )


@contextmanager
def _stayed(server: Running, number: int) -> Iterator[Session]:
    with connected(Plan(server.port, server.dialect, server.subscribers(number))) as crowd:
        yield Session(server.pid, crowd, server.publisher, lambda _: NAME)


def _resume(place: str | None) -> bytes:
    """All that a client says that comes back, but for its handshake."""
    subscribe = client_frame(json.dumps({"event": "subscribe", "data": _MISSED_NAME}).encode())
    return subscribe + command("resume", place, 1)


def _resumed(server: Running, place: str | None) -> tuple[bytes, str]:
    """What one client gets that comes back from there, as frames; and where it is then."""
    (subscriber,) = server.subscribers(1)
    connection, data, _ = subscribed(server.port, replace(subscriber, steps=()))
    with closing(connection):
        connection.sendall(_resume(place))
        at = 0
        while True:
            while (frame := next_frame(data, at)) is None:
                data += more(connection)
            _, begin, end = frame
            if data.startswith(b'{"reply"', begin):
                return data[:at], json.loads(data[begin:end])["data"]["id"]
            at = end


def _publish(publisher: Publisher, number: int) -> None:
    with closing(publisher):
        for begin in range(0, number, _AT_ONCE):
            numbers = range(begin, min(begin + _AT_ONCE, number))
            publisher.publish([(_MISSED_NAME, payload(each, 0)) for each in numbers])
            while not publisher.ready:
                publisher.hear()


@contextmanager
def _coming_back(storm: Storm) -> Iterator[subprocess.Popen[bytes]]:
    """Let them come now."""
    command = [sys.executable, "-m", "benchmarks.load.storm"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with on_cores(load_cores()):
        process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(storm, process.stdin)
        process.stdin.flush()
        process.stdout.readline()
        process.stdin.write(b"go\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def _percentile(outcomes: Sequence[Outcome]) -> float:
    """The milliseconds that 99 of 100 deliveries took at most."""
    latencies: Counter[int] = Counter()
    for outcome in outcomes:
        latencies.update(outcome.latencies)
    return Outcome(0, 0, 0.0, latencies).percentile(0.99)
