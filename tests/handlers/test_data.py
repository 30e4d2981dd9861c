"""The data of messages as types: what is read, what is refused and in which words, and nothing converted silently."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Generic, Literal, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.handlers.data import plain, reader
from broker.handlers.errors import BadData, BadHandler

T = TypeVar("T")


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@dataclass
class Line:
    begin: Point
    ends: list[Point]
    label: str | None = None


@dataclass
class Tree:
    value: int
    kids: list[Tree] = field(default_factory=list)


class Noted(TypedDict):
    text: str


class Note(Noted, total=False):
    stars: int


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1


class Word(str, Enum):  # noqa: UP042
    YES = "yes"


@dataclass
class Circle:
    kind: Literal["circle"]
    radius: float


@dataclass
class Square:
    kind: Literal["square"]
    side: float


@dataclass
class Same:
    x: int
    y: float = 0.0


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Bill:
    number: UUID
    due: date
    amount: Decimal
    paid: datetime | None = None


class Visit(TypedDict):
    when: datetime


@dataclass
class Timed:
    at: time


@dataclass
class Unclear:
    when: datetime | str


@dataclass
class Raw:
    data: bytes


@dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number <= 0:
            raise ValueError("number must be positive")


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x


Age = NewType("Age", int)
Key = NewType("Key", UUID)

NUMBER = "0b5c1f6e-7d4d-4c53-9d4b-2f2a5d6c7e8f"
NOON = datetime(2024, 5, 1, 12)

GOOD: list[tuple[Any, Any, Any]] = [
    (int, 1, 1),
    (float, 1, 1.0),
    (str, "a", "a"),
    (bool, True, True),
    (Any, [1, "a"], [1, "a"]),
    (object, None, None),
    (Age, 7, 7),
    (Point, {"x": 1}, Point(1)),
    (Line, {"begin": {"x": 1}, "ends": [{"x": 2, "y": 3}]}, Line(Point(1), [Point(2, 3.0)])),
    (Tree, {"value": 1, "kids": [{"value": 2}]}, Tree(1, [Tree(2)])),
    (Note, {"text": "a"}, {"text": "a"}),
    (Note, {"text": "a", "stars": 1}, {"text": "a", "stars": 1}),
    (Color, "red", Color.RED),
    (Size, 1, Size.SMALL),
    (Word, "yes", Word.YES),
    (Literal["a", 1], 1, 1),
    (Box[int], {"content": 1}, Box(1)),
    (list[int], [1, 2], [1, 2]),
    (list, [1, "a"], [1, "a"]),
    (dict, {"a": 1}, {"a": 1}),
    (set[int], [1, 2, 1], {1, 2}),
    (tuple[int, str], [1, "a"], (1, "a")),
    (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
    (Mapping[str, int], {"a": 1}, {"a": 1}),
    (OrderedDict[str, int], {"a": 1}, OrderedDict(a=1)),
    (dict[Color, int], {"red": 1}, {Color.RED: 1}),
    (int | None, None, None),
    (float | None, 1, 1.0),
    (int | str, "1", "1"),
    (int | float, 1, 1),
    (Point | None, {"x": 1}, Point(1)),
    (Color | int, "red", Color.RED),
    (Literal["all"] | int, 3, 3),
    (Circle | Square, {"kind": "square", "side": 1}, Square("square", 1.0)),
    (Circle | Square | None, {"kind": "circle", "radius": 1}, Circle("circle", 1.0)),
    (list[Point] | Point, [{"x": 1}], [Point(1)]),
    (list[Point] | Point, {"x": 1}, Point(1)),
    (dict[str, int] | str, {"a": 1}, {"a": 1}),
    (datetime, "2024-05-01T12:00:00", NOON),
    (datetime, "2024-05-01T12:00:00Z", NOON.replace(tzinfo=UTC)),
    (datetime, "2024-05-01T12:00:00+02:00", NOON.replace(tzinfo=timezone(timedelta(hours=2)))),
    (date, "2024-05-01", date(2024, 5, 1)),
    (UUID, NUMBER, UUID(NUMBER)),
    (UUID, NUMBER.upper(), UUID(NUMBER)),
    (UUID, UUID(NUMBER).hex, UUID(NUMBER)),
    (Key, NUMBER, UUID(NUMBER)),
    (Decimal, "-1.50", Decimal("-1.50")),
    (Decimal, "1e-7", Decimal("1e-7")),
    (UUID | None, None, None),
    (UUID | None, NUMBER, UUID(NUMBER)),
    (Decimal | float, "1.5", Decimal("1.5")),
    (Decimal | float, 1.5, 1.5),
    (Literal["now"] | datetime, "now", "now"),
    (Literal["now"] | datetime, "2024-05-01T12:00:00", NOON),
    (Visit, {"when": "2024-05-01T12:00:00"}, {"when": NOON}),
    (list[datetime], ["2024-05-01T12:00:00"], [NOON]),
    (dict[date, int], {"2024-05-01": 1}, {date(2024, 5, 1): 1}),
    (
        Bill,
        {"number": NUMBER, "due": "2024-05-01", "amount": "9.90", "paid": "2024-05-01T12:00:00"},
        Bill(UUID(NUMBER), date(2024, 5, 1), Decimal("9.90"), NOON),
    ),
]


@pytest.mark.parametrize(("kind", "said", "meant"), GOOD, ids=str)
def test_what_fits_is_read(kind: Any, said: Any, meant: Any) -> None:
    found = reader(kind, "here")(said)
    assert (found, type(found)) == (meant, type(meant))


BAD: list[tuple[Any, Any, str]] = [
    (int, "1", "data: an integer is expected, not a text"),
    (int, True, "data: an integer is expected, not true or false"),
    (int, 1.0, "data: an integer is expected, not a number"),
    (str, 1, "data: a text is expected, not an integer"),
    (bool, 1, "data: true or false is expected, not an integer"),
    (float, "1", "data: a number is expected, not a text"),
    (float, True, "data: a number is expected, not true or false"),
    (int, None, "data: an integer is expected, not null"),
    (list[int], "12", "data: a list is expected, not a text"),
    (list[str], "ab", "data: a list is expected, not a text"),
    (list[int], {}, "data: a list is expected, not an object"),
    (list[int], [1, "2"], "data[1]: an integer is expected, not a text"),
    (set[str], "ab", "data: a list is expected, not a text"),
    (dict[str, int], [], "data: an object is expected, not a list"),
    (dict[str, int], {"a": "1"}, "data['a']: an integer is expected, not a text"),
    (Point, [1, 2], "data: an object is expected, not a list"),
    (Point, {}, "data.x: required field missing"),
    (Point, {"x": 1, "z": 1, "a": 1}, "data: unknown fields: a, z"),
    (Point, {"x": "1"}, "data.x: an integer is expected, not a text"),
    (Line, {"begin": {"x": 1}, "ends": [{"x": None}]}, "data.ends[0].x: an integer is expected, not null"),
    (Line, {"begin": 1, "ends": 2}, "data.begin: an object is expected, not an integer; data.ends: a list is"),
    (Tree, {"value": 1, "kids": [{"value": "x"}]}, "data.kids[0].value: an integer is expected, not a text"),
    (Note, {"text": 1}, "text: a text is expected, not an integer"),
    (Note, {"stars": 1}, "required field missing"),
    (Note, {"text": "a", "more": 1}, "data: unknown fields: more"),
    (Color, "green", "data: one of 'red', 'blue' is expected"),
    (Color, ["red"], "data: one of 'red', 'blue' is expected"),
    (Size, True, "data: one of 1 is expected"),
    (Word, "no", "data: one of 'yes' is expected"),
    (Literal["a", 1], True, "data: one of 'a', 1 is expected"),
    (Literal["a"], {}, "data: one of 'a' is expected"),
    (int | None, "1", "data: an integer or null is expected"),
    (int | str, True, "data: an integer or a text is expected"),
    (int | float, True, "data: an integer or a number is expected"),
    (Literal["all"] | int, "none", "data: one of 'all' or an integer is expected"),
    (Point | None, {"x": "1"}, "data.x: an integer is expected, not a text"),
    (Circle | Square, {"kind": "line"}, "data: an object is expected"),
    (list[Point] | Point, [{"x": "1"}], "data[0].x: an integer is expected, not a text"),
    (tuple[int, str], [1], "data: Not enough values"),
    (Positive, {"number": 0}, "data: number must be positive"),
    (float, json.loads("1e999"), "data: a finite number is expected"),
    (float, json.loads("-1e999"), "data: a finite number is expected"),
    (float, float("nan"), "data: a finite number is expected"),
    (float, 10**400, "data: a finite number is expected"),
    (float | None, json.loads("1e999"), "data: a number or null is expected"),
    (Point, {"x": 1, "y": json.loads("1e999")}, "data.y: a finite number is expected"),
    (datetime, 1714564800, "data: a date and time is expected, not an integer"),
    (datetime, "yesterday", "data: a date and time is expected"),
    (datetime, "2024-13-01", "data: a date and time is expected"),
    (datetime, "\ud800", "data: a date and time is expected"),
    (Visit, {"when": "2024-13-01"}, "when: a date and time is expected"),
    (list[datetime], ["2024-05-01T12:00:00", None], "data[1]: a date and time is expected, not null"),
    (datetime | None, "2024-13-01", "data: a date and time or null is expected"),
    (date, "2024-02-30", "data: a date is expected"),
    (date, "2024-05-01T12:00:00", "data: a date is expected"),
    (dict[date, int], {"first of May": 1}, "a date is expected"),
    (UUID, 1, "data: a UUID is expected, not an integer"),
    (UUID, NUMBER[1:], "data: a UUID is expected"),
    (UUID, NUMBER.replace("-", "", 1), "data: a UUID is expected"),
    (UUID, f"{{{NUMBER}}}", "data: a UUID is expected"),
    (Decimal, 1.5, "data: a decimal number in a text is expected, not a number"),
    (Decimal, "NaN", "data: a decimal number in a text is expected"),
    (Decimal, "-Infinity", "data: a decimal number in a text is expected"),
    (Decimal, " 1", "data: a decimal number in a text is expected"),
    (Decimal, "1_000", "data: a decimal number in a text is expected"),
    (Decimal, "1e99999", "data: a decimal number in a text is expected"),
    (Decimal, "1\n", "data: a decimal number in a text is expected"),
    (
        Bill,
        {"number": "1", "due": "May", "amount": 1, "paid": "soon"},
        "data.number: a UUID is expected; data.due: a date is expected; data.amount: a decimal number in a text is "
        "expected, not an integer; data.paid: a date and time or null is expected",
    ),
]


@pytest.mark.parametrize(("kind", "said", "complaint"), BAD, ids=str)
def test_what_does_not_fit_is_refused_with_its_place(kind: Any, said: Any, complaint: str) -> None:
    with pytest.raises(BadData) as refused:
        reader(kind, "here")(said)
    assert complaint in str(refused.value)


IMPOSSIBLE: list[tuple[Any, str]] = [
    (time, "time"),
    (timedelta, "timedelta"),
    (bytes, "bytes"),
    (Path, "Path"),
    (complex, "complex"),
    (Plain, "Plain"),
    (Timed, "time"),
    (Raw, "bytes"),
    (list[time], "time"),
    (dict[str, bytes], "bytes"),
    (time | None, "time"),
    (str | datetime, "told apart"),
    (date | datetime | None, "told apart"),
    (str | Key, "told apart"),
    (Unclear, "told apart"),
    (Point | Same, "Could not disambiguate"),
    (list[int] | set[int], "set"),
    (dict[str, int] | Point, "dict"),
    (T, "T"),
    (type(None), "NoneType"),
]


@pytest.mark.parametrize(("kind", "what"), IMPOSSIBLE, ids=str)
def test_what_no_json_becomes_is_refused_when_it_is_registered(kind: Any, what: str) -> None:
    with pytest.raises(BadHandler, match="here: data can't be") as refused:
        reader(kind, "here")
    assert what in str(refused.value)


def test_what_is_registered_later_changes_no_complaint() -> None:
    for kind in (dict[str, float], dict[str, bool]):
        reader(kind, "here")
    with pytest.raises(BadData, match="data: an object is expected, not a list"):
        reader(dict[str, float], "here")([])


def test_only_so_many_faults_are_told() -> None:
    with pytest.raises(BadData) as refused:
        reader(list[int], "here")(["x"] * 100)
    assert str(refused.value).count("data[") == 10
    assert str(refused.value).endswith("; …")


def test_what_the_client_has_sent_is_not_sent_back_at_length() -> None:
    with pytest.raises(BadData) as refused:
        reader(tuple[int, int], "here")(["x" * 10_000])
    assert len(str(refused.value)) < 1000


def test_what_is_nested_too_deep_is_a_fault_like_any_other() -> None:
    value: dict[str, Any] = {"value": 1}
    for _ in range(400):
        value = {"value": 1, "kids": [value]}
    with pytest.raises(BadData):
        reader(Tree, "here")(value)


Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "red", "2024-05-01", NUMBER]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "y", "kind", "value", "kids", "text"]), inner, max_size=3)
    ),
)


@given(st.sampled_from([kind for kind, _, _ in GOOD]), Json)
def test_whatever_comes_is_read_or_refused(kind: Any, said: Any) -> None:
    try:
        found = reader(kind, "here")(said)
    except BadData:
        return
    json.dumps(plain(found))


# --- And back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, None),
        (b"bytes", b"bytes"),
        ("text", "text"),
        (Point(1), {"x": 1, "y": 0.0}),
        (Line(Point(1), [Point(2)]), {"begin": {"x": 1, "y": 0.0}, "ends": [{"x": 2, "y": 0.0}], "label": None}),
        ([Color.RED, Size.SMALL], ["red", 1]),
        ({"a": Point(1)}, {"a": {"x": 1, "y": 0.0}}),
        (frozenset(["a"]), ["a"]),
        (NOON, "2024-05-01T12:00:00"),
        (NOON.replace(tzinfo=UTC), "2024-05-01T12:00:00+00:00"),
        (date(2024, 5, 1), "2024-05-01"),
        (UUID(NUMBER), NUMBER),
        (Decimal("9.90"), "9.90"),
        ([NOON, {"when": NOON}], ["2024-05-01T12:00:00", {"when": "2024-05-01T12:00:00"}]),
        ({date(2024, 5, 1): Decimal(1)}, {"2024-05-01": "1"}),
        (Box(NOON), {"content": "2024-05-01T12:00:00"}),
        (
            Bill(UUID(NUMBER), NOON, Decimal("9.90"), NOON),
            {"number": NUMBER, "due": "2024-05-01T12:00:00", "amount": "9.90", "paid": "2024-05-01T12:00:00"},
        ),
    ],
    ids=str,
)
def test_types_are_said_in_json(value: Any, said: Any) -> None:
    assert plain(value) == said


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_a_number_that_nobody_could_read_is_not_sent(number: str) -> None:
    with pytest.raises(ValueError, match="is no finite number"):
        plain(Decimal(number))


@given(
    st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates() | st.uuids() | st.decimals(-(10**9), 10**9),
)
def test_what_has_gone_out_as_a_text_comes_back(value: Any) -> None:
    found = reader(type(value), "here")(plain(value))
    assert (type(found), str(found)) == (type(value), str(value))
