"""Relations: learned from events, in doubt after a faulty one, held against a slow model."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core.event import Event
from broker.core.happening import Happening, Placeholder, parse_path
from broker.core.leavers import ANYBODY, Stay
from broker.core.relations import Action, Change, Facts, Learned, Step
from broker.core.shapes import parse_shape


def change(action: Action, *users: str, fault: str | None = None, key: str = "1") -> Change:
    return Change("group", action, key, frozenset(users), fault)


def learned(*history: Change) -> Facts:
    facts = Facts()
    for offset, one in enumerate(history):
        facts.add([one], offset)
        facts.remove([one], offset)
    return facts


def members(facts: Facts) -> dict[str, int]:
    return dict(facts.members("group", "1"))


def test_a_key_never_heard_of_has_no_members_for_certain() -> None:
    facts = Facts()
    assert members(facts) == {}
    assert facts.complete("group", "1")


def test_set_replaces_the_members_and_keeps_since_when_those_who_stay_are_members() -> None:
    facts = learned(change(Action.SET, "ann", "bob"), change(Action.SET, "bob", "cid"))
    assert members(facts) == {"bob": 0, "cid": 1}


def test_during_a_set_both_the_old_and_the_new_are_members() -> None:
    facts = learned(change(Action.SET, "ann"))
    following = [change(Action.SET, "bob")]
    facts.add(following, 1)
    assert members(facts) == {"ann": 0, "bob": 1}
    facts.remove(following, 1)
    assert members(facts) == {"bob": 1}


def test_who_is_removed_is_a_member_until_after_the_event() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.ADD, "bob"))
    following = [change(Action.REMOVE, "ann")]
    facts.add(following, 2)
    assert members(facts) == {"ann": 0, "bob": 1}
    facts.remove(following, 2)
    assert members(facts) == {"bob": 1}


def test_who_is_added_again_is_a_member_since_the_first_time_unless_removed() -> None:
    assert members(learned(change(Action.ADD, "ann"), change(Action.ADD, "ann"))) == {"ann": 0}
    back = learned(change(Action.ADD, "ann"), change(Action.REMOVE, "ann"), change(Action.ADD, "ann"))
    assert members(back) == {"ann": 2}


def test_clear_forgets_the_key_after_the_event_and_no_other_key() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.ADD, "bob", key="2"))
    following = [change(Action.CLEAR)]
    facts.add(following, 2)
    assert members(facts) == {"ann": 0}
    facts.remove(following, 2)
    assert members(facts) == {}
    assert dict(facts.members("group", "2")) == {"bob": 1}


def test_a_fault_puts_the_key_in_doubt_before_the_audience_is_taken() -> None:
    for action in (Action.SET, Action.ADD, Action.REMOVE):
        facts = learned(change(Action.ADD, "ann"))
        facts.add([change(action, fault="broken")], 1)
        assert members(facts) == {}
        assert not facts.complete("group", "1")
        assert facts.complete("group", "2")
        assert facts.statistics()["doubtful_keys"] == 1


def test_doubt_lasts_until_all_is_said_again() -> None:
    fault = change(Action.ADD, fault="broken")
    more = learned(fault, change(Action.ADD, "ann"), change(Action.REMOVE, "ann"), change(Action.ADD, "bob"))
    assert not more.complete("group", "1")
    assert members(more) == {}
    assert learned(fault, change(Action.CLEAR)).complete("group", "1")
    again = learned(fault, change(Action.SET, "bob"))
    assert again.complete("group", "1")
    assert members(again) == {"bob": 1}


def test_doubt_about_one_key_is_none_about_another() -> None:
    facts = learned(
        change(Action.SET, fault="broken"), change(Action.SET, fault="broken", key="2"), change(Action.CLEAR)
    )
    assert facts.complete("group", "1")
    assert not facts.complete("group", "2")


def test_a_set_ends_doubt_only_after_its_event_for_nobody_knows_who_left() -> None:
    facts = learned(change(Action.SET, fault="broken"))
    facts.add([change(Action.SET, "bob")], 1)
    assert members(facts) == {"bob": 1}
    assert not facts.complete("group", "1")


def test_one_event_may_do_several_things() -> None:
    facts = Facts()
    both = [change(Action.SET, "ann"), change(Action.ADD, "bob")]
    facts.add(both, 0)
    facts.remove(both, 0)
    assert members(facts) == {"ann": 0, "bob": 0}


def test_a_good_set_beside_a_faulty_change_leaves_doubt() -> None:
    facts = Facts()
    both = [change(Action.SET, "ann"), change(Action.ADD, fault="broken")]
    facts.add(both, 0)
    facts.remove(both, 0)
    assert not facts.complete("group", "1")


def test_nothing_is_kept_of_keys_without_members() -> None:
    facts = learned(
        change(Action.ADD, "ann"),
        change(Action.REMOVE, "ann"),
        change(Action.SET),
        change(Action.ADD),
        change(Action.CLEAR, key="9"),
    )
    assert facts.forget_leavers(10)
    assert facts.statistics() == {"relations": 0, "keys": 0, "facts": 0, "doubtful_keys": 0, "leavers": 0}


def test_a_new_policy_keeps_the_relations_that_it_still_has() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.ADD, fault="broken", key="2"))
    facts.keep(["group", "other"], 1)
    assert facts.statistics()["facts"] == 1
    assert not facts.complete("group", "2")
    facts.keep(["other"], 1)
    assert facts.statistics()["facts"] == 0
    assert facts.complete("group", "2")


def test_a_step_reads_key_and_users_from_its_event() -> None:
    shape = parse_shape("groups.<id>.created")
    step = Step("group", Action.SET, shape, Placeholder("id", 1), parse_path("data.members"))
    event = Event("groups.1.created", json.dumps({"members": ["ann"]}).encode())
    assert step.change(Happening(event)) == change(Action.SET, "ann")
    faulty = step.change(Happening(Event("groups.1.created", b"{}")))
    assert faulty.fault == "relations.group: data.members: 'members' is missing"
    clear = Step("group", Action.CLEAR, shape, Placeholder("id", 1))
    assert clear.change(Happening(event)) == change(Action.CLEAR)


# --- what the log is to keep


def test_what_has_changed_is_told_once() -> None:
    facts = learned(change(Action.SET, "ann", "bob"))
    assert facts.changed(0) == Learned(0, {("group", "1", "ann"): 0, ("group", "1", "bob"): 0})
    assert facts.changed(0) == Learned(0)


def test_what_stays_as_it_is_has_not_changed() -> None:
    facts = learned(change(Action.SET, "ann", "bob"))
    facts.changed(0)
    following = [change(Action.SET, "bob", "cid")]
    facts.add(following, 1)
    facts.remove(following, 1)
    assert facts.changed(1).members == {("group", "1", "ann"): None, ("group", "1", "cid"): 1}


def test_a_key_that_is_cleared_changes_for_each_of_its_members() -> None:
    facts = learned(change(Action.SET, "ann", "bob"))
    facts.changed(0)
    facts.remove([change(Action.CLEAR)], 1)
    assert facts.changed(1).members == {("group", "1", "ann"): None, ("group", "1", "bob"): None}


def test_doubt_and_its_end_are_changes() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.ADD, fault="broken"))
    begun = facts.changed(1)
    assert (begun.members, begun.doubts) == ({("group", "1", "ann"): None}, {("group", "1"): True})
    facts.remove([change(Action.CLEAR)], 2)
    ended = facts.changed(2)
    assert (ended.members, ended.doubts) == ({}, {("group", "1"): False})


def test_what_a_new_policy_forgets_has_changed() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.ADD, fault="broken", key="2"))
    facts.changed(1)
    facts.keep(["other"], 1)
    forgotten = facts.changed(1)
    assert (forgotten.members, forgotten.doubts) == ({("group", "1", "ann"): None}, {("group", "2"): False})


def test_who_has_left_is_told_with_the_time_that_he_was_a_member_for() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.REMOVE, "ann"))
    assert facts.changed(1).leavers == {("group", "1", "ann"): Stay(0, 1)}


def test_doubt_that_has_ended_is_told_as_everybody_who_has_left() -> None:
    facts = learned(change(Action.ADD, fault="broken"), change(Action.CLEAR))
    assert facts.changed(1).leavers == {("group", "1", ANYBODY): Stay(0, 1)}


def test_what_is_learned_later_replaces_what_was_learned_before() -> None:
    ann, bob, cid = ("g", "1", "ann"), ("g", "1", "bob"), ("g", "3", "cid")
    before = Learned(1, {ann: 1, bob: 1}, {("g", "2"): True}, {cid: Stay(0, 1), bob: Stay(0, 0)})
    later = Learned(5, {ann: None, cid: 5}, {("g", "2"): False}, {ann: Stay(1, 5), bob: None})
    assert before.followed_by(later) == Learned(
        5,
        {ann: None, bob: 1, cid: 5},
        {("g", "2"): False},
        {ann: Stay(1, 5), bob: None, cid: Stay(0, 1)},
    )


def test_what_is_no_more_is_not_restored() -> None:
    facts = Facts(Learned(5, {("group", "1", "ann"): None}, {("group", "2"): False}, {("group", "1", "bob"): None}))
    assert facts.statistics() == {"relations": 0, "keys": 0, "facts": 0, "doubtful_keys": 0, "leavers": 0}


# --- who was a member, for events that are looked at later


def was_a_member(facts: Facts, user: str, offset: int) -> bool | None:
    """What is known of that; None: it is unknown."""
    since = facts.members("group", "1").get(user)
    if since is not None and since <= offset:
        return True
    unknown = not facts.complete("group", "1", offset) or facts.perhaps("group", "1", offset, user)
    return None if unknown else False


def moments(length: int) -> list[tuple[str, int]]:
    return [(user, offset) for user in "abc" for offset in range(length)]


def test_who_has_left_may_have_been_a_member_until_the_event_that_took_him_out() -> None:
    facts = learned(
        change(Action.SET, "bob"), change(Action.ADD, "ann"), change(Action.SET, "bob"), change(Action.SET, "bob")
    )
    assert [was_a_member(facts, "ann", offset) for offset in range(4)] == [False, None, None, False]


def test_who_came_back_is_a_member_for_certain_only_since_then() -> None:
    facts = learned(
        change(Action.ADD, "ann"), change(Action.REMOVE, "ann"), change(Action.ADD), change(Action.ADD, "ann")
    )
    assert [was_a_member(facts, "ann", offset) for offset in range(4)] == [None, None, False, True]


def test_who_left_twice_may_have_been_a_member_in_between_too() -> None:
    come, go = change(Action.ADD, "ann"), change(Action.REMOVE, "ann")
    facts = learned(come, go, change(Action.ADD), come, go, change(Action.ADD))
    assert [was_a_member(facts, "ann", offset) for offset in range(6)] == [*[None] * 5, False]


def test_who_never_left_is_no_leaver_because_another_did() -> None:
    facts = learned(change(Action.SET, "ann", "bob"), change(Action.CLEAR))
    assert was_a_member(facts, "cid", 0) is False


def test_who_left_one_key_is_no_leaver_of_another() -> None:
    facts = learned(change(Action.SET, "ann"), change(Action.CLEAR))
    assert not facts.perhaps("group", "2", 0, "ann")
    assert not facts.perhaps("other", "1", 0, "ann")


def test_while_a_key_was_in_doubt_anybody_may_have_been_a_member() -> None:
    facts = learned(
        change(Action.ADD), change(Action.ADD, fault="broken"), change(Action.SET, "ann"), change(Action.ADD)
    )
    assert [was_a_member(facts, "ann", offset) for offset in range(1, 4)] == [None, True, True]
    assert [was_a_member(facts, "bob", offset) for offset in range(1, 4)] == [None, None, False]


def test_members_whom_a_new_policy_forgets_may_have_been_members_until_it_ruled() -> None:
    facts = learned(change(Action.ADD, "ann"), change(Action.ADD, fault="broken", key="2"))
    facts.keep(["other"], 7)
    assert [was_a_member(facts, "ann", offset) for offset in (7, 8)] == [None, False]
    assert [facts.complete("group", "2", offset) for offset in (7, 8)] == [False, True]


# --- the slow model: what is known of one key is a dict of members, or None for doubt

CHANGES = st.builds(
    lambda action, users, faulty: change(
        action, *(() if faulty or action is Action.CLEAR else users), fault="broken" if faulty else None
    ),
    st.sampled_from(Action),
    st.sets(st.sampled_from("abc")),
    st.sampled_from([False, False, False, True]),
).filter(lambda one: one.fault is None or one.action is not Action.CLEAR)


def model_after(known: Any, one: Change, offset: int) -> Any:
    if one.fault is not None:
        return None
    if one.action is Action.CLEAR:
        return {}
    if one.action is Action.SET:
        return {user: (known or {}).get(user, offset) for user in one.users}
    if known is None:
        return None
    if one.action is Action.ADD:
        return dict.fromkeys(one.users, offset) | known
    return {user: since for user, since in known.items() if user not in one.users}


def model_during(known: Any, one: Change, offset: int) -> tuple[set[str], bool]:
    """Who is certainly a member while the event is delivered, and whether there are certainly no others."""
    after = model_after(known, one, offset)
    if one.fault is not None:
        return set(), False
    if known is None:
        return (set(after), False) if one.action is Action.SET else (set(), False)
    return set(known) | set(after), True


@given(st.lists(CHANGES, max_size=20))
def test_facts_agree_with_the_model_during_and_after_every_event(history: list[Change]) -> None:
    facts = Facts()
    known: Any = {}
    for offset, one in enumerate(history):
        facts.add([one], offset)
        assert (set(members(facts)), facts.complete("group", "1")) == model_during(known, one, offset)
        facts.remove([one], offset)
        known = model_after(known, one, offset)
        assert facts.complete("group", "1") is (known is not None)
        assert members(facts) == (known or {})


HISTORY = st.lists(
    st.tuples(st.lists(CHANGES, min_size=1, max_size=3), st.booleans(), st.booleans(), st.integers(0, 5)), max_size=20
)


@given(HISTORY)
def test_facts_are_restored_from_all_that_was_told_to_have_changed(
    history: list[tuple[list[Change], bool, bool, int]],
) -> None:
    facts = Facts()
    kept = Learned()
    for offset, (changes, tell, begin_anew, retained) in enumerate(history):
        facts.forget_leavers(offset - retained)
        facts.add(changes, offset)
        facts.remove(changes, offset)
        if tell or begin_anew:
            kept = kept.followed_by(facts.changed(offset))
        if begin_anew:
            facts = Facts(kept)
    restored = Facts(kept.followed_by(facts.changed(len(history))))
    assert members(restored) == members(facts)
    assert restored.complete("group", "1") is facts.complete("group", "1")
    assert restored.statistics() == facts.statistics()
    assert [was_a_member(restored, *at) for at in moments(len(history))] == [
        was_a_member(facts, *at) for at in moments(len(history))
    ]
    assert restored.changed(0) == Learned(0)


@given(st.lists(CHANGES, max_size=12), st.integers(0, 12))
def test_nobody_was_a_member_or_was_none_who_may_have_been_the_opposite(history: list[Change], first: int) -> None:
    facts = Facts()
    known: Any = {}
    during = []
    for offset, one in enumerate(history):
        facts.add([one], offset)
        during.append(model_during(known, one, offset))
        facts.remove([one], offset)
        known = model_after(known, one, offset)
    facts.forget_leavers(first)
    for user, offset in moments(len(history)):
        were, certain = during[offset]
        truth = True if user in were else False if certain else None
        assert was_a_member(facts, user, offset) in (truth, None)


@given(st.lists(CHANGES.filter(lambda one: one.fault is None), max_size=12))
def test_who_was_a_member_once_at_most_is_unknown_only_of_the_time_that_he_was_one(history: list[Change]) -> None:
    facts = Facts()
    known: Any = {}
    during = []
    for offset, one in enumerate(history):
        facts.add([one], offset)
        during.append(model_during(known, one, offset)[0])
        facts.remove([one], offset)
        known = model_after(known, one, offset)
    for user, offset in moments(len(history)):
        were = "".join(" x"[user in each] for each in during)
        if len(were.split()) <= 1 and was_a_member(facts, user, offset) is None:
            assert were[offset] == "x"


def test_all_members_of_a_relation_are_those_of_all_its_keys() -> None:
    facts = learned(change(Action.ADD, "ann", key="1"), change(Action.ADD, "ann", "bob", key="2"))
    assert facts.all_members("group") == {"ann", "bob"}
    assert facts.all_members("game") == set()


def test_the_broker_s_own_relations_are_known_and_not_counted() -> None:
    facts = Facts()
    for offset, action in enumerate((Action.ADD, Action.REMOVE, Action.ADD)):
        for user in ("ann", "bob"):
            changes = [Change("broker.presence", action, user, frozenset((user,)))]
            facts.add(changes, offset)
            facts.remove(changes, offset)
    assert facts.all_members("broker.presence") == {"ann", "bob"}
    assert set(facts.statistics().values()) == {0}
