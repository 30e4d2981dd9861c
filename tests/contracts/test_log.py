"""What every log promises (`Log` in `broker/core/ports.py`), run on each that there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio

from broker.core.event import Event, Record
from broker.core.ports import Log
from broker.edge.memory_log import MemoryLog

MakeLog = Callable[[int], Log]


@pytest.fixture(params=["memory"])
def make_log(request: pytest.FixtureRequest) -> MakeLog:
    """Makes a log that retains so many events."""
    kinds: dict[str, MakeLog] = {"memory": lambda retain: MemoryLog(retain_events=retain)}
    return kinds[request.param]


@pytest.fixture
def log(make_log: MakeLog) -> Log:
    return make_log(1000)


def event(name: str = "a", event_id: str | None = None) -> Event:
    return Event(name, b'{"n": 1}', id=event_id, source="test")


def records(answers: Sequence[Record | str]) -> list[Record]:
    """The answers, every one of which is a record."""
    found = [answer for answer in answers if isinstance(answer, Record)]
    assert len(found) == len(answers)
    return found


async def test_there_is_one_answer_for_each_event_in_order(log: Log) -> None:
    batch = [event("a"), event("b"), event("c")]
    assert [record.event for record in records(await log.append(batch))] == batch


async def test_offsets_ascend_from_batch_to_batch(log: Log) -> None:
    offsets = [record.offset for _ in range(3) for record in records(await log.append([event(), event()]))]
    assert offsets == sorted(set(offsets))


async def test_the_next_offset_is_the_one_that_the_next_event_gets(log: Log) -> None:
    await log.append([event(), event(event_id="x"), event(event_id="x")])
    expected = log.statistics()["next_offset"]
    (record,) = records(await log.append([event()]))
    assert record.offset == expected


async def test_an_event_without_an_id_is_given_one_of_its_own(log: Log) -> None:
    answers = records([*await log.append([event()] * 300), *await log.append([event()] * 300)])
    assert len({record.id for record in answers}) == 600


async def test_an_id_that_is_given_does_not_tell_of_the_others(log: Log) -> None:
    ids = [record.id for record in records(await log.append([event()] * 300))]
    assert ids != sorted(ids)
    assert len({event_id[:8] for event_id in ids}) > 290
    assert all(len(event_id) >= 16 for event_id in ids)


async def test_an_id_of_its_own_is_kept(log: Log) -> None:
    (record,) = records(await log.append([event(event_id="order 1")]))
    assert record.id == "order 1"


async def test_an_id_that_comes_again_later_is_answered_alone(log: Log) -> None:
    await log.append([event(event_id="x")])
    assert await log.append([event("other", event_id="x")]) == ["x"]


async def test_an_id_that_comes_again_in_the_same_batch_is_answered_alone(log: Log) -> None:
    first, second, third = await log.append([event(event_id="x"), event(event_id="y"), event(event_id="x")])
    assert (isinstance(first, Record), isinstance(second, Record), third) == (True, True, "x")


async def test_an_id_that_was_given_is_known_when_it_comes_again(log: Log) -> None:
    (record,) = records(await log.append([event()]))
    assert await log.append([event(event_id=record.id)]) == [record.id]


async def test_what_comes_again_takes_no_offset(log: Log) -> None:
    await log.append([event(event_id="x")])
    before = log.statistics()["next_offset"]
    await log.append([event(event_id="x"), event(event_id="x")])
    assert log.statistics()["next_offset"] == before


async def test_an_id_is_known_as_long_as_its_event_is_retained(make_log: MakeLog) -> None:
    log = make_log(2)
    await log.append([event(event_id="x")])
    await log.append([event(event_id="y")])
    assert await log.append([event(event_id="x")]) == ["x"]


async def test_an_id_is_forgotten_with_its_event(make_log: MakeLog) -> None:
    log = make_log(2)
    await log.append([event(event_id="x")])
    await log.append([event(), event()])
    (record,) = records(await log.append([event(event_id="x")]))
    assert record.id == "x"


async def test_offsets_are_not_used_again_when_events_are_forgotten(make_log: MakeLog) -> None:
    log = make_log(1)
    offsets = [record.offset for _ in range(5) for record in records(await log.append([event()]))]
    assert offsets == sorted(set(offsets))


async def test_no_more_is_held_than_is_to_be_retained(make_log: MakeLog) -> None:
    log = make_log(3)
    await log.append([event()] * 10)
    assert log.statistics()["events"] == 3


async def test_a_batch_may_be_larger_than_what_is_retained(make_log: MakeLog) -> None:
    assert len(records(await make_log(3).append([event()] * 10))) == 10


async def test_an_empty_batch_changes_nothing(log: Log) -> None:
    before = log.statistics()
    assert await log.append([]) == []
    assert log.statistics() == before


async def test_an_append_that_is_cancelled_took_all_or_none(log: Log) -> None:
    batch = [event(event_id="x"), event(event_id="y")]
    with trio.CancelScope() as scope:
        scope.cancel()
        await log.append(batch)
    held = log.statistics()["events"]
    new = [isinstance(answer, Record) for answer in await log.append(batch)]
    assert (held, new) in ((0, [True, True]), (2, [False, False]))


async def test_batches_that_come_at_once_are_not_mixed(log: Log) -> None:
    taken: list[list[int]] = []

    async def append() -> None:
        taken.append([record.offset for record in records(await log.append([event()] * 5))])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(append)
    assert all(offsets == list(range(offsets[0], offsets[0] + 5)) for offsets in taken)
