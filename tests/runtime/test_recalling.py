"""What the dispatcher has the log keep of what it learned, and what it makes of that when the next broker begins."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.event import Event, Record
from broker.core.happening import Happening
from broker.core.leavers import Stay
from broker.core.policy import Policy
from broker.core.policy_file import parse_policy
from broker.core.relations import Change, Learned
from broker.edge.memory_log import MemoryLog
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import UNTOLD, Dispatcher
from broker.runtime.ingest import Ingest
from broker.runtime.registry import Registry

POLICY = parse_policy(
    """
    [relations.game]
    add    = "games.<gameId>.members.<userId>.created"
    remove = "games.<gameId>.members.<userId>.deleted"
    key    = "<gameId>"
    users  = "<userId>"
    """,
    "policy.toml",
)
JOINED, LEFT, NEWS = "games.1.members.ada.created", "games.1.members.ada.deleted", "games.1.news"
ADA = ("game", "1", "ada")


class KeepingLog(MemoryLog):
    """A log that shows what it was told to keep, and recalls what a test wants it to."""

    def __init__(self, learned: Learned | None = None, behind: Sequence[Record] = ()) -> None:
        super().__init__()
        self.told: list[Learned] = []
        self.recalled = learned or Learned(), behind

    def learn(self, learned: Learned) -> None:
        self.told.append(learned)

    async def recall(self) -> tuple[Learned, Sequence[Record]]:
        await trio.lowlevel.checkpoint()
        return self.recalled


def recalling(log: KeepingLog, policy: Policy = POLICY) -> Dispatcher:
    registry: Registry[Connection] = Registry(max_per_user=1)
    return Dispatcher(log, policy, registry)


def record(offset: int, name: str) -> Record:
    return Record(Event(name, b"1"), str(offset), offset)


@asynccontextmanager
async def door(dispatcher: Dispatcher) -> AsyncIterator[Ingest]:
    """A dispatcher at work, for the length of the block."""
    ingest = Ingest(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run, ingest)
        yield ingest
        await wait_all_tasks_blocked()
        ingest.close()


async def test_the_log_keeps_what_each_batch_has_taught() -> None:
    log = KeepingLog()
    async with door(recalling(log)) as ingest:
        await ingest.publish([Event(NEWS, b"1"), Event(JOINED, b"1")])
        await wait_all_tasks_blocked()
        await ingest.publish([Event(LEFT, b"1")])
    assert log.told == [Learned(2, {ADA: 2}), Learned(3, {ADA: None}, leavers={ADA: Stay(2, 3)})]


async def test_the_log_is_told_how_far_it_is_now_and_then_also_when_nothing_was_taught() -> None:
    log = KeepingLog()
    async with door(recalling(log)) as ingest:
        for _ in range(2 * UNTOLD + 1):
            await ingest.publish([Event(NEWS, b"1")])
    assert log.told == [Learned(UNTOLD), Learned(2 * UNTOLD)]


async def test_what_was_taught_is_told_at_once() -> None:
    log = KeepingLog()
    async with door(recalling(log)) as ingest:
        for name in (NEWS, "games.1.members.bob.created", NEWS):
            await ingest.publish([Event(name, b"1")])
    assert log.told == [Learned(2, {("game", "1", "bob"): 2})]


async def test_the_log_is_told_nothing_of_a_batch_that_it_knew() -> None:
    log = KeepingLog()
    async with door(recalling(log)) as ingest:
        await ingest.publish([Event(NEWS, b"1", id=f"{number}") for number in range(UNTOLD)])
        await wait_all_tasks_blocked()
        await ingest.publish([Event(NEWS, b"1", id="1")])
    assert log.told == [Learned(UNTOLD)]


async def test_what_the_log_recalls_is_known() -> None:
    dispatcher = recalling(KeepingLog(Learned(7, {ADA: 5}, {("game", "2"): True})))
    await dispatcher.recall()
    assert dispatcher.statistics() == {"relations": 1, "keys": 1, "facts": 1, "doubtful_keys": 1, "leavers": 0}


async def test_from_events_behind_it_is_learned() -> None:
    behind = [record(8, LEFT), record(9, "games.1.members.bob.created"), record(10, NEWS)]
    log = KeepingLog(Learned(7, {ADA: 5}), behind)
    await recalling(log).recall()
    assert log.told == [Learned(10, {ADA: None, ("game", "1", "bob"): 9}, leavers={ADA: Stay(5, 8)})]


async def test_what_the_policy_no_longer_has_is_forgotten_by_the_log_too() -> None:
    log = KeepingLog(Learned(7, {ADA: 5}))
    dispatcher = recalling(log, Policy())
    await dispatcher.recall()
    assert dispatcher.statistics()["facts"] == 0
    async with door(dispatcher) as ingest:
        await ingest.publish([Event(NEWS, b"1")])
    assert log.told == [Learned(1, {ADA: None}, leavers={ADA: Stay(5, 7)})]


async def test_what_a_new_policy_no_longer_has_is_forgotten_by_the_log_too() -> None:
    log = KeepingLog(Learned(7, {ADA: 5}))
    dispatcher = recalling(log)
    await dispatcher.recall()
    dispatcher.adopt(Policy())
    async with door(dispatcher) as ingest:
        await ingest.publish([Event(NEWS, b"1")])
    assert log.told == [Learned(1, {ADA: None}, leavers={ADA: Stay(5, 7)})]


class FaultyPolicy(Policy):
    """A policy with a fault of ours: it fails for news."""

    __slots__ = ()

    def changes(self, happening: Happening) -> Sequence[Change]:
        if happening.name == NEWS:
            raise RuntimeError("a fault of ours")
        return super().changes(happening)


async def test_a_fault_of_ours_costs_one_of_the_events_behind() -> None:
    log = KeepingLog(Learned(7), [record(8, NEWS), record(9, JOINED)])
    dispatcher = recalling(log, FaultyPolicy(POLICY.relations))
    await dispatcher.recall()
    assert dispatcher.counters["failed"] == 1
    assert log.told == [Learned(9, {ADA: 9})]


async def test_what_was_recalled_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await recalling(KeepingLog(Learned(7, {ADA: 5}), [record(8, NEWS)])).recall()
    [told] = [vars(entry) for entry in caplog.records if entry.message == "relations.recalled"]
    assert (told["facts"], told["learned_again"]) == (1, 1)
