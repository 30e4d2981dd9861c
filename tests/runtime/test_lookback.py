"""Events that are looked at again: prepared once for all who come by, for as long as they are right."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import trio

from broker.core.audience import Audience
from broker.core.errors import LogGap
from broker.core.event import Event, Record
from broker.core.happening import Happening
from broker.core.policy import Policy
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity
from broker.core.relations import Facts
from broker.core.visibility import Visibility
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.runtime import lookback as lookback_module
from broker.runtime.lookback import AT_ONCE, BYTES_AT_ONCE, Lookback, Past

POLICY = parse_policy(
    """
    [relations.group]
    add   = "groups.<id>.add"
    key   = "<id>"
    users = "data"

    [[rules]]
    events     = "news.<id>"
    visible_to = { relation = "group", key = "<id>" }
    """,
    "policy.toml",
)
ADA = Identity("ada")


class FarLog(MemoryLog):
    """A log of which nothing is at hand."""

    def recent(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        return None  # type: ignore[return-value]

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        await trio.lowlevel.checkpoint()
        return super().recent(after, most, max_bytes)


class House:
    """A log, what was learned from it, and a look back."""

    def __init__(self, log: MemoryLog | None = None, policy: Policy = POLICY) -> None:
        self.log = log or MemoryLog()
        self.visibility = Visibility(policy)
        self.lookback = Lookback(self.log, self.visibility)

    async def happens(self, *events: Event) -> None:
        for record in await self.log.append(events):
            assert isinstance(record, Record)
            self.visibility.learn(record)


async def house(events: int = 0, data: bytes = b"1", log: MemoryLog | None = None) -> House:
    made = House(log)
    await made.happens(*[Event("news.1", data)] * events)
    return made


def offsets(events: Sequence[Past]) -> list[int]:
    return [past.offset for past in events]


async def test_the_next_events_come_in_order_and_no_more_than_are_wanted() -> None:
    made = await house(10)
    assert offsets(await made.lookback.after(3, 4)) == [4, 5, 6, 7]


async def test_only_so_many_events_come_at_once() -> None:
    made = await house(AT_ONCE + 10)
    assert len(await made.lookback.after(0, 1000)) == AT_ONCE


@pytest.mark.parametrize("at_hand", [True, False])
async def test_only_so_many_bytes_come_at_once_but_one_event_at_least(at_hand: bool) -> None:
    made = await house(5, b"1" * (BYTES_AT_ONCE // 2))
    await made.happens(Event("news.1", b"1" * (BYTES_AT_ONCE + 1)))
    found = [
        made.lookback.recent(offset, 100) if at_hand else await made.lookback.after(offset, 100) for offset in (0, 5)
    ]
    assert [offsets(events) for events in found] == [[1, 2], [6]]


async def test_events_at_hand_come_without_waiting_as_many_as_are_wanted() -> None:
    made = await house(AT_ONCE + 10)
    assert made.lookback.at_hand(0)
    assert len(made.lookback.recent(0, AT_ONCE + 5)) == AT_ONCE + 5


async def test_of_events_that_are_not_at_hand_none_come_without_waiting() -> None:
    made = await house(3, log=FarLog())
    assert not made.lookback.at_hand(0)
    assert made.lookback.recent(0, 3) == []


async def test_the_end_of_the_log_is_at_hand() -> None:
    made = await house(3)
    assert made.lookback.at_hand(3)
    assert made.lookback.recent(3, 5) == []


async def test_events_that_were_dropped_are_a_gap() -> None:
    made = await house(3, log=MemoryLog(Retention(events=2)))
    with pytest.raises(LogGap):
        await made.lookback.after(0, 3)


async def test_an_event_is_prepared_once_for_all_who_come_by() -> None:
    made = await house(3)
    first = await made.lookback.after(0, 3)
    assert all(again is past for again, past in zip(made.lookback.recent(0, 3), first, strict=True))


async def test_an_event_is_prepared_anew_when_something_was_learned() -> None:
    made = await house(1)
    [before] = await made.lookback.after(0, 1)
    await made.happens(Event("groups.2.add", b'"ada"'))
    [after] = await made.lookback.after(0, 1)
    assert after is not before


async def test_what_was_learned_since_counts() -> None:
    made = await house()
    await made.happens(Event("groups.1.add", b'"ada"'), Event("news.1", b"1"))
    [past] = await made.lookback.after(1, 1)
    before = past.audience.admits(ADA)
    made.visibility.adopt(parse_policy("", "policy.toml"))
    [past] = await made.lookback.after(1, 1)
    assert [before, past.audience.admits(ADA)] == [True, False]


class FaultyPolicy(Policy):
    """A policy with a fault of ours: it fails for some events."""

    __slots__ = ()

    def audience(
        self, happening: Happening, facts: Facts, faults: list[str] | None = None, *, as_of: int | None = None
    ) -> Audience:
        if happening.name == "news.faulty":
            raise RuntimeError("a fault of ours")
        return super().audience(happening, facts, faults, as_of=as_of)


async def test_a_fault_of_ours_costs_the_one_event_which_nobody_gets(caplog: pytest.LogCaptureFixture) -> None:
    everyone = parse_policy('default = "everyone"', "policy.toml")
    made = House(policy=FaultyPolicy(default=everyone.default))
    await made.happens(Event("news.1", b"1"), Event("news.faulty", b"1"), Event("news.1", b"1"))
    with caplog.at_level(logging.ERROR):
        found = await made.lookback.after(0, 3)
    assert [past.audience.admits(ADA) for past in found] == [True, False, True]
    assert [record.message for record in caplog.records] == ["event.failed"]


async def test_only_so_many_events_are_kept_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookback_module, "MOST_PREPARED", 2)
    made = await house(3)
    first, *_ = await made.lookback.after(0, 3)
    [again] = await made.lookback.after(0, 1)
    assert again is not first


async def test_only_so_many_bytes_are_kept_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookback_module, "PREPARED_BYTES", 200)
    made = await house(3, b"1" * 100)
    first, *_, last = await made.lookback.after(0, 3)
    assert made.lookback.recent(2, 1) == [last]
    assert made.lookback.recent(0, 1) != [first]


async def test_more_than_may_be_kept_prepared_comes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookback_module, "MOST_PREPARED", 2)
    made = await house(7)
    assert offsets(await made.lookback.after(0, 7)) == [1, 2, 3, 4, 5, 6, 7]
