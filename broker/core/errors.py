"""The error tree, by whose fault it is, and the close codes with what a client should do about each.

An error that a client, a publisher or an operator may see carries the `code` under which the outside knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class BrokerError(Exception):
    """Everything that the broker raises on purpose."""

    code: ClassVar[str] = "internal"


class OperatorError(BrokerError):
    """A fault in a file, a key or an environment that the operator provides."""

    code = "bad_configuration"


class ClientError(BrokerError):
    """A command that can't be carried out; answered on the connection, which stays open.

    `reply_id` is the id of the command where one could be read.
    """

    code = "bad_command"

    def __init__(self, message: str, *, reply_id: str | int | None = None) -> None:
        super().__init__(message)
        self.reply_id = reply_id


class PublisherError(BrokerError):
    """Events that can't be accepted as they are; sending them again unchanged will not help."""

    code = "bad_event"


class BadName(PublisherError):
    """An event's name that is against the rules for names."""


class BadPayload(PublisherError):
    """A payload that is not JSON as RFC 8259 has it, or beyond a bound."""


class UnsupportedMediaType(PublisherError):
    """The body of a request is of a type that nothing here reads."""

    code = "unsupported_media_type"


class EventRefused(PublisherError):
    """One event of a batch is refused, and the batch with it.

    `index` counts from 0 within the batch; None: the refusal is about no single event.
    """

    def __init__(self, index: int | None, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class BadEvent(EventRefused):
    """An event of a batch is bad."""


class NotPermitted(EventRefused):
    """The publisher is known but may not publish this event; with an index of None: not any."""

    code = "not_permitted"


class Overloaded(BrokerError):
    """The ingest queue had no room in time; the same events may be sent again after a moment."""

    code = "overloaded"
    message: ClassVar[str] = "the broker is busy: its ingest queue is full"

    def __init__(self) -> None:
        super().__init__(self.message)


class Stopping(Overloaded):
    """The broker is shutting down and takes no more events."""

    code = "stopping"
    message = "the broker is stopping, and takes no more events"


class LogUnavailable(BrokerError):
    """The log could not take the events; nothing of the batch was taken, and it may be sent again."""

    code = "log_unavailable"


class BadJSON(ClientError):
    """A frame that is no JSON text."""

    code = "bad_json"


class BadShape(ClientError):
    """JSON, but not of the form that the protocol has for commands."""

    code = "bad_shape"


class BadPattern(ClientError):
    """A subscription pattern that is against the rules for patterns."""

    code = "bad_pattern"


class TooManySubscriptions(ClientError):
    """The connection holds as many patterns as it may."""

    code = "too_many_subscriptions"


class UnknownCommand(ClientError):
    """No such command."""

    code = "unknown_command"


class LogGap(ClientError):
    """The log no longer reaches back to where somebody wants to go on: events after that place are gone."""

    code = "resume_gap"


class ResumeInProgress(ClientError):
    """The connection is resuming already."""

    code = "resume_in_progress"


class AuthenticationError(BrokerError):
    """Credentials that can't be accepted. The message is safe to show: it never contains the token."""

    code = "invalid_token"


class MissingToken(AuthenticationError):
    """No credentials where they are needed."""

    code = "missing_token"


class InvalidToken(AuthenticationError):
    """Credentials that are malformed, forged, for somebody else, or not valid yet."""


class ExpiredToken(AuthenticationError):
    """Credentials that were good once."""

    code = "token_expired"


class InvalidSignature(AuthenticationError):
    """A signed request whose signature does not hold, is too old, or is of a kind that nobody here signs with."""

    code = "invalid_signature"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file: which key, at which line (from 1, or None), what it is, and what to do about it."""

    path: str
    message: str
    line: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        key = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{key}{self.message}{hint}"


class FaultyFile(OperatorError):
    """A file with faults, all of them at once, in the order of their lines."""

    def __init__(self, file: str, faults: Sequence[Fault]) -> None:
        self.file = file
        self.faults = sorted(faults, key=lambda fault: (fault.line or 0, fault.path))
        super().__init__("\n".join(f"{file}: {fault}" for fault in self.faults))


class Close(IntEnum):
    """WebSocket close codes (RFC 6455 section 7.4.1, and 4000 to 4999 as the application's own)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    NO_TOKEN = 4001
    INVALID_TOKEN = 4002
    TOKEN_EXPIRED = 4003
    DISCONNECTED = 4004
    TOO_SLOW = 4008
    HEARTBEAT_MISSED = 4009


# What a client should do when it sees a code; docs/protocol.md prints this table.
ADVICE: dict[Close, str] = {
    Close.NORMAL: "nothing: it was asked for",
    Close.GOING_AWAY: "reconnect after a moment; the server restarts or moves",
    Close.PROTOCOL_ERROR: "mend the client: its frames are against RFC 6455",
    Close.UNSUPPORTED_DATA: "send text frames: this path takes no binary ones",
    Close.INVALID_PAYLOAD: "mend the client: text must be UTF-8",
    Close.POLICY_VIOLATION: "send fewer commands, or open fewer connections for one user",
    Close.MESSAGE_TOO_BIG: "send smaller messages (`websocket.max_message_size`)",
    Close.INTERNAL_ERROR: "reconnect after a moment; the fault is the server's and is in its log",
    Close.NO_TOKEN: "bring a token",
    Close.INVALID_TOKEN: "bring another token; this one will never do",
    Close.TOKEN_EXPIRED: "reconnect with a fresh token",
    Close.DISCONNECTED: "do not reconnect on your own: an administrator ended the connection",
    Close.TOO_SLOW: "reconnect and resume; read faster or subscribe to less",
    Close.HEARTBEAT_MISSED: "reconnect; the network was gone for a while",
}

CLOSE_FOR_AUTHENTICATION: dict[type[AuthenticationError], Close] = {
    MissingToken: Close.NO_TOKEN,
    InvalidToken: Close.INVALID_TOKEN,
    ExpiredToken: Close.TOKEN_EXPIRED,
    InvalidSignature: Close.INVALID_TOKEN,
}
