"""Ids and positions: read back by who has the key, noise to everybody else, and never true of what was lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.event import Event
from broker.edge.positions import KEY_BYTES, Opening, Place, Positions, opening

KEY = bytes(range(KEY_BYTES))
OFFSETS = st.integers(0, 2**62)


def positions(*begins: int) -> Positions:
    return Positions(KEY, [Opening(number, begin) for number, begin in enumerate(begins, start=7)])


@given(OFFSETS)
def test_an_id_and_a_position_are_read_back(offset: int) -> None:
    given_here = positions(0)
    (its_id,) = given_here.ids([offset])
    assert given_here.read(its_id) == Place(offset, is_event=True)
    assert given_here.read(given_here.position(offset)) == Place(offset, is_event=False)


def test_an_event_has_the_same_id_for_ever() -> None:
    assert positions(1).ids([1, 2, 3]) == positions(1).ids([1, 2, 3])


def test_an_event_keeps_its_id_when_the_log_is_opened_again() -> None:
    assert positions(1, 4).ids([1, 2, 3]) == positions(1).ids([1, 2, 3])


def test_a_position_is_another_one_each_time() -> None:
    here = positions(1)
    assert len({here.position(5) for _ in range(100)}) == 100


def test_neighbours_have_nothing_in_common() -> None:
    ids = positions(1).ids(range(1, 1001))
    assert len({each[:6] for each in ids}) > 990
    assert len({each[-6:] for each in ids}) > 990


def test_ids_are_those_of_a_publisher_where_there_are_some() -> None:
    here = positions(1)
    events = [(1, Event("a", b"1")), (2, Event("b", b"2", id="own"))]
    assert [(record.id, record.offset) for record in here.records(events)] == [(*here.ids([1]), 1), ("own", 2)]


def test_what_was_named_before_the_log_was_opened_again_counts_on() -> None:
    before, after = positions(1), positions(1, 4)
    assert after.read(before.position(3)) == Place(3, is_event=False)
    assert after.read(before.ids([3])[0]) == Place(3, is_event=True)


def test_what_was_named_of_a_lost_end_does_not_count() -> None:
    before, after = positions(1), positions(1, 4)
    assert after.read(before.position(4)) is None
    assert after.read(before.ids([4])[0]) is None


def test_an_offset_that_is_used_again_has_another_id() -> None:
    assert positions(1).ids([4]) != positions(1, 4).ids([4])


def test_a_position_of_an_opening_that_nobody_remembers_does_not_count() -> None:
    forgotten = Positions(KEY, [Opening(99, 1)])
    assert positions(1, 4).read(forgotten.position(2)) is None


def test_each_opening_has_a_number_of_its_own() -> None:
    assert len({opening(1).number for _ in range(100)}) == 100


def test_only_who_has_the_key_reads_a_position() -> None:
    other = Positions(bytes(KEY_BYTES), [Opening(7, 1)])
    assert other.read(positions(1).position(1)) is None


def test_a_position_counts_only_as_it_was_written() -> None:
    here = positions(1)
    text = next(text for text in iter(lambda: here.position(1), "") if text.upper() != text)
    for changed in (text.upper(), f" {text}", f"{text[:-2]}  ", text + "00", text[:-2]):
        assert here.read(changed) is None


@given(st.text())
def test_other_texts_are_no_positions(text: str) -> None:
    assert positions(1).read(text) is None


@given(st.binary(min_size=16, max_size=16))
def test_other_blocks_are_no_positions(block: bytes) -> None:
    assert Positions(KEY, [Opening(1, 1)]).read(block.hex()) is None
