"""Pauses before another try: they double, end somewhere, and begin anew after a good time."""

from __future__ import annotations

from itertools import chain, repeat

from broker.core.backoff import LONGEST_PAUSE, Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_pause() for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE]


def test_after_it_has_gone_well_for_long_enough_pauses_begin_anew() -> None:
    backoff = Backoff(lambda: 1.0)
    stood = chain([0.0, 0.0, LONGEST_PAUSE - 0.1, LONGEST_PAUSE], repeat(0.0))
    assert [backoff.next_pause(next(stood)) for _ in range(5)] == [0.25, 0.5, 1, 0.25, 0.5]


def test_a_pause_is_cut_to_the_share_that_the_jitter_gives() -> None:
    shares = iter([0.5, 0.0, 1.0])
    backoff = Backoff(lambda: next(shares))
    assert [backoff.next_pause() for _ in range(3)] == [0.125, 0, 1]
