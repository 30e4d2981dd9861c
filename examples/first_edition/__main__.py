"""Two users without tokens see what their patterns match; then every kind of pattern against every kind of name.

`python -m examples.first_edition` prints it all. Exit status 1: something was not delivered as it should be.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from examples.stage import PATIENCE, RunningBroker, connected, running_broker

END = "game.over"  # everybody subscribes to it as well: what came before it has come

USERS = {"the first user": ["message.*", "user.*"], "the second user": ["*.created"]}
HAPPENINGS = ["user.created", "message.created", "game.created", "member.created", "message.deleted", "user.deleted"]

# Which names each pattern matches: `*` is exactly one segment, `**` one or more.
TABLE = {
    "message": {"message"},
    "message.created": {"message.created"},
    "message.*": {"message.created"},
    "*.created": {"message.created", "game.created"},
    "message.**": {"message.created", "message.created.error"},
    "**": {"message", "message.created", "message.created.error", "game.created"},
}
NAMES = ["message", "message.created", "message.created.error", "game.created"]


async def watch(broker: RunningBroker, held: Mapping[str, Sequence[str]], names: list[str]) -> Any:
    """Connect one client for each entry of `held`, publish events of these names; who saw which, by entry."""
    async with AsyncExitStack() as stack:
        clients = {who: await stack.enter_async_context(connected(broker)) for who in held}
        for who, client in clients.items():
            for pattern in [*held[who], END]:
                await client.command("subscribe", pattern)
        await broker.publish([{"event": name, "data": {"about": name}} for name in [*names, END]])
        return {who: [frame["event"] for frame in await client.events_until(END)] for who, client in clients.items()}


async def users(broker: RunningBroker) -> bool:
    """Two users, each with patterns of their own."""
    seen = await watch(broker, USERS, HAPPENINGS)
    for who, names in seen.items():
        print(f"{who} holds {', '.join(USERS[who])}")
        print(f"  and sees {', '.join(names)}")
    return bool(
        seen["the first user"] == ["user.created", "message.created", "message.deleted", "user.deleted"]
        and seen["the second user"] == ["user.created", "message.created", "game.created", "member.created"]
    )


async def table(broker: RunningBroker) -> bool:
    """Every kind of pattern against every kind of name, a connection for each pattern."""
    seen = await watch(broker, {pattern: [pattern] for pattern in TABLE}, NAMES)
    print(f"\n{'pattern':17}" + "".join(f"{name:23}" for name in NAMES).rstrip())
    for pattern, names in seen.items():
        print(f"{pattern:17}" + "".join(f"{'yes' if name in names else '-':23}" for name in NAMES).rstrip())
    return all(seen[pattern] == [name for name in NAMES if name in TABLE[pattern]] for pattern in TABLE)


async def play(broker: RunningBroker) -> bool:
    """All of it, one after the other."""
    with trio.fail_after(PATIENCE):
        return all([await users(broker), await table(broker)])


def main() -> int:
    """Run the example; 0 if everything was as it should be."""
    with running_broker(Path(__file__).parent) as broker:
        good = trio.run(play, broker)
    print("\nAll as it should be." if good else "\nNOT as it should be.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
