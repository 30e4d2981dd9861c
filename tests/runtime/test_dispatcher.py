"""The dispatcher: in order, once, to those who subscribed and may see it; and no fault of one event costs another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.audience import Audience
from broker.core.conditions import Condition, Scope
from broker.core.errors import BrokerError, LogUnavailable
from broker.core.event import Event, Record
from broker.core.policy import Policy
from broker.core.policy_file import parse_policy
from broker.edge.memory_log import MemoryLog
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.ingest import Ingest
from broker.runtime.outbox import Overflow, QueueLimits
from broker.runtime.registry import Registry
from tests.runtime.house import OPEN, forever, house, seen

GAMES = """
[relations.game]
add    = "games.<gameId>.members.<userId>.created"
remove = "games.<gameId>.members.<userId>.deleted"
key    = "<gameId>"
users  = "<userId>"

[[rules]]
events     = "games.<gameId>.**"
visible_to = { relation = "game", key = "<gameId>" }

[[rules]]
events     = "admin.**"
visible_to = { claim = "roles", contains = "admin" }

[[rules]]
events     = "notes.<noteId>"
visible_to = { users = "data.for" }
"""


# Who gets what.


async def test_each_gets_what_it_subscribed_to() -> None:
    async with house() as home:
        ada = await home.join("ada", "a.*")
        bob = await home.join("bob", "b.**", "c")
        await home.publish(("a.1", 1), ("b.1.2", 2), ("c", 3), ("d", 4))
        assert seen(ada) == [("a.1", 1)]
        assert seen(bob) == [("b.1.2", 2), ("c", 3)]


async def test_each_gets_only_what_it_may_see() -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        bob = await home.join("bob", "**", claims={"roles": ["admin"]})
        nobody = await home.join(None, "**")
        await home.publish(("notes.1", {"for": ["ada"]}), ("admin.x", 1), ("unruled", 1))
        assert seen(ada) == [("notes.1", {"for": ["ada"]})]
        assert seen(bob) == [("admin.x", 1)]
        assert seen(nobody) == []


async def test_an_event_comes_once_however_many_patterns_match() -> None:
    async with house() as home:
        ada = await home.join("ada", "a.b", "a.*", "a.**", "**", "*.b")
        await home.publish(("a.b", 1))
        assert seen(ada) == [("a.b", 1)]


async def test_every_connection_of_a_user_gets_it() -> None:
    async with house(GAMES) as home:
        clients = [await home.join("ada", "**") for _ in range(3)]
        await home.publish(("notes.1", {"for": "ada"}))
        assert [seen(client) for client in clients] == [[("notes.1", {"for": "ada"})]] * 3


async def test_who_unsubscribed_gets_nothing_more() -> None:
    async with house() as home:
        ada = await home.join("ada", "a")
        await home.publish(("a", 1))
        await ada.say({"event": "unsubscribe", "data": "a"})
        await home.publish(("a", 2))
        assert seen(ada) == [("a", 1)]


async def test_who_left_gets_nothing_more() -> None:
    async with house() as home:
        ada = await home.join("ada", "a")
        ada.hang_up()
        await wait_all_tasks_blocked()
        await home.publish(("a", 1))
        assert seen(ada) == []
        assert home.dispatcher.counters["deliveries"] == 0


async def test_the_payload_arrives_byte_for_byte() -> None:
    async with house() as home:
        ada = await home.join("ada", "a")
        data = b'{ "x":1.0, "\\u00e9" :[ ]}'
        await home.ingest.publish([Event("a", data)])
        await wait_all_tasks_blocked()
        assert [payload for _, payload in ada.heard] == [b'{"event":"a","data":%b}' % data]


# Order and repetition.


async def test_the_order_is_that_in_which_they_were_published() -> None:
    async with house() as home:
        ada = await home.join("ada", "**")
        async with trio.open_nursery() as publishers:
            for begin in range(0, 40, 4):
                batch = [(f"e.{number}", number) for number in range(begin, begin + 4)]
                publishers.start_soon(home.publish, *batch)
                await trio.lowlevel.checkpoint()
        events = [data for _, data in seen(ada)]
        assert sorted(events) == list(range(40))
        for begin in range(0, 40, 4):  # each batch is whole, whatever the order of the publishers was
            at = events.index(begin)
            assert events[at : at + 4] == list(range(begin, begin + 4))


async def test_all_get_the_same_order() -> None:
    async with house() as home:
        clients = [await home.join(user, "**") for user in ("ada", "bob")]
        for begin in range(0, 30, 3):
            await home.publish(*((f"e.{number}", number) for number in range(begin, begin + 3)))
        assert [[data for _, data in seen(client)] for client in clients] == [list(range(30))] * 2


async def test_every_publisher_gets_the_ids_of_its_own_events() -> None:
    ids: dict[str, list[str]] = {}
    async with house() as home:

        async def publish(*names: str) -> None:
            ids[names[0]] = await home.publish(*((name, 1) for name in names), ids=names)

        async with trio.open_nursery() as publishers:
            publishers.start_soon(publish, "a")
            publishers.start_soon(publish, "b", "c", "d")
            publishers.start_soon(publish, "e", "f")
    assert ids == {"a": ["a"], "b": ["b", "c", "d"], "e": ["e", "f"]}


async def test_an_event_that_comes_again_is_accepted_and_not_delivered_again() -> None:
    async with house() as home:
        ada = await home.join("ada", "a")
        assert await home.publish(("a", 1), ("a", 2), ids=["x", None]) != []
        assert await home.publish(("a", 3), ("a", 4), ("a", 5), ids=["x", "y", "y"]) == ["x", "y", "y"]
        assert seen(ada) == [("a", 1), ("a", 2), ("a", 4)]
        assert (home.dispatcher.counters["events"], home.dispatcher.counters["repeated"]) == (3, 2)


async def test_what_waits_when_the_door_closes_is_taken_and_then_it_ends() -> None:
    dispatcher, ingest = Dispatcher(MemoryLog(), OPEN, Registry(max_per_user=1)), Ingest(100)
    async with trio.open_nursery() as publishers:
        for number in range(50):
            publishers.start_soon(ingest.publish, [Event(f"e.{number}", b"1")])
        await wait_all_tasks_blocked()
        ingest.close()
        await dispatcher.run(ingest)
    assert dispatcher.counters["events"] == 50


async def test_a_client_that_does_not_read_delays_nobody() -> None:
    async with house() as home:
        await home.join("slow", "**", write=forever)
        ada = await home.join("ada", "**")
        for number in range(100):
            await home.publish(("a", number))
        assert [data for _, data in seen(ada)] == list(range(100))


async def test_what_became_of_each_delivery_is_counted() -> None:
    async with house() as home:
        await home.join("ada", "**", queue=QueueLimits(frames=2, overflow=Overflow.DROP_NEWEST))
        await home.join("bob", "**", queue=QueueLimits(frames=3, overflow=Overflow.DISCONNECT))
        await home.publish(*(("a", number) for number in range(5)))
        assert +home.dispatcher.counters == {
            "events": 5,
            "deliveries": 2 + 3,
            "deliveries_dropped_newest": 3,
            "deliveries_overflowed": 1,
            "deliveries_closed": 1,
        }


# What the events teach.


async def test_the_newcomer_sees_its_own_coming() -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        await home.publish(("games.1.x", 1), ("games.1.members.ada.created", 2), ("games.1.x", 3), ("games.2.x", 4))
        assert seen(ada) == [("games.1.members.ada.created", 2), ("games.1.x", 3)]


async def test_the_one_who_leaves_sees_its_own_leaving_and_nothing_after() -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        await home.publish(("games.1.members.ada.created", 1), ("games.1.members.ada.deleted", 2), ("games.1.x", 3))
        assert seen(ada) == [("games.1.members.ada.created", 1), ("games.1.members.ada.deleted", 2)]


async def test_an_event_that_comes_again_teaches_nothing() -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        await home.publish(("games.1.members.ada.created", 1), ids=["in"])
        await home.publish(("games.1.members.ada.deleted", 2))
        await home.publish(("games.1.members.ada.created", 1), ids=["in"])
        await home.publish(("games.1.x", 3))
        assert [name for name, _ in seen(ada)] == ["games.1.members.ada.created", "games.1.members.ada.deleted"]


async def test_facts_are_learned_though_nobody_is_there() -> None:
    async with house(GAMES) as home:
        await home.publish(("games.1.members.ada.created", 1))
        assert home.dispatcher.statistics()["facts"] == 1
        ada = await home.join("ada", "**")
        await home.publish(("games.1.x", 2))
        assert seen(ada) == [("games.1.x", 2)]


# A new policy.


async def test_a_new_policy_rules_from_the_next_event_on() -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        await home.publish(("a", 1))
        home.dispatcher.adopt(OPEN)
        await home.publish(("a", 2))
        assert seen(ada) == [("a", 2)]


async def test_facts_survive_a_new_policy() -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        await home.publish(("games.1.members.ada.created", 1))
        home.dispatcher.adopt(parse_policy(GAMES, "policy.toml"))
        await home.publish(("games.1.x", 2))
        assert seen(ada)[1:] == [("games.1.x", 2)]


async def test_facts_of_a_relation_that_is_gone_are_forgotten() -> None:
    async with house(GAMES) as home:
        await home.publish(("games.1.members.ada.created", 1))
        home.dispatcher.adopt(OPEN)
        home.dispatcher.adopt(parse_policy(GAMES, "policy.toml"))
        assert home.dispatcher.statistics()["facts"] == 0


async def test_who_is_there_already_is_found_by_the_claims_of_a_new_policy() -> None:
    async with house(OPEN) as home:
        ada = await home.join("ada", "**", claims={"roles": ["admin"]})
        home.dispatcher.adopt(parse_policy(GAMES, "policy.toml"))
        assert len(home.registry.directory.with_claim("roles", "admin")) == 1
        await home.publish(("admin.x", 1))
        assert seen(ada) == [("admin.x", 1)]


# Faults.


class FailingLog(MemoryLog):
    """A log that fails until it is mended."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return await super().append(events)


