"""Audiences: three-valued, never widened by a fault, and never reaching too short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.audience import (
    AUTHENTICATED,
    EVERYONE,
    NOBODY,
    UNKNOWN,
    AllOf,
    AnyOf,
    Audience,
    ClaimContains,
    ClaimIn,
    Constant,
    Not,
    Users,
    UsersSince,
    values_for,
)
from broker.core.directory import Directory
from broker.core.ports import Identity
from broker.core.scalars import Comparable

ANN = Identity("ann")
BOB = Identity("bob")
STRANGER = Identity()


def right(*values: Any) -> frozenset[Comparable]:
    found = values_for(values)
    assert found is not None
    return found


def claiming(value: Any) -> Identity:
    return Identity("ann", {"c": value})


def test_the_constants_answer_the_same_to_all() -> None:
    assert [audience.admits(STRANGER) for audience in (EVERYONE, NOBODY, UNKNOWN)] == [True, False, None]


def test_authenticated_means_having_a_user() -> None:
    assert AUTHENTICATED.admits(ANN) is True
    assert AUTHENTICATED.admits(STRANGER) is False


def test_users_are_those_named_and_a_stranger_is_none_of_them() -> None:
    users = Users({"ann"})
    assert [users.admits(viewer) for viewer in (ANN, BOB, STRANGER)] == [True, False, False]


def test_users_are_held_not_copied() -> None:
    members = {"ann": 1}
    users = Users(members)
    members["bob"] = 2
    assert users.admits(BOB) is True


def test_users_since_leaves_out_those_who_came_later() -> None:
    since = UsersSince({"ann": 5, "bob": 6}, 5)
    assert [since.admits(viewer) for viewer in (ANN, BOB, STRANGER)] == [True, False, False]


def test_users_since_is_unknown_of_those_who_may_have_been_among_them() -> None:
    since = UsersSince({"ann": 5, "bob": 6}, 5, {"ann", "bob"}.__contains__)
    assert [since.admits(viewer) for viewer in (ANN, BOB, STRANGER)] == [True, None, False]


@pytest.mark.parametrize(
    ("claim", "values", "verdict"),
    [
        ("admin", ["admin"], True),
        ("user", ["admin"], False),
        ("user", ["admin", "user"], True),
        (1, [1.0], True),
        (True, [True], True),
        (2, [1], False),
        (True, [1], None),
        (1, [True], None),
        ("1", [1], None),
        (1, ["1"], None),
        (None, ["admin"], None),
        (["admin"], ["admin"], None),
        ({"a": 1}, ["admin"], None),
        (float("inf"), [1], None),
        ("x", [], False),
        (None, [], None),
    ],
)
def test_a_claim_equals_only_what_is_equal_in_json(claim: Any, values: list[Any], verdict: bool | None) -> None:
    assert ClaimIn("c", right(*values)).admits(claiming(claim)) is verdict


@pytest.mark.parametrize(
    ("claim", "verdict"), [("42", True), (42, True), ("43", False), (True, None), (42.0, None), (None, None)]
)
def test_beside_a_segment_claims_are_compared_as_text(claim: Any, verdict: bool | None) -> None:
    assert ClaimIn("c", right("42"), textual=True).admits(claiming(claim)) is verdict


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (["admin", "dev"], True),
        (["dev"], False),
        ([], False),
        ("dev admin", True),
        ("administrator", False),
        ("", False),
        ([1], None),
        (["dev", None], None),
        (["admin", None], True),
        ([["admin"]], None),
        (7, None),
        (None, None),
        ({"admin": True}, None),
    ],
)
def test_a_list_or_words_contain_a_value(claim: Any, verdict: bool | None) -> None:
    assert ClaimContains("c", right("admin")).admits(claiming(claim)) is verdict


def test_a_list_of_integers_contains_a_segment_s_text() -> None:
    assert ClaimContains("c", right("42"), textual=True).admits(claiming([41, 42])) is True


def test_a_claim_that_is_not_there_is_unknown() -> None:
    assert ClaimIn("c", right("x")).admits(ANN) is None
    assert ClaimContains("c", right("x")).admits(ANN) is None
    assert Not(ClaimIn("c", right("x"))).admits(ANN) is None


@pytest.mark.parametrize("a", [True, False, None])
@pytest.mark.parametrize("b", [True, False, None])
def test_combinations_are_kleene_s(a: bool | None, b: bool | None) -> None:
    parts = (Constant("a", a), Constant("b", b))
    order = [False, None, True]
    assert AnyOf(parts).admits(ANN) is max(a, b, key=order.index)
    assert AllOf(parts).admits(ANN) is min(a, b, key=order.index)


def test_not_turns_round_what_is_known_only() -> None:
    assert [Not(part).admits(ANN) for part in (EVERYONE, NOBODY, UNKNOWN)] == [False, True, None]


def test_values_that_cannot_be_compared_are_told() -> None:
    assert values_for([1, None]) is None
    assert values_for([]) == frozenset()


# --- reach

DIRECTORY: Directory[str] = Directory(["c"])
DIRECTORY.add("a1", "ann", {"c": "x"})
DIRECTORY.add("a2", "ann", {"c": ["x", "y"]})
DIRECTORY.add("b", "bob", {"c": "x y"})
DIRECTORY.add("s", None, {})


def reached(audience: Audience) -> set[str] | None:
    reach = audience.reach(DIRECTORY)
    return None if reach is None else {member for members in reach for member in members}


def test_reach_is_narrow_where_it_can_be() -> None:
    assert reached(Users({"ann", "nobody-here"})) == {"a1", "a2"}
    assert reached(Users({"ann", "b", "c", "d"})) == {"a1", "a2"}
    assert reached(UsersSince({"bob": 9}, 5)) == {"b"}
    assert reached(AUTHENTICATED) == {"a1", "a2", "b"}
    assert reached(ClaimIn("c", right("x"))) == {"a1", "a2", "b"}
    assert reached(ClaimContains("c", right("y"))) == {"a2", "b"}
    assert reached(NOBODY) == reached(UNKNOWN) == reached(Not(UNKNOWN)) == reached(Not(EVERYONE)) == set()
    assert reached(AllOf((EVERYONE, AUTHENTICATED, Users({"bob"})))) == {"b"}
    assert reached(AnyOf((Users({"bob"}), Users({"ann"})))) == {"a1", "a2", "b"}


def test_reach_says_so_where_it_cannot_be_narrowed() -> None:
    wide = [EVERYONE, Not(Users({"ann"})), AnyOf((Users({"ann"}), EVERYONE)), AllOf((EVERYONE, Not(NOBODY)))]
    assert [reached(audience) for audience in wide] == [None] * 4
    assert reached(ClaimIn("not indexed", right("x"))) is None


class Counted(frozenset[str]):
    """A set that must not be walked."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the larger side was walked")


