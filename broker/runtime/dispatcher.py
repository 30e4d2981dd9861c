"""The heart: log → learn → audience → match → offer.

One task takes what the sources bring, in order, and gives each event to those who subscribed to it and may see it.
It never waits for a client: an offer is answered at once. It waits for the log, and now and then for nothing at all,
so that a large crowd does not keep the others from running.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

import trio

from broker.core.delivery import Bundle, Delivery
from broker.core.errors import BrokerError, LogUnavailable
from broker.core.event import Record
from broker.core.forms import Form
from broker.core.policy import Policy
from broker.core.ports import Log
from broker.core.telling import is_telling
from broker.core.visibility import Visibility
from broker.runtime.connection import Connection
from broker.runtime.ingest import Batch, EndOfIngest, Ingest
from broker.runtime.locking import acquire
from broker.runtime.outbox import Fate
from broker.runtime.registry import Registry
from broker.runtime.routing import Routing
from broker.runtime.shared_file import SharedFile

logger = logging.getLogger(__name__)

_BATCHES_AT_ONCE = 256
_OFFERS_PER_TURN = 250  # a few milliseconds between two chances for everybody else
_BYTES_AN_OFFER = 1024  # to compress so much takes about as long as an offer
UNTOLD = 64  # events that taught nothing, until the log hears of them
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
        self._registry = registry
        self._shared = SharedFile()
        self._offered = 0
        self._faults: Counter[str] = Counter()  # by their text, which names paths and kinds, so there are few
        self._told = 0, 0  # the version of what is known, and the last offset, that the log was told of
        self._failing: Counter[str] = Counter()  # by what the log says since it last took something
        self.visibility = Visibility(policy)
        # Whoever holds it knows that every event is either given out, up to `position`, or not at all.
        self.between_turns = trio.Semaphore(1, max_value=1)  # a `Lock` that need not know who has it is half as dear
        self.position = 0
        # All of them from the start, so that whoever watches sees 0 and not nothing.
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))

    async def recall(self) -> None:
        """Know again, at the start, what was known when the last broker ended, however it did."""
        learned, records = await self._log.recall()
        self.visibility.recall(learned)
        for record in records:
            try:
                self.visibility.learn(record)
            except Exception:  # the one event, as in `run`
                self._failed(record)
        self._learned_from(records)
        self.position = self._log.statistics()["next_offset"] - 1
        told = {"facts": self.statistics()["facts"], "learned_again": len(records)}
        logger.info("relations.recalled", extra=told)

    async def run(self, ingest: Ingest) -> None:
        """Dispatch until the door is closed and nothing is left."""
        with closing(self._shared), suppress(EndOfIngest):
            while True:
                records = await self._append(await ingest.take(_BATCHES_AT_ONCE))
                given_out = 0
                while given_out < len(records):
                    given_out = await self._take_turn(records, given_out)
                self._learned_from(records)

    def adopt(self, policy: Policy) -> None:
        """Let `policy` rule from the next event on. Facts stay, except those of relations that are gone."""
        self.visibility.adopt(policy)
        self._registry.directory.reindex(policy.claims)

    def statistics(self) -> Mapping[str, int]:
        """How many facts there are, by kind."""
        return self.visibility.statistics()

    async def _append(self, batches: Sequence[Batch]) -> list[Record]:
        """Log the batches as one; answer their publishers; return what is new."""
        events = [event for batch in batches for event in batch.events]
        try:
            taken = await self._log.append(events)
        except BrokerError as error:
            self._tell_failing(error)
            for batch in batches:
                batch.failed(error)
            return []
        except Exception:  # a fault of ours must not end the dispatcher, and with it everybody's events
            logger.exception("log.failed")
            for batch in batches:
                batch.failed(LogUnavailable("the log failed; see the broker's own log"))
            return []
        self._failing.clear()
        ids = [entry if isinstance(entry, str) else entry.id for entry in taken]
        begin = 0
        for batch in batches:
            batch.taken(ids[begin : begin + len(batch.events)])
            begin += len(batch.events)
        records = [entry for entry in taken if not isinstance(entry, str)]
        self.counters["events"] += len(records)
        self.counters["repeated"] += len(taken) - len(records)
        return records

    async def _take_turn(self, records: Sequence[Record], begin: int) -> int:
        """Give out some of the records, from `begin` on; returns where the next turn begins."""
        await acquire(self.between_turns)
        try:
            turn = Routing(self._registry)
            end = begin
            while end < len(records) and not turn.full:
                self._route(records[end], turn)
                end = turn.follow(records, end + 1)
            self.visibility.passed(records[end - 1].offset)
            await self._give_out(turn)
            self.position = records[end - 1].offset
        finally:
            self.between_turns.release()
        if end < len(records):
            await trio.lowlevel.checkpoint()
        return end

    def _route(self, record: Record, turn: Routing) -> None:
        try:
            fixed = self.visibility.fixed(record.event.name)
            if fixed is not None:
                turn.add(record, fixed, fixed=True)
                return
            faults: list[str] = []
            audience, changes = self.visibility.enter(record, faults)
            try:
                if faults:
                    self._note(faults, record)
                turn.add(record, audience)
            finally:  # whom the event takes out is out, also if something of ours failed on the way
                if changes:
                    self.visibility.leave(changes)
        except Exception:  # a fault of ours costs this one event, seen by nobody, and not all that follow
            self._failed(record)

    def _learned_from(self, records: Sequence[Record]) -> None:
        # The log has what was learned from a batch with the next one, and the batch itself until then. Of events that
        # taught nothing it need not hear each time.
        if not records or (self.visibility.version == self._told[0] and records[-1].offset < self._told[1] + UNTOLD):
            return
        held = self._log.statistics()
        self.visibility.forget(held["next_offset"] - held["events"])
        self._log.learn(self.visibility.learned(records[-1].offset))
        self._told = self.visibility.version, records[-1].offset

    def _tell_failing(self, error: BrokerError) -> None:
        # A full disk fails every append until there is room; our own log is told at 1, 10, 100, …
        reason = str(error)
        self._failing[reason] += 1
        if is_telling(self._failing[reason]):
            logger.error("log.failed", extra={"reason": reason, "times": self._failing[reason]})

    def _failed(self, record: Record) -> None:
        logger.exception("event.failed", extra={"event_name": record.event.name})
        self.counters["failed"] += 1

    def _note(self, faults: list[str], record: Record) -> None:
        self.counters["visibility_faults"] += len(faults)
        self._faults.update(faults)
        # A publisher that gets its payloads wrong does so for every event; the log is told at 1, 10, 100, …
        telling = [fault for fault in faults if is_telling(self._faults[fault])]
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
        # What stands in this loop costs as often as there are deliveries.
        shared, count = self._shared, len(bundle.deliveries)
        shared.clear()
        form: Form | None = None
        gone = 0
        offers = self._offered + bundle.size // _BYTES_AN_OFFER
        for connection in members:
            if connection.form is not form:
                form = connection.form
                events = bundle.joined(form)
                data, size = events.data, events.size
                if events.place is None:
                    events.place = shared.put(data, len(members))
                place = events.place
            try:
                if place is None:
                    sent = connection.outbox.straight(data)
                else:
                    sent = connection.outbox.straight_from(shared.descriptor, place, size)
            except OSError:  # full; or broken, which shows when the writer tries
                sent = 0
            gone += count
            offers += 1
            if sent != size:
                left = bundle.deliveries[connection.outbox.went(events, sent) :]
                self._queue(connection, left)
                gone -= len(left)
                offers += len(left)
            if offers >= _OFFERS_PER_TURN:
                self.counters["deliveries"] += gone
                self._offered = offers = gone = 0
                await trio.lowlevel.checkpoint()
        self.counters["deliveries"] += gone
        self._offered = offers

    def _queue(self, connection: Connection, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            fate = connection.offer(delivery)
            if fate is Fate.QUEUED:
                self.counters["deliveries"] += 1
            else:
                self.counters[f"deliveries_{fate.value}"] += 1
