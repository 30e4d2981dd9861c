"""Values taken from an event: paths over payloads, placeholders over names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core import happening as module
from broker.core.event import Event
from broker.core.happening import Happening, PathError, Placeholder, UnreadableError, parse_path
from broker.core.payload import MISSING, read
from broker.core.scalars import comparable, index_text

UNFIT: list[Any] = [None, [], {}, float("inf"), float("nan")]


def on(data: Any, name: str = "a.b") -> Happening:
    return Happening(Event(name, json.dumps(data).encode()))


def test_the_payload_is_decoded_once_and_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counting(raw: bytes) -> Any:
        decoded.append(raw)
        return read(raw)

    monkeypatch.setattr(module, "read", counting)
    happening = on({"x": 1})
    assert happening.segments == ["a", "b"]
    assert decoded == []
    assert happening.data == happening.data == {"x": 1}
    assert len(decoded) == 1


def test_an_unreadable_payload_is_missing_and_every_path_into_it_unreadable() -> None:
    happening = Happening(Event("a", b"{"))
    assert happening.data is MISSING
    for path in ("data", "data.x", "data[]"):
        with pytest.raises(UnreadableError, match="can't be read"):
            parse_path(path).users(happening)


@pytest.mark.parametrize(
    ("path", "data", "users"),
    [
        ("data", "ann", {"ann"}),
        ("data", ["ann", "bob"], {"ann", "bob"}),
        ("data.owner", {"owner": "ann"}, {"ann"}),
        ("data.owner.id", {"owner": {"id": "ann"}}, {"ann"}),
        ("data.members", {"members": ["ann", "bob", "ann"]}, {"ann", "bob"}),
        ("data.members[]", {"members": ["ann"]}, {"ann"}),
        ("data.members", {"members": []}, set()),
        ("data.members", {"members": [["ann"], [["bob"], []]]}, {"ann", "bob"}),
        ("data.members[]._id", {"members": [{"_id": "ann"}, {"_id": "bob"}]}, {"ann", "bob"}),
        ("data.members._id", {"members": [{"_id": "ann"}, {"_id": ["bob"]}]}, {"ann", "bob"}),
        ("data.members[]._id", {"members": []}, set()),
        ("data[].id", [{"id": "ann"}], {"ann"}),
        ("data.x[][]", {"x": [["ann"], ["bob"]]}, {"ann", "bob"}),
    ],
)
def test_a_path_leads_through_objects_and_over_lists(path: str, data: Any, users: set[str]) -> None:
    assert parse_path(path).users(on(data)) == users


@pytest.mark.parametrize(
    ("path", "data", "complaint"),
    [
        ("data", None, "null"),
        ("data", 7, "a number"),
        ("data", 7.5, "a number"),
        ("data", True, "a boolean"),
        ("data", {}, "an object"),
        ("data.members", {}, "'members' is missing"),
        ("data.members", {"members": ["ann", 7]}, "a number"),
        ("data.members", {"members": ["ann", None]}, "null"),
        ("data.members", {"members": [["ann"], [False]]}, "a boolean"),
        ("data.members", "ann", "a string where an object"),
        ("data.members[]", {"members": "ann"}, "a string where `\\[\\]` expects a list"),
        ("data.members[][]", {"members": ["ann"]}, "a string where"),
        ("data.members[]._id", {"members": [{"_id": "ann"}, {}]}, "'_id' is missing"),
        ("data.members[]._id", {"members": [{"_id": "ann"}, "bob"]}, "a string where an object"),
    ],
)
def test_users_that_are_missing_or_ill_typed_are_a_fault(path: str, data: Any, complaint: str) -> None:
    with pytest.raises(UnreadableError, match=complaint):
        parse_path(path).users(on(data))


def test_a_fault_never_shows_the_data() -> None:
    with pytest.raises(UnreadableError) as caught:
        parse_path("data.members").users(on({"members": ["secret-user", {"secret": 1}]}))
    assert "secret" not in str(caught.value)


def test_lists_may_nest_deeper_than_python_calls() -> None:
    happening = on("ann")
    deep: Any = "ann"
    for _ in range(5000):
        deep = [deep]
    happening._data, happening._raw = deep, None
    assert parse_path("data").users(happening) == {"ann"}


def test_a_key_is_a_string_or_an_integer_in_decimal() -> None:
    assert parse_path("data.id").key(on({"id": "42"})) == "42"
    assert parse_path("data.id").key(on({"id": 42})) == "42"


@pytest.mark.parametrize("value", [None, True, 4.0, {}, ["42"]])
def test_anything_else_is_no_key(value: Any) -> None:
    with pytest.raises(UnreadableError):
        parse_path("data.id").key(on({"id": value}))


@pytest.mark.parametrize(
    ("path", "data", "values", "many"),
    [
        ("data.x", {"x": 1}, [1], False),
        ("data.x", {"x": [1, 2]}, [1, 2], True),
        ("data.x", {"x": []}, [], True),
        ("data.x[]", {"x": []}, [], True),
        ("data.x.y", {"x": [{"y": 1}]}, [1], True),
        ("data.x.y", {"x": {"y": 1}}, [1], False),
    ],
)
def test_values_tell_whether_the_way_led_over_a_list(path: str, data: Any, values: list[Any], many: bool) -> None:
    assert parse_path(path).values(on(data)) == (values, many)


def test_one_value_is_not_a_list_of_one() -> None:
    with pytest.raises(UnreadableError, match="a list"):
        parse_path("data").value(on(["x"]))


def test_a_placeholder_reads_the_segment_it_stands_for() -> None:
    happening = on({}, "groups.42.messages.7")
    assert Placeholder("groupId", 1).key(happening) == "42"
    assert Placeholder("messageId", -1).users(happening) == {"7"}
    assert str(Placeholder("groupId", 1)) == "<groupId>"


@pytest.mark.parametrize("text", ["", "members", "database.x", "data.", "data..x", "data.x[0]", "data.[]", "data.x[]y"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        parse_path(text)


def test_a_path_shows_as_written() -> None:
    assert str(parse_path("data.members[]._id")) == "data.members[]._id"


def test_kinds_are_told_apart_and_numbers_are_numbers() -> None:
    assert comparable(True) != comparable(1)
    assert comparable("1") != comparable(1)
    assert comparable(1) == comparable(1.0)
    assert [comparable(value) for value in UNFIT] == [None] * len(UNFIT)


def test_equal_values_have_one_text_for_the_index() -> None:
    assert index_text(1) == index_text(1.0) == index_text("1") == "1"
    assert index_text(1.5) == "1.5"
    assert index_text(True) == "true"
    assert index_text(False) == "false"
    assert [index_text(value) for value in UNFIT] == [None] * len(UNFIT)
