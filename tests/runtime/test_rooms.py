"""Rooms: who is in which, held against a slow model, and nothing left of who has gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.runtime.rooms import MAX_ROOM_BYTES, MAX_ROOMS, BadRoom, Rooms


def test_who_joins_is_there_and_who_leaves_is_not() -> None:
    rooms: Rooms[str] = Rooms()
    rooms.join("ada", "tea")
    rooms.join("bob", "tea")
    rooms.leave("ada", "tea")
    assert (list(rooms.members("tea")), list(rooms.of("ada")), list(rooms.of("bob"))) == (["bob"], [], ["tea"])


def test_joining_twice_is_joining_once() -> None:
    rooms: Rooms[str] = Rooms()
    rooms.join("ada", "tea")
    rooms.join("ada", "tea")
    rooms.leave("ada", "tea")
    assert len(rooms) == 0


def test_leaving_where_one_is_not_is_no_error() -> None:
    rooms: Rooms[str] = Rooms()
    rooms.join("ada", "tea")
    rooms.leave("ada", "cake")
    rooms.leave("bob", "tea")
    rooms.leave_all("carol")
    assert list(rooms.members("tea")) == ["ada"]


def test_rooms_are_told_in_the_order_of_joining() -> None:
    rooms: Rooms[str] = Rooms()
    for room in ("c", "a", "b"):
        rooms.join("ada", room)
    assert list(rooms.of("ada")) == ["c", "a", "b"]


def test_who_is_in_several_rooms_is_found_once() -> None:
    rooms: Rooms[str] = Rooms()
    for member, room in (("ada", "tea"), ("ada", "cake"), ("bob", "cake"), ("carol", "pie")):
        rooms.join(member, room)
    assert list(rooms.members_of(["tea", "cake", "nowhere"])) == ["ada", "bob"]


@pytest.mark.parametrize("room", ["", "x" * (MAX_ROOM_BYTES + 1), "ö" * 128, 1, None])
def test_what_no_room_can_be_called_is_refused(room: str) -> None:
    rooms: Rooms[str] = Rooms()
    with pytest.raises(BadRoom, match="1 to 255 bytes"):
        rooms.join("ada", room)
    assert len(rooms) == 0
    assert list(rooms.of("ada")) == []


@pytest.mark.parametrize("room", ["x", "x" * MAX_ROOM_BYTES, "ö" * 127, "a room, with *", "\ud800"])
def test_anything_else_is_a_name(room: str) -> None:
    rooms: Rooms[str] = Rooms()
    rooms.join("ada", room)
    assert list(rooms.members(room)) == ["ada"]


def test_one_room_too_many_is_refused_and_the_others_stay() -> None:
    rooms: Rooms[str] = Rooms()
    for number in range(MAX_ROOMS):
        rooms.join("ada", str(number))
    with pytest.raises(BadRoom, match="1000 rooms"):
        rooms.join("ada", "one more")
    rooms.join("ada", "0")
    assert len(rooms.of("ada")) == MAX_ROOMS
    assert len(rooms) == MAX_ROOMS


Step = tuple[str, str, str]
steps = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "leave_all"]), st.sampled_from("abc"), st.sampled_from("xyz"))
)


@given(steps)
def test_they_are_pairs_and_nothing_else(steps: list[Step]) -> None:
    rooms: Rooms[str] = Rooms()
    pairs: set[tuple[str, str]] = set()
    for action, member, room in steps:
        if action == "join":
            rooms.join(member, room)
            pairs.add((member, room))
        elif action == "leave":
            rooms.leave(member, room)
            pairs.discard((member, room))
        else:
            rooms.leave_all(member)
            pairs = {pair for pair in pairs if pair[0] != member}
        assert {(each, name) for each in "abc" for name in rooms.of(each)} == pairs
        assert {(each, name) for name in "xyz" for each in rooms.members(name)} == pairs
        assert len(rooms) == len({name for _, name in pairs})
    for member in "abc":
        rooms.leave_all(member)
    assert vars(rooms) == vars(Rooms())
