"""A log as a list, which every log is held against: slow, obvious, and never forgetting what it has forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from broker.core.errors import LogGap
from broker.core.event import Event, Record
from broker.core.ports import Log
from broker.core.relations import Learned

# What to do: an id of None is for the log to give, a number is that of an id that was given or used before.
APPEND = st.tuples(
    st.just("append"),
    st.lists(st.one_of(st.none(), st.sampled_from("xyz"), st.integers(0, 30)), max_size=6),
)
READ = st.tuples(st.just("read"), st.integers(0, 40), st.integers(1, 5), st.integers(1, 40))
LOCATE = st.tuples(st.just("locate"))
LEARN = st.tuples(st.just("learn"), st.integers(0, 3))
REOPEN = st.tuples(st.just("reopen"))


@dataclass
class Model:
    """What a log that retains so many events should be like, and what was done to it so far."""

    retain: int
    records: list[Record] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return max(1, len(self.records) - self.retain + 1)

    def held(self) -> list[Record]:
        return self.records[self.first - 1 :]

    def takes(self, batch: Sequence[Event]) -> list[bool]:
        """Which events of the batch are new."""
        known = {record.id for record in self.held()}
        new = []
        for event in batch:
            new.append(event.id not in known)
            if event.id is not None:
                known.add(event.id)
        return new

    def offset_of(self, event_id: str) -> int | None:
        """The newest event with this id; one that was given by the log still counts when it has just been dropped."""
        offsets = [record.offset for record in self.held() if record.id == event_id]
        just_dropped = self.records[: self.first - 1][-1:]
        offsets += [record.offset for record in just_dropped if record.id == event_id and record.event.id is None]
        return max(offsets) if offsets else None

    def read(self, after: int, most: int, max_bytes: int) -> list[Record] | None:
        """What there is to read; None: a gap."""
        if after < self.first - 1:
            return None
        found: list[Record] = []
        for record in self.records[after : after + most]:
            if found and sum(len(each.event.data) for each in [*found, record]) > max_bytes:
                break
            found.append(record)
        return found


async def play(
    log: Log, model: Model, steps: Sequence[tuple[Any, ...]], reopen: Callable[[Log], Log] | None = None
) -> None:
    """Do to the log and to the model what the steps say, and compare."""
    for number, (what, *details) in enumerate(steps):
        if what == "append":
            await _append(log, model, details[0], number)
        elif what == "read":
            assert await _read(log, *details) == model.read(*details)
        elif what == "learn":
            log.learn(Learned(max(0, len(model.records) - details[0])))
        elif what == "locate":
            await _locate(log, model)
        elif reopen is not None:
            log = reopen(log)
        statistics = log.statistics()
        assert (statistics["events"], statistics["next_offset"]) == (len(model.held()), len(model.records) + 1)
    await _locate(log, model)
    log.close()


async def _append(log: Log, model: Model, ids: Sequence[str | int | None], number: int) -> None:
    batch = [
        Event(f"a.{number}.{place}", b"%d" % 10**place, _id(model, each), "test") for place, each in enumerate(ids)
    ]
    new = model.takes(batch)
    answers = await log.append(batch)
    assert [isinstance(answer, Record) for answer in answers] == new
    for event, answer in zip(batch, answers, strict=True):
        if isinstance(answer, Record):
            assert answer == Record(event, event.id or answer.id, len(model.records) + 1)
            model.records.append(answer)
        else:
            assert answer == event.id
    model.positions[log.position()] = len(model.records)


def _id(model: Model, given: str | int | None) -> str | None:
    if isinstance(given, int):
        return model.records[given % len(model.records)].id if model.records else None
    return given


async def _read(log: Log, after: int, most: int, max_bytes: int) -> list[Record] | None:
    try:
        return list(await log.read(after, most, max_bytes))
    except LogGap:
        return None


async def _locate(log: Log, model: Model) -> None:
    for record in model.records:
        assert await log.locate(record.id) == model.offset_of(record.id)
    for position, offset in model.positions.items():
        assert await log.locate(position) == (offset if offset >= model.first - 1 else None)
