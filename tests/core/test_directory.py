"""The directory: found by user and claim while there, without a trace afterwards."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core.directory import Directory
from broker.core.scalars import index_text


def test_members_are_found_by_user() -> None:
    directory: Directory[int] = Directory()
    directory.add(1, "ann", {})
    directory.add(2, "ann", {})
    directory.add(3, None, {})
    assert set(directory.of_user("ann")) == {1, 2}
    assert list(directory.of_user("bob")) == []
    assert set(directory.authenticated()) == {1, 2}
    assert [set(members) for members in directory.of_users(["bob", "ann"])] == [{1, 2}]
    assert [set(members) for members in directory.of_users(frozenset("bcdeann") | {"ann"})] == [{1, 2}]
    assert len(directory) == 3


def test_members_are_found_by_indexed_claims_only() -> None:
    directory: Directory[int] = Directory(["roles", "scope", "level", "beta"])
    directory.add(1, None, {"roles": ["admin", "dev"], "scope": "read write", "level": 3.0, "beta": True, "x": "y"})
    assert list(directory.with_claim("roles", "admin")) == [1]
    assert list(directory.with_claim("scope", "write")) == [1]
    assert list(directory.with_claim("scope", "read write")) == [1]
    assert list(directory.with_claim("level", "3")) == [1]
    assert list(directory.with_claim("beta", "true")) == [1]
    assert list(directory.with_claim("x", "y")) == []
    assert directory.indexes("roles")
    assert not directory.indexes("x")


def test_updating_forgets_what_was() -> None:
    directory: Directory[int] = Directory(["role"])
    directory.add(1, "ann", {"role": "admin"})
    directory.update(1, "ann", {"role": "user"})
    assert list(directory.with_claim("role", "admin")) == []
    assert list(directory.with_claim("role", "user")) == [1]
    assert list(directory.of_user("ann")) == [1]
    assert len(directory) == 1


def test_removing_whom_nobody_knows_does_nothing() -> None:
    directory: Directory[int] = Directory()
    directory.remove(1)
    assert len(directory) == 0


def test_claims_may_change_after_they_were_filed() -> None:
    claims = {"role": "admin"}
    directory: Directory[int] = Directory(["role"])
    directory.add(1, None, claims)
    claims["role"] = "user"
    directory.remove(1)
    assert list(directory.with_claim("role", "admin")) == []


def test_a_new_policy_changes_what_is_indexed() -> None:
    directory: Directory[int] = Directory(["role"])
    directory.add(1, "ann", {"role": "admin", "team": "red"})
    directory.reindex(["team"])
    directory.reindex(["team"])
    assert list(directory.with_claim("role", "admin")) == []
    assert list(directory.with_claim("team", "red")) == [1]
    assert list(directory.of_user("ann")) == [1]


def test_large_groups_work_as_small_ones() -> None:
    directory: Directory[int] = Directory(["role"])
    for member in range(30):
        directory.add(member, "ann", {"role": "a"})
    assert sorted(directory.of_user("ann")) == sorted(directory.with_claim("role", "a")) == list(range(30))
    for member in range(29):
        directory.remove(member)
    assert list(directory.of_user("ann")) == list(directory.with_claim("role", "a")) == [29]
    directory.remove(29)
    assert directory.of_users(["ann"]) == []


CLAIMS = st.fixed_dictionaries(
    {},
    optional={"role": st.sampled_from(["a", "b", "a b", ["a"], ["b", "b", 1], 1, 1.0, True, None, {"x": 1}])},
)
STEPS = st.lists(
    st.tuples(st.sampled_from("aaar"), st.integers(0, 25), st.sampled_from([None, "ann", "bob"]), CLAIMS), max_size=80
)


@given(STEPS)
def test_it_agrees_with_a_plain_list_and_leaves_nothing_behind(steps: list[tuple[str, int, str | None, Any]]) -> None:
    directory: Directory[int] = Directory(["role"])
    model: dict[int, tuple[str | None, Any]] = {}
    for what, member, user, claims in steps:
        if what == "a":
            directory.add(member, user, claims)
            model[member] = (user, claims)
        else:
            directory.remove(member)
            model.pop(member, None)
    assert len(directory) == len(model)
    for name in ("ann", "bob"):
        assert sorted(directory.of_user(name)) == sorted(m for m, (user, _) in model.items() if user == name)
    assert set(directory.authenticated()) == {m for m, (user, _) in model.items() if user is not None}
    for text in ("a", "b", "a b", "1", "true"):
        assert sorted(directory.with_claim("role", text)) == sorted(
            m for m, (_, claims) in model.items() if text in _texts(claims.get("role"))
        )
    for member in model:
        directory.remove(member)
    assert not any((directory._members, directory._by_user, directory._by_claim, directory._authenticated))


def _texts(claim: Any) -> set[str | None]:
    if isinstance(claim, list):
        return {index_text(value) for value in claim}
    return {index_text(claim), *(claim.split() if isinstance(claim, str) else [])}
