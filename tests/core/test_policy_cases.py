"""Cases: read with every fault at once, and run against a policy."""

from __future__ import annotations

import pathlib

import pytest

from broker.core.errors import FaultyFile
from broker.core.policy_cases import failures, parse_cases
from broker.core.policy_file import load_policy, parse_policy

ROOT = pathlib.Path(__file__).resolve().parents[2]

POLICY = parse_policy(
    """
    [relations.group]
    set = "groups.<id>"
    key = "<id>"
    users = "data.members"

    [[rules]]
    events = "groups.<id>"
    visible_to = { relation = "group", key = "<id>" }

    [[rules]]
    events = "admin"
    visible_to = { claim = "roles", contains = "admin" }
    """,
    "policy.toml",
)


def test_the_shipped_policy_meets_every_expectation_of_its_cases() -> None:
    policy = load_policy(ROOT / "policy.toml")
    cases = parse_cases((ROOT / "policy.test.toml").read_text(), "policy.test.toml")
    assert len(cases) >= len(policy.rules)
    assert [failure for case in cases for failure in failures(policy, case)] == []


def test_each_rule_of_the_shipped_policy_has_a_case_of_its_own() -> None:
    policy = load_policy(ROOT / "policy.toml")
    cases = parse_cases((ROOT / "policy.test.toml").read_text(), "policy.test.toml")
    assert {policy.ruling(case.event.name).rule for case in cases} == {*policy.rules, None}


def test_the_newcomer_and_the_leaver_both_see_the_event_that_concerns_them() -> None:
    text = """
    before = [{ event = "groups.1", data = { members = ["ann", "bob"] } }]
    [[cases]]
    event = "groups.1"
    before = [{ event = "groups.1", data = { members = ["bob"] } }]
    data = { members = ["cid"] }
    visible_to = ["bob", "cid"]
    hidden_from = ["ann", {}]
    """
    assert failures(POLICY, parse_cases(text, "t")[0]) == []


def test_viewers_may_have_claims_and_payloads_may_be_json() -> None:
    text = """
    [[cases]]
    event = "admin"
    json = '[null, 12345678901234567890]'
    visible_to = [{ claims = { roles = ["admin"] } }, { user = "ann", claims = { roles = "dev admin" } }]
    hidden_from = ["ann"]
    """
    case = parse_cases(text, "t")[0]
    assert case.event.data == b"[null, 12345678901234567890]"
    assert failures(POLICY, case) == []


def test_a_failure_tells_where_and_why() -> None:
    text = '[[cases]]\nevent = "groups.1"\ndata = { members = ["ann"] }\nvisible_to = ["bob"]\nhidden_from = ["ann"]\n'
    found = failures(POLICY, parse_cases(text, "t")[0])
    assert [(one.expectation.line, one.expectation.viewer.user, one.expectation.visible) for one in found] == [
        (4, "bob", True),
        (5, "ann", False),
    ]
    assert found[0].explanation.reasons == "group(1) is [ann]"


@pytest.mark.parametrize(
    ("text", "path", "complaint"),
    [
        ("", "cases", "there must be cases"),
        ("cases = 1", "cases", "there must be cases"),
        ("cases = [1]", "cases[0]", "a number"),
        ("case = 1\ncases = [{ event = 'a', visible_to = ['x'] }]", "case", "no such key"),
        ("before = 1\ncases = [{ event = 'a', visible_to = ['x'] }]", "before", "a number"),
        ("before = [1]\ncases = [{ event = 'a', visible_to = ['x'] }]", "before[0]", "a number"),
        (
            "before = [{ evnt = 'a', event = 'a' }]\ncases = [{ event = 'a', visible_to = ['x'] }]",
            "before[0].evnt",
            "no",
        ),
        ("cases = [{ visible_to = ['x'] }]", "cases[0].event", "the name"),
        ("cases = [{ event = 'a..b', visible_to = ['x'] }]", "cases[0].event", "empty"),
        ("cases = [{ event = 'a' }]", "cases[0]", "expects something"),
        ("cases = [{ event = 'a', visible_to = 'ann' }]", "cases[0].visible_to", "a string"),
        ("cases = [{ event = 'a', visible_to = [7] }]", "cases[0].visible_to[0]", "a number"),
        ("cases = [{ event = 'a', visible_to = [{ user = 7 }] }]", "cases[0].visible_to[0].user", "a number"),
        ("cases = [{ event = 'a', visible_to = [{ claims = 7 }] }]", "cases[0].visible_to[0].claims", "a number"),
        ("cases = [{ event = 'a', visible_to = [{ name = 'x' }] }]", "cases[0].visible_to[0].name", "no such key"),
        ("cases = [{ event = 'a', data = nan, visible_to = ['x'] }]", "cases[0].data", "no JSON"),
        ("cases = [{ event = 'a', data = 2026-01-01, visible_to = ['x'] }]", "cases[0].data", "no JSON"),
        ("cases = [{ event = 'a', json = '{', visible_to = ['x'] }]", "cases[0].json", "no JSON"),
        ("cases = [{ event = 'a', json = 7, visible_to = ['x'] }]", "cases[0].json", "no JSON"),
        ("cases = [{ event = 'a', json = '\"\\ud800\"', visible_to = ['x'] }]", "cases[0].json", "surrogate"),
        ("cases = [{ event = 'a', json = '1', data = 1, visible_to = ['x'] }]", "cases[0]", "side by side"),
    ],
)
def test_faults_are_told(text: str, path: str, complaint: str) -> None:
    with pytest.raises(FaultyFile) as caught:
        parse_cases(text, "t")
    assert [fault.path for fault in caught.value.faults] == [path]
    assert complaint in caught.value.faults[0].message
