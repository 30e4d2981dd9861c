"""When to tell of what may happen again and again, perhaps for days."""

from __future__ import annotations


def is_telling(times: int) -> bool:
    """Whether it is the 1st, 10th, 100th … time."""
    return str(times).rstrip("0") == "1"
