"""How often somebody may do something: so many times a second, and as many at once after a second of rest."""

from __future__ import annotations

import trio


class Allowance:
    """What is left of `per_second` now."""

    __slots__ = ("_at", "_left", "_per_second")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._at = trio.current_time()

    def take(self) -> bool:
        """Use one; whether there was one left."""
        now = trio.current_time()
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Let the one that was taken not count."""
        self._left += 1
