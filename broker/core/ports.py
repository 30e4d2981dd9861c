"""What the parts of the broker ask of one another: small protocols, so that each part can be built and tested alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.core.event import Event, Record
from broker.core.http import Route
from broker.core.relations import Learned


class Publisher(Protocol):
    """The one door through which events come in."""

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        """Hand in a batch, all or none; return the events' ids, in order, when the log has taken them.

        Waits while the ingest queue is full: for ever, or for `timeout` seconds.

        Raises BadEvent if one of them is bad, Overloaded if there was no room in time, Stopping at shutdown.
        """
        ...


class Connector(Protocol):
    """A source of events that runs beside the others until it is cancelled or has no more."""

    @property
    def name(self) -> str:
        """What logs and counters call it."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What has happened so far, by name: `/metrics` shows it behind the connector's name."""
        ...

    async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
        """Bring events in; call `ready` when they can come. Returning means that the source is at its end.

        May raise anything: it is then run again after a while (`broker/runtime/supervision.py`).
        """
        ...


class Receiver(Protocol):
    """A source of events that is called over HTTP instead of running by itself."""

    def routes(self, publisher: Publisher) -> Sequence[Route]:
        """The requests that it answers, by handing what they bring to `publisher`."""
        ...


class Log(Protocol):
    """The ordered record of accepted events, as far back as it is to be retained, and of what was learned from them.

    Offsets ascend by one from event to event and are never used again, also not after a restart. What is older than
    the bounds allow is dropped, the oldest first; ids are forgotten with their events.
    """

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        """Take a batch, all or none, in order. When it returns, the batch is as safe as this log can make it.

        Returns for each event its record, or, where the log holds an event of that id already (also one earlier in
        the same batch), only the id: it has been taken, and is not to be delivered again.

        Raises LogUnavailable, and nothing was taken.
        """
        ...

    def learn(self, learned: Learned) -> None:
        """Keep what was learned from the events up to `learned.offset`; written with the next append or by `close`.

        A log that outlives its process keeps, besides, every event behind that offset, so nothing is lost in between.
        """
        ...

    async def recall(self) -> tuple[Learned, Sequence[Record]]:
        """At the start: all that was kept by `learn`, and the events behind it, from which is still to be learned."""
        ...

    def position(self, after: int | None = None) -> str:
        """A name for the place behind the event at this offset, or behind the last one; `locate` knows it for ever.

        It tells nothing about events, not even whether there was one since the last position.
        """
        ...

    async def locate(self, place: str) -> int | None:
        """The offset that an event's id or a position stands for, to read on from there.

        None: nobody has given it, or an event behind it was dropped.
        """
        ...

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        """The next events after this offset, in order; none: there are no more yet.

        At most `most` of them, with payloads of at most `max_bytes` in all, but at least one if there is one.

        Raises LogGap if events after this offset were dropped, LogUnavailable if they can't be read.
        """
        ...

    def recent(self, after: int, most: int, max_bytes: int) -> Sequence[Record] | None:
        """As `read`, but at once, where what comes next is in memory; None where it is not."""
        ...

    def statistics(self) -> Mapping[str, int]:
        """How much it holds: `events`, `bytes`, and the offset that comes next as `next_offset`."""
        ...

    def close(self) -> None:
        """Write what was learned last, and let go of everything. Nothing else may be called then."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end: a user or None, the claims of the token, and when it ends (Unix time, seconds)."""

    user: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None


class Authenticator(Protocol):
    """Turns a token into an identity."""

    def identify(self, token: str | None) -> Identity:
        """Who may connect with this token (None: there was none).

        Raises MissingToken, InvalidToken or ExpiredToken.
        """
        ...

    def publisher(self, token: str | None) -> Identity:
        """Who publishes with this token: as `identify`, but a user is not required."""
        ...
