"""Presence: who counts as online, what is told of it and when, and that nobody stays online for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.errors import Overloaded
from broker.runtime import presence as presence_module
from broker.runtime.presence import RETRY_AFTER, Presence

GRACE = 5.0


class Listener:
    """Hears the news, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.news: list[dict[str, bool]] = []
        self.failing = 0
        self.failure: Exception = Overloaded()
        self.failed_at = -RETRY_AFTER
        self.takes = 0.0

    async def announce(self, news: Mapping[str, bool]) -> None:
        await trio.sleep(self.takes)
        if self.failing:
            self.failing -= 1
            self.failed_at = trio.current_time()
            raise self.failure
        self.news.append(dict(news))

    def of(self, user: str) -> list[bool]:
        return [news[user] for news in self.news if user in news]


@asynccontextmanager
async def present(
    grace: float = GRACE, recalled: Iterable[str] = (), listener: Listener | None = None
) -> AsyncIterator[tuple[Presence, Listener]]:
    listener = listener or Listener()
    presence = Presence(grace, listener.announce)
    presence.recall(recalled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.run)
        await wait_all_tasks_blocked()
        yield presence, listener
        nursery.cancel_scope.cancel()


def left_behind(presence: Presence) -> list[object]:
    """All that is remembered of anybody."""
    kept = (presence._connections, presence._leaving, presence._announced, presence._changed)
    return [each for kind in kept for each in kind]


async def test_the_first_connection_is_news_and_the_others_are_not(autojump_clock: MockClock) -> None:
    async with present() as (presence, listener):
        presence.came("ada")
        assert presence.is_online("ada")
        await wait_all_tasks_blocked()
        presence.came("ada")
        presence.went("ada")
        await trio.sleep(2 * GRACE)
        assert listener.news == [{"ada": True}]
        assert set(presence.online()) == {"ada"}


async def test_the_last_one_is_news_after_a_while(autojump_clock: MockClock) -> None:
    async with present() as (presence, listener):
        presence.came("ada")
        await wait_all_tasks_blocked()
        presence.went("ada")
        await trio.sleep(GRACE - 0.1)
        assert presence.is_online("ada")
        assert listener.of("ada") == [True]
        await trio.sleep(0.2)
        assert not presence.is_online("ada")
        assert listener.of("ada") == [True, False]
        assert left_behind(presence) == []


async def test_who_comes_back_meanwhile_was_never_away(autojump_clock: MockClock) -> None:
    async with present() as (presence, listener):
        for _ in range(10):
            presence.came("ada")
            await trio.sleep(1)
            presence.went("ada")
            await trio.sleep(GRACE - 1)
        presence.came("ada")
        await trio.sleep(10 * GRACE)
        assert listener.of("ada") == [True]


async def test_without_a_while_it_is_news_at_once(autojump_clock: MockClock) -> None:
    async with present(grace=0) as (presence, listener):
        presence.came("ada")
        await wait_all_tasks_blocked()
        presence.went("ada")
        await wait_all_tasks_blocked()
        assert listener.of("ada") == [True, False]


async def test_each_has_a_while_of_its_own(autojump_clock: MockClock) -> None:
    async with present() as (presence, listener):
        for user in ("ada", "bob"):
            presence.came(user)
        presence.went("ada")
        await trio.sleep(3)
        presence.went("bob")
        await trio.sleep(3)
        assert (presence.is_online("ada"), presence.is_online("bob")) == (False, True)
        await trio.sleep(3)
        assert set(presence.online()) == set()
        assert (listener.of("ada"), listener.of("bob")) == ([True, False], [True, False])


async def test_of_who_comes_and_goes_faster_than_it_is_told_only_the_outcome_is(autojump_clock: MockClock) -> None:
    async with present(grace=0) as (presence, listener):
        presence.came("ada")
        presence.went("ada")
        await wait_all_tasks_blocked()
        assert listener.news == []
        assert left_behind(presence) == []


async def test_what_could_not_be_told_is_told_again(autojump_clock: MockClock) -> None:
    async with present() as (presence, listener):
        listener.failing = 3
        presence.came("ada")
        await trio.sleep(3 * RETRY_AFTER + 0.1)
        assert listener.news == [{"ada": True}]


async def test_what_could_not_be_told_comes_before_what_happened_since(autojump_clock: MockClock) -> None:
    async with present() as (presence, listener):
        listener.failing = 1
        presence.came("ada")
        await wait_all_tasks_blocked()
        presence.came("bob")
        await trio.sleep(2 * RETRY_AFTER)
        assert [list(news) for news in listener.news] == [["ada", "bob"]]


async def test_who_has_gone_before_it_could_be_told_is_not_told_of(autojump_clock: MockClock) -> None:
    async with present(grace=0) as (presence, listener):
        listener.failing = 1
        presence.came("ada")
        await wait_all_tasks_blocked()
        presence.went("ada")
        await trio.sleep(2 * RETRY_AFTER)
        assert listener.news == []
        assert left_behind(presence) == []


