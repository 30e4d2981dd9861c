"""A process that writes the log is killed, again and again: what was answered is there, and nothing by halves.

BROKER_KILLS: how often; the more, the surer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from broker.core.event import Record
from broker.core.happening import Happening
from broker.core.relations import Facts
from broker.edge.sqlite_log import SqliteLog
from tests.edge.log_writer import GROUPS, POLICY, PUBLISHERS, batch, dispatcher

KILLS = int(os.environ.get("BROKER_KILLS", "10"))
ROOT = Path(__file__).parents[2]


def answered_until_killed(path: Path, first: Sequence[int], lines: int) -> list[int]:
    """Let a process write and kill it after so many answers; the number of the next batch of each publisher."""
    command = [sys.executable, "-m", "tests.edge.log_writer", str(path), *map(str, first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    following = list(first)
    for line in said:
        if line.endswith("\n"):
            publisher, number = map(int, line.split())
            assert number == following[publisher]
            following[publisher] += 1
    return following


def check_events(records: Sequence[Record], following: Sequence[int]) -> None:
    """Each publisher's batches are there in order, each as a whole and once; and no other event."""
    assert [record.offset for record in records] == list(range(1, len(records) + 1))
    at = 0
    seen = [0] * PUBLISHERS
    while at < len(records):
        publisher = int(records[at].id.split()[0])
        expected = batch(publisher, seen[publisher])
        assert [record.event for record in records[at : at + len(expected)]] == expected
        seen[publisher] += 1
        at += len(expected)
    # What was not answered may be there or not; there is one such batch at most, since a publisher waits.
    assert all(number <= found <= number + 1 for number, found in zip(following, seen, strict=True))


def check_facts(facts: Facts, records: Sequence[Record]) -> None:
    """The facts are those that all events from the beginning teach."""
    expected = Facts()
    for record in records:
        changes = POLICY.changes(Happening(record.event))
        expected.add(changes, record.offset)
        expected.remove(changes, record.offset)
    for key in GROUPS:
        assert facts.members("group", key) == expected.members("group", key)
        assert facts.complete("group", key) == expected.complete("group", key)
    assert facts.statistics() == expected.statistics()


@pytest.mark.longest(30 + 5 * KILLS)
async def test_what_was_answered_outlives_every_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    chance = Random(5)
    following = [0] * PUBLISHERS
    for _ in range(KILLS):
        following = answered_until_killed(path, following, chance.choice([0, 1, 3, 10, 30, 100]))
        with closing(SqliteLog(path)) as log:
            records = await log.read(0, sys.maxsize, sys.maxsize)
            check_events(records, following)
            recalling = dispatcher(log)
            await recalling.recall()
            check_facts(recalling.visibility.facts, records)
    assert min(following) > 0
