"""The policy: whom its rules admit, and what it learns; held against a slow model."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import policy as policy_module
from broker.core.audience import AUTHENTICATED, EVERYONE, NOBODY, Audience
from broker.core.event import Event
from broker.core.explain import explain
from broker.core.happening import Placeholder
from broker.core.policy import REMEMBERED, Happening, Policy
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity
from broker.core.relations import Action, Facts, Relation, Step
from broker.core.shapes import parse_shape

GROUPS = """
[relations.group]
set = "groups.<id>.{created,updated}"
key = "<id>"
users = "data.members"
clear = "groups.<id>.deleted"

[relations.game]
add = "games.<game>.members.<user>.created"
remove = "games.<game>.members.<user>.deleted"
key = "<game>"
users = "<user>"
"""


def happening(name: str, data: Any = None) -> Happening:
    return Happening(Event(name, json.dumps(data).encode()))


def rule(visible_to: str, events: str = "e.<a>.<b>") -> Policy:
    return parse_policy(f'{GROUPS}[[rules]]\nevents = "{events}"\nvisible_to = {visible_to}\n', "policy.toml")


def seen(policy: Policy, viewer: Identity, event: Happening, facts: Facts | None = None) -> bool | None:
    return policy.audience(event, facts or Facts()).admits(viewer)


def after(policy: Policy, *events: Happening) -> Facts:
    facts = Facts()
    for offset, event in enumerate(events):
        changes = policy.changes(event)
        facts.add(changes, offset)
        facts.remove(changes, offset)
    return facts


ANN = Identity("ann")
BOB = Identity("bob")
STRANGER = Identity()


def test_what_no_rule_matches_has_the_default_which_is_nobody() -> None:
    assert seen(Policy(), ANN, happening("x")) is False
    assert Policy().ruling("x").rule is None
    open_policy = parse_policy('default = "authenticated"', "p")
    assert seen(open_policy, ANN, happening("x")) is True
    assert seen(open_policy, STRANGER, happening("x")) is False


@pytest.mark.parametrize(
    ("word", "verdicts"), [("everyone", [True] * 2), ("authenticated", [True, False]), ("nobody", [False] * 2)]
)
def test_words(word: str, verdicts: list[bool]) -> None:
    policy = rule(f'"{word}"')
    assert [seen(policy, viewer, happening("e.1.2")) for viewer in (ANN, STRANGER)] == verdicts


def test_users_from_the_data_and_from_the_name() -> None:
    policy = rule('{ users = "data.members" }')
    assert seen(policy, ANN, happening("e.1.2", {"members": ["ann"]})) is True
    assert seen(policy, BOB, happening("e.1.2", {"members": ["ann"]})) is False
    assert seen(policy, ANN, happening("e.1.2", {"members": 7})) is None
    assert seen(rule('{ users = "<b>" }'), ANN, happening("e.1.ann")) is True


def test_a_fault_is_named_and_not_around_it_admits_nobody() -> None:
    policy = rule('{ not = { users = "data.blocked" } }')
    faults: list[str] = []
    assert policy.audience(happening("e.1.2", {}), Facts(), faults).admits(ANN) is None
    assert faults == ["data.blocked: 'blocked' is missing"]
    assert seen(policy, ANN, happening("e.1.2", {"blocked": ["bob"]})) is True
    assert seen(policy, BOB, happening("e.1.2", {"blocked": ["bob"]})) is False


def test_a_relation_by_the_name_and_by_the_data() -> None:
    by_name = rule('{ relation = "group", key = "<a>" }')
    by_data = rule('{ relation = "group", key = "data.group" }')
    facts = after(by_name, happening("groups.42.created", {"members": ["ann"]}))
    assert seen(by_name, ANN, happening("e.42.1"), facts) is True
    assert seen(by_name, ANN, happening("e.43.1"), facts) is False
    assert seen(by_data, ANN, happening("e.1.1", {"group": 42}), facts) is True
    assert seen(by_data, ANN, happening("e.1.1", {"group": True}), facts) is None


def test_a_relation_in_doubt_admits_nobody_also_under_not() -> None:
    policy = rule('{ any = [{ relation = "group", key = "<a>" }, { not = { relation = "group", key = "<a>" } }] }')
    facts = after(policy, happening("groups.42.created", {"members": ["ann"]}), happening("groups.42.updated", {}))
    faults: list[str] = []
    audience = policy.audience(happening("e.42.1"), facts, faults)
    assert [audience.admits(viewer) for viewer in (ANN, BOB)] == [None, None]
    assert faults == ["relations.group: unknown since a faulty event"] * 2


def test_in_the_event_that_ends_doubt_the_newly_named_are_members_and_others_unknown() -> None:
    policy = rule('{ relation = "group", key = "<a>" }', "groups.<a>.updated")
    facts = after(policy, happening("groups.42.created", {}))
    event = happening("groups.42.updated", {"members": ["ann"]})
    facts.add(policy.changes(event), 1)
    assert seen(policy, ANN, event, facts) is True
    assert seen(policy, BOB, event, facts) is None


@pytest.mark.parametrize(
    ("test", "data", "claim", "verdict"),
    [
        ('equals = "admin"', {}, "admin", True),
        ("equals = 1", {}, 1.0, True),
        ("equals = true", {}, 1, None),
        ('equals = "<a>"', {}, 7, True),
        ('equals = "<a>"', {}, "8", False),
        ('equals = "data.x"', {"x": 7}, 7, True),
        ('equals = "data.x"', {"x": 7}, "7", None),
        ('equals = "data.x"', {"x": None}, None, None),
        ('equals = "data.x"', {"x": ["v"]}, "v", None),
        ('equals = "data.x"', {}, "v", None),
        ('contains = "admin"', {}, ["admin"], True),
        ('contains = "<a>"', {}, [6, 7], True),
        ('contains = "data.x"', {"x": "r"}, "q r s", True),
        ('in = ["a", "b"]', {}, "b", True),
        ('in = ["a", "b"]', {}, "c", False),
        ('in = "data.x"', {"x": ["a", "b"]}, "b", True),
        ('in = "data.x"', {"x": []}, "b", False),
        ('in = "data.x"', {"x": "b"}, "b", None),
        ('in = "data.x[].id"', {"x": [{"id": 1}, {"id": 2}]}, 2, True),
        ('in = "data.x"', {"x": ["b", None]}, "b", None),
    ],
)
def test_claims(test: str, data: Any, claim: Any, verdict: bool | None) -> None:
    policy = rule(f'{{ claim = "c", {test} }}')
    viewer = Identity("ann", {"c": claim})
    assert seen(policy, viewer, happening("e.7.2", data)) is verdict
    assert seen(rule(f'{{ not = {{ claim = "c", {test} }} }}'), viewer, happening("e.7.2", data)) is (
        None if verdict is None else not verdict
    )


def test_the_policy_names_its_claims_for_the_directory() -> None:
    policy = parse_policy(
        'default = { claim = "d", equals = 1 }\n[[rules]]\nevents = "e"\n'
        'visible_to = { all = ["everyone", { not = { claim = "c", in = [1] } }, { users = "data" }] }',
        "p",
    )
    assert policy.claims == {"c", "d"}


def test_as_of_then_who_came_later_was_no_member() -> None:
    policy = rule('{ relation = "game", key = "<a>" }')
    facts = after(
        policy, happening("games.1.members.ann.created"), happening("e.1.x"), happening("games.1.members.bob.created")
    )
    then = policy.audience(happening("e.1.x"), facts, as_of=1)
    assert [then.admits(viewer) for viewer in (ANN, BOB)] == [True, False]


def test_as_of_then_it_is_unknown_whether_who_has_left_was_a_member() -> None:
    policy = rule('{ not = { relation = "game", key = "<a>" } }')
    facts = after(
        policy, happening("games.1.members.ann.created"), happening("e.1.x"), happening("games.1.members.ann.deleted")
    )
    then = policy.audience(happening("e.1.x"), facts, as_of=1)
    assert [then.admits(viewer) for viewer in (ANN, BOB, Identity())] == [None, True, True]


def test_as_of_a_time_of_doubt_it_is_unknown_of_everybody() -> None:
    policy = rule('{ not = { relation = "group", key = "<a>" } }')
    facts = after(policy, happening("groups.1.created"), happening("e.1.x"), happening("groups.1.deleted"))
    then = policy.audience(happening("e.1.x"), facts, as_of=1)
    assert [then.admits(viewer) for viewer in (ANN, Identity())] == [None, None]


def test_as_of_then_is_as_now_without_relations() -> None:
    assert rule('"everyone"').audience(happening("e.1.2"), Facts(), as_of=0) is EVERYONE


def test_an_event_that_no_relation_names_changes_nothing() -> None:
    assert rule('"everyone"').changes(happening("e.1.2")) == ()


def test_one_event_may_change_several_relations_in_order() -> None:
    policy = parse_policy(
        """
        [relations.a]
        clear = "x.<k>.q.r"
        set = "x.<k>.**.{q,r}"
        key = "<k>"
        users = "data"
        """,
        "p",
    )
    changes = policy.changes(happening("x.1.q.r", ["ann"]))
    assert [(change.action, change.key, set(change.users)) for change in changes] == [
        (Action.SET, "1", {"ann"}),
        (Action.CLEAR, "1", set()),
    ]


def test_a_step_whose_alternatives_both_match_counts_once() -> None:
    policy = parse_policy('[relations.a]\nadd = "<k>.**.{p,q}.**"\nkey = "<k>"\nusers = "data"', "p")
    assert len(policy.changes(happening("1.x.p.q.y", "ann"))) == 1


def test_no_wildcard_gives_away_the_broker_s_own_names() -> None:
    policy = parse_policy('[[rules]]\nevents = "**"\nvisible_to = "everyone"', "p")
    assert policy.ruling("broker.x").rule is None
    literal = parse_policy('[[rules]]\nevents = "broker.x"\nvisible_to = "everyone"', "p")
    assert literal.ruling("broker.x").rule is literal.rules[0]


# --- what is remembered of names

OVERLAPPING = f"""
{GROUPS}
[[rules]]
events = "**"
visible_to = "nobody"

