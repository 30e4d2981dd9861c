"""How long to wait before what has failed is tried again."""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE = 0.25  # seconds; it doubles with each failure
LONGEST_PAUSE = 10.0  # and this is how long something must have gone well for the next failure to be the first again


class Backoff:
    """Pauses that double up to a limit. Each is cut to a random share, so that a crowd does not come back at once.

    jitter: gives the share, from 0 to 1.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._pause = FIRST_PAUSE

    def next_pause(self, stood: float = 0.0) -> float:
        """Seconds to wait now, after it had gone well for so long."""
        if stood >= LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause * self._jitter()
