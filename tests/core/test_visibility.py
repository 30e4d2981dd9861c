"""Who may see an event as it comes, and who gets it later: who might see it then, and may see it now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from broker.core.audience import EVERYONE, NOBODY, Audience
from broker.core.conditions import Condition, Scope
from broker.core.event import Event, Record
from broker.core.happening import Happening
from broker.core.leavers import Stay
from broker.core.policy import Policy
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity
from broker.core.relations import Change, Learned
from broker.core.visibility import EARLIER_POLICIES, Visibility

ADA, BOB, STRANGER = Identity("ada"), Identity("bob"), Identity()

GROUPS = """
[relations.group]
set   = "groups.<id>.set"
key   = "<id>"
users = "data"
clear = "groups.<id>.cleared"
"""
BLOCKED = """
[relations.blocked]
add    = "blocked.<id>.<user>.added"
remove = "blocked.<id>.<user>.removed"
key    = "<id>"
users  = "<user>"
"""
MEMBERS = '{ relation = "group", key = "<id>" }'
UNBLOCKED = '{ not = { relation = "blocked", key = "<id>" } }'
SET, CLEARED, NEWS = "groups.1.set", "groups.1.cleared", "news.1.told"
BLOCK_ADA, UNBLOCK_ADA = "blocked.1.ada.added", "blocked.1.ada.removed"


def policy(visible_to: str, relations: str = GROUPS + BLOCKED) -> Policy:
    return parse_policy(f'{relations}[[rules]]\nevents = "*.<id>.**"\nvisible_to = {visible_to}\n', "policy.toml")


class History:
    """Events as they come, and who gets them: in the moment, and later."""

    def __init__(self, visible_to: str) -> None:
        self.visibility = Visibility(policy(visible_to))
        self.records: list[Record] = []

    def happens(self, name: str, data: Any = None) -> Record:
        """An event comes."""
        self.seen(name, data)
        return self.records[-1]

    def seen(self, name: str, data: Any = None) -> list[str | None]:
        """An event comes; who sees it."""
        offset = len(self.records) + 1
        self.records.append(Record(Event(name, json.dumps(data).encode()), str(offset), offset))
        audience, changes = self.visibility.enter(self.records[-1], [])
        found = who(audience)
        self.visibility.leave(changes)
        return found

    def seen_later(self, record: Record) -> list[str | None]:
        return who(self.visibility.look_back(record))


def who(audience: Audience, people: Iterable[Identity] = (ADA, BOB, STRANGER)) -> list[str | None]:
    return [person.user for person in people if audience.admits(person) is True]


# As it comes.


def test_who_comes_and_who_goes_both_see_the_event_that_says_so() -> None:
    history = History(MEMBERS)
    happened = [history.seen(SET, ["ada"]), history.seen(SET, ["bob"]), history.seen(SET, ["bob"])]
    assert happened == [["ada"], ["ada", "bob"], ["bob"]]


def test_faults_of_what_an_event_teaches_and_of_who_sees_it_are_told() -> None:
    faults: list[str] = []
    visibility = Visibility(policy('{ users = "data.to" }'))
    visibility.enter(Record(Event(SET, b"{}"), "1", 1), faults)
    assert faults == [
        "data.to: 'to' is missing",
        "relations.group: data: an object where a user's id is expected, which is a string",
    ]


class Faulty(Condition):
    """A condition with a fault of ours: nobody finds out who may see an event."""

    def __str__(self) -> str:
        return "faulty"

    def audience(self, scope: Scope) -> Audience:
        raise RuntimeError("a fault of ours")


def test_a_fault_of_ours_does_not_keep_in_whom_the_event_takes_out() -> None:
    history = History(MEMBERS)
    history.happens(SET, ["ada"])
    history.visibility.adopt(Policy(policy(MEMBERS).relations, default=Faulty()))
    with pytest.raises(RuntimeError, match="ours"):
        history.happens(CLEARED)
    assert history.visibility.statistics()["facts"] == 0


# Later.


def test_an_event_for_everyone_is_so_later_too() -> None:
    history = History('"everyone"')
    assert history.visibility.look_back(history.happens(NEWS)) is EVERYONE


def test_events_that_did_not_need_to_enter_are_ruled_later_by_the_policy_of_then() -> None:
    visibility = Visibility(policy('"nobody"'))
    assert visibility.fixed(NEWS) is NOBODY
    visibility.passed(5)
    visibility.adopt(policy('"everyone"'))
    looks = [visibility.look_back(Record(Event(NEWS, b"{}"), str(offset), offset)) for offset in (5, 6)]
    assert [look.admits(ADA) for look in looks] == [False, True]


def test_who_came_after_an_event_does_not_get_it_later() -> None:
    history = History(MEMBERS)
    history.happens(SET, ["ada"])
    news = history.happens(NEWS)
    history.happens(SET, ["ada", "bob"])
    assert history.seen_later(news) == ["ada"]


def test_who_has_left_does_not_get_what_was_before() -> None:
    history = History(MEMBERS)
    history.happens(SET, ["ada", "bob"])
    news = history.happens(NEWS)
    history.happens(SET, ["bob"])
    assert history.seen_later(news) == ["bob"]


def test_who_left_and_came_back_counts_from_coming_back() -> None:
    history = History(MEMBERS)
    history.happens(SET, ["ada", "bob"])
    news = history.happens(NEWS)
    history.happens(SET, ["bob"])
    history.happens(SET, ["ada", "bob"])
    assert [history.seen_later(news), history.seen_later(history.happens(NEWS))] == [["bob"], ["ada", "bob"]]


def test_the_event_by_which_one_came_is_got_later_and_the_one_by_which_one_went_is_not() -> None:
    history = History(MEMBERS)
    came, went = history.happens(SET, ["ada"]), history.happens(SET, ["bob"])
    assert [history.seen_later(came), history.seen_later(went)] == [[], ["bob"]]


def test_who_was_kept_from_an_event_by_a_not_does_not_get_it_when_he_is_not_kept_any_more() -> None:
    history = History(UNBLOCKED)
    history.happens(BLOCK_ADA)
    assert history.seen(NEWS) == ["bob", None]
    news = history.records[-1]
    history.happens(UNBLOCK_ADA)
    assert history.seen_later(news) == ["bob", None]


def test_who_is_kept_by_a_not_for_the_second_time_does_not_get_what_was_kept_from_him_the_first_time() -> None:
    history = History('{ any = [{ not = { relation = "group", key = "<id>" } }, { users = "<id>" }] }')
    history.happens(SET, ["ada"])
    news = history.happens(NEWS)
    history.happens(SET, [])
    history.happens(SET, ["ada"])
    history.happens(SET, [])
    assert history.seen_later(news) == ["bob", None]


def test_before_and_after_he_was_kept_by_a_not_he_gets_it_later() -> None:
    history = History(UNBLOCKED)
    before = history.happens(NEWS)
    history.happens(BLOCK_ADA)
    history.happens(UNBLOCK_ADA)
    after = history.happens(NEWS)
    assert [history.seen_later(before), history.seen_later(after)] == [["ada", "bob", None]] * 2


def test_the_events_that_block_and_unblock_somebody_are_kept_from_him_later_too() -> None:
    history = History(UNBLOCKED)
    block, unblock = history.happens(BLOCK_ADA), history.happens(UNBLOCK_ADA)
    assert [history.seen_later(block), history.seen_later(unblock)] == [["bob", None]] * 2


def test_what_came_while_a_key_was_in_doubt_is_got_by_nobody_through_a_not() -> None:
    history = History('{ not = { relation = "group", key = "<id>" } }')
    history.happens(SET, {"faulty": True})
    news = history.happens(NEWS)
    history.happens(SET, ["bob"])
    assert [history.seen_later(news), history.seen_later(history.happens(NEWS))] == [[], ["ada", None]]


def test_a_restart_does_not_make_one_forget_who_was_kept_from_what() -> None:
    history = History(UNBLOCKED)
    history.happens(BLOCK_ADA)
    news = history.happens(NEWS)
    history.happens(UNBLOCK_ADA)
    learned = history.visibility.learned(3)
    history.visibility = Visibility(policy(UNBLOCKED))
    history.visibility.recall(learned)
    assert history.seen_later(news) == ["bob", None]


def test_what_happened_at_the_end_is_learned_again_after_a_restart_with_who_was_kept_from_what() -> None:
    history = History(UNBLOCKED)
    history.happens(BLOCK_ADA)
    learned = history.visibility.learned(1)
    behind = [history.happens(NEWS), history.happens(UNBLOCK_ADA)]
    history.visibility = Visibility(policy(UNBLOCKED))
    history.visibility.recall(learned)
    for record in behind:
        history.visibility.learn(record)
    assert history.seen_later(behind[0]) == ["bob", None]


def test_what_the_log_has_dropped_need_not_be_remembered() -> None:
    history = History(UNBLOCKED)
    history.happens(BLOCK_ADA)
    history.happens(UNBLOCK_ADA)
    history.visibility.forget(3)
    assert history.visibility.statistics()["leavers"] == 0


def test_a_record_that_was_read_before_it_was_dropped_is_got_by_nobody_of_whom_it_is_not_known() -> None:
    history = History(UNBLOCKED)
    history.happens(BLOCK_ADA)
    news = history.happens(NEWS)
    history.happens(UNBLOCK_ADA)
    history.visibility.forget(4)
    assert history.seen_later(news) == []


# When the policy changes.


def test_a_new_policy_shows_nothing_later_that_the_old_one_hid_then() -> None:
    history = History('"nobody"')
    before = history.happens(NEWS)
    history.visibility.adopt(policy('"everyone"'))
    after = history.happens(NEWS)
    assert [history.seen_later(before), history.seen_later(after)] == [[], ["ada", "bob", None]]


def test_a_new_policy_hides_what_the_old_one_showed() -> None:
    history = History('"everyone"')
    news = history.happens(NEWS)
    history.visibility.adopt(policy('{ users = "data" }'))
    assert history.seen_later(news) == []


def test_the_policy_of_then_counts_also_if_there_were_others_since() -> None:
    history = History('"nobody"')
    history.happens(NEWS)
    for word in ("everyone", "authenticated", "everyone"):
        history.visibility.adopt(policy(f'"{word}"'))
        history.happens(NEWS)
    assert [history.seen_later(each) for each in history.records] == [
        [],
        ["ada", "bob", None],
        ["ada", "bob"],
        ["ada", "bob", None],
    ]


def test_what_the_old_policy_hid_by_a_relation_that_is_gone_stays_hidden() -> None:
    history = History(UNBLOCKED)
    history.happens(BLOCK_ADA)
    news = history.happens(NEWS)
    history.visibility.adopt(policy('"everyone"', relations=""))
    history.happens(NEWS)
    assert history.seen_later(news) == ["bob", None]


def test_a_policy_that_ruled_no_event_is_not_remembered() -> None:
    history = History('"everyone"')
    news = history.happens(NEWS)
    for _ in range(EARLIER_POLICIES + 1):
        history.visibility.adopt(policy('"nobody"'))
    history.visibility.adopt(policy('"everyone"'))
    assert history.seen_later(news) == ["ada", "bob", None]


def test_what_came_under_a_policy_that_is_not_remembered_any_more_is_got_by_nobody() -> None:
    history = History('"everyone"')
    for _ in range(EARLIER_POLICIES + 1):
        history.happens(NEWS)
        history.visibility.adopt(policy('"everyone"'))
    assert [bool(history.seen_later(record)) for record in history.records] == [False, *[True] * EARLIER_POLICIES]


def test_a_policy_is_forgotten_with_the_last_event_that_it_ruled() -> None:
    history = History('"everyone"')
    ruled = [history.happens(NEWS), history.happens(NEWS)]
    history.visibility.adopt(policy('"authenticated"'))
    history.visibility.forget(2)
    kept = history.seen_later(ruled[1])
    history.visibility.forget(3)
    assert [kept, history.seen_later(ruled[1])] == [["ada", "bob"], []]


# What may be prepared for later: the version.


def test_what_is_looked_back_at_stays_as_it_is_while_nothing_is_learned() -> None:
    history = History(MEMBERS)
    before = history.visibility.version
    history.happens(NEWS)
    history.visibility.forget(1)
    assert history.visibility.version == before


@pytest.mark.parametrize("learning", ["enter", "leave", "learn", "recall", "adopt", "forget"])
def test_whatever_changes_what_is_looked_back_at_makes_another_version(learning: str) -> None:
    visibility = Visibility(policy(UNBLOCKED))
    visibility.recall(Learned(3, {}, {}, {("blocked", "1", "ada"): Stay(1, 2)}))
    record = Record(Event(BLOCK_ADA, b"1"), "4", 4)
    changes: list[Change] = [*policy(UNBLOCKED).changes(Happening(record.event))]
    before = visibility.version
    actions: dict[str, Callable[[], object]] = {
        "enter": lambda: visibility.enter(record, []),
        "leave": lambda: visibility.leave(changes),
        "learn": lambda: visibility.learn(record),
        "recall": lambda: visibility.recall(Learned()),
        "adopt": lambda: visibility.adopt(Policy()),
        "forget": lambda: visibility.forget(3),
    }
    actions[learning]()
    assert visibility.version != before


def test_facts_of_relations_that_the_policy_no_longer_has_are_not_recalled() -> None:
    visibility = Visibility(policy(MEMBERS, relations=GROUPS))
    visibility.recall(Learned(1, {("group", "1", "ada"): 1, ("gone", "1", "ada"): 1}))
    assert visibility.statistics()["facts"] == 1