@pytest.mark.parametrize("error", [LogUnavailable("the disk is full"), OSError("disk")])
async def test_a_failing_log_answers_every_publisher_of_the_batch(error: Exception) -> None:
    answers: list[str] = []
    async with house(log=FailingLog(error)) as home:

        async def publish(name: str) -> None:
            try:
                await home.publish((name, 1))
            except LogUnavailable as failed:
                answers.append(str(failed))

        ada = await home.join("ada", "**")
        async with trio.open_nursery() as publishers:
            for name in "abc":
                publishers.start_soon(publish, name)
        assert seen(ada) == []
    expected = str(error) if isinstance(error, BrokerError) else "the log failed; see the broker's own log"
    assert answers == [expected] * 3


async def test_a_log_that_works_again_is_used_again() -> None:
    log = FailingLog(OSError("disk"))
    async with house(log=log) as home:
        ada = await home.join("ada", "**")
        with pytest.raises(LogUnavailable):
            await home.publish(("a", 1))
        log.error = None
        await home.publish(("a", 2))
        assert seen(ada) == [("a", 2)]


async def test_a_log_that_keeps_failing_is_told_of_now_and_then_until_it_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = FailingLog(LogUnavailable("no room"))
    async with house(log=log) as home:
        for _ in range(11):
            with pytest.raises(LogUnavailable):
                await home.publish(("a", 1))
        assert [vars(entry)["times"] for entry in caplog.records if entry.message == "log.failed"] == [1, 10]
        log.error = None
        await home.publish(("a", 2))
        log.error = LogUnavailable("no room")
        with pytest.raises(LogUnavailable):
            await home.publish(("a", 1))
    assert [vars(entry)["times"] for entry in caplog.records if entry.message == "log.failed"] == [1, 10, 1]


