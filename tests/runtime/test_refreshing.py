"""Who can't ask for its position is told it now and then, and never one that it has not come to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trio.testing import MemorySendStream

from broker.core.forms import SERVER_SENT
from broker.core.ports import Identity
from broker.edge.memory_log import MemoryLog
from broker.runtime.connection import Connection
from broker.runtime.services import ConnectionLimits
from tests.fakes import attached, services
from tests.runtime.house import House, house


@dataclass
class Listener:
    """Somebody who only listens, and to whom nothing is written yet."""

    home: House
    log: MemoryLog
    connection: Connection

    def told(self) -> int:
        """How much waits for it after another refresh."""
        self.home.resuming.refresh(self.connection)
        return self.connection.outbox.statistics().waiting_frames


@asynccontextmanager
async def listener() -> AsyncIterator[Listener]:
    log = MemoryLog()
    async with house(log=log) as home:
        known = services(home.registry, resumer=home.resuming)
        connection = Connection(Identity("ada"), known, ConnectionLimits(), SERVER_SENT)
        with attached(home.registry, connection):
            yield Listener(home, log, connection)


async def test_the_position_is_behind_all_that_was_given_out() -> None:
    async with listener() as ada:
        await ada.home.publish(("a", 1), ("b", 2))
        assert ada.told() == 1
        written = MemorySendStream()
        ada.connection.outbox.finish(b"", discard=False)
        await ada.connection.outbox.run(written.send_all)
        place = bytes(written.get_data_nowait()).partition(b"id: ")[2].split(b"\n")[0]
        assert await ada.log.locate(place.decode()) == 2


async def test_none_is_told_while_events_are_given_out() -> None:
    async with listener() as ada:
        async with ada.home.dispatcher.between_turns:
            assert ada.told() == 0
        assert ada.told() == 1


async def test_none_is_told_to_who_has_still_to_get_what_it_missed() -> None:
    async with listener() as ada:
        ada.home.registry.hold(ada.connection)
        assert ada.told() == 0
        ada.home.registry.release(ada.connection)
        assert ada.told() == 1


async def test_none_takes_the_room_of_what_waits() -> None:
    async with listener() as ada:
        assert [ada.told() for _ in range(3)] == [1, 1, 1]
