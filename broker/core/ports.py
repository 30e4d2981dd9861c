"""What the parts of the broker ask of one another: small protocols, so that each part can be built and tested alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.core.event import Event, Record
from broker.core.http import Route


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
    """The ordered record of accepted events. It gives offsets and ids, and knows an id that it still holds."""

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        """Take a batch, all or none, in order.

        Returns for each event its record, or, where the log holds an event of that id already (also one earlier in
        the same batch), only the id: it has been taken, and is not to be delivered again.
        """
        ...

    def statistics(self) -> Mapping[str, int]:
        """How much it holds: `events`, `bytes`, and the offset that comes next as `next_offset`."""
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
