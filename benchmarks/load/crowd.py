"""Subscribers in processes of their own, and what is known of them here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.load.messages import Begin, Failed, Plan, Progress, Report

WORKERS = len(processes.load_cores())  # more of them would only take each other's time


class Crowd:
    """All subscribers of one server."""

    def __init__(self, plan: Plan, workers: Sequence[Connection]) -> None:
        everybody = sum(not subscriber.deaf for subscriber in plan.subscribers)
        self.audience = everybody if plan.done == "all" else 1  # how many get each event
        self.connections = workers  # readable when there is news
        self._all = plan.done == "all"
        self._progress = [0] * len(workers)

    @property
    def done(self) -> int:
        """How many events are done, as far as is known."""
        return min(self._progress) if self._all else sum(self._progress)

    def begin(self, first: int) -> None:
        """Measure from this event on; nothing may be under way."""
        self._ask(Begin(first))

    def latencies(self) -> Counter[int]:
        """How many deliveries since `begin` took how many microseconds."""
        total: Counter[int] = Counter()
        for answer in self._ask(Report()):
            total.update(answer)
        return total

    def hear(self, worker: Connection) -> Any:
        """Take one piece of news from a worker, and wait for it if there is none; None where it was progress.

        Raises RuntimeError where the worker has failed.
        """
        try:
            said = worker.recv()
        except EOFError:
            raise RuntimeError("a process of subscribers has ended") from None
        match said:
            case Progress(events=events):
                self._progress[self.connections.index(worker)] = events
                return None
            case Failed(why=why):
                raise RuntimeError(f"a subscriber failed: {why}")
            case answer:
                return answer

    def wait_connected(self) -> None:
        """Wait until all are subscribed."""
        self._answers()

    def _ask(self, what: object) -> list[Any]:
        for worker in self.connections:
            worker.send(what)
        return self._answers()

    def _answers(self) -> list[Any]:
        return [self._answer(worker) for worker in self.connections]

    def _answer(self, worker: Connection) -> Any:
        while (answer := self.hear(worker)) is None:
            pass
        return answer


@contextmanager
def connected(plan: Plan, workers: int = WORKERS) -> Iterator[Crowd]:
    """Have everybody connected for the length of the block."""
    workers = min(workers, len(plan.subscribers))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-crowd-"))
        listener = stack.enter_context(Listener(f"{folder}/parent", family="AF_UNIX"))
        connections = []
        for number in range(workers):
            stack.enter_context(_worker(listener.address))
            connection = stack.enter_context(listener.accept())
            part = plan.subscribers[number::workers]
            connection.send(Plan(plan.port, plan.dialect, part, plan.done))
            connections.append(connection)
        crowd = Crowd(plan, connections)
        crowd.wait_connected()
        yield crowd


@contextmanager
def _worker(address: object) -> Iterator[None]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with processes.on_cores(processes.load_cores()):
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.load.worker", str(address)], env=environ)
    try:
        yield
    finally:
        process.kill()
        process.wait()
