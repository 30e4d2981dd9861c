"""What a publisher's `publish` claim permits."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.permissions import Permission, permission_of


def covered(claim: Any, name: str) -> bool:
    permission = permission_of({"publish": claim})
    return permission is not None and permission.covers(name)


def test_a_right_reaches_as_far_as_its_patterns() -> None:
    assert covered(["a.*", "games.**"], "games.1.created")
    assert covered(["a.*", "games.**"], "a.b")
    assert not covered(["a.*", "games.**"], "games")


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
