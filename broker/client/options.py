"""What a client may be told beyond an address and a token, and what it tells about its connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from broker.client.errors import Disconnected, ResumeGap

MIB = 1_048_576


@dataclass(frozen=True, slots=True)
class Options:
    """The bounds of a client, and its ways.

    connect_timeout: seconds for one attempt, from the token to the end of the handshake, and for the first connection.
    keep_trying: go on until the first connection stands, as it is done later.
    buffer_bytes: payloads that one subscription holds, or messages that one `Client.messages` does. max_message_size:
    characters of one text from the broker, bytes of one that is binary.
    max_commands: commands that wait for their answers at a time. commands_per_second: that are sent, after as many at
    once; half of what brokers allow, since patterns that are given up count as well.
    tls: whom to trust, and who we are; None: the system's authorities. events_path: where to publish.
    """

    connect_timeout: float = 10.0
    keep_trying: bool = False
    buffer_bytes: int = 16 * MIB
    max_message_size: int = 64 * MIB
    max_commands: int = 100
    commands_per_second: int = 50
    tls: ssl.SSLContext | None = None
    events_path: str = "/events"


def with_tls(options: Options, *, wanted: bool) -> Options:
    """The options with something to make TLS with where that is wanted, and with nothing where it is not."""
    return replace(options, tls=(options.tls or ssl.create_default_context()) if wanted else None)


@dataclass(frozen=True, slots=True)
class Connected:
    """There is a connection, for the first time or `again`."""

    again: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """A connection ended or could not be made, because of `error`; the next attempt is in `pause` seconds."""

    error: Exception
    pause: float

    @property
    def reason(self) -> str:
        """The error in few words."""
        if isinstance(self.error, Disconnected):
            return f"{self.error.code} {self.error.reason}".rstrip()
        return str(self.error)


Change: TypeAlias = Connected | Lost
OnChange: TypeAlias = Callable[[Change], object]
OnGap: TypeAlias = Callable[[ResumeGap], object]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom to tell. on_gap: None lets the subscriptions tell it."""

    on_change: OnChange | None = None
    on_gap: OnGap | None = None
