"""What to do about a connection that failed or ended: whether to try again, and how long to wait before."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from broker.client.errors import CommandFailed, Disconnected, NotConnected, Refused, TokenUnavailable
from broker.core.errors import Close

FIRST_PAUSE = 0.25  # seconds; it doubles with each failure
LONGEST_PAUSE = 10.0  # and this is how long a connection must have stood for it to be the first again

# Sending the same again would end in the same way.
_FATAL = frozenset(
    (
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


class Backoff:
    """Pauses that double up to a limit. Each is cut to a random share, so that a crowd does not come back at once.

    jitter: gives the share, from 0 to 1.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._pause = FIRST_PAUSE

    def next_pause(self, stood: float = 0.0) -> float:
        """Seconds to wait now, after a connection that stood for so long."""
        if stood >= LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause * self._jitter()
