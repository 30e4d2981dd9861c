"""A process that publishes through a dispatcher into a log on disk until it is killed, and says what was answered."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from random import Random

import trio

from broker.core.event import Event
from broker.core.policy_file import parse_policy
from broker.edge.sqlite_log import SqliteLog
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.ingest import Ingest
from broker.runtime.registry import Registry

POLICY = parse_policy(
    """
    [relations.group]
    set    = "groups.<id>.said"
    add    = "groups.<id>.joined"
    remove = "groups.<id>.left"
    key    = "<id>"
    users  = "data"
    clear  = "groups.<id>.closed"
    """,
    "policy.toml",
)
GROUPS = [str(number) for number in range(5)]
PUBLISHERS = 3


def batch(publisher: int, number: int) -> list[Event]:
    """The same events each time that it is asked for."""
    chance = Random(f"{publisher} {number}")
    return [
        Event(
            f"groups.{chance.choice(GROUPS)}.{chance.choice(['said', 'joined', 'left', 'left', 'note', 'closed'])}",
            json.dumps(chance.choices("abcdefgh", k=3) if chance.random() < 0.95 else None).encode(),
            id=f"{publisher} {number} {place}",
        )
        for place in range(chance.choice([1, 2, 10, 200]))
    ]


def dispatcher(log: SqliteLog) -> Dispatcher:
    registry: Registry[Connection] = Registry(max_per_user=1)
    return Dispatcher(log, POLICY, registry)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def write(path: Path, first: Sequence[int]) -> None:
    """Publish without end, each publisher beginning with the batch of this number."""
    ingest = Ingest(10)

    async def publish(publisher: int) -> None:
        for number in count(first[publisher]):
            await ingest.publish(batch(publisher, number))
            say(f"{publisher} {number}")

    say("begins")
    dispatching = dispatcher(SqliteLog(path))
    await dispatching.recall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatching.run, ingest)
        for publisher in range(PUBLISHERS):
            nursery.start_soon(publish, publisher)


if __name__ == "__main__":
    trio.run(write, Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])
