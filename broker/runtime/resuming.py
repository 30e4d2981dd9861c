"""Clients that come back get what they have missed, and then what happens: no gap, no repetition, in order.

Theory. Who resumes is held: it gets no live events. What it has missed is read from the log, a little at a time, as
fast as its socket takes it, and never beyond what the dispatcher has given out to the others. When it has nearly
caught up, the last events and the change back to live happen in one step between two turns of the dispatcher, so that
every event comes one way and none comes both ways. The answer to the command stands between the missed and the live
ones.

Nobody waits for anybody: only a few may read at once, in turn, and nobody keeps a place while its socket is full.
What waits for a client is one part of a replay at the most.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from broker.core.errors import BrokerError, LogGap, LogUnavailable
from broker.core.ports import Log
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.lookback import Lookback, Past
from broker.runtime.outbox import Outbox
from broker.runtime.registry import Registry
from broker.runtime.services import Resumed

logger = logging.getLogger(__name__)

READERS: Final = 2
LAST_EVENTS: Final = 256  # so far behind, a client may catch up in one step


class Resuming:
    """Sends those who come back what they have missed; see the module's text."""

    def __init__(self, log: Log, dispatcher: Dispatcher, registry: Registry[Connection]) -> None:
        self._log = log
        self._dispatcher = dispatcher
        self._registry = registry
        self._lookback = Lookback(log, dispatcher.visibility)
        self._readers = trio.Semaphore(READERS)
        self._nursery: trio.Nursery | None = None
        self.counters = {"resumes": 0, "resumes_failed": 0, "replayed": 0}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there for those who come back, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def start(self, connection: Connection, place: str | None, resumed: Resumed) -> trio.CancelScope:
        """See `Resumer`."""
        if self._nursery is None:
            raise LogUnavailable("nobody can resume now")
        scope = trio.CancelScope()
        self._nursery.start_soon(self._run, scope, connection, place, resumed)
        return scope

    def refresh(self, connection: Connection) -> None:
        """See `Resumer`. Who gets few events would else have an old position, which the log may not reach back to."""
        behind = self._registry.holds(connection) or connection.outbox.statistics().waiting_frames
        if not behind and self._dispatcher.between_turns.value:
            connection.send(connection.form.position(self._log.position(self._dispatcher.position)))

    async def _run(self, scope: trio.CancelScope, connection: Connection, place: str | None, resumed: Resumed) -> None:
        self.counters["resumes"] += 1
        with scope:
            try:
                await self._catch_up(connection, place, resumed)
            except BrokerError as error:
                await self._fail(connection, resumed, error)
            except Exception:  # a fault of ours costs this one resume, and not everybody's
                logger.exception("resume.failed", extra={"connection": connection.id})
                await self._fail(connection, resumed, LogUnavailable("the log failed; see the broker's own log"))

    async def _catch_up(self, connection: Connection, place: str | None, resumed: Resumed) -> None:
        if place is None:
            async with self._readers, self._dispatcher.between_turns:
                connection.identify()
                self._go_live(connection, resumed)
            return
        offset = await self._locate(place)
        async with self._readers, self._dispatcher.between_turns:
            connection.identify()
            self._registry.hold(connection)
        live = False
        while not live:
            async with self._readers:
                offset, live = await self._step(connection, offset, resumed)
            live = not await connection.outbox.drained() or live

    async def _fail(self, connection: Connection, resumed: Resumed, error: BrokerError) -> None:
        self.counters["resumes_failed"] += 1
        async with self._readers, self._dispatcher.between_turns:
            connection.identify()
            self._go_live(connection, resumed, error)

    def _go_live(self, connection: Connection, resumed: Resumed, error: BrokerError | None = None) -> None:
        """To be called between two turns, when everything up to now was sent or is given up."""
        self._registry.release(connection)
        place = self._log.position(self._dispatcher.position)
        resumed(error or place)
        if told := connection.form.position(place):
            connection.send(told)

    async def _locate(self, place: str) -> int:
        offset = await self._log.locate(place)
        if offset is None:
            raise LogGap("the log does not reach back to there, or has never given this id")
        return offset

    async def _step(self, connection: Connection, offset: int, resumed: Resumed) -> tuple[int, bool]:
        """Send the next part; return how far that was, and whether it was the last."""
        behind = self._dispatcher.position - offset
        if behind > LAST_EVENTS or not self._lookback.at_hand(offset):
            return self._send(connection, await self._lookback.after(offset, behind), offset), False
        async with self._dispatcher.between_turns:
            position = self._dispatcher.position
            offset = self._send(connection, self._lookback.recent(offset, position - offset), offset)
            # Otherwise there is more, or not all have been given yet what this client knows of already.
            if offset != position or not _has_room(connection.outbox):
                return offset, False
            self._go_live(connection, resumed)
        return offset, True

    def _send(self, connection: Connection, events: Sequence[Past], offset: int) -> int:
        """Send what of it is for this client, as much as its queue has room for; return how far that was."""
        if connection.outbox.statistics().waiting_frames:  # answers to other commands, which go first
            return offset
        parts: list[bytes] = []
        room = _room(connection.outbox)
        for past in events:
            if self._is_for(connection, past):
                data = past.delivery.encoded(connection.form)
                room -= len(data)
                if room < 0 and parts:
                    break
                parts.append(data)
            offset = past.offset
        if parts:
            self.counters["replayed"] += len(parts)
            connection.send(b"".join(parts))
        return offset

    def _is_for(self, connection: Connection, past: Past) -> bool:
        name = past.delivery.record.event.name
        return any(connection in group for group in self._registry.held.match(name)) and bool(
            past.audience.admits(connection)
        )


def _room(outbox: Outbox) -> int:
    """How many bytes a part has at the most, if it is more than one event: half of what the queue takes."""
    return outbox.limits.bytes // 2


def _has_room(outbox: Outbox) -> bool:
    """Whether the answer has room behind what waits."""
    waiting = outbox.statistics()
    return waiting.waiting_frames < outbox.limits.frames and waiting.waiting_bytes <= _room(outbox)
