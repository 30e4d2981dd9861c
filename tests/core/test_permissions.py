"""What a publisher's `publish` claim permits."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.permissions import may_publish, publish_patterns


def test_a_list_of_patterns_is_a_right() -> None:
    assert publish_patterns({"publish": ["games.**", "a.*"]}) == ["games.**", "a.*"]


def test_a_single_pattern_is_a_list_of_one() -> None:
    assert publish_patterns({"publish": "games.**"}) == ["games.**"]


@pytest.mark.parametrize("claim", [None, [], "", {}, 1, True, ["games.**", 1], ["games.**", "a..b"], [["a"]], "a.<b>"])
def test_anything_else_is_no_right(claim: Any) -> None:
    assert publish_patterns({"publish": claim}) is None


def test_no_claim_is_no_right() -> None:
    assert publish_patterns({"sub": "ada"}) is None


def test_a_right_reaches_as_far_as_its_patterns() -> None:
    assert may_publish(["a.*", "games.**"], "games.1.created")
    assert not may_publish(["a.*", "games.**"], "games")
    assert not may_publish([], "games")


def test_a_pattern_of_many_wildcards_costs_no_more_than_its_length() -> None:
    assert not may_publish([".".join(["**"] * 60 + ["z"])], ".".join("a" * 120))
