"""What is at which path."""

from __future__ import annotations

import pytest

from broker.edge.paths import Paths

PATHS = Paths(
    {"/": "root", "/shops/<shop>": "shop", "/shops/main": "main", "/shops/<shop>/<what>": "what", "/<a>": "a"}
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ("root", {})),
        ("/shops/7", ("shop", {"shop": "7"})),
        ("/shops/main", ("main", {})),
        ("/shops/a%2Fb", ("shop", {"shop": "a/b"})),
        ("/shops/7/tea", ("what", {"shop": "7", "what": "tea"})),
        ("/shops", ("a", {"a": "shops"})),
        ("/shops/<shop>", ("shop", {"shop": "<shop>"})),
        ("/shops/", None),
        ("/shops//tea", None),
        ("/other/7", None),
    ],
)
def test_a_path_is_found_with_what_stands_in_it(path: str, found: object) -> None:
    assert PATHS.find(path) == found
