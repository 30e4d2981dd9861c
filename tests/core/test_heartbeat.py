"""Signs of life: when to ping, and when to give up."""

from __future__ import annotations

import pytest

from broker.core.heartbeat import Beat, Heartbeat


@pytest.mark.parametrize(
    ("now", "pinged_at", "beat"),
    [
        (29.9, None, Beat.NOTHING),
        (30, None, Beat.PING),
        (300, None, Beat.PING),
        (39.9, 30, Beat.NOTHING),
        (40, 30, Beat.END),
    ],
)
def test_a_silent_client_is_pinged_and_then_ended(now: float, pinged_at: float | None, beat: Beat) -> None:
    assert Heartbeat(30, 10).decide(now, 0, pinged_at) is beat


def test_without_an_interval_nobody_is_pinged() -> None:
    assert Heartbeat(0, 10).decide(1e9, 0, None) is Beat.NOTHING


def test_without_an_interval_a_ping_of_somebody_else_s_wants_an_answer() -> None:
    assert Heartbeat(0, 10).decide(10, 0, 0) is Beat.END


def test_without_a_timeout_nobody_is_ended() -> None:
    assert Heartbeat(0, 0).decide(1e9, 0, 0) is Beat.NOTHING
