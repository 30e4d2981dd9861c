"""A server, its subscribers and a publisher together: what it takes to bring events from the one to the others."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from benchmarks.load.crowd import Crowd
from benchmarks.load.payload import Payload, payload
from benchmarks.load.publishers import Publisher
from benchmarks.processes import cpu_seconds, load_cores, on_cores

_TICK = 0.01


@dataclass(frozen=True)
class Outcome:
    """What one round has shown. latencies: how many deliveries took so many microseconds; of very many a sample."""

    events: int
    deliveries: int
    cpu_seconds: float
    latencies: Counter[int] = field(repr=False)

    @property
    def cpu_per_event(self) -> float:
        """In seconds."""
        return max(self.cpu_seconds, _TICK) / self.events  # what takes less than a tick is not seen

    def percentile(self, share: float) -> float:
        """The milliseconds that this share of the deliveries took at most."""
        left = share * self.latencies.total()
        for microseconds, number in sorted(self.latencies.items()):
            left -= number
            if left <= 0:
                return microseconds / 1000
        return 0.0


@dataclass(frozen=True)
class Rounds:
    """What several rounds have shown: of everything the median."""

    outcomes: Sequence[Outcome]

    @property
    def cpu_per_event(self) -> float:
        """In seconds."""
        return median(outcome.cpu_per_event for outcome in self.outcomes)

    @property
    def deliveries_per_cpu_second(self) -> float:
        """So many, of all subscribers together."""
        return self.outcomes[0].deliveries / self.outcomes[0].events / self.cpu_per_event

    def percentile(self, share: float) -> float:
        """The milliseconds that this share of the deliveries took at most."""
        return median(outcome.percentile(share) for outcome in self.outcomes)


class Session:
    """Measures one server.

    publisher: opens one, for each measurement anew, since nobody would answer its pings between them.
    name: what event `number` is called. patience: seconds without any progress.
    """

    def __init__(
        self,
        pid: int,
        crowd: Crowd,
        publisher: Callable[[], Publisher],
        name: Callable[[int], str],
        patience: float = 60.0,
        payload: Payload = payload,
    ) -> None:
        self.pid = pid
        self._patience = patience
        self._crowd = crowd
        self._open = publisher
        self._name = name
        self._payload = payload
        self._sent = 0
        self._moved = 0.0  # when there was progress

    def saturate(self, in_flight: int, seconds: float, at_once: int = 1) -> Outcome:
        """Have so many events in flight for so long; send when there is room for `at_once` or more."""

        def publish_all(line: _Line) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self._top_up(line, in_flight, at_once)
                self._hear(line, end - time.monotonic())

        return self._measured(publish_all)

    def deliver(self, events: int, in_flight: int) -> Outcome:
        """Bring at least so many events to everybody."""

        def publish_all(line: _Line) -> None:
            goal = self._sent + events
            while self._sent < goal:
                self._top_up(line, in_flight, 1)
                self._hear(line, 1.0)

        return self._measured(publish_all)

    def pace(self, per_second: float, seconds: float, at_once: int = 1) -> Outcome:
        """Send so many events a second, `at_once` of them each time, whatever has become of those before."""

        def publish_all(line: _Line) -> None:
            begin = time.monotonic()
            for number in range(int(seconds * per_second / at_once)):
                due = begin + number * at_once / per_second
                while (left := due - time.monotonic()) > 0 or not line.publisher.ready:
                    self._hear(line, max(left, 0.001))
                self._publish(line.publisher, at_once)

        return self._measured(publish_all)

    def _measured(self, publish_all: Callable[[_Line], None]) -> Outcome:
        with closing(self._open()) as publisher, _Line(self._crowd, publisher) as line, on_cores(load_cores()):
            self._crowd.begin(self._sent)
            self._moved = time.monotonic()
            first, cpu = self._sent, cpu_seconds(self.pid)
            publish_all(line)
            self._drain(line)
            spent = cpu_seconds(self.pid) - cpu
            latencies = self._crowd.latencies()
        events = self._sent - first
        return Outcome(events, events * self._crowd.audience, spent, latencies)

    def _top_up(self, line: _Line, in_flight: int, at_once: int) -> None:
        room = in_flight - (self._sent - self._crowd.done)
        if room >= at_once and line.publisher.ready:
            self._publish(line.publisher, room)

    def _publish(self, publisher: Publisher, number: int) -> None:
        numbers = range(self._sent, self._sent + number)
        self._sent += number
        now = time.monotonic_ns()
        publisher.publish([(self._name(each), self._payload(each, now)) for each in numbers])

    def _drain(self, line: _Line) -> None:
        """Wait until everything has come to everybody."""
        while not line.publisher.ready or self._crowd.done < self._sent:
            self._hear(line, 1.0)

    def _hear(self, line: _Line, timeout: float) -> None:
        before, now = self._crowd.done, time.monotonic()
        line.hear(min(timeout, self._patience))
        if before < self._crowd.done or self._crowd.done == self._sent:
            self._moved = now
        elif now - self._moved > self._patience:
            raise RuntimeError(f"of {self._sent} events only {before} came to everybody")


class _Line:
    """Where news comes from, while events are published."""

    def __init__(self, crowd: Crowd, publisher: Publisher) -> None:
        self.publisher = publisher
        self._crowd = crowd
        self._workers = {worker.fileno(): worker for worker in crowd.connections}
        self._poll = select.epoll()
        for descriptor in (publisher.fileno(), *self._workers):
            self._poll.register(descriptor, select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()

    def hear(self, timeout: float) -> None:
        """Take the news that there is, and wait for it if there is none."""
        for descriptor, _ in self._poll.poll(max(timeout, 0)):
            if descriptor in self._workers:
                self._crowd.hear(self._workers[descriptor])
            else:
                self.publisher.hear()