def test_reaching_users_walks_the_smaller_side_only() -> None:
    assert reached(Users(Counted({"ann", "x", "y", "z"}))) == {"a1", "a2"}


USERS = st.sampled_from([None, "ann", "bob", "cid"])
CLAIM = st.recursive(
    st.sampled_from(["x", "y", "x y", "1", "true", 1, 1.0, 2, 1.5, True, False, None, float("inf")]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
RIGHT = st.lists(st.sampled_from(["x", "y", "x y", "1", 1, 1.0, 1.5, True]), max_size=3).map(lambda v: right(*v))
LEAVES: st.SearchStrategy[Audience] = st.one_of(
    st.sampled_from([EVERYONE, NOBODY, UNKNOWN, AUTHENTICATED]),
    st.frozensets(st.sampled_from(["ann", "bob", "cid", "dan"])).map(Users),
    st.dictionaries(st.sampled_from(["ann", "bob", "dan"]), st.integers(0, 3)).map(lambda since: UsersSince(since, 1)),
    st.builds(ClaimIn, st.sampled_from(["c", "d"]), RIGHT, st.booleans()),
    st.builds(ClaimContains, st.sampled_from(["c", "d"]), RIGHT, st.booleans()),
)
AUDIENCES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=6,
)
PEOPLE = st.lists(
    st.builds(Identity, USERS, st.dictionaries(st.sampled_from(["c", "d"]), CLAIM)), min_size=1, max_size=12
)


@given(AUDIENCES, PEOPLE)
def test_whoever_is_admitted_is_reached(audience: Audience, people: list[Identity]) -> None:
    directory: Directory[int] = Directory(["c"])
    for number, person in enumerate(people):
        directory.add(number, person.user, person.claims)
    reach = audience.reach(directory)
    if reach is not None:
        admitted = {number for number, person in enumerate(people) if audience.admits(person) is True}
        assert admitted <= {number for members in reach for number in members}


def spoilt(audience: Audience) -> list[Audience]:
    """The audience with each of its leaves in turn made unknown."""
    if isinstance(audience, Not):
        return [Not(part) for part in spoilt(audience.part)]
    if isinstance(audience, AnyOf | AllOf):
        parts = audience.parts
        return [
            type(audience)((*parts[:i], worse, *parts[i + 1 :]))
            for i, part in enumerate(parts)
            for worse in spoilt(part)
        ]
    return [UNKNOWN]


@given(AUDIENCES, PEOPLE)
def test_no_fault_ever_widens_an_audience(audience: Audience, people: list[Identity]) -> None:
    for worse in spoilt(audience):
        for person in people:
            assert worse.admits(person) is not True or audience.admits(person) is True