class Faulty(Condition):
    """A condition with a fault of ours: it fails for some events. good: what it says of the others."""

    def __init__(self, good: Condition) -> None:
        self.good = good

    def __str__(self) -> str:
        return f"{self.good}, or it fails"

    def audience(self, scope: Scope) -> Audience:
        if scope.happening.segments[-1] in ("faulty", "deleted"):
            raise RuntimeError("a fault of ours")
        return self.good.audience(scope)


def faulty(text: str) -> Policy:
    policy = parse_policy(text, "policy.toml")
    rules = [replace(rule, visible_to=Faulty(rule.visible_to)) for rule in policy.rules]
    return Policy(policy.relations, rules, Faulty(policy.default))


async def test_a_fault_of_ours_costs_one_event_and_not_those_that_follow() -> None:
    async with house(faulty('default = "everyone"')) as home:
        ada = await home.join("ada", "**")
        assert len(await home.publish(("a", 1), ("b.faulty", 2), ("c", 3))) == 3
        assert seen(ada) == [("a", 1), ("c", 3)]
        assert home.dispatcher.counters["failed"] == 1


async def test_who_is_taken_out_is_out_also_when_the_event_itself_fails() -> None:
    async with house(faulty(GAMES)) as home:
        ada = await home.join("ada", "**")
        await home.publish(("games.1.members.ada.created", 1), ("games.1.members.ada.deleted", 2), ("games.1.x", 3))
        assert seen(ada) == [("games.1.members.ada.created", 1)]


async def test_a_payload_that_does_not_say_who_is_counted_and_seen_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with house(GAMES) as home:
        ada = await home.join("ada", "**")
        await home.publish(("notes.1", {"wrong": "ada"}), ("notes.2", {"for": "ada"}))
        assert seen(ada) == [("notes.2", {"for": "ada"})]
        assert home.dispatcher.counters["visibility_faults"] == 1
    [record] = [record for record in caplog.records if record.message == "visibility.fault"]
    assert vars(record)["event_name"] == "notes.1"
    assert "data.for" in str(vars(record)["faults"])


async def test_a_fault_that_comes_again_is_told_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    async with house(GAMES) as home:
        await home.publish(*(("notes.1", {}) for _ in range(150)))
        assert home.dispatcher.counters["visibility_faults"] == 150
    assert sum(record.message == "visibility.fault" for record in caplog.records) == 3


async def test_a_fault_while_a_turn_is_given_out_costs_the_rest_of_it_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house() as home:
        ada = await home.join("ada", "**")
        with monkeypatch.context() as patch:
            patch.setattr("broker.runtime.routing.Bundle", lambda _deliveries: 1 // 0)
            await home.publish(("a", 1))
        await home.publish(("a", 2))
        assert seen(ada) == [("a", 2)]
        assert home.dispatcher.counters["failed"] == 1
    assert [record.msg for record in caplog.records] == ["turn.failed"]
