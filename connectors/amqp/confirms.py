"""Which messages RabbitMQ has answered for: its extension "Publisher Confirms" of AMQP 0-9-1."""

from __future__ import annotations

from collections import deque

import trio

from connectors.amqp.codec import Confirmed, Returned
from connectors.amqp.errors import AmqpError, PublishRefused, Unroutable


class Publication:
    """One message on its way to RabbitMQ."""

    __slots__ = ("_answered", "_error", "exchange", "message_id", "number", "routing_key")

    def __init__(self, number: int, exchange: str, routing_key: str, message_id: str | None) -> None:
        self.number = number
        self.exchange = exchange
        self.routing_key = routing_key
        self.message_id = message_id
        self._answered: trio.Event | bool = False  # an event only where somebody waits
        self._error: AmqpError | None = None

    async def wait_confirmed(self) -> None:
        """Wait until RabbitMQ has the message in every queue that wants it, and on disk if it is to be.

        Raises Unroutable, PublishRefused, or what ended the channel.
        """
        if self._answered is False:
            self._answered = trio.Event()
        if isinstance(self._answered, trio.Event):
            await self._answered.wait()
        if self._error is not None:
            raise self._error

    @property
    def refused(self) -> bool:
        """Whether it is known that it will not be taken."""
        return self._error is not None

    def refuse(self, error: AmqpError) -> None:
        """It will not be taken, or nobody will ever know: the first reason counts."""
        self._error = self._error or error

    def answer(self) -> None:
        """RabbitMQ has said all that it will."""
        if isinstance(self._answered, trio.Event):
            self._answered.set()
        self._answered = True


class Confirms:
    """The publications of one channel that RabbitMQ has not answered for, in order, `window` at the most."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._open: deque[Publication] = deque()
        self._published = 0
        self._room = trio.Event()

    async def wait_room(self) -> None:
        """Wait while the window is full."""
        while len(self._open) >= self._window:
            if self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()

    def published(self, exchange: str, routing_key: str, message_id: str | None) -> Publication:
        """One more message is on its way; RabbitMQ counts them as we do, from 1."""
        self._published += 1
        publication = Publication(self._published, exchange, routing_key, message_id or None)
        self._open.append(publication)
        return publication

    def returned(self, message: Returned) -> None:
        """RabbitMQ gives a message back; the confirm, without a complaint of its own, comes after it.

        A return does not say which publication it is about. All that match it were routed alike, so the first that has
        not been returned yet is right.
        """
        exchange, routing_key = message.exchange.decode(errors="replace"), message.routing_key.decode(errors="replace")
        wanted = (exchange, routing_key, message.properties.message_id)
        for publication in self._open:
            found = (publication.exchange, publication.routing_key, publication.message_id)
            if found == wanted and not publication.refused:
                publication.refuse(Unroutable(f"no queue is bound for it: RabbitMQ said {message.reply_text}"))
                return

    def confirmed(self, answer: Confirmed) -> None:
        """RabbitMQ has answered for one publication, or for all up to it."""
        if answer.multiple:
            while self._open and self._open[0].number <= answer.tag:
                _settle(self._open.popleft(), answer)
        else:
            for publication in self._open:
                if publication.number == answer.tag:
                    self._open.remove(publication)
                    _settle(publication, answer)
                    break
        self._room.set()

    def end(self, error: AmqpError) -> None:
        """There will be no more answers, because of `error`."""
        while self._open:
            publication = self._open.popleft()
            publication.refuse(error)
            publication.answer()
        self._room.set()


def _settle(publication: Publication, answer: Confirmed) -> None:
    if not answer.taken:
        publication.refuse(
            PublishRefused("RabbitMQ did not take the message (basic.nack): a queue is full, or failed; see its log")
        )
    publication.answer()
