"""The heart: log → learn → audience → match → offer.

One task takes what the sources bring, in order, and gives each event to those who subscribed to it and may see it.
It never waits for a client: an offer is answered at once. It waits for the log, and now and then for nothing at all,
so that a large crowd does not keep the others from running.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import trio

from broker.core.audience import Audience
from broker.core.errors import BrokerError, LogUnavailable
from broker.core.event import Record
from broker.core.frames import Delivery
from broker.core.policy import Happening, Policy
from broker.core.ports import Log
from broker.core.relations import Facts
from broker.runtime.connection import Connection
from broker.runtime.ingest import Batch, EndOfIngest, Ingest
from broker.runtime.outbox import Fate
from broker.runtime.registry import Registry

logger = logging.getLogger(__name__)

_BATCHES_AT_ONCE = 256
_OFFERS_PER_TURN = 2000  # a few milliseconds of offers between two chances for everybody else
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

    async def recall(self) -> None:
        """Know again, at the start, what was known when the last broker ended, however it did."""
        learned, records = await self._log.recall()
        self._facts = Facts(learned)
        self._facts.keep(self._policy.relations)
        for record in records:
            try:
                changes = self._policy.changes(Happening(record.event))
                self._facts.add(changes, record.offset)
                self._facts.remove(changes)
            except Exception:  # the one event, as in `run`
                self._failed(record)
        self._learned_from(records)
        told = {"facts": self._facts.statistics()["facts"], "learned_again": len(records)}
        logger.info("relations.recalled", extra=told)

    async def run(self, ingest: Ingest) -> None:
        """Dispatch until the door is closed and nothing is left."""
        while True:
            try:
                batches = await ingest.take(_BATCHES_AT_ONCE)
            except EndOfIngest:
                return
            records = await self._append(batches)
            for record in records:
                try:
                    self._deliver(record)
                except Exception:  # a fault of ours costs this one event, seen by nobody, and not all that follow
                    self._failed(record)
                if self._offered >= _OFFERS_PER_TURN:
                    self._offered = 0
                    await trio.lowlevel.checkpoint()
            self._learned_from(records)

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

    def _deliver(self, record: Record) -> None:
        happening = Happening(record.event)
        changes = self._policy.changes(happening)
        self._facts.add(changes, record.offset)
        try:
            faults: list[str] = []
            audience = self._policy.audience(happening, self._facts, faults)
            faults += [change.fault for change in changes if change.fault is not None]
            if faults:
                self._note(faults, record)
            delivery = Delivery(record)
            for connection in recipients(self._registry, record.event.name, audience):
                self._offer(connection, delivery)
        finally:  # whom the event takes out is out, also if something of ours failed on the way
            self._facts.remove(changes)

    def _learned_from(self, records: Sequence[Record]) -> None:
        # The log has what was learned from a batch with the next one, and the batch itself until then.
        if records:
            self._log.learn(self._facts.changed(records[-1].offset))

    def _failed(self, record: Record) -> None:
        logger.exception("event.failed", extra={"event_name": record.event.name})
        self.counters["failed"] += 1

    def _note(self, faults: list[str], record: Record) -> None:
        self.counters["visibility_faults"] += len(faults)
        self._faults.update(faults)
        # A publisher that gets its payloads wrong does so for every event; the log is told at 1, 10, 100, …
        telling = [fault for fault in faults if str(self._faults[fault]).rstrip("0") == "1"]
        if telling:
            logger.warning("visibility.fault", extra={"event_name": record.event.name, "faults": telling})

    def _offer(self, connection: Connection, delivery: Delivery) -> None:
        fate = connection.offer(delivery)
        self._offered += 1
        if fate is Fate.QUEUED:
            self.counters["deliveries"] += 1
        else:
            self.counters[f"deliveries_{fate.value}"] += 1


def recipients(registry: Registry[Connection], name: str, audience: Audience) -> Iterable[Connection]:
    """Each connection that is subscribed to events of this name and may see this one, once.

    Of those who match and those who may see, the smaller set is walked; the other one is only asked.
    """
    matching = registry.matching(name)
    if not matching:
        return ()
    reach = audience.reach(registry.directory)
    if reach is not None and _size(reach) < _size(matching):
        return [
            connection
            for connection in _once(reach)
            if any(connection in subscribed for subscribed in matching) and audience.admits(connection)
        ]
    return [connection for connection in _once(matching) if audience.admits(connection)]


def _size(collections: Iterable[Collection[Connection]]) -> int:
    return sum(map(len, collections))


def _once(collections: Sequence[Collection[Connection]]) -> Iterable[Connection]:
    return collections[0] if len(collections) == 1 else set().union(*collections)
