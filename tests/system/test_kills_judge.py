"""The judge of `test_kills.py` notices what it is there for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.system.kills import AUDITOR, Sent
from tests.system.kills_judge import Judge, Listener, Return, matches

ORDER = (
    Sent("0", "groups.red.created", {"members": ["ada", "bob"]}, None),
    Sent("1", "groups.red.messages.1.created", {}, None),
    Sent("2", "groups.red.updated", {"members": ["ada"]}, None),  # bob leaves, and sees it
    Sent("3", "groups.red.messages.2.created", {}, None),
    Sent("4", "news.sport", {}, None),
    Sent("5", "users.ada.inbox.1", {}, None),
)
SENT = {event.number: event for event in ORDER}
ADA, BOB, EVE = "012345", "0124", "4"


def witness(heard: Sequence[str]) -> Listener:
    return Listener("wes", ("**",), [AUDITOR], heard=[*heard])


def judge(order: Sequence[str] = "012345") -> Judge:
    return Judge(SENT, witness(order))


def listener(user: str, heard: Sequence[str], *returns: Return, patterns: Sequence[str] = ("**",)) -> Listener:
    return Listener(user, patterns, heard=[*heard], returns=[*returns])


@pytest.mark.parametrize(("user", "heard"), [("ada", ADA), ("bob", BOB), ("eve", EVE)])
def test_who_heard_what_it_should_have_passes(user: str, heard: str) -> None:
    judge().check(listener(user, heard))


def test_only_what_was_subscribed_to_is_expected() -> None:
    judge().check(listener("ada", "15", patterns=("groups.*.messages.1.*", "users.**")))


@pytest.mark.parametrize(
    ("user", "heard", "complaint"),
    [
        ("ada", "01245", "never heard"),
        ("eve", "", "never heard"),
        ("ada", "0112345", "after"),
        ("ada", "021345", "after"),
        ("bob", "01234", "must not see"),
        ("eve", "45", "must not see"),
    ],
)
def test_whatever_is_wrong_is_noticed(user: str, heard: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        judge().check(listener(user, heard))


def test_what_was_not_subscribed_to_is_noticed() -> None:
    with pytest.raises(AssertionError, match="did not subscribe"):
        judge().check(listener("ada", "5", patterns=("news.*",)))


def test_who_comes_back_after_a_loss_is_rightly_not_sent_what_it_has_no_right_to_any_more() -> None:
    known = judge()
    known.check(listener("bob", "04", Return(begin=1, known=3, live=1)))
    assert known.excused == 2


def test_who_comes_back_after_a_loss_must_not_be_sent_what_it_has_no_right_to_any_more() -> None:
    with pytest.raises(AssertionError, match="came back, and got"):
        judge().check(listener("bob", BOB, Return(begin=1, known=3, live=3)))


def test_while_the_loss_may_or_may_not_have_happened_either_is_right() -> None:
    for heard in ("04", "014", "0124"):
        judge().check(listener("bob", heard, Return(begin=1, known=1, live=len(heard) - 1)))


def test_a_loss_after_the_return_is_no_excuse() -> None:
    with pytest.raises(AssertionError, match="never heard"):
        judge().check(listener("bob", "024", Return(begin=1, known=1, live=1)))


def test_a_return_that_was_cut_excuses_up_to_the_next_that_was_not() -> None:
    judge().check(listener("bob", "04", Return(begin=1, known=1), Return(begin=1, known=3, live=1)))


def test_a_loss_that_was_not_even_sent_is_no_excuse() -> None:
    with pytest.raises(AssertionError, match="never heard"):
        judge().check(listener("bob", "04", Return(begin=1, known=1, live=1, sent=2)))


def test_who_began_later_and_left_earlier_is_owed_what_was_between() -> None:
    def passing(heard: str, *returns: Return) -> None:
        judge().check(Listener("ada", ("**",), after="1", stayed=False, heard=[*heard], returns=[*returns]))

    passing("23", Return(begin=0, known=4, live=2))
    passing("234", Return(begin=0, known=4, live=3))
    passing("23", Return(begin=0, known=5))  # and was cut off
    for heard, complaint in (("123", "before its time"), ("2", "never heard"), ("3", "never heard")):
        with pytest.raises(AssertionError, match=complaint):
            passing(heard, Return(begin=0, known=4, live=len(heard)))


def test_the_witness_hears_nothing_twice() -> None:
    with pytest.raises(AssertionError, match="more than once"):
        judge("0122345")


def test_what_was_answered_has_been_taken() -> None:
    judge().check_answered({"1", "4"}, SENT)
    with pytest.raises(AssertionError, match="answered, and lost"):
        judge("01235").check_answered({"1", "4"}, SENT)


def test_a_request_is_taken_whole_or_not_at_all() -> None:
    hidden = Sent("6", "secret.1", {}, None)
    judge("0145").check_whole([ORDER[2], ORDER[3]])
    judge("0145").check_whole([ORDER[4], ORDER[5], hidden])
    with pytest.raises(AssertionError, match="a part of it"):
        judge("0145").check_whole([ORDER[3], ORDER[4]])


def test_what_one_publisher_sent_was_taken_in_order() -> None:
    names = ("one-1", "other-1", "one-2")
    sent = {name: Sent(name, "news.sport", {}, None) for name in names}
    Judge(sent, witness(names)).check_order_of("one")
    with pytest.raises(AssertionError, match="one was not taken in order"):
        Judge(sent, witness(names[::-1])).check_order_of("one")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("**", "a.b", True),
        ("a.**", "a", False),
        ("*.b", "a.b", True),
        ("*.b", "a.c.b", False),
        ("a.*.c", "a.b.c", True),
    ],
)
def test_patterns_are_what_the_protocol_says(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected
