"""What happens again and again is told of at the 1st, 10th, 100th … time."""

from __future__ import annotations

from broker.core.telling import is_telling


def test_it_is_told_at_the_powers_of_ten() -> None:
    assert [times for times in range(1, 100_001) if is_telling(times)] == [1, 10, 100, 1000, 10_000, 100_000]
