"""The newest records in memory: in order, within their bound, and silent about what is further back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from broker.core.event import Event, Record
from broker.edge.recent import Recent

PLENTY = 1_000_000


def records(first: int, *sizes: int) -> list[Record]:
    return [Record(Event("a", b"1" * size), str(offset), offset) for offset, size in enumerate(sizes, start=first)]


def test_what_was_added_is_read() -> None:
    recent = Recent(PLENTY)
    some = records(5, 1, 1, 1)
    recent.add(some, 1)
    assert recent.read(4, 10, PLENTY) == some
    assert recent.read(5, 10, PLENTY) == some[1:]
    assert recent.read(5, 1, PLENTY) == some[1:2]


def test_what_is_further_back_is_not_here() -> None:
    recent = Recent(PLENTY)
    assert recent.read(0, 10, PLENTY) is None
    recent.add(records(5, 1, 1, 1), 1)
    assert recent.read(3, 10, PLENTY) is None


def test_the_oldest_leave_when_there_is_no_more_room() -> None:
    recent = Recent(2 * 510)
    some = records(1, 100, 100, 100)
    recent.add(some, 1)
    assert recent.read(0, 10, PLENTY) is None
    assert recent.read(1, 10, PLENTY) == some[1:]


def test_names_and_ids_take_room_too() -> None:
    recent = Recent(1500)
    some = [Record(Event("n" * 255, b"1"), "i" * 255, offset) for offset in (1, 2)]
    recent.add(some, 1)
    assert recent.read(0, 10, PLENTY) is None
    assert recent.read(1, 10, PLENTY) == some[1:]


def test_what_the_log_has_dropped_leaves() -> None:
    recent = Recent(PLENTY)
    some = records(1, 1, 1, 1)
    recent.add(some, 3)
    assert recent.read(1, 10, PLENTY) is None
    assert recent.read(2, 10, PLENTY) == some[2:]


def test_a_record_that_is_larger_than_all_room_is_not_kept() -> None:
    recent = Recent(1000)
    recent.add(records(1, 2000), 1)
    assert recent.read(0, 10, PLENTY) is None
    following = records(2, 1)
    recent.add(following, 1)
    assert recent.read(1, 10, PLENTY) == following


def test_a_record_is_known_by_its_id() -> None:
    recent = Recent(PLENTY)
    recent.add(records(5, 1), 1)
    assert [recent.has(offset, "5") for offset in (4, 5, 6)] == [False, True, False]
    assert not recent.has(5, "6")


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 40))
def test_no_more_is_read_than_was_asked_for(sizes: Sequence[int], after: int, most: int, max_bytes: int) -> None:
    recent = Recent(PLENTY)
    some = records(1, *sizes)
    recent.add(some, 1)
    expected: list[Record] = []
    for record in some[after : after + most]:
        if expected and sum(len(each.event.data) for each in [*expected, record]) > max_bytes:
            break
        expected.append(record)
    assert recent.read(after, most, max_bytes) == (expected or None)
