"""The heart: log → learn → audience → match → offer.

One task takes what the sources bring, in order, and gives each event to those who subscribed to it and may see it.
It never waits for a client: an offer is answered at once. It waits for the log, and now and then for nothing at all,
so that a large crowd does not keep the others from running.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import trio

from broker.core.errors import BrokerError, LogUnavailable
from broker.core.event import Record
from broker.core.frames import Bundle, Delivery
from broker.core.policy import Happening, Policy
from broker.core.ports import Log
from broker.core.relations import Facts
from broker.runtime.connection import Connection
from broker.runtime.ingest import Batch, EndOfIngest, Ingest
from broker.runtime.outbox import Fate
from broker.runtime.registry import Registry
from broker.runtime.routing import Routing

logger = logging.getLogger(__name__)

_BATCHES_AT_ONCE = 256
_OFFERS_PER_TURN = 250  # a few milliseconds between two chances for everybody else
_COUNTERS = (
    "events",
    "repeated",
    "failed",
    "visibility_faults",
    "deliveries",
    *(f"deliveries_{fate.value}" for fate in Fate if fate is not Fate.QUEUED),
)


class Dispatcher:
    """Gives events to connections; see the module's text."""

    def __init__(self, log: Log, policy: Policy, registry: Registry[Connection]) -> None:
        self._log = log
        self._policy = policy
        self._registry = registry
        self._facts = Facts()
        self._offered = 0
        self._faults: Counter[str] = Counter()  # by their text, which names paths and kinds, so there are few
        # All of them from the start, so that whoever watches sees 0 and not nothing.
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))

    async def run(self, ingest: Ingest) -> None:
        """Dispatch until the door is closed and nothing is left."""
        while True:
            try:
                batches = await ingest.take(_BATCHES_AT_ONCE)
            except EndOfIngest:
                return
            turn = Routing(self._registry)
            for record in await self._append(batches):
                if turn.full:
                    await self._give_out(turn)
                    await trio.lowlevel.checkpoint()
                    turn = Routing(self._registry)
                self._route(record, turn)
            await self._give_out(turn)

    def adopt(self, policy: Policy) -> None:
        """Let `policy` rule from the next event on. Facts stay, except those of relations that are gone."""
        self._policy = policy
        self._facts.keep(policy.relations)
        self._registry.directory.reindex(policy.claims)

    def statistics(self) -> Mapping[str, int]:
        """How many facts there are, by kind."""
        return self._facts.statistics()

    async def _append(self, batches: Sequence[Batch]) -> list[Record]:
        """Log the batches as one; answer their publishers; return what is new."""
        events = [event for batch in batches for event in batch.events]
        try:
            taken = await self._log.append(events)
        except BrokerError as error:
            logger.exception("log.failed")
            for batch in batches:
                batch.failed(error)
            return []
        except Exception:  # a fault of ours must not end the dispatcher, and with it everybody's events
            logger.exception("log.failed")
            for batch in batches:
                batch.failed(LogUnavailable("the log failed; see the broker's own log"))
            return []
        ids = [entry if isinstance(entry, str) else entry.id for entry in taken]
        begin = 0
        for batch in batches:
            batch.taken(ids[begin : begin + len(batch.events)])
            begin += len(batch.events)
        records = [entry for entry in taken if not isinstance(entry, str)]
        self.counters["events"] += len(records)
        self.counters["repeated"] += len(taken) - len(records)
        return records

    def _route(self, record: Record, turn: Routing) -> None:
        try:
            self._route_by_policy(record, turn)
        except Exception:  # a fault of ours costs this one event, seen by nobody, and not all that follow
            logger.exception("event.failed", extra={"event_name": record.event.name})
            self.counters["failed"] += 1

    def _route_by_policy(self, record: Record, turn: Routing) -> None:
        happening = Happening(record.event)
        changes = self._policy.changes(happening)
        self._facts.add(changes, record.offset)
        try:
            faults: list[str] = []
            audience = self._policy.audience(happening, self._facts, faults)
            faults += [change.fault for change in changes if change.fault is not None]
            if faults:
                self._note(faults, record)
            turn.add(Delivery(record), audience)
        finally:  # whom the event takes out is out, also if something of ours failed on the way
            self._facts.remove(changes)

    def _note(self, faults: list[str], record: Record) -> None:
        self.counters["visibility_faults"] += len(faults)
        self._faults.update(faults)
        # A publisher that gets its payloads wrong does so for every event; the log is told at 1, 10, 100, …
        telling = [fault for fault in faults if str(self._faults[fault]).rstrip("0") == "1"]
        if telling:
            logger.warning("visibility.fault", extra={"event_name": record.event.name, "faults": telling})

    async def _give_out(self, turn: Routing) -> None:
        try:
            for bundle, members in turn.groups():
                await self._offer(bundle, members)
        except Exception:  # and here the rest of a turn
            logger.exception("turn.failed")
            self.counters["failed"] += 1

    async def _offer(self, bundle: Bundle, members: Sequence[Connection]) -> None:
        straight = 0
        for connection in members:
            gone = connection.outbox.send_now(bundle)
            straight += gone
            self._offered += 1
            if gone < bundle.count:
                self._queue(connection, bundle.deliveries[gone:])
            if self._offered >= _OFFERS_PER_TURN:
                self.counters["deliveries"] += straight
                self._offered = straight = 0
                await trio.lowlevel.checkpoint()
        self.counters["deliveries"] += straight

    def _queue(self, connection: Connection, deliveries: Sequence[Delivery]) -> None:
        self._offered += len(deliveries)
        for delivery in deliveries:
            fate = connection.offer(delivery)
            if fate is Fate.QUEUED:
                self.counters["deliveries"] += 1
            else:
                self.counters[f"deliveries_{fate.value}"] += 1
