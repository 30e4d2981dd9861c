"""Events that are looked at again for those who have missed them, each prepared once for all who come by.

When a proxy restarts, thousands come back at once and have missed the same. What is prepared for one is right for the
next for as long as nothing was learned in between.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.core.audience import NOBODY, Audience
from broker.core.delivery import Delivery
from broker.core.event import Record
from broker.core.ports import Log
from broker.core.visibility import Visibility

logger = logging.getLogger(__name__)

MOST_PREPARED = 4096
PREPARED_BYTES = 8_388_608

AT_ONCE = 128  # events
BYTES_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Past:
    """An event as it is seen now: how it goes out, and to whom."""

    delivery: Delivery
    audience: Audience

    @property
    def offset(self) -> int:
        """Its place in the log."""
        return self.delivery.record.offset


class Lookback:
    """The events of a log, with those who may see them now and might have seen them then."""

    def __init__(self, log: Log, visibility: Visibility) -> None:
        self._log = log
        self._visibility = visibility
        self._version = visibility.version
        self._prepared: dict[int, Past] = {}
        self._bytes = 0

    async def after(self, offset: int, most: int) -> Sequence[Past]:
        """The next events after this offset, in order, at most so many. They are right until the next await.

        Raises LogGap, LogUnavailable.
        """
        return self._prepare(await self._log.read(offset, min(most, AT_ONCE), BYTES_AT_ONCE))

    def at_hand(self, offset: int) -> bool:
        """Whether `recent` has what comes after this offset."""
        return self._log.recent(offset, 1, BYTES_AT_ONCE) is not None

    def recent(self, offset: int, most: int) -> Sequence[Past]:
        """As `after`, without waiting; none: they are not at hand."""
        return self._prepare(self._log.recent(offset, most, BYTES_AT_ONCE) or ())

    def _prepare(self, records: Iterable[Record]) -> Sequence[Past]:
        if self._version != self._visibility.version:
            self._version = self._visibility.version
            self._forget()
        return [self._prepared.get(record.offset) or self._look(record) for record in records]

    def _look(self, record: Record) -> Past:
        if len(self._prepared) >= MOST_PREPARED or self._bytes >= PREPARED_BYTES:
            self._forget()
        past = self._prepared[record.offset] = Past(Delivery(record), self._audience(record))
        self._bytes += len(record.event.data)
        return past

    def _audience(self, record: Record) -> Audience:
        try:
            return self._visibility.look_back(record)
        except Exception:  # a fault of ours costs this one event, seen by nobody, and not all that follow
            logger.exception("event.failed", extra={"event_name": record.event.name})
            return NOBODY

    def _forget(self) -> None:
        self._prepared.clear()
        self._bytes = 0
