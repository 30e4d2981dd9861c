"""The index, held against `patterns.matches`, which is slow and obvious."""

from __future__ import annotations

from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from broker.core.index import PatternIndex
from broker.core.patterns import matches

segments = st.sampled_from(["a", "b", "c", "broker"])
names = st.lists(segments, min_size=1, max_size=5).map(".".join)
patterns = st.lists(segments | st.sampled_from(["*", "**"]), min_size=1, max_size=5).map(".".join)
changes = st.lists(st.tuples(st.booleans(), patterns, st.integers(0, 3)), max_size=40)


def found(index: PatternIndex[int], name: str) -> list[int]:
    """Each value as often as it stands under a matching pattern."""
    return sorted(value for values in index.match(name) for value in values)


def filed(pairs: set[tuple[str, int]], name: str) -> list[int]:
    return sorted(value for pattern, value in pairs if matches(pattern, name))


@given(changes, st.lists(names, min_size=1, max_size=10), st.sampled_from((0, 1, 3, 100)))
def test_it_finds_what_the_slow_way_finds_after_any_changes(
    sequence: list[tuple[bool, str, int]], wanted: list[str], remember: int
) -> None:
    index: PatternIndex[int] = PatternIndex(remember=remember)
    pairs: set[tuple[str, int]] = set()
    for name, (adding, pattern, value) in zip(cycle(wanted), sequence, strict=False):
        pair = (pattern, value)
        if adding:
            assert index.add(pattern, value) == (pair not in pairs)
            pairs.add(pair)
        else:
            assert index.remove(pattern, value) == (pair in pairs)
            pairs.discard(pair)
        assert len(index) == len(pairs)
        assert found(index, name) == filed(pairs, name)
        assert index._remembered.cache_info().currsize <= remember
    for name in wanted:
        assert found(index, name) == filed(pairs, name)
        assert all(index.match(name))


@given(changes)
def test_it_is_empty_when_all_is_taken_out(sequence: list[tuple[bool, str, int]]) -> None:
    index: PatternIndex[int] = PatternIndex()
    for _, pattern, value in sequence:
        index.add(pattern, value)
    for _, pattern, value in reversed(sequence):
        index.remove(pattern, value)
    assert len(index) == 0
    assert vars(index)["_root"].edges == {}  # no node stays in memory without a value under it


def test_a_value_is_filed_once_under_a_pattern() -> None:
    index: PatternIndex[int] = PatternIndex()
    assert index.add("a.*", 1)
    assert not index.add("a.*", 1)
    assert len(index) == 1


def test_each_matching_pattern_gives_one_collection() -> None:
    index: PatternIndex[int] = PatternIndex()
    for pattern in ("a.b", "a.*", "a.**", "**", "*.b", "b.**"):
        index.add(pattern, 1)
    assert [set(values) for values in index.match("a.b")] == [{1}] * 5


def test_only_the_same_pattern_takes_a_value_out() -> None:
    index: PatternIndex[int] = PatternIndex()
    index.add("a.*", 1)
    for other in ("a.b", "a.**", "**", "*.*", "a", "a.*.b"):
        assert not index.remove(other, 1)
    assert found(index, "a.b") == [1]


def test_another_value_is_not_taken_out() -> None:
    index: PatternIndex[int] = PatternIndex()
    index.add("a", 1)
    assert not index.remove("a", 2)
    assert found(index, "a") == [1]


def test_what_lies_under_and_over_a_removed_pattern_stays() -> None:
    index: PatternIndex[int] = PatternIndex()
    for pattern in ("a", "a.b", "a.b.c"):
        index.add(pattern, 1)
    index.remove("a.b", 1)
    assert [found(index, name) for name in ("a", "a.b", "a.b.c")] == [[1], [], [1]]
    assert not index.remove("a.b", 1)


def test_the_brokers_own_names_are_found_by_no_wildcard() -> None:
    index: PatternIndex[int] = PatternIndex()
    for number, pattern in enumerate(("**", "broker.*", "*.stopped", "broker.stopped", "broker.stopped.now")):
        index.add(pattern, number)
    assert found(index, "broker.stopped") == [3]
    assert found(index, "broker.begun") == []
    assert found(index, "broker.begun.now") == []


def test_many_wildcards_cost_no_more_than_their_number() -> None:
    # Tried one way after another, these would be about 10 to the power of 35 ways.
    index: PatternIndex[int] = PatternIndex()
    index.add(".".join(["**"] * 60), 1)
    index.add(".".join(["**"] * 59 + ["b"]), 2)
    assert found(index, ".".join(["a"] * 120)) == [1]


def test_what_is_filed_under_a_very_pattern_is_found_by_it_and_by_no_other() -> None:
    index: PatternIndex[int] = PatternIndex()
    for number, pattern in enumerate(("a.*", "a.b", "**", "broker.stopped")):
        index.add(pattern, number)
    patterns = ("a.*", "a.b", "**", "broker.stopped", "a", "a.b.c", "b.c", "*")
    assert [list(index.under(pattern)) for pattern in patterns] == [[0], [1], [2], [3], [], [], [], []]


def test_nothing_is_filed_under_a_pattern_that_has_been_emptied() -> None:
    index: PatternIndex[int] = PatternIndex()
    index.add("a.b", 1)
    index.add("a", 1)
    index.remove("a", 1)
    assert list(index.under("a")) == []
