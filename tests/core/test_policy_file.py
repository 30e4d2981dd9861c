"""Policy files: what is read, and every fault at once with its line, key and hint."""

from __future__ import annotations

import pathlib

import pytest

from broker.core.errors import Fault, FaultyFile
from broker.core.policy_file import load_policy, parse_policy

ROOT = pathlib.Path(__file__).resolve().parents[2]


def faults(text: str) -> list[Fault]:
    with pytest.raises(FaultyFile) as caught:
        parse_policy(text, "policy.toml")
    return caught.value.faults


def fault(text: str) -> Fault:
    found = faults(text)
    assert len(found) == 1, found
    return found[0]


def visible_to(form: str) -> str:
    relation = "[relations.group]\nset = 'g.<id>'\nkey = '<id>'\nusers = 'data.m'\n"
    return f"{relation}[[rules]]\nevents = 'e.<a>'\nvisible_to = {form}\n"


def test_the_shipped_policy_is_in_order() -> None:
    policy = load_policy(ROOT / "policy.toml")
    assert set(policy.relations) == {"group", "game"}
    assert len(policy.rules) == 6
    assert str(policy.default) == '"nobody"'
    assert policy.rules[0].line is not None


def test_an_empty_file_hides_everything() -> None:
    policy = parse_policy("", "policy.toml")
    assert policy.rules == ()
    assert str(policy.default) == '"nobody"'


def test_every_fault_is_told_at_once_with_its_line_key_and_hint() -> None:
    text = """\
defualt = "nobody"
[relations.group]
set = "groups.<id>.{created"
key = "<id>"
users = "data.members"
[[rules]]
events = "a.<x>"
visble_to = "everyone"
[[rules]]
events = "b.<x>"
visible_to = { relation = "grup", key = "<y>" }
[[rules]]
events = "a.*"
visible_to = "everybody"
"""
    found = [(one.line, one.path, one.hint) for one in faults(text)]
    assert found == [
        (1, "defualt", "did you mean 'default'?"),
        (3, "relations.group.set", None),
        (6, "rules[0]", None),
        (8, "rules[0].visble_to", "did you mean 'visible_to'?"),
        (11, "rules[1].visible_to.key", "did you mean '<x>'?"),
        (11, "rules[1].visible_to.relation", "did you mean 'group'?"),
        (13, "rules[2].events", "make one of them more specific, or join them"),
        (14, "rules[2].visible_to", "did you mean 'everyone'?"),
    ]


def test_two_rules_of_one_shape_are_a_fault_that_names_the_other_s_line() -> None:
    rule = "[[rules]]\nevents = '{}'\nvisible_to = 'nobody'\n"
    found = fault(rule.replace("{}", "a.{b,c}.<x>") + rule.replace("{}", "a.{c,d}.*"))
    assert found.line == 5
    assert "line 2" in found.message
    assert "'a.c.*'" in found.message


@pytest.mark.parametrize(
    ("text", "path", "complaint"),
    [
        ("relations = 1", "relations", "a number"),
        ("relations.group = 'x'", "relations.group", "a string"),
        ("rules = 'x'", "rules", "a string"),
        ("rules = [1]", "rules[0]", "a number"),
        ("[rules]\nevents = 'a'", "rules", "a table"),
        ("[[rules]]\nvisible_to = 'nobody'", "rules[0]", "`events` is missing"),
        ("[[rules]]\nevents = 'a'", "rules[0]", "`visible_to` is missing"),
        ("[[rules]]\nevents = ['a']\nvisible_to = 'nobody'", "rules[0].events", "a list"),
        ("[[rules]]\nevents = 'a..b'\nvisible_to = { users = '<x>' }", "rules[0].events", "empty"),
        ("default = 1", "default", "a number"),
        ("default = { users = '<x>' }", "default.users", "there are no `events` here"),
        ("default = 2026-01-01", "default", "a date or time"),
        ("x = [", "", "this is no TOML"),
    ],
)
def test_the_outer_form_is_checked(text: str, path: str, complaint: str) -> None:
    found = fault(text)
    assert found.path == path
    assert complaint in found.message


@pytest.mark.parametrize(
    ("lines", "path", "complaint"),
    [
        ("add = 'g.<id>'\nusers = '<id>'", "", "`key` is missing"),
        ("add = 'g.<id>'\nkey = '<id>'", "", "`users` is missing"),
        ("clear = 'g.<id>'\nkey = '<id>'\nusers = 'data'", "", "`set` or `add` is missing"),
        ("add = 'g.<id>'\nkey = 'data.id'\nusers = 'data'", ".key", "is a <placeholder>"),
        ("add = 'g.<id>'\nkey = 'id'\nusers = 'data'", ".key", "neither a path"),
        ("add = 'g.<id>'\nclear = 'g.<gid>.x'\nkey = '<id>'\nusers = 'data'", ".key", "does not stand in 'g.<gid>.x'"),
        ("add = 'g.<id>'\nremove = 'x.<id>.<u>'\nkey = '<id>'\nusers = '<u>'", ".users", "does not stand in 'g.<id>'"),
        ("add = 'g.<id>'\nkey = '<id>'\nusers = 7", ".users", "a number"),
        ("add = 7\nkey = '<id>'\nusers = 'data'", ".add", "a number"),
        ("add = 'g.<id>'\nkey = '<id>'\nusers = 'data'\nmembers = 'x'", ".members", "no such key"),
    ],
)
def test_relations_are_checked(lines: str, path: str, complaint: str) -> None:
    found = fault(f"[relations.r]\n{lines}\n")
    assert found.path == f"relations.r{path}"
    assert complaint in found.message


