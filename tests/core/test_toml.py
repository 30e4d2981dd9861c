"""TOML with lines: every key that the parser finds has its line."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import FaultyFile
from broker.core.toml import Path, _Scanner, parse, show_path

bare_keys = st.text(alphabet="ab1-_", min_size=1, max_size=3)
quoted_keys = st.text(alphabet='ab .#=[]"\\', max_size=3).map(
    lambda key: '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
literal_keys = st.text(alphabet='ab .#=[]"\\', max_size=3).map(lambda key: f"'{key}'")
keys = bare_keys | quoted_keys | literal_keys
dotted = st.lists(keys, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".", " . ", "\t."]).map(lambda dot: dot.join(parts))
)
gaps = st.sampled_from(["", " ", "\n", '  # a ] } comment, = "\n', "\n\n"])
scalars = st.sampled_from(
    [
        "1",
        "-0.5e3",
        "true",
        "inf",
        "0xFF",
        "1979-05-27T07:32:00Z",
        "1979-05-27 07:32:00",
        "07:32:00",
        '""',
        '"a # ] } , \\" \\\\"',
        "''",
        "'a \\'",
        '"""\na\n = "x" ""\n[b]"""',
        '"""a\\"""" b"""',
        '"""ends with quotes"""""',
        "'''\n[[c]]\n''''",
        '""""""',
    ]
)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(inner, max_size=3), gaps, gaps, st.booleans()).map(
        lambda parts: (
            "[" + parts[1] + f"{parts[2]},{parts[1]}".join(parts[0]) + ("," if parts[3] and parts[0] else "") + "]"
        )
    )


def inline_tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(dotted, inner), max_size=3).map(
        lambda pairs: "{ " + ", ".join(f"{key} = {value}" for key, value in pairs) + " }"
    )


values = st.recursive(scalars, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=5)
pairs = st.tuples(dotted, values, st.sampled_from(["", " # comment"])).map(lambda p: f"{p[0]} = {p[1]}{p[2]}")
headers = dotted.map(lambda key: f"[{key}]") | dotted.map(lambda key: f"[[ {key} ]]")
documents = st.lists(pairs | headers | st.sampled_from(["", "# comment", "  "]), max_size=8).map("\n".join)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from paths(below, (*path, key))


def lines(text: str) -> dict[str, int | None]:
    document = parse(textwrap.dedent(text).lstrip("\n"), "x.toml")
    return {show_path(path): document.line(path) for path in paths(document.data)}


@given(documents, st.sampled_from(["\n", "\r\n"]))
def test_every_key_has_a_line_and_stands_in_it(text: str, newline: str) -> None:
    text = text.replace("\n", newline)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    document = parse(text, "x.toml")
    assert document.data == data
    written = text.split("\n")
    for path in paths(data):
        line = document.lines[path]
        key = path[-1]
        if isinstance(key, str):
            escaped = key.replace("\\", "\\\\").replace('"', '\\"')
            assert key in written[line - 1] or escaped in written[line - 1]
    assert set(document.lines) == set(paths(data))


def test_values_stand_where_their_keys_are() -> None:
    assert lines(
        '''
        a = 1
        # a comment
        b.c = """
        d = 2
        """
        e = [
            1,  # one
            { f = 2, g = [
                3,
            ] },
        ]
        '''
    ) == {
        "a": 1,
        "b": 3,
        "b.c": 3,
        "e": 6,
        "e[0]": 7,
        "e[1]": 8,
        "e[1].f": 8,
        "e[1].g": 8,
        "e[1].g[0]": 9,
    }


def test_a_table_stands_where_its_own_header_is() -> None:
    assert lines(
        """
        [a.b]
        c = 1

        [a]
        d = 2
        """
    ) == {"a": 4, "a.b": 1, "a.b.c": 2, "a.d": 5}


def test_a_table_without_a_header_stands_where_it_is_first_implied() -> None:
    assert lines(
        """
        [a.b.c]
        [a.b.d]
        """
    ) == {"a": 1, "a.b": 1, "a.b.c": 1, "a.b.d": 2}


def test_each_of_an_array_of_tables_has_a_line_of_its_own() -> None:
    assert lines(
        """
        [[rules]]
        events = "a"
        [[rules.parts]]
        [[rules.parts]]
        x = 1
        [[rules]]
        events = "b"
        [rules.more.yet]
        y = 1
        [[rules.parts]]
        """
    ) == {
        "rules": 1,
        "rules[0]": 1,
        "rules[0].events": 2,
        "rules[0].parts": 3,
        "rules[0].parts[0]": 3,
        "rules[0].parts[1]": 4,
        "rules[0].parts[1].x": 5,
        "rules[1]": 6,
        "rules[1].events": 7,
        "rules[1].more": 8,
        "rules[1].more.yet": 8,
        "rules[1].more.yet.y": 9,
        "rules[1].parts": 10,
        "rules[1].parts[0]": 10,
    }


def test_what_is_not_there_has_the_line_of_what_is_above_it() -> None:
    document = parse("x = 1\n[a]\nb = 2\n", "x.toml")
    assert document.line(("a", "missing", 3, "deeper")) == 2


def test_what_has_nothing_above_it_has_no_line() -> None:
    assert parse("x = 1\n", "x.toml").line(("missing",)) is None


def test_an_empty_document_has_no_lines() -> None:
    assert parse("# nothing\n", "x.toml").lines == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = 1\nb = \n", "x.toml: line 2: this is no TOML: Invalid value"),
        ("a = 1\na = 2\n", "x.toml: line 2: this is no TOML: Cannot overwrite a value"),
        ("a = 1\nb = [", "x.toml: line 2: this is no TOML: Invalid value"),
        ("a = 1\nb", "x.toml: line 2: this is no TOML: Expected '=' after a key in a key/value pair"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(text: str, fault: str) -> None:
    with pytest.raises(FaultyFile, match=re.escape(fault)):
        parse(text, "x.toml")


def test_what_is_nested_beyond_our_means_is_refused() -> None:
    with pytest.raises(FaultyFile, match="nested too deep"):
        parse("a = " + "[" * 5000 + "]" * 5000, "x.toml")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ((), ""),
        (("rules", 2, "visible_to", "users"), "rules[2].visible_to.users"),
        (("a b", "c"), '"a b".c'),
        (("a", "", "b"), 'a."".b'),
        ((0,), "[0]"),
    ],
)
def test_a_path_is_shown_as_people_write_it(path: Path, shown: str) -> None:
    assert show_path(path) == shown


def test_a_scanner_that_lost_its_way_says_so_instead_of_guessing() -> None:
    with pytest.raises(AssertionError, match="at line 2"):
        _Scanner("a = 1\n= 2\n").scan()
