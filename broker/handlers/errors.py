"""What can go wrong between a client's message and the application, and what the client is told of it."""

from __future__ import annotations

from broker.core.errors import BrokerError, ClientError, Close, OperatorError


class BadHandler(OperatorError):
    """A handler, channel or hook that can't be registered, with what is wrong and what would be right."""


class BadData(ClientError):
    """The data of a command is not of the type that its handler declares."""

    code = "bad_data"


class TooManyWaiting(ClientError):
    """More commands of one connection wait for their handlers than may."""

    code = "too_many_waiting"


class NotAuthorized(ClientError):
    """The channel's `authorize` said no, or the connection is not on the channel."""

    code = "not_authorized"


class HandlerFailed(BrokerError):
    """A handler raised; the text is that of its exception."""

    code = "handler_failed"


class HandlerTimedOut(BrokerError):
    """A handler took longer than it may."""

    code = "handler_timed_out"


class Refused(Exception):
    """Who asks does not get in: the connection is closed with this code (4000 to 4999) and reason.

    Raises ValueError for another code.
    """

    def __init__(self, code: int = Close.INVALID_TOKEN, reason: str = "") -> None:
        if not 4000 <= code <= 4999:
            raise ValueError(f"{code}: a refusal has a code from 4000 to 4999")
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