def test_a_clear_needs_no_users_placeholder() -> None:
    policy = parse_policy(
        "[relations.r]\nadd = 'g.<id>.<u>'\nclear = 'g.<id>'\nkey = '<id>'\nusers = '<u>'\n", "policy.toml"
    )
    assert len(policy.relations["r"].steps) == 2


@pytest.mark.parametrize(
    "form",
    [
        "'everyone'",
        "{ users = 'data' }",
        "{ users = '<a>' }",
        "{ relation = 'group', key = '<a>' }",
        "{ relation = 'group', key = 'data.group' }",
        "{ claim = 'c', equals = 'x' }",
        "{ claim = 'c', equals = 1.5 }",
        "{ claim = 'c', equals = '<a>' }",
        "{ claim = 'c', contains = true }",
        "{ claim = 'c', in = [1, 'x', false] }",
        "{ claim = 'c', in = 'data.list' }",
        "{ any = ['everyone', { all = [{ not = 'nobody' }] }] }",
    ],
)
def test_every_form_is_read(form: str) -> None:
    assert len(parse_policy(visible_to(form), "policy.toml").rules) == 1


@pytest.mark.parametrize(
    ("form", "path", "complaint"),
    [
        ("7", "", "a word or a table, not a number"),
        ("'everybody'", "", "none of everyone"),
        ("{}", "", "one of users"),
        ("{ users = 'data', claim = 'c' }", "", "users and claim can't stand side by side"),
        ("{ users = 'members' }", ".users", "neither a path"),
        ("{ users = 'a members' }", ".users", "neither a path"),
        ("{ users = 'data..x' }", ".users", "no path"),
        ("{ users = 'database' }", ".users", "no path"),
        ("{ users = 'data.<a>' }", ".users", "neither a path"),
        ("{ users = '<b>' }", ".users", "does not stand in 'e.<a>'"),
        ("{ users = ['ann'] }", ".users", "a list"),
        ("{ users = 'data', also = 1 }", ".also", "no such key"),
        ("{ relation = 'group' }", "", "`key` is missing"),
        ("{ relation = 7, key = '<a>' }", ".relation", "a number"),
        ("{ relation = 'xyz', key = '<a>' }", ".relation", "there is no relation 'xyz'"),
        ("{ relation = 'group', key = '42' }", ".key", "neither a path"),
        ("{ claim = 'c' }", "", "exactly one of"),
        ("{ claim = 'c', equals = 1, contains = 1 }", "", "exactly one of"),
        ("{ claim = 7, equals = 1 }", ".claim", "the name of a claim"),
        ("{ claim = 'c', equals = [1] }", ".equals", "a list"),
        ("{ claim = 'c', equals = nan }", ".equals", "a number"),
        ("{ claim = 'c', equals = 2026-01-01 }", ".equals", "a date or time"),
        ("{ claim = 'c', equals = '<b>' }", ".equals", "does not stand"),
        ("{ claim = 'c', equals = 'data.' }", ".equals", "no path"),
        ("{ claim = 'c', in = [] }", ".in", "an empty one"),
        ("{ claim = 'c', in = 'x' }", ".in", "a string"),
        ("{ claim = 'c', in = '<a>' }", ".in", "expects a list"),
        ("{ claim = 'c', in = ['<a>'] }", ".in", "can't stand in a list"),
        ("{ claim = 'c', in = [[1]] }", ".in", "not a list"),
        ("{ any = [] }", ".any", "at least one"),
        ("{ all = 'everyone' }", ".all", "at least one"),
        ("{ all = ['everyone', 'x'] }", ".all[1]", "none of"),
        ("{ not = ['everyone'] }", ".not", "not a list"),
    ],
)
def test_conditions_are_checked(form: str, path: str, complaint: str) -> None:
    found = fault(visible_to(form))
    assert found.path == f"rules[0].visible_to{path}"
    assert complaint in found.message
    assert found.line == 7


def test_a_misspelt_form_gets_a_hint() -> None:
    found = faults(visible_to("{ clam = 'c', equals = 1 }"))
    assert [one.hint for one in found if one.path.endswith("clam")] == ["did you mean 'claim'?"]


def test_a_name_that_lacks_its_data_gets_a_hint() -> None:
    assert fault(visible_to("{ users = 'members' }")).hint == "did you mean 'data.members'?"


def test_an_unlike_word_gets_the_known_ones() -> None:
    assert fault("zzz = 1").hint == "known are default, relations, rules"


def test_conditions_nest_to_a_bound() -> None:
    deepest = "{ not = " * 16 + "'nobody'" + " }" * 16
    assert parse_policy(visible_to(deepest), "policy.toml")
    found = fault(visible_to("{ not = " + deepest + " }"))
    assert "nest at most 16" in found.message


def test_faults_of_a_file_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    for path, complaint in ((tmp_path / "none.toml", "can't be read"), (tmp_path, "can't be read")):
        with pytest.raises(FaultyFile, match=complaint):
            load_policy(path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"default = '\xff'")
    with pytest.raises(FaultyFile, match="not UTF-8"):
        load_policy(binary)
