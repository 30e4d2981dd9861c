"""What to do about a connection that failed or ended: whether to try again, and how long to wait before."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from broker.client.errors import CommandFailed, Disconnected, NotConnected, Refused, TokenUnavailable
from broker.core.backoff import Backoff
from broker.core.errors import Close

# Sending the same again would end in the same way; or, with 1000, was not wanted.
_FATAL = frozenset(
    (
        Close.NORMAL,
        Close.PROTOCOL_ERROR,
        Close.UNSUPPORTED_DATA,
        Close.INVALID_PAYLOAD,
        Close.POLICY_VIOLATION,
        Close.MESSAGE_TOO_BIG,
        Close.NO_TOKEN,
        Close.INVALID_TOKEN,
        Close.DISCONNECTED,
    )
)
_PASSING = frozenset((408, 429))  # HTTP statuses below 500 that say: not now


class Verdict(Enum):
    """Whether to connect again."""

    AGAIN = "after a pause"
    AT_ONCE = "with a fresh token"
    NEVER = "never"


def judge(error: Exception, *, renewable: bool) -> Verdict:
    """What to do after a connection that `error` has ended or prevented.

    renewable: whether a fresh token can be had.
    """
    if isinstance(error, Disconnected):
        if error.code == Close.TOKEN_EXPIRED:
            return Verdict.AT_ONCE if renewable else Verdict.NEVER
        return Verdict.NEVER if error.code in _FATAL else Verdict.AGAIN
    if isinstance(error, Refused):
        return Verdict.AGAIN if may_pass(error.status) else Verdict.NEVER
    if isinstance(error, CommandFailed):  # of `resume`: a log that can't be read may be readable soon
        return Verdict.AGAIN if error.code == "log_unavailable" else Verdict.NEVER
    return Verdict.AGAIN if isinstance(error, NotConnected | TokenUnavailable) else Verdict.NEVER


def may_pass(status: int) -> bool:
    """Whether the same request may fare better after a while."""
    return status >= 500 or status in _PASSING


def new_backoff(jitter: Callable[[], float] = random.random) -> Backoff:
    """Pauses for one connection or request. jitter: see `Backoff`."""
    return Backoff(jitter)