[[rules]]
events = "groups.<id>.**"
visible_to = "everyone"

[[rules]]
events = "groups.<id>.{{created,deleted}}"
visible_to = "authenticated"

[[rules]]
events = "broker.x"
visible_to = "everyone"
"""
NAMES = ["x", "groups.1", "groups.1.created", "groups.1.updated", "groups.1.deleted", "groups.2.created",
         "games.1.members.ann.created", "games.1.members.ann.deleted", "broker.x", "broker.y"]  # fmt: skip
PAYLOADS = st.sampled_from([{}, {"members": ["ann"]}, {"members": ["bob"]}, {"members": 7}])


@given(st.lists(st.tuples(st.sampled_from(NAMES), PAYLOADS), max_size=30), st.integers(1, 12))
def test_what_is_remembered_of_a_name_is_what_would_be_found_anew(looks: list[tuple[str, Any]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_module, "REMEMBERED", most)
        warm = parse_policy(OVERLAPPING, "p")
        for name, data in looks:
            cold = Policy(warm.relations, warm.rules, warm.default)
            assert warm.ruling(name) == cold.ruling(name)
            assert list(warm.changes(happening(name, data))) == list(cold.changes(happening(name, data)))


@pytest.mark.parametrize(
    ("condition", "name", "fixed"),
    [
        ('"everyone"', "a", EVERYONE),
        ('"nobody"', "a", NOBODY),
        ('"authenticated"', "a", AUTHENTICATED),
        ('{ users = "data.for" }', "a", None),
        ('"everyone"', "b", NOBODY),  # no rule: the default
    ],
)
def test_whose_audience_never_differs(condition: str, name: str, fixed: Audience | None) -> None:
    assert rule(condition, "a").ruling(name).fixed is fixed


def test_no_audience_is_fixed_where_something_is_learned() -> None:
    policy = parse_policy(OVERLAPPING, "p")
    assert policy.ruling("games.1.members.ann.created").fixed is None
    assert policy.ruling("x").fixed is not None


def test_one_policy_knows_nothing_of_what_another_remembers() -> None:
    first, second = rule('"everyone"', "a"), rule('"nobody"', "b")
    for _ in range(2):
        assert [first.ruling(name).rule for name in "ab"] == [first.rules[0], None]
        assert [second.ruling(name).rule for name in "ab"] == [None, second.rules[0]]


class Name(str):
    """A name that one can see being forgotten."""


def test_names_are_remembered_up_to_a_bound_and_the_oldest_are_forgotten() -> None:
    policy = parse_policy(OVERLAPPING, "p")
    alive: weakref.WeakSet[Name] = weakref.WeakSet()
    for number in range(REMEMBERED + 1_000):
        name = Name(f"groups.{number}.created")
        alive.add(name)
        policy.ruling(name)
        policy.changes(happening(name, {"members": ["ann"]}))
    del name
    gc.collect()
    assert 0 < len(alive) <= REMEMBERED
    assert policy.ruling("groups.0.created").rule is policy.rules[2]


# --- the slow model of an audience: one viewer at a time, straight from the notation

FORMS = st.recursive(
    st.sampled_from(
        [
            "everyone",
            "authenticated",
            "nobody",
            {"users": "data.u"},
            {"users": "<b>"},
            {"relation": "group", "key": "<a>"},
            {"claim": "c", "contains": "x"},
            {"claim": "c", "equals": "data.u"},
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)
DATA: st.SearchStrategy[Any] = st.sampled_from(
    [{}, {"u": "ann"}, {"u": ["ann", "x"]}, {"u": []}, {"u": 7}, {"u": [None]}, "ann", None]
)
VIEWERS = st.builds(
    Identity,
    st.sampled_from([None, "ann", "bob"]),
    st.sampled_from([{}, {"c": "ann"}, {"c": ["x"]}, {"c": "x y"}, {"c": 7}, {"c": []}]),
)
GROUP = st.sampled_from([None, [], ["ann"], ["ann", "bob"], 7])


def as_toml(form: Any) -> str:
    if isinstance(form, str):
        return f'"{form}"'
    if isinstance(form, list):
        return "[" + ", ".join(map(as_toml, form)) + "]"
    return "{ " + ", ".join(f"{key} = {as_toml(value)}" for key, value in form.items()) + " }"


def model(form: Any, viewer: Identity, data: Any, group: Any) -> bool | None:
    if isinstance(form, str):
        return {"everyone": True, "authenticated": viewer.user is not None, "nobody": False}[form]
    if "any" in form or "all" in form:
        verdicts = [model(part, viewer, data, group) for part in form.get("any", form.get("all"))]
        decisive = "any" in form
        return decisive if decisive in verdicts else None if None in verdicts else not decisive
    if "not" in form:
        verdict = model(form["not"], viewer, data, group)
        return None if verdict is None else not verdict
    if "relation" in form:
        return None if group == 7 else viewer.user in (group or [])
    if form.get("users") == "<b>":
        return viewer.user == "bob"
    u = data.get("u") if isinstance(data, dict) else None
    if "users" in form:
        users = [u] if isinstance(u, str) else u
        if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
            return None
        return viewer.user in users
    claim = viewer.claims.get("c")
    if "equals" in form:
        comparable = type(u) is type(claim) and isinstance(u, str | int)
        return u == claim if comparable else None
    words = claim.split() if isinstance(claim, str) else claim
    return "x" in words if isinstance(words, list) else None


@given(FORMS, DATA, VIEWERS, GROUP)
def test_an_audience_admits_whom_the_model_admits(form: Any, data: Any, viewer: Identity, group: Any) -> None:
    policy = rule(as_toml(form))
    facts = after(policy, *([] if group is None else [happening("groups.1.created", {"members": group})]))
    event = happening("e.1.bob", data)
    verdict = model(form, viewer, data, group)
    assert policy.audience(event, facts).admits(viewer) is verdict
    explanation = explain(policy, event, facts, viewer)
    assert explanation.visible is (verdict is True)
    assert explanation.findings[0].verdict is verdict


def test_one_relation_more_changes_nothing_else_of_a_policy() -> None:
    policy = rule('{ relation = "group", key = "<a>" }')
    own = Relation("broker.own", (Step("broker.own", Action.ADD, parse_shape("x.<u>"), Placeholder("u", 1)),))
    more = policy.with_relation(own)
    assert more.relations == {**policy.relations, "broker.own": own}
    assert (more.rules, more.default, more.claims) == (policy.rules, policy.default, policy.claims)
    assert [change.relation for change in more.changes(happening("x.ann"))] == ["broker.own"]
    assert policy.changes(happening("x.ann")) == ()
