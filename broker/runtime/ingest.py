"""The one door: `publish()` hands a batch to the dispatcher and returns when the log has taken it."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from broker.core.errors import BrokerError, Overloaded, Stopping
from broker.core.event import Event, check_batch

LAST_WORD = 1.0  # seconds


class EndOfIngest(Exception):
    """There will be no more batches."""


class Batch:
    """Events that come in together, and the publisher who waits for their ids."""

    __slots__ = ("_done", "_error", "_ids", "events")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self._done = trio.Event()
        self._ids: list[str] = []
        self._error: BrokerError | None = None

    def taken(self, ids: list[str]) -> None:
        """The log has taken the events under these ids."""
        self._ids = ids
        self._done.set()

    def failed(self, error: BrokerError) -> None:
        """Nothing of the batch was taken."""
        self._error = error
        self._done.set()

    async def wait_taken(self) -> list[str]:
        """Wait for the log's answer: the ids, or the error that it failed with.

        Who is cancelled meanwhile still hears an answer that is on its way, for LAST_WORD seconds at the most, and is
        cancelled at its next step: a source that did not know would hand in again what has been delivered already.
        """
        try:
            await self._done.wait()
        except trio.Cancelled:
            with trio.move_on_after(LAST_WORD, shield=True):
                await self._done.wait()
            if not self._done.is_set():
                raise
        if self._error is not None:
            raise self._error
        return self._ids


class Ingest:
    """A bounded queue of batches between the sources and the dispatcher."""

    def __init__(self, queue_size: int) -> None:
        self._send, self._receive = trio.open_memory_channel[Batch](queue_size)

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        """Hand in a batch; see `Publisher` in `core/ports.py` for what it promises."""
        batch = Batch(list(events))
        check_batch(batch.events)
        if not batch.events:
            await trio.lowlevel.checkpoint()
            return []
        try:
            await self._hand_in(batch, float("inf") if timeout is None else timeout)
        except trio.TooSlowError:
            raise Overloaded from None
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise Stopping from None
        return await batch.wait_taken()

    async def take(self, most: int) -> list[Batch]:
        """Wait for a batch; return it with all others that wait, `most` at the most, in order.

        Raises EndOfIngest when the door is closed and everything has been taken.
        """
        try:
            waiting = [await self._receive.receive()]
        except trio.EndOfChannel:
            raise EndOfIngest from None
        while len(waiting) < most:
            try:
                waiting.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return waiting

    def close(self) -> None:
        """Take no more. What is in the queue still goes its way."""
        self._send.close()

    def waiting(self) -> int:
        """How many batches wait in the queue."""
        return self._receive.statistics().current_buffer_used

    async def _hand_in(self, batch: Batch, timeout: float) -> None:
        try:
            self._send.send_nowait(batch)
        except trio.WouldBlock:
            # Only the wait for room may time out: once the dispatcher has the batch, its answer is on the way, and to
            # give up then would tell the publisher "not taken" of events that are.
            with trio.fail_after(timeout):
                await self._send.send(batch)
