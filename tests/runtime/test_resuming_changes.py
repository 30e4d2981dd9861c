"""What changes while a client reads what it has missed: who is a member, the policy, what it wants, who it is."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.event import Event
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity
from broker.core.relations import Learned
from broker.edge.memory_log import MemoryLog
from broker.runtime.lookback import AT_ONCE
from tests.runtime.house import House, house
from tests.runtime.resumes import RESUMED, numbers, resume, slow_reader

GROUPS = """
[relations.group]
add    = "groups.<id>.<user>.added"
remove = "groups.<id>.<user>.removed"
key    = "<id>"
users  = "<user>"
"""
RULE = """
[[rules]]
events     = "news.<id>"
visible_to = {visible_to}
"""
MEMBERS = GROUPS + RULE.format(visible_to='{ relation = "group", key = "<id>" }')
OTHERS = GROUPS + RULE.format(visible_to='{ not = { relation = "group", key = "<id>" } }')
ADMINS = RULE.format(visible_to='{ claim = "role", equals = "admin" }')
EVERYONE = RULE.format(visible_to='"everyone"')
NOBODY = RULE.format(visible_to='"nobody"')

JOIN, LEAVE = ("groups.1.ada.added", 1), ("groups.1.ada.removed", 1)
NEWS = "news.1"


def news(begin: int, end: int) -> list[tuple[str, Any]]:
    return numbers(begin, end, NEWS)


async def half_read(home: House, first: str, **more: Any) -> tuple[Any, list[Any]]:
    """Ada, who has read a part of what she has missed, and that part; another one waits for her already."""
    ada = await slow_reader(home, "ada", NEWS, **more)
    await resume(ada, first)
    return ada, await ada.reads()


# Who is a member.


async def test_who_leaves_while_reading_what_was_missed_gets_no_more_of_it() -> None:
    async with house(MEMBERS) as home:
        [first] = await home.publish(JOIN)
        await home.publish(*news(0, 5 * AT_ONCE))
        ada, read = await half_read(home, first)
        await home.publish(LEAVE)
        read += await ada.reads_all()
        assert read == [*range(2 * AT_ONCE), RESUMED]


async def test_who_comes_while_reading_what_was_missed_gets_what_happens_from_then_on() -> None:
    async with house(MEMBERS) as home:
        [first] = await home.publish(("groups.1.bob.added", 1))
        await home.publish(*news(0, 1000))
        ada = await slow_reader(home, "ada", NEWS)
        await resume(ada, first)
        await home.publish(JOIN, (NEWS, 1000))
        assert sorted(await ada.reads_all(), key=str) == [1000, RESUMED]


async def test_who_left_and_came_back_while_away_gets_what_happened_since_then() -> None:
    async with house(MEMBERS) as home:
        [first] = await home.publish(JOIN)
        await home.publish((NEWS, "before"), LEAVE, (NEWS, "between"), JOIN, (NEWS, "after"))
        assert await resume(await home.join("ada", NEWS), first) == ["after", RESUMED]


async def test_whom_a_not_kept_from_an_event_does_not_get_it_later_and_all_others_do() -> None:
    async with house(OTHERS) as home:
        [first] = await home.publish((NEWS, 0))
        await home.publish((NEWS, "before"), JOIN, (NEWS, "between"), LEAVE, (NEWS, "after"))
        found = [await resume(await home.join(user, NEWS), first) for user in ("ada", "bob", None)]
        everything = ["before", "between", "after", RESUMED]
        assert found == [["before", "after", RESUMED], everything, everything]


async def test_whom_a_not_keeps_out_while_reading_what_was_missed_gets_no_more_of_it() -> None:
    async with house(OTHERS) as home:
        first, *_ = await home.publish(*news(0, 5 * AT_ONCE + 1))
        ada, read = await half_read(home, first)
        await home.publish(JOIN)
        read += await ada.reads_all()
        assert read == [*range(1, 2 * AT_ONCE + 1), RESUMED]


async def test_an_event_that_is_for_one_user_comes_later_to_that_one_only() -> None:
    private = '[[rules]]\nevents = "users.<user>.told"\nvisible_to = { users = "<user>" }'
    async with house(private) as home:
        first, *_ = await home.publish(("users.ada.told", 0), ("users.bob.told", 1), ("users.ada.told", 2))
        found = [await resume(await home.join(user, "**"), first) for user in ("ada", "bob", None)]
        assert found == [[2, RESUMED], [1, RESUMED], [RESUMED]]


# The policy.


async def test_what_a_new_policy_hides_is_not_sent_any_more() -> None:
    async with house(EVERYONE) as home:
        first, *_ = await home.publish(*news(0, 5 * AT_ONCE + 1))
        ada, read = await half_read(home, first)
        home.dispatcher.adopt(parse_policy(NOBODY, "policy.toml"))
        read += await ada.reads_all()
        assert read == [*range(1, 2 * AT_ONCE + 1), RESUMED]


async def test_what_a_new_policy_shows_is_not_sent_if_it_was_hidden_then() -> None:
    async with house(NOBODY) as home:
        first, *_ = await home.publish(*news(0, 1000))
        home.dispatcher.adopt(parse_policy(EVERYONE, "policy.toml"))
        await home.publish((NEWS, "now"))
        assert await resume(await home.join("ada", NEWS), first) == ["now", RESUMED]


# What it wants.


async def test_a_pattern_that_it_subscribes_to_meanwhile_matches_what_is_still_to_be_sent() -> None:
    async with house() as home:
        first, *_ = await home.publish(*news(0, 5 * AT_ONCE + 1), ("b", "missed"))
        ada, read = await half_read(home, first)
        await ada.say({"event": "subscribe", "data": "b"})
        await home.publish(("b", "live"))
        read += await ada.reads_all()
        read.remove(RESUMED)
        assert read == [*range(1, 5 * AT_ONCE + 1), "missed", "live"]


async def test_a_pattern_that_it_unsubscribes_from_meanwhile_matches_nothing_any_more() -> None:
    async with house() as home:
        first, *_ = await home.publish(*news(0, 5 * AT_ONCE + 1), ("b", "missed"))
        ada, read = await half_read(home, first)
        await ada.say({"event": "unsubscribe", "data": NEWS}, {"event": "subscribe", "data": "b"})
        await home.publish((NEWS, "live"))
        read += await ada.reads_all()
        assert read == [*range(1, 2 * AT_ONCE + 1), "missed", RESUMED]


async def test_another_resume_meanwhile_is_refused_and_the_first_one_goes_on() -> None:
    async with house() as home:
        first, *_ = await home.publish(*news(0, 5 * AT_ONCE + 1))
        ada, read = await half_read(home, first)
        await ada.say({"event": "resume", "data": None})
        read += await ada.reads_all()
        read.remove("resume_in_progress")
        assert read == [*range(1, 5 * AT_ONCE + 1), RESUMED]


# Who it is.


async def test_a_fresh_token_counts_for_what_is_still_to_be_sent() -> None:
    async with house(ADMINS) as home:
        home.tokens.known["fresh"] = Identity("ada", {"role": "user"})
        first, *_ = await home.publish(*news(0, 5 * AT_ONCE + 1))
        ada, read = await half_read(home, first, claims={"role": "admin"})
        await ada.say({"event": "authenticate", "data": "fresh"})
        read += await ada.reads_all()
        assert read == [*range(1, 2 * AT_ONCE + 1), RESUMED]


# What was learned before a restart.


class RecallingLog(MemoryLog):
    """A log that knows what was learned from its events before."""

    def __init__(self, learned: Learned) -> None:
        super().__init__()
        self._learned_before = learned

    async def recall(self) -> tuple[Learned, list[Any]]:
        await super().recall()
        return self._learned_before, []


@pytest.mark.parametrize(("since", "found"), [(1, [1, RESUMED]), (3, [RESUMED])])
async def test_since_when_one_is_a_member_counts_over_a_restart(since: int, found: list[Any]) -> None:
    log = RecallingLog(Learned(3, {("group", "1", "ada"): since}))
    await log.append([Event(NEWS, b"0"), Event(NEWS, b"1"), Event("groups.1.ada.added", b"1")])
    async with house(MEMBERS, log) as home:
        await home.dispatcher.recall()
        assert await resume(await home.join("ada", NEWS), log.position(1)) == found
