"""The log in memory: what it holds, for how long, and how much of it."""

from __future__ import annotations

from broker.core.event import Event, Record
from broker.core.relations import Learned
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def events(*ids: str) -> list[Event]:
    return [Event("a", b"1", id=event_id) for event_id in ids]


async def taken(log: MemoryLog, *ids: str) -> list[str]:
    """Append events of these ids; which of them the log took for new."""
    return [record.id for record in await log.append(events(*ids)) if isinstance(record, Record)]


async def test_an_id_is_forgotten_when_its_time_is_over() -> None:
    clock = Clock()
    log = MemoryLog(Retention(seconds=10), clock=clock)
    await log.append(events("x"))
    clock.now = 10.5
    assert await taken(log, "x") == ["x"]


async def test_an_id_is_known_until_its_time_is_over() -> None:
    clock = Clock()
    log = MemoryLog(Retention(seconds=10), clock=clock)
    await log.append(events("x"))
    clock.now = 10
    assert await taken(log, "x") == []


async def test_to_come_again_does_not_keep_an_id_alive() -> None:
    clock = Clock()
    log = MemoryLog(Retention(seconds=10), clock=clock)
    await log.append(events("x"))
    clock.now = 9
    await log.append(events("x"))
    clock.now = 11
    assert await taken(log, "x") == ["x"]


async def test_the_oldest_goes_when_there_are_too_many() -> None:
    log = MemoryLog(Retention(events=2))
    await log.append(events("x", "y", "z"))
    assert await taken(log, "y", "z") == []
    assert await taken(log, "x") == ["x"]


async def test_the_oldest_goes_when_memory_is_short() -> None:
    log = MemoryLog(Retention(bytes=1000))  # two and a bit
    await log.append(events("x", "y", "z"))
    assert await taken(log, "y", "z") == []
    assert await taken(log, "x") == ["x"]


async def test_memory_is_measured_with_its_ids() -> None:
    log = MemoryLog(Retention(bytes=1000))
    await log.append(events("x" * 255, "y" * 255))
    assert log.statistics()["events"] == 1


async def test_statistics_are_those_of_what_is_held() -> None:
    log = MemoryLog(Retention(events=2))
    await log.append(events("xx", "xx", "yy", "zz"))
    held = log.statistics()
    assert (held["events"], held["next_offset"]) == (2, 4)
    assert held["bytes"] == 2 * (400 + len("a") + len(b"1") + 2)


async def test_nothing_is_held_when_all_is_forgotten() -> None:
    clock = Clock()
    log = MemoryLog(Retention(seconds=10), clock=clock)
    await log.append(events("x", "y"))
    clock.now = 100
    await log.append([])
    assert log.statistics() == {"events": 0, "bytes": 0, "next_offset": 3}


async def test_payloads_count_as_memory() -> None:
    log = MemoryLog(Retention(bytes=100_000))
    await log.append([Event("a", b"1" * 40_000) for _ in range(3)])
    assert log.statistics()["events"] == 2


async def test_what_was_learned_is_not_kept_beyond_the_process() -> None:
    log = MemoryLog()
    await log.append(events("x"))
    log.learn(Learned(1, {("group", "1", "ada"): 1}))
    assert await log.recall() == (Learned(), ())
