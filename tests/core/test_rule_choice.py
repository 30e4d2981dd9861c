"""Of several rules the most specific one counts; held against a slow reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.audience import NOBODY
from broker.core.conditions import Fixed
from broker.core.patterns import matches
from broker.core.policy import Policy, Rule
from broker.core.shapes import parse_shape

SEGMENT = st.sampled_from(["a", "b", "*", "**"])
PATTERNS = st.lists(st.lists(SEGMENT, min_size=1, max_size=4).map(".".join), max_size=12, unique=True)
NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


def more_specific(pattern: str, other: str) -> bool:
    """Whether `pattern` is before `other`, read left to right: literal, `*`, `**`, end."""
    left, rest = pattern.split("."), other.split(".")
    for mine, theirs in zip([*left, None], [*rest, None], strict=False):
        mine_kind, their_kind = kind(mine), kind(theirs)
        if mine_kind != their_kind:
            return mine_kind < their_kind
    return False


def kind(segment: str | None) -> int:
    return 3 if segment is None else {"*": 1, "**": 2}.get(segment, 0)


@given(PATTERNS, NAMES)
def test_the_rule_is_the_one_that_a_slow_reader_would_choose(patterns: list[str], name: str) -> None:
    policy = Policy(rules=[Rule(parse_shape(pattern), Fixed("nobody", NOBODY)) for pattern in patterns])
    best: str | None = None
    for pattern in patterns:
        if matches(pattern, name) and (best is None or more_specific(pattern, best)):
            best = pattern
    found = policy.ruling(name).rule
    assert (found.shape.text if found else None) == best


@pytest.mark.parametrize(
    ("better", "worse", "name"),
    [
        ("**.a", "**", "x.a"),
        ("a.**.**", "a.**", "a.x.y"),
        ("a.*", "*.b", "a.b"),
        ("a.*", "a.**", "a.b"),
        ("*.b", "**", "a.b"),
        ("**.a.*", "**.*.b", "x.a.b"),
        ("a.b", "a.*", "a.b"),
    ],
)
def test_precedence_does_not_depend_on_the_order_in_the_file(better: str, worse: str, name: str) -> None:
    for order in ([better, worse], [worse, better]):
        found = Policy(rules=[Rule(parse_shape(text), Fixed("nobody", NOBODY)) for text in order]).ruling(name).rule
        assert found is not None
        assert found.shape.text == better


def test_of_equals_the_one_that_stands_first_counts() -> None:
    for order in (["**.a.**", "**.b.**"], ["**.b.**", "**.a.**"]):
        found = (
            Policy(rules=[Rule(parse_shape(text), Fixed("nobody", NOBODY)) for text in order]).ruling("x.a.b.y").rule
        )
        assert found is not None
        assert found.shape.text == order[0]
