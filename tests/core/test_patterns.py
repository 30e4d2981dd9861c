"""Patterns: how they are written and what they match. The table is the one in the documentation."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import BadPattern
from broker.core.event import check_name
from broker.core.patterns import matches, parse_pattern

NAMES = [
    "message",
    "messages",
    "message.created",
    "message.created.error",
    "message.created.error.fatal",
    "game",
    "game.created",
    "game.created.message",
    "games.1.created",
    "created",
    "1",
]

# Each pattern with those of the names above that it matches: all of them, and no other.
TABLE: dict[str, set[str]] = {
    "message": {"message"},
    "message.created": {"message.created"},
    "message.*": {"message.created"},
    "*.created": {"message.created", "game.created"},
    "message.**": {"message.created", "message.created.error", "message.created.error.fatal"},
    "**": set(NAMES),
    "*": {"message", "messages", "game", "created", "1"},
    "*.*": {"message.created", "game.created"},
    "games.*.created": {"games.1.created"},
    "games.**": {"games.1.created"},
    "*.*.created": {"games.1.created"},
    "**.created": {"message.created", "game.created", "games.1.created"},
    "**.*": {name for name in NAMES if "." in name},
    "*.**": {name for name in NAMES if "." in name},
    "**.**": {name for name in NAMES if "." in name},
    "**.created.**": {"message.created.error", "message.created.error.fatal", "game.created.message"},
    "message.**.error": {"message.created.error"},
    "message.*.error": {"message.created.error"},
    "message.**.**": {"message.created.error", "message.created.error.fatal"},
    "Message": set(),
    "message.*.*.*.*": set(),
}

segments = st.sampled_from(["a", "b", "c", "é", "broker"])
names = st.lists(segments, min_size=1, max_size=6).map(".".join)
patterns = st.lists(segments | st.sampled_from(["*", "**"]), min_size=1, max_size=6).map(".".join)


def oracle(pattern: str, name: str) -> bool:
    """What a pattern means, said as a regular expression."""
    if name.startswith("broker."):
        return pattern == name
    said = {"*": r"[^.]+", "**": r"[^.]+(?:\.[^.]+)*"}
    expression = r"\.".join(said.get(segment, re.escape(segment)) for segment in pattern.split("."))
    return re.fullmatch(expression, name) is not None


@pytest.mark.parametrize(("pattern", "name"), [(pattern, name) for pattern in TABLE for name in NAMES])
def test_the_table_says_what_matches(pattern: str, name: str) -> None:
    assert matches(pattern, name) == (name in TABLE[pattern])


@given(patterns, names)
def test_a_pattern_means_the_same_as_its_regular_expression(pattern: str, name: str) -> None:
    assert matches(pattern, name) == oracle(pattern, name)


@given(names)
def test_a_name_without_wildcards_matches_itself(name: str) -> None:
    assert matches(name, name)


@pytest.mark.parametrize("pattern", ["**", "*.*", "broker.*", "broker.**", "*.stopped", "**.stopped"])
def test_no_wildcard_matches_a_name_of_the_brokers_own(pattern: str) -> None:
    assert not matches(pattern, "broker.stopped")


def test_the_very_name_matches_a_name_of_the_brokers_own() -> None:
    assert matches("broker.stopped", "broker.stopped")


@pytest.mark.parametrize("name", ["broker", "a.broker.b", "brokers.x"])
def test_wildcards_match_names_that_only_resemble_the_brokers_own(name: str) -> None:
    assert matches("**", name)


@pytest.mark.parametrize("pattern", [*TABLE, "broker.stopped", "broker.*", "größe.*", "a" * 255])
def test_these_are_patterns(pattern: str) -> None:
    assert parse_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the name is empty"),
        ("a..b", "segment 2 of 'a..b' is empty"),
        (".**", "segment 1"),
        ("**.", "segment 2"),
        ("a*", "stand for whole segments"),
        ("a.*b", "stand for whole segments"),
        ("a.***", "stand for whole segments"),
        ("a b", "white space"),
        ("{a,b}", "only * and ** are special in a subscription"),
        ("message.{created,deleted}", "only * and ** are special in a subscription"),
        ("games.<gameId>.created", "only * and ** are special in a subscription"),
        ("a,b", "only * and ** are special in a subscription"),
        ("a" * 256, "at most 255 bytes"),
        ("é" * 128, "at most 255 bytes"),
        ("\ud800", "valid Unicode"),
        (None, "not null"),
        (True, "not a boolean"),
        (1, "not a number"),
        (1.5, "not a number"),
        (["a"], "not a list"),
        ({"a": 1}, "not an object"),
        (b"a", "not bytes"),
    ],
)
def test_these_are_no_patterns_and_the_refusal_says_why(text: object, complaint: str) -> None:
    with pytest.raises(BadPattern, match=re.escape(complaint)):
        parse_pattern(text)


@given(patterns)
def test_every_list_of_segments_and_wildcards_is_a_pattern(pattern: str) -> None:
    assert parse_pattern(pattern) == pattern


@given(st.text(alphabet="a.*<>{}, é\x00", max_size=8))
def test_what_is_a_pattern_is_a_name_once_its_wildcards_are_named(text: str) -> None:
    try:
        parse_pattern(text)
    except BadPattern:
        return
    check_name(".".join("x" if segment in ("*", "**") else segment for segment in text.split(".")))
