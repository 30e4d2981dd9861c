"""Explanations: the rule that counts, and what each condition of it came to."""

from __future__ import annotations

import json
from typing import Any

from broker.core.event import Event
from broker.core.explain import Explanation, explain
from broker.core.happening import Happening
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity
from broker.core.relations import Action, Change, Facts

POLICY = parse_policy(
    """
    [relations.group]
    set = "groups.<id>"
    key = "<id>"
    users = "data.members"

    [[rules]]
    events = "e.<id>"
    visible_to = { any = [
        { users = "data.owner" },
        { all = [{ relation = "group", key = "<id>" }, { not = { claim = "banned", equals = true } }] },
        "nobody",
    ] }
    """,
    "policy.toml",
)


def explained(data: Any, viewer: Identity, members: list[str], name: str = "e.1") -> Explanation:
    facts = Facts()
    facts.add([Change("group", Action.ADD, "1", frozenset(members))], 0)
    return explain(POLICY, Happening(Event(name, json.dumps(data).encode())), facts, viewer)


def test_every_condition_has_its_verdict_and_its_reason() -> None:
    explanation = explained({"owner": "ann"}, Identity("bob", {"banned": False}), ["bob"])
    assert explanation.rule is POLICY.rules[0]
    assert explanation.visible
    assert [(one.depth, one.condition, one.verdict, one.because) for one in explanation.findings] == [
        (0, "any of", True, ""),
        (1, '{ users = "data.owner" }', False, "data.owner is [ann]"),
        (1, "all of", True, ""),
        (2, '{ relation = "group", key = "<id>" }', True, "group(1) is [bob]"),
        (2, "not", True, ""),
        (3, '{ claim = "banned", equals = true }', False, "the claim 'banned' is false"),
        (1, '"nobody"', False, ""),
    ]


def test_faults_and_missing_claims_are_reasons() -> None:
    explanation = explained({}, Identity("bob"), ["bob"])
    assert not explanation.visible
    assert explanation.reasons == ("data.owner: 'owner' is missing; group(1) is [bob]; there is no claim 'banned'")


def test_without_a_rule_the_default_is_explained() -> None:
    explanation = explained({}, Identity("bob"), [], name="x")
    assert explanation.rule is None
    assert [one.condition for one in explanation.findings] == ['"nobody"']


def test_long_lists_are_cut_and_odd_names_made_visible() -> None:
    reasons = explained({"owner": []}, Identity("x"), [f"u{number:02}" for number in range(11)] + ["\x1b[2J"]).reasons
    assert '"\\u001b[2J", u00, ' in reasons
    assert "u08] and 2 more" in reasons
    assert "u09" not in reasons
