"""Those who have left: remembered for as long as the log holds events of the time that they were members."""

from __future__ import annotations

from broker.core.leavers import Leavers, Place, Stay

ANN, BOB, CID = [("group", "1", user) for user in ("ann", "bob", "cid")]


def leavers(*stays: tuple[Place, int, int]) -> Leavers:
    made = Leavers({})
    for place, since, until in stays:
        made.add(place, Stay(since, until))
    return made


def were(made: Leavers, place: Place, offsets: int = 10) -> list[int]:
    """The events during which somebody may have been a member."""
    return [offset for offset in range(offsets) if made.perhaps(place, offset)]


def test_a_stay_includes_its_first_and_its_last_event() -> None:
    assert were(leavers((ANN, 3, 5)), ANN) == [3, 4, 5]


def test_two_stays_are_remembered_as_one() -> None:
    assert were(leavers((ANN, 1, 2), (ANN, 5, 6)), ANN) == [1, 2, 3, 4, 5, 6]


def test_forgetting_goes_by_the_end_of_the_last_stay() -> None:
    made = leavers((ANN, 1, 2), (BOB, 1, 3), (ANN, 4, 5))
    assert made.forget(5)
    assert len(made) == 1
    assert made.changed() == {ANN: Stay(1, 5), BOB: None, ("", "", ""): Stay(0, 3)}


def test_a_stay_that_ends_with_the_first_event_of_the_log_is_not_forgotten() -> None:
    made = leavers((ANN, 1, 5))
    assert not made.forget(5)
    assert were(made, ANN) == [1, 2, 3, 4, 5]


def test_when_something_was_forgotten_anybody_may_have_been_a_member_of_anything_up_to_there() -> None:
    made = leavers((ANN, 4, 5), (BOB, 2, 9))
    made.forget(6)
    assert were(made, ANN) == were(made, ("other", "x", "")) == [0, 1, 2, 3, 4, 5]
    assert were(made, BOB) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_what_was_forgotten_stays_so_when_the_rest_is_restored() -> None:
    made = leavers((ANN, 1, 2), (BOB, 4, 6))
    made.forget(3)
    restored = Leavers(made.changed())
    assert [were(restored, place) for place in (ANN, BOB, CID)] == [[0, 1, 2], [0, 1, 2, 4, 5, 6], [0, 1, 2]]
    assert len(restored) == 1


def test_what_is_restored_is_forgotten_in_the_order_in_which_they_left() -> None:
    restored = Leavers({ANN: Stay(1, 9), BOB: Stay(3, 4), CID: None})
    assert restored.forget(9)
    assert len(restored) == 1


def test_to_forget_again_is_nothing_new() -> None:
    made = leavers((ANN, 1, 2))
    assert made.forget(3)
    made.changed()
    assert not made.forget(9)
    assert made.changed() == {}
