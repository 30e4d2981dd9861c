"""The servers that are measured: ours, and those that one might take instead. Each is started for the occasion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.load.dialects import Subscriber
from benchmarks.load.publishers import Publisher


@dataclass(frozen=True)
class Running:
    """A server that serves: how to subscribe to everything that is broadcast, and how to publish it.

    subscribers: so many of them, each a user of its own where there are users.
    """

    pid: int
    port: int
    dialect: str
    subscribers: Callable[[int], Sequence[Subscriber]]
    publisher: Callable[[], Publisher]


class Peer(Protocol):
    """One of the servers."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def why_not(self) -> str | None:
        """Why it can't be had on this machine; None if it can."""
        ...

    def running(self) -> AbstractContextManager[Running]:
        """Run it for the length of the block."""
        ...
