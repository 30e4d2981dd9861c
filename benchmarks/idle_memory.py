"""What an idle connection costs in memory: a thousand of them, with a token and two subscriptions each."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from benchmarks.report import Report
from benchmarks.sockets import RawClient, allow_many_files, resident_kib
from broker.config import load_config
from broker.edge.tokens import issue_token
from examples.stage import RunningBroker, running_broker

CONNECTIONS = 1000
WARM_UP = 50  # connections before the first look: code is loaded and caches are filled by then
BOUND_KIB = 40.0
AT_ONCE = 20


def run(connections: int = CONNECTIONS) -> Report:
    """Measure it."""
    allow_many_files()
    with running_broker(Path(__file__).parent) as broker:
        before, after = trio.run(_measure, broker, connections)
    each = (after - before) / connections
    return Report(
        "idle_memory",
        f"resident memory of {connections:,} idle connections, 2 subscriptions each",
        ("KiB before", "KiB after", "KiB each", "bound", "of the bound"),
        [(before, after, each, BOUND_KIB, each / BOUND_KIB)],
    )


async def _measure(broker: RunningBroker, connections: int) -> tuple[int, int]:
    auth = load_config(broker.folder / "config.toml", {}).auth
    auth = attrs.evolve(auth, secret=attrs.evolve(auth.secret, generate=False))
    tokens = [issue_token(auth, {"sub": f"user-{number}"}, 3600) for number in range(WARM_UP + connections)]
    clients: list[RawClient] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def connect(number: int) -> None:
        async with limit:
            client = await RawClient.connect(broker_port(broker), tokens[number])
            await client.subscribe(f"users.user-{number}.**", "games.*.created")
            clients.append(client)

    async def connect_all(numbers: range) -> None:
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(connect, number)

    await connect_all(range(WARM_UP))
    before = resident_kib(broker.pid)
    await connect_all(range(WARM_UP, WARM_UP + connections))
    after = resident_kib(broker.pid)
    for client in clients:
        await client.close()
    return before, after


def broker_port(broker: RunningBroker) -> int:
    """The port in the broker's URL."""
    return int(broker.url.rpartition(":")[2])
