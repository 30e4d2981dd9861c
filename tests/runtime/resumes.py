"""Somebody who comes back, and what is heard then, in short; for tests of resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trio.testing import wait_all_tasks_blocked

from broker.runtime.outbox import QueueLimits
from tests.fakes import Client
from tests.runtime.house import ByTheWire, House
from tests.runtime.sockets import Slow

RESUMED = "resumed"


class Reader(ByTheWire):
    """A client that reads when it is let."""

    socket: Slow

    async def reads(self, writes: int = 1) -> list[Any]:
        """Let it read so many writes; what was in them, in short."""
        known = len(self.json())
        await self.socket.let(writes)
        return list(map(short, self.json()[known:]))

    async def reads_all(self) -> list[Any]:
        """Let it read until there is no more; what was in it, in short."""
        found: list[Any] = []
        while more := await self.reads():
            found += more
        return found


async def slow_reader(
    home: House,
    user: str | None,
    *patterns: str,
    queue: QueueLimits | None = None,
    claims: Mapping[str, Any] | None = None,
) -> Reader:
    client = await home.join_by_wire(user, *patterns, queue=queue, claims=claims, client=Reader(Slow()))
    assert isinstance(client, Reader)
    return client


async def resume(client: Client, place: str | None) -> list[Any]:
    """Resume; what the client hears then, in short."""
    return list(map(short, await client.say({"event": "resume", "data": place, "id": RESUMED})))


def heard(client: Client) -> list[Any]:
    """All that it has heard, in short."""
    return list(map(short, client.json()))


def short(message: Any) -> Any:
    """The data of an event, which must have an id; the id of a command that went well, or else its error's code."""
    if "event" in message:
        assert "id" in message
        return message["data"]
    return message.get("code", message.get("reply"))


async def position(home: House) -> str:
    """A place behind all that was published up to now."""
    client = await home.join("somebody")
    [answer] = await client.say({"event": "resume", "data": None, "id": RESUMED})
    client.hang_up()
    await wait_all_tasks_blocked()
    return str(answer["data"]["id"])


def numbers(begin: int, end: int, name: str = "a") -> list[tuple[str, Any]]:
    """Events with these numbers as their data."""
    return [(name, number) for number in range(begin, end)]
