"""What every log promises (`Log` in `broker/core/ports.py`), run on each that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from operator import is_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import LogGap
from broker.core.event import AT_ONCE, Event, Record
from broker.core.ports import Log
from broker.core.relations import Learned
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.edge.sqlite_log import SqliteLog
from tests.contracts.log_model import APPEND, LEARN, LOCATE, READ, Model, play
from tests.turns import counting_steps

Kind = Callable[[Path, int], Log]  # makes a log that retains so many events, with a folder of its own
MakeLog = Callable[[int], Log]


def memory_log(folder: Path, retain: int) -> Log:
    return MemoryLog(Retention(events=retain))


def sqlite_log(folder: Path, retain: int) -> Log:
    return SqliteLog(folder / "log.db", Retention(events=retain))


def sqlite_log_read_from_disk(folder: Path, retain: int) -> Log:
    return SqliteLog(folder / "log.db", Retention(events=retain), recent_bytes=0)


@pytest.fixture(params=[memory_log, sqlite_log, sqlite_log_read_from_disk], scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param
    return made


@pytest.fixture
def make_log(kind: Kind, tmp_path: Path) -> Iterator[MakeLog]:
    """Makes a log that retains so many events."""
    made: list[Log] = []
    numbers = count()

    def make(retain: int) -> Log:
        made.append(kind(tmp_path / str(next(numbers)), retain))
        return made[-1]

    yield make
    for log in made:
        log.close()


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


@pytest.mark.parametrize(("batches", "size"), [(50, 5), (4, AT_ONCE + 5)])
async def test_batches_that_come_at_once_are_not_mixed(log: Log, batches: int, size: int) -> None:
    taken: list[list[int]] = []

    async def append() -> None:
        taken.append([record.offset for record in records(await log.append([event()] * size))])

    async with trio.open_nursery() as nursery:
        for _ in range(batches):
            nursery.start_soon(append)
    assert sorted(offset for offsets in taken for offset in offsets) == list(range(1, batches * size + 1))
    assert all(offsets == list(range(offsets[0], offsets[0] + size)) for offsets in taken)


async def test_a_large_batch_is_taken_in_many_steps(make_log: MakeLog) -> None:
    log = make_log(100_000)
    batch = [Event("a", b"%d" % number) for number in range(10 * AT_ONCE + 1)]
    with counting_steps(partial(is_, trio.lowlevel.current_task())) as steps:
        taken = records(await log.append(batch))
    assert steps.taken >= 10
    assert [record.event for record in taken] == batch
    assert [record for after in range(0, len(batch), 100) for record in await log.read(after, 100, 10_000)] == taken


async def test_of_a_large_batch_all_is_taken_though_who_appends_is_cancelled_meanwhile(make_log: MakeLog) -> None:
    log = make_log(100_000)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.append, [event()] * (3 * AT_ONCE))
            while not log.statistics()["events"]:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert log.statistics()["events"] == 3 * AT_ONCE


async def test_an_id_is_known_again_in_a_later_part_of_a_large_batch(make_log: MakeLog) -> None:
    log = make_log(100_000)
    batch = [event(event_id="x"), *[event()] * AT_ONCE, event(event_id="x")]
    first, *others, last = await log.append(batch)
    assert (isinstance(first, Record), len(others), last) == (True, AT_ONCE, "x")


# Reading.


async def test_what_was_appended_can_be_read_in_order(log: Log) -> None:
    taken = [*records(await log.append([event("a"), event("b", "own")])), *records(await log.append([event("c")]))]
    assert await log.read(0, 100, 10_000) == taken


async def test_a_payload_is_read_byte_for_byte(log: Log) -> None:
    data = b' { "x":1.0, "\\u00e9" :[ "\xc3\xa9" ]}\n'
    await log.append([Event("a", data, source="here")])
    (record,) = await log.read(0, 1, 1)
    assert record.event == Event("a", data, source="here")


async def test_reading_goes_on_behind_an_offset(log: Log) -> None:
    first, *others = records(await log.append([event() for _ in range(5)]))
    assert await log.read(first.offset, 100, 10_000) == others


async def test_there_is_nothing_to_read_behind_the_last_event(log: Log) -> None:
    (record,) = records(await log.append([event()]))
    assert await log.read(record.offset, 100, 10_000) == []


async def test_there_is_nothing_to_read_in_an_empty_log(log: Log) -> None:
    assert await log.read(0, 100, 10_000) == []


async def test_no_more_is_read_than_was_asked_for(log: Log) -> None:
    taken = records(await log.append([event() for _ in range(1000)]))
    assert await log.read(0, 7, 1_000_000) == taken[:7]
    assert await log.read(7, 400, 1_000_000) == taken[7:407]


async def test_no_more_bytes_are_read_than_was_asked_for(log: Log) -> None:
    taken = records(await log.append([Event("a", b"1" * 100) for _ in range(10)]))
    assert await log.read(0, 100, 350) == taken[:3]


async def test_an_event_larger_than_what_was_asked_for_is_read_alone(log: Log) -> None:
    taken = records(await log.append([Event("a", b"1" * 200_000), event()]))
    assert await log.read(0, 100, 10) == taken[:1]


async def test_to_read_what_was_dropped_is_a_gap(make_log: MakeLog) -> None:
    log = make_log(2)
    taken = records(await log.append([event() for _ in range(5)]))
    with pytest.raises(LogGap) as gap:
        await log.read(2, 100, 10_000)
    assert gap.value.code == "resume_gap"
    assert await log.read(3, 100, 10_000) == taken[3:]


# Ids and positions.


async def test_an_event_is_located_by_its_id(log: Log) -> None:
    given, own = records(await log.append([event(), event(event_id="own")]))
    assert await log.locate(given.id) == given.offset
    assert await log.locate("own") == own.offset


async def test_nobody_has_given_an_unknown_id(log: Log) -> None:
    for unknown in ("", "nobody", "0" * 32, "é" * 32, "f" * 32, "\ud800", "A" * 100_000):
        assert await log.locate(unknown) is None


async def test_a_position_is_behind_the_last_event(log: Log) -> None:
    await log.append([event()] * 3)
    position = log.position()
    (record,) = records(await log.append([event()]))
    located = await log.locate(position)
    assert located is not None
    assert await log.read(located, 100, 10_000) == [record]


async def test_an_empty_log_has_a_position(log: Log) -> None:
    position = log.position()
    taken = records(await log.append([event()]))
    located = await log.locate(position)
    assert located is not None
    assert await log.read(located, 100, 10_000) == taken


async def test_a_position_may_be_behind_any_event(log: Log) -> None:
    taken = records(await log.append([event() for _ in range(3)]))
    assert await log.locate(log.position(taken[1].offset)) == taken[1].offset


async def test_a_position_tells_neither_of_events_nor_whether_there_were_any(log: Log) -> None:
    (record,) = records(await log.append([event(event_id="secret of ada")]))
    positions = {log.position() for _ in range(100)}
    assert len(positions) == 100
    assert len({position[:8] for position in positions}) > 95
    assert not any("secret" in position or str(record.offset) == position for position in positions)


async def test_a_position_holds_as_long_as_nothing_behind_it_was_dropped(make_log: MakeLog) -> None:
    log = make_log(3)
    position = log.position()
    await log.append([event()] * 3)
    assert await log.locate(position) == 0
    await log.append([event()])
    assert await log.locate(position) is None


async def test_an_id_of_ours_that_a_publisher_uses_later_is_the_later_event(make_log: MakeLog) -> None:
    log = make_log(2)
    (record,) = records(await log.append([event()]))
    await log.append([event()] * 3)
    (again,) = records(await log.append([event(event_id=record.id)]))
    assert await log.locate(record.id) == again.offset


async def test_who_uses_a_position_as_an_id_does_not_move_the_position(log: Log) -> None:
    await log.append([event()])
    position = log.position()
    (record,) = records(await log.append([event(event_id=position)]))
    assert record.id == position
    assert await log.locate(position) == 1
    assert await log.append([event(event_id=position)]) == [position]


async def test_another_log_does_not_know_the_positions_of_this_one(make_log: MakeLog) -> None:
    log, other = make_log(10), make_log(10)
    (record,) = records(await log.append([event()]))
    await other.append([event()] * 3)
    assert await other.locate(log.position()) is None
    assert await other.locate(record.id) is None


# What was learned.


async def test_nothing_is_recalled_from_an_empty_log(log: Log) -> None:
    assert await log.recall() == (Learned(0), ())


async def test_to_learn_changes_nothing_about_events(log: Log) -> None:
    await log.append([event()])
    before = log.statistics()
    log.learn(Learned(1, {("group", "1", "ada"): 1}))
    assert log.statistics() == before
    assert len(records(await log.append([event()]))) == 1


# All of it together.


@given(st.lists(st.one_of(APPEND, APPEND, READ, LOCATE, LEARN), max_size=20), st.integers(1, 12))
async def test_a_log_is_like_a_list(kind: Kind, steps: Sequence[tuple[Any, ...]], retain: int) -> None:
    with TemporaryDirectory() as folder:
        await play(kind(Path(folder), retain), Model(retain), steps)
