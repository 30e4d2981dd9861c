"""One process of subscribers: `python -m benchmarks.load.worker ADDRESS`, told by its parent what to do.

No event loop but epoll and one buffer: it has to be faster than whatever it measures.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Client, Connection

from benchmarks.load.dialects import Subscriber
from benchmarks.load.messages import Begin, Failed, Plan, Progress, Ready, Report
from benchmarks.load.opening import Refused, subscribed
from benchmarks.load.reader import Latencies, Reader, Transcript, WrongStream
from benchmarks.processes import allow_many_files

_BUFFER_BYTES = 1_048_576


class Worker:
    """Reads for many."""

    def __init__(self, plan: Plan, parent: Connection) -> None:
        self._plan = plan
        self._parent = parent
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._transcript = Transcript()
        self._latencies = Latencies()
        self._poll = select.epoll()
        self._poll.register(parent, select.EPOLLIN)
        self._connections: dict[int, tuple[socket.socket, Reader]] = {}
        self._deaf: list[socket.socket] = []
        self._counts: Counter[int] = Counter()  # how many connections have got so many events
        self._least = 0
        self._total = 0
        self._told = 0

    def run(self) -> None:
        """Connect, then read until the parent goes away."""
        for subscriber in self._plan.subscribers:
            self._connect(subscriber)
        self._parent.send(Ready())
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._parent.fileno():
                    self._obey()
                else:
                    self._read(*self._connections[descriptor])
            self._tell_progress()

    def _connect(self, subscriber: Subscriber) -> None:
        connection, data, inflater = subscribed(self._plan.port, subscriber)
        if subscriber.deaf:
            self._deaf.append(connection)
            return
        self._transcript.inflater = inflater  # all have heard the same, so anybody's will do
        reader = Reader(self._plan.dialect, subscriber, self._transcript, self._latencies)
        reader.feed(data, 0)
        connection.settimeout(0)
        self._connections[connection.fileno()] = connection, reader
        self._poll.register(connection, select.EPOLLIN)
        self._counts[0] += 1

    def _obey(self) -> None:
        match self._parent.recv():
            case Begin(first=first):
                self._transcript.clear(first)
                self._latencies.clear()
                for _, reader in self._connections.values():
                    reader.clear()
                self._parent.send(Ready())
            case Report():
                self._parent.send(self._latencies.count())

    def _read(self, connection: socket.socket, reader: Reader) -> None:
        size = connection.recv_into(self._buffer)
        now = time.monotonic_ns()
        if not size:
            raise WrongStream("the server ended a connection")
        before = reader.count
        answer = reader.feed(self._buffer[:size], now)
        if answer:
            connection.send(answer)
        if reader.count > before:
            self._note(before, reader.count)

    def _note(self, before: int, after: int) -> None:
        counts = self._counts
        self._total += after - before
        counts[after] += 1
        counts[before] -= 1
        if not counts[before]:
            del counts[before]
            if before == self._least:
                self._least = min(counts)

    def _tell_progress(self) -> None:
        done = self._least if self._plan.done == "all" else self._total
        if done > self._told:
            self._told = done
            self._parent.send(Progress(done))


def main(address: str) -> None:
    """Do what the parent at `address` says."""
    allow_many_files()
    with Client(address, family="AF_UNIX") as parent, suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        try:
            Worker(parent.recv(), parent).run()
        except (WrongStream, Refused, ConnectionError, TimeoutError) as error:
            parent.send(Failed(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main(sys.argv[1])