async def test_any_other_fault_costs_one_announcement_and_ends_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with present() as (presence, listener):
        listener.failing, listener.failure = 1, ZeroDivisionError()
        presence.came("ada")
        await wait_all_tasks_blocked()
        presence.came("bob")
        presence.went("ada")
        await trio.sleep(2 * GRACE)
        assert listener.news == [{"bob": True}, {"ada": False}]
        assert set(presence.online()) == {"bob"}
    assert [record.getMessage() for record in caplog.records] == ["presence.failed"]


async def test_what_changes_while_it_is_told_is_told_after(autojump_clock: MockClock) -> None:
    async with present(grace=1) as (presence, listener):
        listener.takes = 10
        presence.came("ada")
        await wait_all_tasks_blocked()
        presence.went("ada")
        await trio.sleep(25)
        assert listener.of("ada") == [True, False]


async def test_a_crowd_is_told_of_in_parts(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "MAX_AT_ONCE", 3)
    async with present() as (presence, listener):
        for number in range(8):
            presence.came(str(number))
        await wait_all_tasks_blocked()
        assert [list(news) for news in listener.news] == [["0", "1", "2"], ["3", "4", "5"], ["6", "7"]]


async def test_who_was_online_when_the_last_broker_ended_and_does_not_come_back_has_gone(
    autojump_clock: MockClock,
) -> None:
    async with present(recalled=["ada", "bob"]) as (presence, listener):
        assert set(presence.online()) == {"ada", "bob"}
        presence.came("ada")
        await trio.sleep(2 * GRACE)
        assert listener.news == [{"bob": False}]
        assert set(presence.online()) == {"ada"}
        presence.went("ada")
        await trio.sleep(2 * GRACE)
        assert listener.of("ada") == [False]
        assert left_behind(presence) == []


async def test_the_while_of_those_begins_when_they_are_recalled(autojump_clock: MockClock) -> None:
    presence = Presence(GRACE, Listener().announce)
    presence.recall(["ada"])
    await trio.sleep(GRACE - 1)
    assert presence.is_online("ada")


# --- Against a slow model --------------------------------------------------------------------------------------------

USERS = ("ada", "bob", "carol")
came = st.tuples(st.just("came"), st.sampled_from(USERS))
went = st.tuples(st.just("went"), st.sampled_from(USERS))
wait = st.tuples(st.just("wait"), st.sampled_from((0.0, 0.5, 1.0, 2.0, 4.5, 6.0)))
fail = st.tuples(st.just("fail"), st.integers(1, 4))


class Model:
    """When each user's last connection ended, if it has none."""

    def __init__(self, recalled: Iterable[str], now: float, grace: float) -> None:
        self._grace = grace
        self.connections: Counter[str] = Counter()
        self._ended_at = dict.fromkeys(recalled, now)

    def came(self, user: str) -> None:
        self.connections[user] += 1

    def went(self, user: str, now: float) -> None:
        self.connections[user] -= 1
        self._ended_at[user] = now

    def online(self, now: float) -> set[str]:
        lately = {user for user, ended_at in self._ended_at.items() if now < ended_at + self._grace}
        return {user for user in USERS if self.connections[user]} | lately


@given(
    grace=st.sampled_from((0.0, 1.0, GRACE)),
    recalled=st.sets(st.sampled_from(USERS)),
    steps=st.lists(st.one_of(came, came, went, wait, wait, fail), max_size=40),
)
@example(1.0, set(), [("came", "ada"), ("fail", 2), ("wait", 0.5), ("went", "ada"), ("wait", 1.0)])
def test_through_any_storm_everybody_hears_the_truth(
    grace: float, recalled: set[str], steps: list[tuple[str, Any]]
) -> None:
    trio.run(storm, grace, recalled, steps, clock=MockClock(autojump_threshold=0))


async def storm(grace: float, recalled: set[str], steps: list[tuple[str, Any]]) -> None:
    listener = Listener()
    with trio.fail_after(100_000):
        async with present(grace, recalled, listener) as (presence, _):
            model = Model(recalled, 0, grace)
            believed = set(recalled)
            for action, argument in steps:
                if action == "came":
                    presence.came(argument)
                    model.came(argument)
                elif action == "went" and model.connections[argument]:
                    presence.went(argument)
                    model.went(argument, trio.current_time())
                elif action == "wait":
                    await trio.sleep(argument)
                    await wait_all_tasks_blocked()
                elif action == "fail":
                    listener.failing = argument
                now = trio.current_time()
                if action == "wait":
                    assert set(presence.online()) == model.online(now)
                if action == "wait" and not listener.failing and now > listener.failed_at + RETRY_AFTER:
                    believed = believe(believed, listener)
                    assert believed == model.online(now)
            listener.failing = 0
            for user in list(model.connections.elements()):
                presence.went(user)
            await trio.sleep(grace + 2 * RETRY_AFTER)
            assert believe(believed, listener) == set(), "nobody stays online for ever"
            assert left_behind(presence) == []


def believe(believed: set[str], listener: Listener) -> set[str]:
    """Who is online for those who hear the news; each of which has to be one."""
    believed = set(believed)
    for news in listener.news:
        for user, online in news.items():
            assert online != (user in believed), f"{user} was told to be {online} twice"
            (believed.add if online else believed.discard)(user)
    listener.news.clear()
    return believed
