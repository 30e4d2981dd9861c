"""How often somebody may do something."""

from __future__ import annotations

from trio.testing import MockClock

from broker.runtime.allowance import Allowance


async def test_as_many_at_once_as_in_a_second_and_no_more(mock_clock: MockClock) -> None:
    allowance = Allowance(3)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]


async def test_they_grow_again_with_the_time(mock_clock: MockClock) -> None:
    allowance = Allowance(2)
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    mock_clock.jump(0.5)
    assert [allowance.take() for _ in range(2)] == [True, False]
    mock_clock.jump(0.25)
    assert not allowance.take()
    mock_clock.jump(0.25)
    assert allowance.take()


async def test_who_rests_for_long_has_no_more_for_it(mock_clock: MockClock) -> None:
    allowance = Allowance(2)
    mock_clock.jump(3600)
    assert [allowance.take() for _ in range(3)] == [True, True, False]


async def test_what_is_given_back_was_not_taken(mock_clock: MockClock) -> None:
    allowance = Allowance(1)
    for _ in range(10):
        assert allowance.take()
        allowance.give_back()
    assert allowance.take()
    assert not allowance.take()
