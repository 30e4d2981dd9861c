"""The log on disk: what was learned from its events is kept with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.core.errors import LogUnavailable
from broker.core.leavers import Stay
from broker.core.relations import Learned
from broker.edge import sqlite_facts
from broker.edge.retention import Retention
from broker.edge.sqlite_log import SqliteLog
from tests.edge.sqlite_house import append, events, failing, put_back, saved


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def test_what_was_learned_is_recalled(path: Path) -> None:
    members = {("group", "1", "ada"): 1, ("group", "\0 é", ""): 2}
    learned = Learned(2, members, {("group", "2"): True}, {("group", "1", "bob"): Stay(1, 2), ("", "", ""): Stay(0, 1)})
    with closing(SqliteLog(path)) as log:
        await log.append(events(None, None))
        log.learn(learned)
    with closing(SqliteLog(path)) as log:
        assert await log.recall() == (learned, ())


async def test_changes_of_what_was_learned_are_recalled(path: Path) -> None:
    everybody = {("group", str(number % 3), f"user {number}"): 1 for number in range(1000)}
    with closing(SqliteLog(path)) as log:
        await log.append(events(None))
        left = dict.fromkeys(everybody, Stay(0, 1))
        log.learn(Learned(1, everybody, {("group", "1"): True, ("group", "2"): True}, left))
        await log.append(events(None))
        gone = {place: None for place in everybody if place[1] == "0"}
        forgotten = {**gone, ("group", "1", "user 1"): Stay(0, 2)}
        log.learn(Learned(2, {**gone, ("group", "1", "user 1"): 2}, {("group", "1"): False}, forgotten))
    members = {place: 1 for place in everybody if place[1] != "0"} | {("group", "1", "user 1"): 2}
    left = {place: Stay(0, since) for place, since in members.items()}
    with closing(SqliteLog(path)) as log:
        assert await log.recall() == (Learned(2, members, {("group", "2"): True}, left), ())


async def test_very_many_changes_are_taken_over_while_the_broker_runs(path: Path) -> None:
    expected: dict[tuple[str, str, str], int | None] = {}
    doubts: dict[tuple[str, str], bool] = {}
    with closing(SqliteLog(path)) as log:
        await log.append(events(None))
        for number in range(1, 101):
            some = {("group", str(each % 7), f"user {each * number % 3001}"): number for each in range(100)}
            changed = {**some, **dict.fromkeys(list(expected)[:: number + 1])}
            doubtful = {("group", str(number % 3)): number % 2 == 0}
            expected |= changed
            doubts |= doubtful
            log.learn(Learned(number, changed, doubtful))
            await log.append(events(None))
            ((waiting,),) = log._file.read("SELECT coalesce(max(total), 0) FROM changes")
            assert waiting < sqlite_facts.FOLDED_CHANGES
        ((folded,),) = log._file.read("SELECT count(*) FROM members")
        assert folded > 0
    left = {place: since for place, since in expected.items() if since is not None}
    with closing(SqliteLog(path)) as log:
        learned, _ = await log.recall()
        assert learned.members == left
        assert learned.doubts == {place: True for place, doubtful in doubts.items() if doubtful}


async def test_events_from_which_nobody_has_learned_are_recalled_though_they_were_dropped(path: Path) -> None:
    learned = Learned(2, {("group", "1", "ada"): 1})
    with closing(SqliteLog(path, Retention(events=2))) as log:
        await log.append(events(None, None))
        log.learn(learned)
        behind = [*await log.append(events(*[None] * 1000)), *await log.append(events(None))]
        killed = saved(path)
    put_back(path, killed)
    with closing(SqliteLog(path, Retention(events=2))) as log:
        assert await log.recall() == (learned, behind)
        assert log.statistics()["events"] == 2


async def test_what_was_learned_is_kept_though_only_known_events_follow(path: Path) -> None:
    learned = Learned(1, {("group", "1", "ada"): 1})
    with closing(SqliteLog(path)) as log:
        await log.append(events("x"))
        log.learn(learned)
        assert await log.append(events("x")) == ["x"]
        assert log._file.read("SELECT count(*) FROM changes") == [(1,)]
    with closing(SqliteLog(path)) as log:
        assert await log.recall() == (learned, ())


async def test_what_was_learned_is_not_lost_with_an_append_that_fails(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await log.append(events(None))
        log.learn(Learned(1, {("group", "1", "ada"): 1, ("group", "1", "bob"): 1}))
        with failing(), pytest.raises(LogUnavailable):
            await log.append(events(None))
        log.learn(Learned(1, {("group", "1", "bob"): None}))
        await log.append(events(None))
    with closing(SqliteLog(path)) as log:
        learned, behind = await log.recall()
        assert learned == Learned(1, {("group", "1", "ada"): 1})
        assert [record.offset for record in behind] == [2]


async def test_an_append_that_fails_leaves_nothing_behind(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        await append(log, "x")
        before = log.statistics()
        with failing(), pytest.raises(LogUnavailable):
            await log.append(events("y", None))
        assert log.statistics() == before
        assert await log.locate("y") is None
        assert [record.offset for record in await append(log, "y")] == [2]


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
