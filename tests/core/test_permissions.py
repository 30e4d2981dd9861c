"""What a publisher's `publish` claim permits."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.permissions import Permission, permission_of


def covered(claim: Any, name: str) -> bool:
    permission = permission_of({"publish": claim})
    return permission is not None and permission.covers(name)


def test_a_right_reaches_as_far_as_its_patterns() -> None:
    assert covered(["a.*", "games.**"], "games.1.created")
    assert covered(["a.*", "games.**"], "a.b")
    assert not covered(["a.*", "games.**"], "games")


def test_the_right_to_all_is_none_to_what_is_the_broker_s_own() -> None:
    assert covered(["a", "**"], "games.1.created")
    assert covered("**", "broker")
    assert not covered("**", "broker.x")
    assert covered(["**", "broker.x"], "broker.x")


def test_a_single_pattern_is_a_list_of_one() -> None:
    assert covered("games.**", "games.1")
    assert not covered("games.**", "a")


@pytest.mark.parametrize("claim", [None, [], "", {}, 1, True, ["games.**", 1], ["games.**", "a..b"], [["a"]], "a.<b>"])
def test_anything_else_is_no_right(claim: Any) -> None:
    assert permission_of({"publish": claim}) is None


def test_no_claim_is_no_right() -> None:
    assert permission_of({"sub": "ada"}) is None


def test_a_pattern_of_many_wildcards_costs_no_more_than_its_length() -> None:
    assert not Permission([".".join(["**"] * 60 + ["z"])]).covers(".".join("a" * 120))


# What is remembered.

RIGHTS: list[tuple[Any, str]] = [  # a claim, and which of a, b and c it covers
    ("a", "a"),
    (["a"], "a"),
    (["a", "b"], "ab"),
    (["b", "a"], "ab"),
    ("*", "abc"),
    (["c", "*"], "abc"),
    (["a", 1], ""),
    (["a", "a..b"], ""),
    ([["a"]], ""),
    ([], ""),
    ("", ""),
    (None, ""),
    (True, ""),
]


@given(st.lists(st.sampled_from(RIGHTS), max_size=30))
def test_a_right_that_is_remembered_is_the_right_that_the_claim_gives(looks: list[tuple[Any, str]]) -> None:
    for claim, names in looks:
        assert "".join(name for name in "abc" if covered(claim, name)) == names


def test_a_claim_that_changes_is_another_claim() -> None:
    claim = ["a"]
    assert covered(claim, "a")
    claim[0] = "b"
    assert not covered(claim, "a")


class Pattern(str):
    """A pattern that one can see being forgotten."""


def test_rights_are_remembered_up_to_a_bound() -> None:
    alive: weakref.WeakSet[Pattern] = weakref.WeakSet()
    for number in range(1_000):
        pattern = Pattern(f"a.{number}")
        alive.add(pattern)
        assert covered([pattern], f"a.{number}")
    del pattern
    gc.collect()
    assert 0 < len(alive) <= 256
    assert covered(["a.0"], "a.0")
