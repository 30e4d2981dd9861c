"""A trie over patterns: which values are filed under a pattern that matches this name?

Theory. A pattern is a path in the trie, one edge a segment; `*` and `**` are edges of their own kinds. Matching
walks all paths at once: the set of nodes reached so far, carried over the segments of the name. From a node, a
segment leads along its literal edge, along `*` and along `**`; and a node reached by `**` also leads to itself,
since `**` may stand for one segment more. A node is in the set once however many ways lead to it, so the cost is the
number of segments times the number of live nodes, whatever the number of patterns that do not match, and no pattern
of many `**` makes it explode.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from broker.core.event import RESERVED_PREFIX
from broker.core.patterns import MANY, ONE

T = TypeVar("T", bound=Hashable)


class _Node(Generic[T]):
    __slots__ = ("edges", "loops", "values")

    def __init__(self, *, loops: bool) -> None:
        self.edges: dict[str, _Node[T]] = {}
        self.values: set[T] | None = None
        self.loops = loops


class PatternIndex(Generic[T]):
    """Values filed under patterns. A value is filed under a pattern at most once, and under any number of patterns.

    remember: for how many names it remembers what matches them, as long as no pattern comes or goes.
    """

    def __init__(self, *, remember: int = 0) -> None:
        self._root: _Node[T] = _Node(loops=False)
        self._size = 0
        self._remembered = lru_cache(remember)(self._find)

    def __len__(self) -> int:
        """How many pairs of pattern and value are filed."""
        return self._size

    def add(self, pattern: str, value: T) -> bool:
        """File `value` under `pattern`; False if it was there already."""
        node = self._root
        for segment in pattern.split("."):
            child = node.edges.get(segment)
            if child is None:
                child = node.edges[segment] = _Node(loops=segment == MANY)
            node = child
        if node.values is None:
            node.values = set()
            self._remembered.cache_clear()
        elif value in node.values:
            return False
        node.values.add(value)
        self._size += 1
        return True

    def remove(self, pattern: str, value: T) -> bool:
        """Take `value` from under that very `pattern`, and nodes with nothing left under them; False if not there."""
        segments = pattern.split(".")
        way = [self._root]
        for segment in segments:
            child = way[-1].edges.get(segment)
            if child is None:
                return False
            way.append(child)
        values = way[-1].values
        if values is None or value not in values:
            return False
        values.discard(value)
        self._size -= 1
        if not values:
            way[-1].values = None
            self._remembered.cache_clear()
            _prune(way, segments)
        return True

    def under(self, pattern: str) -> Collection[T]:
        """The values under that very pattern. The collection is the index's own."""
        node: _Node[T] | None = self._root
        for segment in pattern.split("."):
            node = node.edges.get(segment) if node is not None else None
        return node.values if node is not None and node.values else ()

    def match(self, name: str) -> Sequence[Collection[T]]:
        """The values under each pattern that matches `name`: one collection a pattern, none of them empty.

        The collections are the index's own: read them before the next change, and do not change them.
        """
        return self._remembered(name)

    def _find(self, name: str) -> Sequence[Collection[T]]:
        if name.startswith(RESERVED_PREFIX):
            return self._exact(name)
        nodes: list[_Node[T]] = [self._root]
        for segment in name.split("."):
            following: list[_Node[T]] = []
            for node in nodes:
                edges = node.edges
                if edges:  # three times the same, since this is the hottest loop of a busy broker
                    child = edges.get(segment)
                    if child is not None:
                        following.append(child)
                    child = edges.get(ONE)
                    if child is not None:
                        following.append(child)
                    child = edges.get(MANY)
                    if child is not None:
                        following.append(child)
                if node.loops:
                    following.append(node)
            nodes = following if len(following) < 2 else list(dict.fromkeys(following))
            if not nodes:
                return []
        return [node.values for node in nodes if node.values]

    def _exact(self, name: str) -> list[Collection[T]]:
        values = self.under(name)
        return [values] if values else []


def _prune(way: list[_Node[T]], segments: list[str]) -> None:
    for depth in range(len(segments), 0, -1):
        node = way[depth]
        if node.edges or node.values is not None:
            return
        del way[depth - 1].edges[segments[depth - 1]]
