"""Shapes: expansion, placeholders, precedence, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.shapes import MAX_PATTERNS, ShapeError, parse_shape, placeholder_name, rank


def test_a_plain_name_is_a_shape_of_one_pattern() -> None:
    shape = parse_shape("users.online")
    assert shape.patterns == ("users.online",)
    assert shape.placeholders == {}


def test_placeholders_match_as_one_segment_and_know_their_place() -> None:
    shape = parse_shape("groups.<groupId>.messages.<messageId>")
    assert shape.patterns == ("groups.*.messages.*",)
    assert shape.placeholders == {"groupId": 1, "messageId": 3}


def test_alternatives_expand_in_the_order_written() -> None:
    assert parse_shape("{a,b}.x.{c, d}").patterns == ("a.x.c", "a.x.d", "b.x.c", "b.x.d")


def test_after_many_segments_a_placeholder_is_counted_from_the_right() -> None:
    assert parse_shape("<a>.**.<b>.c").placeholders == {"a": 0, "b": -2}


def test_a_placeholder_outside_two_many_is_fine() -> None:
    assert parse_shape("<a>.**.x.**.<b>").placeholders == {"a": 0, "b": -1}


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=4), st.lists(st.sampled_from("xyz"), max_size=3))
def test_indexes_lead_to_the_segment_however_many_the_many_stand_for(many: list[str], tail: list[str]) -> None:
    shape = parse_shape(".".join(["s", "<left>", "**", "<right>", *tail]))
    name = ["s", "L", *many, "R", *tail]
    assert name[shape.placeholders["left"]] == "L"
    assert name[shape.placeholders["right"]] == "R"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("a..b", "empty"),
        ("a.<b", "placeholder"),
        ("a.x<b>", "placeholder"),
        ("a.<1b>", "placeholder"),
        ("a.<>", "placeholder"),
        ("a.<b>.<b>", "twice"),
        ("a.{b,c", "alternatives"),
        ("a.x{b,c}", "alternatives"),
        ("a.{b,}", "alternatives"),
        ("a.{b,*}", "alternatives"),
        ("a.{}", "alternatives"),
        ("a.{b.c,d}", "alternatives"),
        ("a.{b,b}", "twice"),
        ("a.b*", "whole segments"),
        ("a.b c", "white space"),
        ("**.<x>.**", "between"),
        ("broker.*", "no wildcard"),
        ("{broker,a}.<x>", "no wildcard"),
        ("a" * 256, "too long"),
        (".".join(["a" * 100] * 3), "255"),
    ],
)
def test_what_is_no_shape_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ShapeError, match=complaint):
        parse_shape(text)


def test_the_broker_s_own_names_may_be_named_literally() -> None:
    assert parse_shape("broker.{started,stopped}").patterns == ("broker.started", "broker.stopped")


def test_a_shape_stands_for_a_bounded_number_of_patterns() -> None:
    ten = "{0,1,2,3,4,5,6,7,8,9}"
    assert len(parse_shape(".".join([ten] * 3)).patterns) == MAX_PATTERNS
    with pytest.raises(ShapeError, match="10000 patterns"):
        parse_shape(".".join([ten] * 4))


def test_a_huge_product_is_refused_before_it_is_built() -> None:
    with pytest.raises(ShapeError, match="patterns"):
        parse_shape(".".join(["{a,b}"] * 60))


def test_the_more_specific_pattern_has_the_lesser_rank() -> None:
    ordered = ["a.b", "a.*", "a.**", "*.b", "*.*", "*.**", "**.a", "**"]
    assert sorted(ordered, key=rank) == ordered
    assert rank("a.**.**") < rank("a.**")


def test_only_an_exact_placeholder_has_a_name() -> None:
    assert placeholder_name("<user_1>") == "user_1"
    assert placeholder_name("x<user>") is None
